//! A PEFT adapter folder, for generating and merging.
use super::model::LoadedModel;
use amc_artifact::safetensors::{Dtype, SafetensorsFile};
use amc_frontend::build::Lora;
use amc_frontend::names::Names;
use amc_ir::{DType, Init};
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// An adapter checked against the model that it belongs to.
pub struct Adapter {
    pub lora: Lora,
    /// Values by PEFT's names.
    pub tensors: BTreeMap<String, Vec<f32>>,
}

impl Adapter {
    /// Reads `adapter_config.json` and `adapter_model.safetensors` of `dir`.
    ///
    /// # Errors
    /// A broken file, an adapter of a kind that is not supported, or one for another model.
    pub fn read(dir: &Path, model: &LoadedModel) -> Result<Adapter> {
        let path = dir.join("adapter_config.json");
        let text = std::fs::read_to_string(&path).with_context(|| {
            let inside = dir.join("model");
            let hint =
                if inside.join("adapter_config.json").is_file() { "; a checkpoint has it in `model`" } else { "" };
            format!("cannot read {}{hint}", path.display())
        })?;
        let config: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
        let rank = config["r"].as_u64().filter(|r| *r > 0);
        let rank = rank.with_context(|| format!("{}: `r` is {}, wanted a rank", path.display(), config["r"]))? as usize;
        let alpha = config["lora_alpha"].as_f64();
        let alpha = alpha.with_context(|| format!("{}: `lora_alpha` is {}", path.display(), config["lora_alpha"]))?;
        for key in ["use_dora", "use_rslora", "use_bdlora", "use_qalora"] {
            ensure!(config[key] != true, "{}: `{key}` is not supported", path.display());
        }
        let file = SafetensorsFile::open(&dir.join("adapter_model.safetensors"))?;
        let modules = modules(&file, model, rank)?;
        let tensors =
            file.tensors().keys().map(|name| Ok((name.clone(), values(&file, name)?))).collect::<Result<_>>()?;
        let lora = Lora {
            modules,
            rank,
            scale: (alpha / rank as f64) as f32,
            init: Init::Zeros,
            dtype: Some(DType::F32),
            dropout: None,
        };
        Ok(Adapter { lora, tensors })
    }
}

/// The adapted modules; every tensor belongs to one and has its shape.
fn modules(file: &SafetensorsFile, model: &LoadedModel, rank: usize) -> Result<BTreeSet<String>> {
    let known = Names::new(&model.model).modules();
    let mut modules = BTreeSet::new();
    for (name, info) in file.tensors() {
        let place = || format!("{}: `{name}`", file.path().display());
        let module = name.strip_prefix("base_model.model.");
        let split = module.and_then(|m| Some((m.strip_suffix(".lora_A.weight")?, true)));
        let split = split.or_else(|| module.and_then(|m| Some((m.strip_suffix(".lora_B.weight")?, false))));
        let Some((module, first)) = split else { bail!("{} is no matrix of a LoRA adapter", place()) };
        let Some(linear) = known.iter().find(|linear| linear.name == module) else {
            bail!("{}: the model has no linear module `{module}`", place())
        };
        let wanted = if first { [rank, linear.inputs] } else { [linear.outputs, rank] };
        let fits = info.shape.iter().map(|s| *s as usize).eq(wanted);
        ensure!(fits, "{} is {:?}, wanted {wanted:?}", place(), info.shape);
        modules.insert(module.to_string());
    }
    for module in &modules {
        for matrix in ["lora_A", "lora_B"] {
            let name = format!("base_model.model.{module}.{matrix}.weight");
            ensure!(file.tensors().contains_key(&name), "{}: `{name}` is missing", file.path().display());
        }
    }
    ensure!(!modules.is_empty(), "{} holds no adapter", file.path().display());
    Ok(modules)
}

fn values(file: &SafetensorsFile, name: &str) -> Result<Vec<f32>> {
    let view = file.tensor(name)?;
    match view.dtype {
        Dtype::F32 => Ok(view.bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
        Dtype::Bf16 => {
            Ok(view.bytes.chunks_exact(2).map(|b| f32::from_bits(u32::from_le_bytes([0, 0, b[0], b[1]]))).collect())
        }
        other => bail!("{}: `{name}` is {other}, wanted F32 or BF16", file.path().display()),
    }
}
