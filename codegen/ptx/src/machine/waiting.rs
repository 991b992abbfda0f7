//! What a path can wait for.
use crate::ops::Mask;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A barrier of the block to complete its current round.
    Barrier { id: usize, round: u64 },
    /// Lanes of the warp to come to a `bar.warp.sync`.
    Warp { members: Mask },
    /// The cluster barrier to complete its current round.
    Cluster { round: u64 },
}
