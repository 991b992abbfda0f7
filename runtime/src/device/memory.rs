//! The one allocation of a CPU device.
use amc_artifact::memory::Layout;
use anyhow::{Context, Result};
use memmap2::{Advice, MmapMut, MmapRaw};

/// Maps zeroed pages for the layout and fills the constants in.
pub fn allocate(layout: &Layout, constants: &[u8]) -> Result<MmapRaw> {
    let mut map = MmapMut::map_anon(layout.total.max(1))
        .with_context(|| format!("cannot allocate {:.2} GiB", layout.total as f64 / (1u64 << 30) as f64))?;
    // Huge pages are a wish; without them everything works, with more TLB misses.
    let _ = map.advise(Advice::HugePage);
    map[layout.constants..layout.constants + constants.len()].copy_from_slice(constants);
    Ok(map.into())
}
