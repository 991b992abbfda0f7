//! The weights of a model folder: one safetensors file, or shards with an index.
use super::{SafetensorsFile, TensorInfo, TensorView};
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// The file of an unsharded model.
pub const SINGLE_FILE: &str = "model.safetensors";
/// The file that says which shard holds which tensor.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// All tensors of a model, memory-mapped; each name is in exactly one file.
#[derive(Debug)]
pub struct Weights {
    place: PathBuf,
    files: Vec<SafetensorsFile>,
    /// Index into `files`.
    file_of: BTreeMap<String, usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Opens `model.safetensors` of the folder, else the shards that `model.safetensors.index.json` lists; a path to a
    /// file opens that file alone.
    ///
    /// # Errors
    /// Nothing to open; a file that breaks the format; an index that disagrees with its shards.
    pub fn open(path: &Path) -> Result<Weights> {
        if path.is_file() {
            return Weights::single(path);
        }
        let (single, index) = (path.join(SINGLE_FILE), path.join(INDEX_FILE));
        match (single.is_file(), index.is_file()) {
            (true, _) => Weights::single(&single),
            (false, true) => Weights::sharded(path, &index).with_context(|| index.display().to_string()),
            _ => bail!("{}: neither {SINGLE_FILE} nor {INDEX_FILE} is there{}", path.display(), hint(path)),
        }
    }

    fn single(path: &Path) -> Result<Weights> {
        let file = SafetensorsFile::open(path)?;
        let file_of = file.tensors().keys().map(|name| (name.clone(), 0)).collect();
        Ok(Weights { place: path.into(), files: vec![file], file_of })
    }

    fn sharded(folder: &Path, index_path: &Path) -> Result<Weights> {
        let index: Index = serde_json::from_slice(&std::fs::read(index_path)?).context("the index is malformed")?;
        let mut shards: Vec<&String> = index.weight_map.values().collect();
        shards.sort();
        shards.dedup();
        let mut files = Vec::new();
        let mut file_of = BTreeMap::new();
        for shard in shards {
            check_name(shard)?;
            let file = SafetensorsFile::open(&folder.join(shard))?;
            for name in file.tensors().keys() {
                match index.weight_map.get(name) {
                    Some(named) if named == shard => {}
                    Some(named) => bail!("the index puts tensor `{name}` into {named}, but {shard} holds it as well"),
                    None => bail!("{shard} holds tensor `{name}`, which the index does not list"),
                }
                file_of.insert(name.clone(), files.len());
            }
            files.push(file);
        }
        if let Some((name, shard)) = index.weight_map.iter().find(|(name, _)| !file_of.contains_key(*name)) {
            bail!("the index puts tensor `{name}` into {shard}, which does not hold it");
        }
        Ok(Weights { place: index_path.into(), files, file_of })
    }

    /// The file or index that was opened.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// The mapped files: one, or the shards by name.
    pub fn files(&self) -> &[SafetensorsFile] {
        &self.files
    }

    /// Names and descriptions of all tensors, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.file_of.iter().map(|(name, &file)| (name.as_str(), &self.files[file].tensors()[name]))
    }

    /// Dtype and shape of a tensor, if it is there.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.files[*self.file_of.get(name)?].tensors().get(name)
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// There is none; the message names the file.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>> {
        let file = self.file_of.get(name);
        let file = file.ok_or_else(|| anyhow!("{}: there is no tensor `{name}`", self.place.display()))?;
        self.files[*file].tensor(name)
    }
}

/// More to say of a folder without safetensors, where it holds pickles.
fn hint(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let pickle = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| is_pickle(name));
    pickle.min().map_or_else(String::new, |name| format!("; {}", refuse_pickle(&name, &folder.display())))
}

/// Whether a file of that name holds a model's weights, or a part of them, as a pickle.
pub fn is_pickle(name: &str) -> bool {
    name.starts_with("pytorch_model") && name.ends_with(".bin")
}

/// Says that the pickle `name` of `model` (a folder or Hub id) is not read, and how to make a form of it that is.
pub fn refuse_pickle(name: &str, model: &dyn Display) -> String {
    format!(
        "{name} is a pickle, which amc never reads, since reading one runs whatever code is in it; if you trust it, convert \
         it: python -c \"from transformers import AutoModelForCausalLM as M; M.from_pretrained('{model}', \
         torch_dtype='auto').save_pretrained('FOLDER')\", where FOLDER may be the model's own"
    )
}

/// A shard must be a plain name: an index must not reach outside its folder.
fn check_name(shard: &str) -> Result<()> {
    let plain = Path::new(shard).file_name().is_some_and(|name| name == shard) && !shard.contains(['/', '\\', '\0']);
    ensure!(plain, "{shard:?} is not a plain file name");
    Ok(())
}
