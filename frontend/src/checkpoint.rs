//! Whether a checkpoint holds the tensors of a model: every one, of the right shape, in a dtype that amc computes with,
//! and nothing else.
use crate::model::Model;
use crate::names::Names;
use amc_artifact::safetensors::{Dtype, TensorInfo, Weights};
use anyhow::{Result, bail};
use std::collections::BTreeMap;

/// How many complaints of one sort an error spells out.
const SPELLED_OUT: usize = 8;

/// The tensors of a checked checkpoint: dtype and shape by name, without what the model does not use.
pub type Tensors = BTreeMap<String, Dtype>;

/// Checks `weights` against the model and gives the dtype of each tensor.
///
/// Computed buffers that old files hold are passed over, and so is the matrix of a tied head if it equals the embedding.
///
/// # Errors
/// One message with all that is missing, unexpected, misshapen or of a dtype that is not supported.
pub fn check(weights: &Weights, model: &Model) -> Result<Tensors> {
    let wanted = Names::new(model).tensors();
    let mut complaints = Complaints::default();
    let mut tensors = Tensors::new();
    for (name, shape) in &wanted {
        match weights.info(name) {
            None => complaints.missing.push(format!("`{name}` {shape:?}")),
            Some(info) => {
                complaints.compare(name, shape, info);
                tensors.insert(name.clone(), info.dtype);
            }
        }
    }
    for (name, info) in weights.tensors().filter(|(name, _)| !wanted.contains_key(*name)) {
        if !ignorable(name, model) && !equals_embedding(name, weights, model)? {
            complaints.unexpected.push(format!("`{name}` {}{:?}", info.dtype, info.shape));
        }
    }
    complaints.into_result(weights)?;
    Ok(tensors)
}

fn ignorable(name: &str, model: &Model) -> bool {
    let ends_with = |end: &&str| name.strip_suffix(*end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    model.paths.buffers.iter().any(ends_with)
}

/// Whether `name` is the matrix of a tied head, stored a second time.
fn equals_embedding(name: &str, weights: &Weights, model: &Model) -> Result<bool> {
    let embed = format!("{}.weight", model.paths.embed);
    if !model.tied || name.strip_suffix(".weight") != Some(model.paths.head) || weights.info(&embed).is_none() {
        return Ok(false);
    }
    if weights.tensor(name)? != weights.tensor(&embed)? {
        bail!(
            "{}: the config ties `{name}` to `{embed}`, but they differ: set tie_word_embeddings to false in the recipe's \
             model config to train both, or remove `{name}`",
            weights.place().display()
        );
    }
    Ok(true)
}

#[derive(Default)]
struct Complaints {
    missing: Vec<String>,
    unexpected: Vec<String>,
    misshapen: Vec<String>,
    dtypes: Vec<String>,
}

impl Complaints {
    fn compare(&mut self, name: &str, shape: &[usize], info: &TensorInfo) {
        if info.shape.iter().map(|size| *size as usize).ne(shape.iter().copied()) {
            self.misshapen.push(format!("`{name}` is {:?}, wanted {shape:?}", info.shape));
        }
        if !matches!(info.dtype, Dtype::F32 | Dtype::Bf16) {
            self.dtypes.push(format!("`{name}` is {}, wanted F32 or BF16", info.dtype));
        }
    }

    fn into_result(self, weights: &Weights) -> Result<()> {
        let sorts = [
            ("missing", self.missing),
            ("not part of this model", self.unexpected),
            ("of another shape than the config gives", self.misshapen),
            ("of a dtype that is not supported: convert the checkpoint to bfloat16 or float32", self.dtypes),
        ];
        let mut text = String::new();
        for (what, names) in sorts.iter().filter(|(_, names)| !names.is_empty()) {
            text += &format!("\n  {} {what}: {}", names.len(), names[..names.len().min(SPELLED_OUT)].join("; "));
            if names.len() > SPELLED_OUT {
                text += &format!("; and {} more", names.len() - SPELLED_OUT);
            }
        }
        if text.is_empty() {
            return Ok(());
        }
        bail!("{}: the tensors are not those of the model{text}", weights.place().display())
    }
}
