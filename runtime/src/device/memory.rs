//! The one allocation of a CPU device: arena, constants, and scratch of every thread, each at a page.
use amc_artifact::Plan;
use anyhow::{Context, Result};
use memmap2::{Advice, MmapMut, MmapRaw};

/// Every part starts at a multiple of this: what the widest vector load and a page want.
const ALIGNMENT: usize = 4096;

/// Where the parts are, in bytes from the start.
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
    /// `None` where the sizes exceed the address space.
    pub fn of(plan: &Plan, threads: usize) -> Option<Layout> {
        let constants = round_up(usize::try_from(plan.arena_bytes).ok()?)?;
        let scratch = constants.checked_add(round_up(plan.constants.len())?)?;
        let scratch_stride = round_up(usize::try_from(plan.scratch_bytes).ok()?)?;
        let total = scratch.checked_add(scratch_stride.checked_mul(threads)?)?;
        (total <= isize::MAX as usize).then_some(Layout { arena: 0, constants, scratch, scratch_stride, total })
    }
}

fn round_up(bytes: usize) -> Option<usize> {
    bytes.checked_next_multiple_of(ALIGNMENT)
}

/// Maps zeroed pages for the layout and fills the constants in.
pub fn allocate(layout: &Layout, constants: &[u8]) -> Result<MmapRaw> {
    let mut map = MmapMut::map_anon(layout.total.max(ALIGNMENT))
        .with_context(|| format!("cannot allocate {:.2} GiB", layout.total as f64 / (1u64 << 30) as f64))?;
    // Huge pages are a wish; without them everything works, with more TLB misses.
    let _ = map.advise(Advice::HugePage);
    map[layout.constants..layout.constants + constants.len()].copy_from_slice(constants);
    Ok(map.into())
}
