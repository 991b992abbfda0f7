//! The machine that runs a kernel, cluster by cluster.
//!
//! Invariants: a run is a function of its inputs (no clock, no addresses of this process, no hash order); a fault ends
//! it; checks of ordering happen when an access is issued, so they do not depend on the order in which warps ran.
pub mod access;
pub mod address;
pub mod atomic;
pub mod barrier;
pub mod bulk;
pub mod clock;
pub mod cluster;
pub mod collective;
pub mod copies;
pub mod execute;
pub mod in_step;
pub mod launch;
pub mod matrix;
pub mod mbarrier;
pub mod memory;
pub mod operand;
pub mod paths;
pub mod pool;
pub mod registers;
pub mod shadow;
pub mod waiting;
pub mod warp;
pub mod warpgroup;

use crate::error::FaultKind;

/// A fault before it is known where: the lane, and what happened.
#[derive(Debug)]
pub struct Halt {
    pub lane: usize,
    pub kind: FaultKind,
}

pub type Outcome<T> = Result<T, Box<Halt>>;

#[cold]
pub fn halt(lane: usize, kind: FaultKind) -> Box<Halt> {
    Box::new(Halt { lane, kind })
}

/// A broken rule of an instruction.
#[cold]
pub fn misuse(lane: usize, found: impl Into<String>) -> Box<Halt> {
    halt(lane, FaultKind::Misuse(found.into()))
}

/// The lanes of a mask, lowest first.
pub fn lanes_of(mask: u32) -> impl Iterator<Item = usize> {
    let mut left = mask;
    std::iter::from_fn(move || {
        let lane = left.trailing_zeros() as usize;
        left &= left.wrapping_sub(1);
        (lane < crate::ops::LANES).then_some(lane)
    })
}
