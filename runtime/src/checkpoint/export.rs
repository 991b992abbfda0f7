//! `model/` of a checkpoint, in the forms that PEFT, vLLM and transformers load.
//!
//! ```text
//! adapter:     adapter_model.safetensors adapter_config.json automodel_peft_config.json, tokenizer files
//! full model:  shard-00001-model-00001-of-00001.safetensors   parameters as in memory, what a resumed run reads
//!              consolidated/model-0000i-of-0000N.safetensors  the whole model, split as the base checkpoint is
//!              consolidated/model.safetensors.index.json config.json generation_config.json, tokenizer files
//! ```
use super::Snapshot;
use super::tensors::{METADATA, copy_part, for_each_piece, write_values};
use super::writer::Writer;
use crate::element;
use crate::locate::model_folder;
use crate::session::{Part, Session};
use crate::weights::{dtype_of, from_f32, storage_of};
use amc_artifact::safetensors::{self, Dtype, INDEX_FILE, SafetensorsFile, TensorSpec, Weights};
use amc_artifact::{Consolidated, Param, PeftExport, RunConfig};
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Files that every checkpoint of this run carries: the model's configuration and the tokenizer.
fn carried_files(run: &RunConfig, folder: &Path) -> Result<Vec<PathBuf>> {
    let config = run.peft.is_none().then_some(&run.model.config_files).into_iter().flatten();
    let tokenizer = match &run.model.tokenizer {
        Some(name) => model_folder(name, None)?,
        None => folder.to_path_buf(),
    };
    Ok(config
        .map(|name| folder.join(name))
        .chain(run.model.tokenizer_files.iter().map(|it| tokenizer.join(it)))
        .collect())
}

/// Writes the `model/` folder.
pub(super) fn write_model(writer: &mut Writer, snapshot: &Snapshot) -> Result<()> {
    write_values(writer, snapshot.session, snapshot.run)?;
    match (&snapshot.run.peft, snapshot.run.checkpoint.consolidated) {
        (Some(peft), _) => write_adapter_config(writer, snapshot, peft),
        (None, Consolidated::Every) => write_consolidated(writer, snapshot),
        (None, Consolidated::Final) if snapshot.last => write_consolidated(writer, snapshot),
        (None, _) => Ok(()),
    }
}

fn write_adapter_config(writer: &mut Writer, snapshot: &Snapshot, peft: &PeftExport) -> Result<()> {
    let config = json!({
        "base_model_name_or_path": snapshot.run.model.name,
        "bias": "none",
        "lora_alpha": peft.alpha,
        "peft_type": "LORA",
        "r": peft.rank,
        "revision": snapshot.run.model.revision,
        "target_modules": peft.target_modules,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
    });
    writer.add_json("model/adapter_config.json", &config)?;
    writer.add_json("model/automodel_peft_config.json", &peft.automodel)?;
    SafetensorsFile::open(&writer.path(super::tensors::ADAPTER))?;
    copy_files(writer, snapshot, "model")
}

fn copy_files(writer: &mut Writer, snapshot: &Snapshot, to: &str) -> Result<()> {
    let Some(folder) = snapshot.model_folder else { return Ok(()) };
    let overrides = &snapshot.run.model.config_overrides;
    for source in carried_files(snapshot.run, folder)? {
        let name = source.file_name().unwrap_or_default().to_string_lossy();
        let path = format!("{to}/{name}");
        let written = match name == "config.json" && !overrides.is_empty() {
            true => read_config(&source, overrides).and_then(|config| writer.add_json(&path, &config)),
            false => writer.add_copy(&path, &source),
        };
        written.with_context(|| format!("copying {}", source.display()))?;
    }
    Ok(())
}

/// A `config.json` with the recipe's values in place of its own.
fn read_config(path: &Path, overrides: &Map<String, Value>) -> Result<Map<String, Value>> {
    let mut config: Map<String, Value> = serde_json::from_slice(&std::fs::read(path)?)?;
    config.extend(overrides.clone());
    Ok(config)
}

/// A tensor of the consolidated model.
struct Entry<'a> {
    name: &'a str,
    dtype: Dtype,
    shape: &'a [u64],
    source: Source<'a>,
}

enum Source<'a> {
    Param(&'a Param),
    Base(&'a [u8]),
}

fn write_consolidated(writer: &mut Writer, snapshot: &Snapshot) -> Result<()> {
    let base = snapshot.session.model().files();
    let files = consolidated_files(snapshot, base)?;
    let (mut total, mut map) = (0u64, BTreeMap::new());
    for (index, entries) in files.iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", index + 1, files.len());
        write_entries(writer, snapshot.session, &format!("model/consolidated/{file}"), entries)?;
        for entry in entries {
            total += entry.shape.iter().product::<u64>() * entry.dtype.bytes();
            map.insert(entry.name, Value::from(file.as_str()));
        }
    }
    let map: Map<String, Value> = map.into_iter().map(|(name, file)| (name.to_string(), file)).collect();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
    writer.add_json(&format!("model/consolidated/{INDEX_FILE}"), &index)?;
    Weights::open(&writer.path("model/consolidated"))?;
    snapshot.session.model().release();
    copy_files(writer, snapshot, "model/consolidated")
}

/// The base checkpoint's files with trained values in place of its own; parameters that it lacks go to the last file.
fn consolidated_files<'a>(snapshot: &Snapshot<'a>, base: Option<&'a Weights>) -> Result<Vec<Vec<Entry<'a>>>> {
    let session: &'a Session = snapshot.session;
    let mut params: BTreeMap<&str, &Param> = session.plan().params.iter().map(|p| (p.name.as_str(), p)).collect();
    let omitted: HashSet<&str> = snapshot.run.model.tied.iter().map(String::as_str).collect();
    let mut files = Vec::new();
    for file in base.map_or(&[][..], |base| base.files()) {
        let mut entries = Vec::new();
        for (name, info) in file.tensors().iter().filter(|(name, _)| !omitted.contains(name.as_str())) {
            let source = match params.remove(name.as_str()) {
                Some(param) => Source::Param(param),
                None => Source::Base(file.tensor(name)?.bytes),
            };
            entries.push(Entry { name, dtype: info.dtype, shape: &info.shape, source });
        }
        files.push(entries);
    }
    let extra = params.into_values().map(|param| Entry {
        name: &param.name,
        dtype: dtype_of(param.storage),
        shape: &param.shape,
        source: Source::Param(param),
    });
    match files.last_mut() {
        Some(last) => last.extend(extra),
        None => files.push(extra.collect()),
    }
    files.retain(|entries| !entries.is_empty());
    Ok(files)
}

fn write_entries(writer: &mut Writer, session: &Session, file: &str, entries: &[Entry]) -> Result<()> {
    let spec = |entry: &Entry<'_>| -> (Dtype, Vec<u64>) { (entry.dtype, entry.shape.to_vec()) };
    let shapes: Vec<_> = entries.iter().map(spec).collect();
    let specs: Vec<_> = entries
        .iter()
        .zip(&shapes)
        .map(|(entry, (dtype, shape))| TensorSpec { name: entry.name, dtype: *dtype, shape })
        .collect();
    writer.add(file, |out| {
        safetensors::stream(out, &specs, &METADATA, &mut |index, out| write_entry(session, &entries[index], out))
    })
}

fn write_entry(session: &Session, entry: &Entry, out: &mut dyn Write) -> Result<()> {
    match entry.source {
        Source::Base(bytes) => Ok(out.write_all(bytes)?),
        Source::Param(param) if storage_of(entry.dtype) == Some(param.storage) => {
            copy_part(session, param, Part::Value, out)
        }
        Source::Param(param) => for_each_piece(session, param, Part::Value, |storage, piece| {
            Ok(out.write_all(&from_f32(entry.dtype, &element::widen(storage, piece))?)?)
        }),
    }
}

/// Whether everything is there that a checkpoint of this run will carry.
pub(crate) fn check_carried(run: &RunConfig, folder: &Path) -> Result<()> {
    for path in carried_files(run, folder)? {
        anyhow::ensure!(path.is_file(), "{} is missing, which every checkpoint carries", path.display());
    }
    Ok(())
}
