//! Tensors between the arena and safetensors files, a piece at a time.
use super::state::State;
use super::writer::Writer;
use crate::session::{Part, Session};
use crate::weights::{dtype_of, storage_of};
use amc_artifact::memory::PIECE_BYTES;
use amc_artifact::safetensors::{self, Dtype, SafetensorsFile, TensorSpec};
use amc_artifact::{Param, RunConfig, Storage, tensor_bytes};
use anyhow::{Result, ensure};
use std::io::Write;
use std::path::Path;

const OPTIMIZER: &str = "optim/optimizer.safetensors";
/// Trainable values of a full fine-tuning, as they are in memory.
pub(super) const SHARD: &str = "model/shard-00001-model-00001-of-00001.safetensors";
/// Trainable values of an adapter.
pub(super) const ADAPTER: &str = "model/adapter_model.safetensors";
/// What transformers wants to find in a header.
pub(super) const METADATA: [(&str, &str); 1] = [("format", "pt")];
/// Bytes copied at a time.
const PIECE: usize = PIECE_BYTES as usize;

/// The file that a run resumes its parameters from.
fn values_file(run: &RunConfig) -> &'static str {
    if run.peft.is_some() { ADAPTER } else { SHARD }
}

/// Writes the parameters as they are stored.
pub(super) fn write_values(writer: &mut Writer, session: &Session, run: &RunConfig) -> Result<()> {
    let params = &session.plan().params;
    let specs: Vec<_> = params
        .iter()
        .map(|param| TensorSpec { name: &param.name, dtype: dtype_of(param.storage), shape: &param.shape })
        .collect();
    writer.add(values_file(run), |out| {
        safetensors::stream(out, &specs, &METADATA, &mut |index, out| {
            copy_part(session, &params[index], Part::Value, out)
        })
    })
}

/// Writes both moments of every parameter, as `state.NAME.exp_avg` and `state.NAME.exp_avg_sq`.
pub(super) fn write_optimizer(writer: &mut Writer, session: &Session, state: &State) -> Result<()> {
    let params = &session.plan().params;
    let names: Vec<_> =
        params.iter().flat_map(|param| MOMENTS.map(|(part, name)| (moment(param, name), part))).collect();
    let specs: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(index, (name, _))| TensorSpec { name, dtype: Dtype::F32, shape: &params[index / 2].shape })
        .collect();
    let step = state.completed_steps.to_string();
    writer.add(OPTIMIZER, |out| {
        let fill = &mut |index: usize, out: &mut dyn Write| copy_part(session, &params[index / 2], names[index].1, out);
        safetensors::stream(out, &specs, &[("step", &step)], fill)
    })
}

/// Fills parameters and moments from a checkpoint.
///
/// # Errors
/// A file that is not there or malformed, or a tensor of another shape or dtype than the plan's.
pub fn restore(session: &mut Session, run: &RunConfig, folder: &Path) -> Result<()> {
    let values = SafetensorsFile::open(&folder.join(values_file(run)))?;
    let moments = SafetensorsFile::open(&folder.join(OPTIMIZER))?;
    for param in session.plan().params.clone() {
        restore_part(session, &values, &param.name, &param, Part::Value)?;
        for (part, name) in MOMENTS {
            restore_part(session, &moments, &moment(&param, name), &param, part)?;
        }
    }
    Ok(())
}

/// Copies a part of a parameter out of the arena.
pub(super) fn copy_part(session: &Session, param: &Param, part: Part, out: &mut dyn Write) -> Result<()> {
    for_each_piece(session, param, part, |_, piece| Ok(out.write_all(piece)?))
}

/// Hands on a part of a parameter in pieces of whole elements.
pub(super) fn for_each_piece(
    session: &Session,
    param: &Param,
    part: Part,
    mut sink: impl FnMut(Storage, &[u8]) -> Result<()>,
) -> Result<()> {
    let (offset, storage) = part.of(param);
    let bytes = tensor_bytes(storage, &param.shape)?;
    let mut buffer = vec![0; PIECE.min(bytes as usize)];
    let mut done = 0;
    while done < bytes {
        let piece = &mut buffer[..PIECE.min((bytes - done) as usize)];
        session.read_bytes(offset + done, piece)?;
        sink(storage, piece)?;
        done += piece.len() as u64;
    }
    Ok(())
}

const MOMENTS: [(Part, &str); 2] = [(Part::ExpAvg, "exp_avg"), (Part::ExpAvgSq, "exp_avg_sq")];

fn moment(param: &Param, name: &str) -> String {
    format!("state.{}.{name}", param.name)
}

fn restore_part(session: &mut Session, file: &SafetensorsFile, name: &str, param: &Param, part: Part) -> Result<()> {
    let view = file.tensor(name)?;
    let (offset, storage) = part.of(param);
    let same = view.shape == param.shape && storage_of(view.dtype) == Some(storage);
    let place = file.path().display();
    ensure!(same, "{place}: `{name}` is {}{:?}, wanted {storage:?}{:?}", view.dtype, view.shape, param.shape);
    session.write_bytes(offset, view.bytes)
}
