//! The checkpoint that a run starts from: frozen tensors stay mapped, trainable ones are copied. A model that was made up
//! has none; its frozen tensors are drawn under the seed of the run.
//!
//! Names, shapes and dtypes are checked against the plan before anything runs. A tensor that the file stores in another
//! floating-point dtype than the plan wants is converted once into memory of our own, rounded to nearest even.
use crate::device::WeightMemory;
use crate::element;
use crate::params::Tensor;
use amc_artifact::memory::PIECE_BYTES;
use amc_artifact::safetensors::{Dtype, TensorView, Weights};
use amc_artifact::{Init, Plan, Storage, WeightTensor, tensor_bytes};
use anyhow::{Context, Result, bail, ensure};
use half::{bf16, f16};
use std::path::Path;

/// Elements converted at a time.
const CHUNK: usize = PIECE_BYTES as usize / 4;

/// An open checkpoint, or none for plans without tensors from one.
#[derive(Debug, Default)]
pub struct ModelWeights {
    files: Option<Weights>,
    /// What frozen tensors that no checkpoint has are drawn under.
    pub(crate) seed: u64,
}

impl ModelWeights {
    /// No checkpoint.
    pub fn none() -> ModelWeights {
        ModelWeights::default()
    }

    /// No checkpoint: frozen tensors are drawn.
    pub fn drawn(seed: u64) -> ModelWeights {
        ModelWeights { files: None, seed }
    }

    /// Opens the safetensors of a model folder, or a single file.
    pub fn open(path: &Path) -> Result<ModelWeights> {
        Ok(ModelWeights { files: Some(Weights::open(path)?), seed: 0 })
    }

    /// The open files, for those who copy from them.
    pub fn files(&self) -> Option<&Weights> {
        self.files.as_ref()
    }

    /// Gives back the memory of what was read and copied.
    pub(crate) fn release(&self) {
        self.files.iter().flat_map(Weights::files).for_each(|file| file.release());
    }

    /// The tensor of that name, whose shape is checked and whose dtype is a float.
    pub fn tensor(&self, name: &str, shape: &[u64]) -> Result<TensorView<'_>> {
        let files = self.files.as_ref().with_context(|| format!("tensor `{name}` is wanted, but there is no model"))?;
        let view = files.tensor(name)?;
        let place = files.place().display();
        ensure!(view.shape == shape, "{place}: tensor `{name}` has shape {:?}, compiled for {shape:?}", view.shape);
        let float = matches!(view.dtype, Dtype::F32 | Dtype::Bf16 | Dtype::F16);
        ensure!(float, "{place}: tensor `{name}` is {}; wanted F32, BF16 or F16", view.dtype);
        Ok(view)
    }

    /// Hands a frozen tensor on as the plan stores it, in pieces.
    pub(crate) fn for_each_piece(&self, weight: &WeightTensor, sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let pieces = Tensor::from(weight).for_each_piece(self, self.seed, sink);
        pieces.with_context(|| format!("frozen tensor `{}`", weight.name))
    }

    /// A frozen tensor's bytes in its file, where that stores it as the plan does.
    fn mapped(&self, weight: &WeightTensor) -> Result<Option<&[u8]>> {
        if weight.init != Init::Checkpoint {
            return Ok(None);
        }
        let view = self.tensor(&weight.name, &weight.shape)?;
        Ok((storage_of(view.dtype) == Some(weight.storage)).then_some(view.bytes))
    }

    /// Pointers for all frozen tensors of the plan, and the copies that some of them point into.
    pub(crate) fn frozen(&self, plan: &Plan) -> Result<Frozen> {
        let mut frozen = Frozen { memory: Vec::with_capacity(plan.weights.len()), own: Vec::new() };
        for weight in &plan.weights {
            let bytes = match self.mapped(weight)? {
                Some(bytes) => bytes,
                None => {
                    let mut copy = Vec::with_capacity(tensor_bytes(weight.storage, &weight.shape)? as usize);
                    self.for_each_piece(weight, |piece| {
                        copy.extend_from_slice(piece);
                        Ok(())
                    })?;
                    frozen.own.push(copy);
                    frozen.own.last().map_or(&[][..], |copy| copy)
                }
            };
            frozen.memory.push(WeightMemory { pointer: bytes.as_ptr(), bytes: bytes.len() });
        }
        Ok(frozen)
    }
}

/// Memory of the frozen tensors of a plan, in its order.
#[derive(Debug, Default)]
pub(crate) struct Frozen {
    pub memory: Vec<WeightMemory>,
    /// Owns what some pointers refer to; a vector's buffer stays where it is when the vector moves.
    own: Vec<Vec<u8>>,
}

/// The storage that is the same as a file's dtype.
pub fn storage_of(dtype: Dtype) -> Option<Storage> {
    match dtype {
        Dtype::F32 => Some(Storage::F32),
        Dtype::Bf16 => Some(Storage::Bf16),
        Dtype::I32 => Some(Storage::I32),
        _ => None,
    }
}

/// The dtype that files use for a storage.
pub fn dtype_of(storage: Storage) -> Dtype {
    match storage {
        Storage::F32 => Dtype::F32,
        Storage::Bf16 => Dtype::Bf16,
        Storage::I32 => Dtype::I32,
    }
}

/// Hands a tensor's elements on, stored as wanted, in pieces of whole elements.
pub fn convert(view: &TensorView, wanted: Storage, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let width = view.dtype.bytes() as usize;
    for piece in view.bytes.chunks(CHUNK * width) {
        match storage_of(view.dtype) {
            Some(storage) if storage == wanted => sink(piece)?,
            _ => sink(&element::narrow(wanted, &to_f32(view.dtype, piece)?))?,
        }
    }
    Ok(())
}

/// The elements of a file's dtype as f32.
fn to_f32(dtype: Dtype, bytes: &[u8]) -> Result<Vec<f32>> {
    Ok(match dtype {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect(),
        Dtype::Bf16 => bytes.as_chunks().0.iter().map(|raw| bf16::from_le_bytes(*raw).to_f32()).collect(),
        Dtype::F16 => bytes.as_chunks().0.iter().map(|raw| f16::from_le_bytes(*raw).to_f32()).collect(),
        other => bail!("cannot convert {other}; wanted F32, BF16 or F16"),
    })
}

/// f32 numbers in the dtype of a file.
pub fn from_f32(dtype: Dtype, values: &[f32]) -> Result<Vec<u8>> {
    Ok(match dtype {
        Dtype::F32 => element::narrow(Storage::F32, values),
        Dtype::Bf16 => element::narrow(Storage::Bf16, values),
        Dtype::F16 => values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
        other => bail!("cannot write {other}; wanted F32, BF16 or F16"),
    })
}
