//! Products that the GPU's vendor computes: cuBLASLt, which a run opens where its plan has such.
//!
//! Invariant: what a valid plan's launch gives to one lies inside of its memory, aligned as [`OPERAND_ALIGNMENT`] says.
use crate::{Arg, Launch, Storage};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// Operands, and their rows, begin at multiples of so many bytes.
pub const OPERAND_ALIGNMENT: u64 = 16;

/// `D[m, n] = A · B`, or `A · B + C`, of bf16 matrices, summed in f32.
///
/// Arguments of a launch, in order: A, B, C where it adds, D (which may be C), workspace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VendorProduct {
    pub m: u64,
    pub n: u64,
    pub k: u64,
    /// `[m, k]`, or transposed.
    pub a: Factor,
    /// `[k, n]`, or transposed.
    pub b: Factor,
    /// How C and D are stored, in rows of `n` without gaps.
    pub out: Storage,
    pub adds: bool,
    /// What the library may use while it computes.
    pub workspace_bytes: u64,
}

/// How a factor lies in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Factor {
    pub transposed: bool,
    /// Elements from one stored row to the next.
    pub stride: u64,
}

/// An operand as it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Matrix {
    pub storage: Storage,
    pub rows: u64,
    pub columns: u64,
    /// Elements from one row to the next.
    pub stride: u64,
}

impl Matrix {
    /// Bytes from the first element to behind the last, if there is such a number.
    pub fn span(&self) -> Option<u64> {
        let before_last = self.rows.checked_sub(1)?.checked_mul(self.stride)?;
        before_last.checked_add(self.columns)?.checked_mul(self.storage.bytes())
    }

    fn validate(&self) -> Result<()> {
        let Matrix { rows, columns, stride, .. } = *self;
        ensure!(rows > 0 && columns > 0, "a matrix of {rows} x {columns}");
        ensure!(stride >= columns, "rows of {columns} elements that are {stride} apart");
        let pitch = stride.checked_mul(self.storage.bytes());
        ensure!(
            pitch.is_some_and(|pitch| pitch.is_multiple_of(OPERAND_ALIGNMENT)),
            "rows {stride} elements apart, wanted a multiple of {OPERAND_ALIGNMENT} bytes"
        );
        Ok(())
    }
}

impl VendorProduct {
    pub fn a(&self) -> Matrix {
        stored((self.m, self.k), self.a)
    }

    pub fn b(&self) -> Matrix {
        stored((self.k, self.n), self.b)
    }

    /// C and D.
    pub fn result(&self) -> Matrix {
        Matrix { storage: self.out, rows: self.m, columns: self.n, stride: self.n }
    }

    /// The matrices of a launch, in the order of its arguments; behind them is the workspace.
    pub fn matrices(&self) -> Vec<Matrix> {
        let results = if self.adds { 2 } else { 1 };
        [self.a(), self.b()].into_iter().chain(std::iter::repeat_n(self.result(), results)).collect()
    }

    pub(crate) fn validate(&self) -> Result<()> {
        ensure!(self.out != Storage::I32, "a product stored as {:?}", self.out);
        self.matrices().iter().try_for_each(Matrix::validate)
    }

    /// How far a launch reaches from each of its arguments, if there is such a number of bytes.
    ///
    /// # Errors
    /// Other arguments than the product takes, or results outside of the arena.
    pub(crate) fn reach(&self, launch: &Launch) -> Result<Vec<Option<u64>>> {
        let matrices = self.matrices();
        let reach: Vec<_> = matrices.iter().map(Matrix::span).chain([Some(self.workspace_bytes)]).collect();
        let (found, wanted, tasks) = (launch.args.len(), reach.len(), launch.tasks);
        ensure!(found == wanted, "{found} arguments of a product that takes {wanted}");
        ensure!(tasks == 1, "{tasks} tasks of a product that is one");
        let written = &launch.args[wanted - 2..];
        ensure!(written.iter().all(|arg| matches!(arg, Arg::Arena(_))), "a product is stored outside of the arena");
        Ok(reach)
    }
}

/// Checks that a product reaches no further from byte `offset` than its memory of `size` bytes does.
pub(crate) fn ensure_within(offset: u64, reach: Option<u64>, size: u64) -> Result<()> {
    ensure!(
        offset.is_multiple_of(OPERAND_ALIGNMENT),
        "a product's operand from byte {offset} on, wanted a multiple of {OPERAND_ALIGNMENT}"
    );
    let end = reach.and_then(|reach| offset.checked_add(reach));
    ensure!(end.is_some_and(|end| end <= size), "a product's operand from byte {offset} on reaches behind byte {size}");
    Ok(())
}

/// A factor of that shape.
fn stored((rows, columns): (u64, u64), factor: Factor) -> Matrix {
    let (rows, columns) = if factor.transposed { (columns, rows) } else { (rows, columns) };
    Matrix { storage: Storage::Bf16, rows, columns, stride: factor.stride }
}
