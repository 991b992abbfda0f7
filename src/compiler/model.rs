//! A model folder as the compiler sees it.
use amc_artifact::safetensors::{Dtype, Weights};
use amc_frontend::config::Config;
use amc_frontend::model::Model;
use amc_frontend::{checkpoint, names::Names};
use amc_ir::DType;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A model folder, read and checked.
pub struct LoadedModel {
    pub folder: PathBuf,
    pub model: Model,
    pub config: Config,
    /// Storage of each tensor: the checkpoint's, or `compute` where there is none.
    pub stored: BTreeMap<String, DType>,
    /// Storage of activations, and of what is trained.
    pub compute: DType,
    /// `None` for a model whose weights are made up.
    pub weights: Option<Weights>,
}

/// Reads `config.json` of `folder` with the recipe's overrides, and, with `pretrained`, checks the checkpoint's tensors.
/// `dtype` is the storage that the recipe asks for; `None` takes the checkpoint's, or bfloat16 without one.
///
/// # Errors
/// A config or checkpoint that is broken, not supported, or that do not fit each other.
pub fn load(
    folder: &Path,
    overrides: &[(String, serde_json::Value)],
    dtype: Option<DType>,
    pretrained: bool,
) -> Result<LoadedModel> {
    let path = if folder.is_file() { folder.to_path_buf() } else { folder.join("config.json") };
    let mut config = Config::load(&path)?;
    for (key, value) in overrides {
        config.replace(key, value.clone());
    }
    let model = Model::read(&config)?;
    let weights = pretrained.then(|| Weights::open(folder)).transpose()?;
    let found = weights.as_ref().map(|weights| checkpoint::check(weights, &model)).transpose()?;
    let found: BTreeMap<String, DType> = found
        .unwrap_or_default()
        .into_iter()
        .map(|(name, dtype)| Ok((name, storage(dtype)?)))
        .collect::<Result<_>>()?;
    let compute = match (dtype, found.values().next()) {
        (Some(dtype), _) => dtype,
        (None, None) => DType::Bf16,
        (None, Some(first)) if found.values().all(|d| d == first) => *first,
        (None, Some(_)) => bail!(
            "{} stores its tensors in several dtypes; set model.torch_dtype to float32 or bfloat16",
            folder.display()
        ),
    };
    let stored = match found.is_empty() {
        true => Names::new(&model).tensors().into_keys().map(|name| (name, compute)).collect(),
        false => found,
    };
    Ok(LoadedModel { folder: folder.into(), model, config, stored, compute, weights })
}

impl LoadedModel {
    /// Storage of tensors that are trained: what the recipe asks for.
    pub fn trained(&self) -> BTreeMap<String, DType> {
        self.stored.keys().map(|name| (name.clone(), self.compute)).collect()
    }

    /// The files that the weights are in, relative to the folder.
    pub fn weight_files(&self) -> Result<Vec<String>> {
        let Some(weights) = &self.weights else { return Ok(vec![]) };
        let name = |file: &amc_artifact::safetensors::SafetensorsFile| {
            let name = file.path().file_name().and_then(|name| name.to_str());
            name.map(String::from).with_context(|| format!("{} has no plain name", file.path().display()))
        };
        weights.files().iter().map(name).collect()
    }
}

fn storage(dtype: Dtype) -> Result<DType> {
    match dtype {
        Dtype::F32 => Ok(DType::F32),
        Dtype::Bf16 => Ok(DType::Bf16),
        other => bail!("tensors of dtype {other} are not supported"),
    }
}
