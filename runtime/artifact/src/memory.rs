//! How much memory a run takes, and for what: known when it is compiled, for every phase.
//!
//! A run allocates once. Arena, constants and scratch are one allocation; frozen tensors are mapped from their file, or
//! converted once; loading and saving pass tensors through one small buffer. The rest is the program itself. Mapped tensors of
//! which only packed copies are read go back to the system when these are made.
use crate::{Arg, Init, Plan, ProgramKind, tensor_bytes};
use anyhow::{Context, Result};

/// What the process takes beside its plan: the binary's pages and its libraries, the kernels' code, the shard's. Measured:
/// 58 MiB in bf16, 61 MiB in f32, whatever the plan.
pub const PROCESS_BYTES: u64 = 60 << 20;
/// Most bytes of a tensor that pass through memory of the process's own at once, when tensors are converted or saved.
pub const PIECE_BYTES: u64 = 4 << 20;

/// Every part starts at a multiple of this: what the widest vector load and a page want.
const ALIGNMENT: usize = 4096;

/// What lies unused between the scratch of two threads. Processors that see a stride in a kernel's addresses bring lines from far
/// beyond its end: on Zen 5 a neighbour whose scratch began there ran 5 % slower, and 20 % with longer strides.
const SCRATCH_GAP: usize = 256 << 10;

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
            let gap = if plan.scratch_bytes > 0 { SCRATCH_GAP } else { 0 };
            let scratch_stride = round_up(usize::try_from(plan.scratch_bytes).ok()?.checked_add(gap)?)?;
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
    /// Frozen tensors that stay.
    pub weights: u64,
    /// Frozen tensors and packed copies while these are made, when nothing else of the arena is in use; nothing if there are none.
    pub packing: u64,
    /// [`PROCESS_BYTES`], or nothing of a GPU's memory.
    pub process: u64,
}

impl RunMemory {
    /// # Errors
    /// A plan that needs more memory than is addressable.
    pub fn of(plan: &Plan, threads: usize) -> Result<RunMemory> {
        let layout = Layout::of(plan, threads)?;
        let sizes = plan.weights.iter().map(|weight| tensor_bytes(weight.storage, &weight.shape));
        let sizes = sizes.collect::<Result<Vec<u64>>>()?;
        let stay = sizes.iter().zip(staying(plan)).filter(|(_, stays)| *stays).map(|(size, _)| size);
        let weights = stay.sum();
        let copies = of_kind(plan, true).flat_map(|program| &program.buffers).map(|copy| copy.bytes);
        let packing = match copies.sum::<u64>() {
            0 => 0,
            copies => copies.saturating_add(sizes.iter().sum()),
        };
        Ok(RunMemory { device: layout.total as u64, weights, packing, process: PROCESS_BYTES })
    }

    /// The most at any time.
    pub fn total(&self) -> u64 {
        self.device.saturating_add(self.weights).max(self.packing).saturating_add(self.process)
    }
}

/// Of every frozen tensor, whether its memory is needed behind packing: a program reads it as it is stored, or it is not mapped
/// from a file.
pub fn staying(plan: &Plan) -> Vec<bool> {
    let mut stays: Vec<bool> = plan.weights.iter().map(|weight| weight.init != Init::Checkpoint).collect();
    for arg in of_kind(plan, false).flat_map(|program| &program.launches).flat_map(|launch| &launch.args) {
        if let Arg::Weight { tensor, .. } = arg {
            stays[*tensor as usize] = true;
        }
    }
    stays
}

/// The programs that pack, or all others.
fn of_kind(plan: &Plan, packs: bool) -> impl Iterator<Item = &crate::Program> {
    plan.programs.iter().filter(move |program| (program.kind == ProgramKind::Pack) == packs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Begins, Buffer, Launch, Program, Storage, WeightTensor};

    fn weight(name: &str, init: Init) -> WeightTensor {
        WeightTensor { name: name.into(), storage: Storage::F32, shape: vec![1 << 20], init }
    }

    fn program(kind: ProgramKind, args: Vec<Arg>, buffers: Vec<Buffer>) -> Program {
        let launch =
            Launch { kernel: 0, tasks: 1, args, label: String::new(), begins: Begins::Beside, module: String::new() };
        let name = format!("{kind:?}");
        Program { name, kind, batch: 1, seq: 1, inputs: vec![], outputs: vec![], launches: vec![launch], buffers }
    }

    /// Three tensors of 4 MiB that are packed: one is read as it is stored too, one is not mapped.
    fn plan(arena_bytes: u64) -> Plan {
        let of = |tensor| Arg::Weight { tensor, offset: 0 };
        let copy =
            Buffer { label: String::new(), module: String::new(), offset: 0, bytes: 12 << 20, first: 0, last: 0 };
        Plan {
            arena_bytes,
            weights: vec![weight("a", Init::Checkpoint), weight("b", Init::Checkpoint), weight("c", Init::Zeros)],
            programs: vec![
                program(ProgramKind::Pack, vec![of(0), of(1), of(2), Arg::Arena(0)], vec![copy]),
                program(ProgramKind::Train, vec![of(1), Arg::Arena(0)], vec![]),
            ],
            ..Plan::default()
        }
    }

    #[test]
    fn tensors_of_which_copies_alone_are_read_do_not_stay() {
        assert_eq!(staying(&plan(0)), [false, true, true]);
        let memory = RunMemory::of(&plan(40 << 20), 1).unwrap();
        assert_eq!((memory.device, memory.weights, memory.packing), (40 << 20, 8 << 20, 24 << 20));
        assert_eq!(memory.total(), (48 << 20) + PROCESS_BYTES);
    }

    #[test]
    fn to_pack_may_take_more_than_to_run() {
        let memory = RunMemory::of(&plan(12 << 20), 1).unwrap();
        assert_eq!(memory.total(), (24 << 20) + PROCESS_BYTES);
    }

    #[test]
    fn without_copies_all_stay_and_nothing_is_packed() {
        let mut plan = plan(12 << 20);
        plan.programs.remove(0);
        plan.programs[0].launches[0].args = (0..3).map(|tensor| Arg::Weight { tensor, offset: 0 }).collect();
        let memory = RunMemory::of(&plan, 1).unwrap();
        assert_eq!((memory.weights, memory.packing), (12 << 20, 0));
    }
}
