//! Clusters: blocks, one below the other in the result, that have their columns in common, and so the tiles of B.
//!
//! Each block copies an equal part of such a tile, and the copy writes it to the shared memory of all of them (PTX ISA,
//! "cp.async.bulk.tensor", `.multicast::cluster`): what the cache has to deliver of B is divided by the number of
//! blocks.
//!
//! - A block's `full` barrier counts the bytes of all parts, whoever copies them; its own producer alone says how many
//!   there will be. Another's copies may end before it does: until it has, the phase lacks an arrival.
//! - A stage's `empty` barrier completes when the consumers of all blocks have read theirs, since the producer writes
//!   to all.
//! - So all blocks have to walk through as many tiles: a cluster skips a place in the result, or computes it, as a
//!   whole, and its blocks below the last row compute what nobody stores.
//! - Nobody arrives at another's barrier, or copies to it, before all have made theirs, and nobody ends while another
//!   may still arrive at its barriers: all threads of all blocks meet at both ends of the kernel.
//!
//! Arrivals release, and waits acquire, at the scope of the block, as CUTLASS has it. Nothing that threads have
//! written passes between blocks: copies write what products read, their ends are counted by the barrier itself,
//! products that were waited for have read their stage, and what threads write to a stage themselves is there before
//! its products read it. At the scope of the cluster every release would be a fence of the whole GPU's memory
//! (`MEMBAR.ALL.GPU`) on the consumers' way; Triton had that for some days, and took it back for what it cost (its
//! pull requests 10922, 10972).
use crate::emit::{Emitter, Value};

/// This block's number in its cluster.
pub fn rank(e: &mut Emitter) -> Value {
    let rank = e.op("nvvm.read.ptx.sreg.cluster.ctarank : i32");
    e.op(format!("arith.extui {rank} : i32 to i64"))
}

/// The mask of all blocks of a cluster.
pub fn everyone(cluster: usize) -> u16 {
    (1 << cluster) - 1
}

/// Waits for all threads of the cluster; what they did before, to any block's shared memory, is seen behind it.
pub fn sync(e: &mut Emitter) {
    e.line("nvvm.cluster.arrive {aligned}");
    e.line("nvvm.cluster.wait {aligned}");
}

/// Arrives at the barrier at the same place in the block of that rank, an i32.
pub fn arrive(e: &mut Emitter, barrier: &str, rank: &str) {
    let there = e.op(format!("nvvm.mapa {barrier}, {rank} : !llvm.ptr<3> -> !llvm.ptr<7>"));
    e.line(format!("nvvm.mbarrier.arrive {there} : !llvm.ptr<7>"));
}
