//! What a path can wait for.
use super::mbarrier::MbarrierWait;
use crate::ops::Mask;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A barrier of the block to complete its current round.
    Barrier { id: usize, round: u64 },
    /// Lanes of the warp to come to a `bar.warp.sync`.
    Warp { members: Mask },
    /// The cluster barrier to complete its current round.
    Cluster { round: u64 },
    /// A phase of an mbarrier.
    Mbarrier(MbarrierWait),
    /// All but the last groups of wgmma, for which the warpgroup's other warps have to issue theirs.
    Products { pending: u32 },
    /// So many registers of each thread, from those that other warps of the block give up.
    Registers { count: u32 },
}
