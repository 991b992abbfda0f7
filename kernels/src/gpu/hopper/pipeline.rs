//! The ring of stages between the producer and the consumers, and its mbarriers.
//!
//! Each stage has two: `full` completes when the bytes of its tiles have arrived, `empty` when every warp of the consumers has
//! read them. Tile number `i` is the `i / stages`-th of its stage, so its phases have the parity of that; the producer's
//! first wait is for the phase before the first, which counts as complete. In a cluster, the consumers of all its
//! blocks say that they have read a tile, to all of them ([`cluster`]).
use super::{CONSUMERS, WARPGROUP, cluster};
use crate::emit::{Emitter, Value};
use crate::gpu::block::WARP;

const BARRIER_BYTES: usize = 8;

pub struct Pipeline {
    stages: usize,
    /// Where the barriers begin in shared memory: all `full` ones, then all `empty` ones.
    barriers_at: usize,
    /// Blocks that fill each other's stages.
    cluster: usize,
}

/// A tile's place in the ring.
pub struct Slot {
    pub stage: Value,
    /// Of the `full` barrier's phase, as i32.
    parity: Value,
}

impl Pipeline {
    pub fn new(e: &mut Emitter, stages: usize) -> Pipeline {
        Pipeline { stages, barriers_at: e.shared(2 * stages * BARRIER_BYTES), cluster: 1 }
    }

    /// That of a block of a cluster of so many.
    pub fn of_cluster(self, cluster: usize) -> Pipeline {
        Pipeline { cluster, ..self }
    }

    /// Makes the barriers; all threads of the block come here before anything else.
    pub fn init(&self, e: &mut Emitter) {
        let readers = CONSUMERS * WARPGROUP / WARP * self.cluster;
        e.branch(
            "%is_first",
            |e| {
                for (barrier, arrivals) in (0..2 * self.stages).map(|i| (i, if i < self.stages { 1 } else { readers }))
                {
                    let (place, arrivals) = (self.barrier(e, barrier), e.int_constant(arrivals as i32, 1));
                    e.line(format!("nvvm.mbarrier.init {place}, {arrivals} : !llvm.ptr<3>, i32"));
                }
                // Copies, which complete them, see them too.
                e.line("nvvm.fence.mbarrier.init");
            },
            |_| {},
        );
        if self.cluster > 1 { cluster::sync(e) } else { e.sync() }
    }

    /// Ends the block; all its threads come here after everything else. Until then other blocks of the cluster may
    /// arrive at its barriers.
    pub fn finish(&self, e: &mut Emitter) {
        if self.cluster > 1 {
            cluster::sync(e);
        }
    }

    pub fn slot(&self, e: &mut Emitter, tile: &str) -> Slot {
        let (stages, two) = (e.index(self.stages as i64), e.index(2));
        let (stage, turn) = (e.int2("remui", tile, &stages), e.int2("divui", tile, &stages));
        let parity = e.int2("remui", &turn, &two);
        Slot { stage, parity: e.op(format!("arith.trunci {parity} : i64 to i32")) }
    }

    /// Waits until the stage's tiles are there.
    pub fn wait_full(&self, e: &mut Emitter, slot: &Slot) {
        let barrier = self.full(e, slot);
        wait(e, &barrier, &slot.parity);
    }

    /// Waits until the consumers have read what the stage held before.
    pub fn wait_empty(&self, e: &mut Emitter, slot: &Slot) {
        let one = e.int_constant(1, 1);
        let before = e.op(format!("arith.xori {}, {one} : i32", slot.parity));
        let barrier = self.barrier_of(e, &slot.stage, self.stages);
        wait(e, &barrier, &before);
    }

    /// Says how many bytes, an i32, the stage's tiles have; returns the barrier on which their copies end.
    pub fn expect(&self, e: &mut Emitter, slot: &Slot, bytes: &str) -> Value {
        let barrier = self.full(e, slot);
        e.line(format!("nvvm.mbarrier.arrive.expect_tx {barrier}, {bytes} : !llvm.ptr<3>, i32"));
        barrier
    }

    /// A warp of a consumer has read the stage of a tile: one of its threads says so; in a cluster, its first threads say so to a
    /// block each. A wait for products tells a warp of its own part of them alone.
    pub fn release(&self, e: &mut Emitter, tile: &str) {
        let arrive = |e: &mut Emitter| {
            let slot = self.slot(e, tile);
            let barrier = self.barrier_of(e, &slot.stage, self.stages);
            if self.cluster > 1 {
                let rank = e.op("arith.trunci %lane : i64 to i32");
                cluster::arrive(e, &barrier, &rank);
            } else {
                e.op(format!("nvvm.mbarrier.arrive {barrier} : !llvm.ptr<3> -> i64"));
            }
        };
        let says = if self.cluster > 1 {
            let blocks = e.index(self.cluster as i64);
            e.less("%lane", &blocks)
        } else {
            e.op("nvvm.elect.sync -> i1")
        };
        e.branch(&says, arrive, |_| {});
    }

    fn full(&self, e: &mut Emitter, slot: &Slot) -> Value {
        self.barrier_of(e, &slot.stage, 0)
    }

    /// Barrier `first + stage`.
    fn barrier_of(&self, e: &mut Emitter, stage: &str, first: usize) -> Value {
        let base = self.barrier(e, first);
        e.op(format!("llvm.getelementptr inbounds {base}[{stage}] : (!llvm.ptr<3>, i64) -> !llvm.ptr<3>, i64"))
    }

    fn barrier(&self, e: &mut Emitter, number: usize) -> Value {
        shared_byte(e, self.barriers_at + number * BARRIER_BYTES)
    }
}

/// A pointer so many bytes into shared memory.
pub fn shared_byte(e: &mut Emitter, bytes: usize) -> Value {
    e.op(format!("llvm.getelementptr inbounds %shared_memory[{bytes}] : (!llvm.ptr<3>) -> !llvm.ptr<3>, i8"))
}

/// Spins until the phase of that parity is complete.
fn wait(e: &mut Emitter, barrier: &str, parity: &str) {
    e.line("scf.while : () -> () {");
    let done = e.op(format!("nvvm.mbarrier.try_wait {barrier}, {parity} : !llvm.ptr<3>, i32 -> i1"));
    let yes = e.op("arith.constant true");
    let again = e.op(format!("arith.xori {done}, {yes} : i1"));
    e.line(format!("scf.condition({again})"));
    e.line("} do {");
    e.line("scf.yield");
    e.line("}");
}
