//! The first values of tensors: parameters, and frozen tensors that no checkpoint has.
//!
//! Random values are Philox numbers keyed by (seed, tensor name) and indexed by element, so they depend neither on the
//! order of the tensors nor on which others exist, nor on how many threads draw them. For a matrix `[out, in]`, as torch's
//! `init` defines:
//! - Xavier normal: standard deviation sqrt(2 / (in + out));
//! - Kaiming uniform with a² = 5: bound sqrt(6 / ((1 + a²) in)) = sqrt(1 / in).
use crate::device::Device;
use crate::element;
use crate::session::default_threads;
use crate::weights::{self, ModelWeights};
use amc_artifact::philox::Stream;
use amc_artifact::{Init, Param, Plan, Storage, WeightTensor};
use anyhow::{Context, Result, bail, ensure};
use std::ops::Range;

/// Elements that a thread draws at a time; even, because normal numbers come in pairs.
const CHUNK: u64 = 1 << 20;

/// A tensor that is to be given values.
#[derive(Clone, Copy)]
pub(crate) struct Tensor<'a> {
    name: &'a str,
    storage: Storage,
    shape: &'a [u64],
    init: &'a Init,
}

impl<'a> From<&'a Param> for Tensor<'a> {
    fn from(param: &'a Param) -> Tensor<'a> {
        Tensor { name: &param.name, storage: param.storage, shape: &param.shape, init: &param.init }
    }
}

impl<'a> From<&'a WeightTensor> for Tensor<'a> {
    fn from(weight: &'a WeightTensor) -> Tensor<'a> {
        Tensor { name: &weight.name, storage: weight.storage, shape: &weight.shape, init: &weight.init }
    }
}

/// Writes the first value of every parameter into the arena, which is zero.
pub(crate) fn initialise(plan: &Plan, device: &mut dyn Device, model: &ModelWeights, seed: u64) -> Result<()> {
    for param in plan.params.iter().filter(|param| param.init != Init::Zeros) {
        let mut at = param.value_offset;
        let write = |piece: &[u8]| {
            device.write(at, piece)?;
            at += piece.len() as u64;
            Ok(())
        };
        Tensor::from(param)
            .for_each_piece(model, seed, write)
            .with_context(|| format!("parameter `{}`", param.name))?;
    }
    Ok(())
}

impl Tensor<'_> {
    /// Hands the first value on as it is stored, in pieces of whole elements.
    pub(crate) fn for_each_piece(
        &self,
        model: &ModelWeights,
        seed: u64,
        sink: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        if *self.init != Init::Checkpoint {
            return self.draw(seed, sink);
        }
        weights::convert(&model.tensor(self.name, self.shape)?, self.storage, sink)?;
        // Otherwise the whole checkpoint would stand in memory twice by the end.
        model.release();
        Ok(())
    }

    /// Draws the elements, a piece a thread at a time.
    fn draw(&self, seed: u64, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.check()?;
        let (count, threads) = (self.shape.iter().product::<u64>(), default_threads());
        let stream = Stream::new(seed, self.name);
        let chunks: Vec<Range<u64>> =
            (0..count).step_by(CHUNK as usize).map(|begin| begin..count.min(begin + CHUNK)).collect();
        for group in chunks.chunks(threads) {
            let pieces: Vec<Vec<u8>> = std::thread::scope(|scope| {
                let drawing = |range: &Range<u64>| {
                    let (stream, range) = (&stream, range.clone());
                    scope.spawn(move || element::narrow(self.storage, &self.numbers(stream, range)))
                };
                let threads: Vec<_> = group.iter().map(drawing).collect();
                threads.into_iter().map(|thread| thread.join().expect("drawing numbers does not panic")).collect()
            });
            pieces.iter().try_for_each(|piece| sink(piece))?;
        }
        Ok(())
    }

    /// Whether the values that are wanted make sense for the shape.
    fn check(&self) -> Result<()> {
        match self.init {
            Init::XavierNormal | Init::KaimingUniform => self.matrix().map(|_| ()),
            Init::Normal { zero_row: Some(row), .. } => {
                let rows = self.shape.first().copied().unwrap_or(0);
                ensure!(*row < rows, "row {row} is to be zero, the shape is {:?}", self.shape);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn matrix(&self) -> Result<[f64; 2]> {
        match self.shape[..] {
            [rows, columns] => Ok([rows as f64, columns as f64]),
            _ => bail!("random values need a matrix, the shape is {:?}", self.shape),
        }
    }

    /// The elements of a range.
    fn numbers(&self, stream: &Stream, range: Range<u64>) -> Vec<f32> {
        let [rows, columns] = self.matrix().unwrap_or([1.0; 2]);
        let count = (range.end - range.start) as usize;
        let normal =
            |deviation: f64, range| stream.normals(range).map(|x| (deviation * x) as f32).collect::<Vec<f32>>();
        match self.init {
            Init::Checkpoint | Init::Zeros => vec![0.0; count],
            Init::Ones => vec![1.0; count],
            Init::XavierNormal => normal((2.0 / (rows + columns)).sqrt(), range),
            Init::KaimingUniform => {
                let bound = (1.0 / columns).sqrt();
                range.map(|index| (bound * (2.0 * stream.uniform(index) - 1.0)) as f32).collect()
            }
            Init::Normal { deviation, zero_row } => {
                let mut values = normal(f64::from(*deviation), range.clone());
                let width: u64 = self.shape[1..].iter().product();
                if let Some(row) = zero_row {
                    let at = |element: u64| (element.clamp(range.start, range.end) - range.start) as usize;
                    values[at(row * width)..at((row + 1) * width)].fill(0.0);
                }
                values
            }
        }
    }
}
