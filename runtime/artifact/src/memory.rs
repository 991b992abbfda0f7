//! How much memory a run takes, and for what: known when it is compiled, for every phase.
//!
//! A run allocates once. Arena, constants and scratch are one allocation; frozen tensors are mapped from their file, or
//! converted once; loading and saving pass tensors through one small buffer. The rest is the program itself.
use crate::{Plan, tensor_bytes};
use anyhow::{Context, Result};

/// What the process takes beside its plan: the binary's pages and its libraries, the kernels' code, the shard's. Measured:
/// 58 MiB in bf16, 61 MiB in f32, whatever the plan.
pub const PROCESS_BYTES: u64 = 60 << 20;
/// Most bytes of a tensor that pass through memory of the process's own at once, when tensors are converted or saved.
pub const PIECE_BYTES: u64 = 4 << 20;

/// Every part starts at a multiple of this: what the widest vector load and a page want.
const ALIGNMENT: usize = 4096;

/// Where arena, constants and scratch are in the one allocation, in bytes from its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    pub arena: usize,
    pub constants: usize,
    pub scratch: usize,
    /// Distance between the scratch of two threads.
    pub scratch_stride: usize,
    pub total: usize,
}

impl Layout {
    /// # Errors
    /// Sizes beyond the address space.
    pub fn of(plan: &Plan, threads: usize) -> Result<Layout> {
        let known = || {
            let constants = round_up(usize::try_from(plan.arena_bytes).ok()?)?;
            let scratch = constants.checked_add(round_up(plan.constants.len())?)?;
            let scratch_stride = round_up(usize::try_from(plan.scratch_bytes).ok()?)?;
            let total = scratch.checked_add(scratch_stride.checked_mul(threads)?)?;
            (total <= isize::MAX as usize).then_some(Layout { arena: 0, constants, scratch, scratch_stride, total })
        };
        known().context("the plan needs more memory than is addressable")
    }
}

fn round_up(bytes: usize) -> Option<usize> {
    bytes.checked_next_multiple_of(ALIGNMENT)
}

/// Bytes that a run takes, by what they are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunMemory {
    /// Arena, constants, scratch of all threads; on a GPU there is no scratch.
    pub device: u64,
    /// Frozen tensors.
    pub weights: u64,
    /// [`PROCESS_BYTES`], or nothing of a GPU's memory.
    pub process: u64,
}

impl RunMemory {
    /// # Errors
    /// A plan that needs more memory than is addressable.
    pub fn of(plan: &Plan, threads: usize) -> Result<RunMemory> {
        let layout = Layout::of(plan, threads)?;
        let sizes = plan.weights.iter().map(|weight| tensor_bytes(weight.storage, &weight.shape));
        let weights = sizes.sum::<Result<u64>>()?;
        Ok(RunMemory { device: layout.total as u64, weights, process: PROCESS_BYTES })
    }

    pub fn total(&self) -> u64 {
        self.device.saturating_add(self.weights).saturating_add(self.process)
    }
}
