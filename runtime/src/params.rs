//! The first values of trainable parameters.
//!
//! Random values are Philox numbers keyed by (seed, parameter name) and indexed by element, so they depend neither on the
//! order of the parameters nor on which others exist. For a matrix `[out, in]`, as torch's `init` defines:
//! - Xavier normal: standard deviation sqrt(2 / (in + out));
//! - Kaiming uniform with a² = 5: bound sqrt(6 / ((1 + a²) in)) = sqrt(1 / in).
use crate::device::Device;
use crate::element;
use crate::weights::{self, ModelWeights};
use amc_artifact::philox::Stream;
use amc_artifact::{Init, Param, Plan};
use anyhow::{Context, Result, bail};

/// Elements drawn at a time.
const CHUNK: u64 = 1 << 20;

/// Writes the first value of every parameter into the arena.
pub(crate) fn initialise(plan: &Plan, device: &mut dyn Device, model: &ModelWeights, seed: u64) -> Result<()> {
    for param in &plan.params {
        initialise_one(param, device, model, seed).with_context(|| format!("parameter `{}`", param.name))?;
    }
    Ok(())
}

fn initialise_one(param: &Param, device: &mut dyn Device, model: &ModelWeights, seed: u64) -> Result<()> {
    match param.init {
        Init::Zeros => Ok(()),
        Init::Checkpoint => {
            let view = model.tensor(&param.name, &param.shape)?;
            let mut at = param.value_offset;
            weights::convert(&view, param.storage, |piece| {
                device.write(at, piece)?;
                at += piece.len() as u64;
                Ok(())
            })?;
            // Otherwise the whole checkpoint would stand in memory twice by the end.
            model.release();
            Ok(())
        }
        Init::XavierNormal => {
            let [rows, columns] = matrix(param)?;
            let deviation = (2.0 / (rows + columns)).sqrt();
            draw(param, device, |stream, index| deviation * stream.normal(index), seed)
        }
        Init::KaimingUniform => {
            let [_, columns] = matrix(param)?;
            let bound = (1.0 / columns).sqrt();
            draw(param, device, |stream, index| bound * (2.0 * stream.uniform(index) - 1.0), seed)
        }
    }
}

fn matrix(param: &Param) -> Result<[f64; 2]> {
    match param.shape[..] {
        [rows, columns] => Ok([rows as f64, columns as f64]),
        _ => bail!("random values need a matrix, the shape is {:?}", param.shape),
    }
}

fn draw(param: &Param, device: &mut dyn Device, number: impl Fn(&Stream, u64) -> f64, seed: u64) -> Result<()> {
    let stream = Stream::new(seed, &param.name);
    let count: u64 = param.shape.iter().product();
    for begin in (0..count).step_by(CHUNK as usize) {
        let end = count.min(begin + CHUNK);
        let values: Vec<f32> = (begin..end).map(|index| number(&stream, index) as f32).collect();
        let bytes = element::narrow(param.storage, &values);
        device.write(param.value_offset + begin * param.storage.bytes(), &bytes)?;
    }
    Ok(())
}
