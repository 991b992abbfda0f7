//! The consumers: warpgroups that multiply what is in the ring.
//!
//! A tile is a group of four `wgmma` of 16 steps each (PTX ISA, "wgmma.mma_async"). While a group runs, the one before it
//! ends and its stage is given back, so the tensor cores always have something to do. The last of a block is waited for.
use super::descriptor::{self, distance};
use super::wgmma::{self, STEPS};
use super::{CONSUMER_ROWS, CONSUMERS, DEPTH, Share, Start, Template, WARPGROUP, loads_a, loads_b};
use crate::emit::{Emitter, Value};
use crate::gemm::Term;
use crate::gpu::block::WARP;
use crate::gpu::tensor_map::BOX_ROW_BYTES;

/// Registers of a consumer's thread. With the producer's they are the 168 of each thread that a block begins with.
pub(super) const REGISTERS: usize = 232;
/// The barrier of the consumers' threads; 0 is that of the whole block.
const BARRIER: usize = 1;

impl Template<'_> {
    /// Multiplies all tiles and stores what the epilogue makes of each block's sums.
    pub(super) fn consume(&self, e: &mut Emitter, start: &Start) {
        e.line(format!("nvvm.setmaxregister increase {REGISTERS}"));
        let warps = e.index((WARPGROUP / WARP) as i64);
        let consumer = e.int2("divui", "%warp", &warps);
        self.walk(e, start, |e, share, first| {
            let (sums, behind) = self.multiply_all(e, start, share, first, &consumer);
            self.finish(e, &sums, start, share);
            behind
        });
    }

    /// The sums of a block, the first of whose tiles has such a number, and the number of the next block's.
    fn multiply_all(
        &self,
        e: &mut Emitter,
        start: &Start,
        share: &Share,
        first: &str,
        consumer: &str,
    ) -> (Vec<Value>, Value) {
        let mut sums = self.sums().zeros(e);
        let mut next = first.to_string();
        for (i, term) in self.gemm.terms.iter().enumerate() {
            let tiles = self.tiles(e, &share.depths[i]);
            let matrices = self.descriptors(e, term, consumer);
            let carried = [(sums, self.sums().ty())];
            let last = e.for_loop("%zero", &tiles, 1, &carried, |e, tile, sums| {
                let number = e.int2("addi", &next, tile);
                let slot = start.pipeline.slot(e, &number);
                let parts = loads_a(term).then(|| self.parts_of_a(e, term, i, share, tile));
                start.pipeline.wait_full(e, &slot);
                if loads_b(term) {
                    self.write_b(e, term, i, share, (tile, &slot.stage));
                } else if self.gemm.inner_limit.is_some() {
                    self.clear_tail(e, term, &slot.stage, (&share.depths[i], tile));
                }
                let sums = match &parts {
                    None => self.multiply(e, sums[0].clone(), term, &matrices, &slot.stage),
                    Some(parts) => self.multiply_parts(e, &sums[0], (term, parts), &matrices.1, &slot.stage),
                };
                // Parts of A lie in registers, which the next tile needs.
                wgmma::wait(e, if parts.is_some() { 0 } else { 1 });
                self.release_before(e, start, &number, first);
                vec![sums]
            });
            sums = last.concat();
            next = e.int2("addi", &next, &tiles);
        }
        wgmma::wait(e, 0);
        let sums = self.sums().waited_for(e, &sums);
        self.release_before(e, start, &next, first);
        (sums, next)
    }

    /// Descriptors of the consumer's part of A and of B in the first stage.
    fn descriptors(&self, e: &mut Emitter, term: &Term, consumer: &str) -> (Value, Value) {
        let (a, b) = (self.a(term), self.b(term));
        let [first_a, first_b] = [&a, &b].map(|matrix| descriptor::first(e, BOX_ROW_BYTES, matrix.leading()));
        let mine = e.times(consumer, distance(a.line_at(CONSUMER_ROWS)) as usize);
        (e.int2("addi", &first_a, &mine), e.plus(&first_b, distance(self.b_at)))
    }

    /// Starts the products of a stage's tiles: a group.
    fn multiply(&self, e: &mut Emitter, mut sums: Value, term: &Term, (a, b): &(Value, Value), stage: &str) -> Value {
        let stage = e.times(stage, distance(self.stage_bytes) as usize);
        let (a, b) = (e.int2("addi", a, &stage), e.int2("addi", b, &stage));
        let (matrix_a, matrix_b) = (self.a(term), self.b(term));
        wgmma::fence(e);
        for step in (0..DEPTH).step_by(STEPS) {
            let a = e.plus(&a, distance(matrix_a.step_at(step)));
            let b = e.plus(&b, distance(matrix_b.step_at(step)));
            sums = self.sums().multiply(e, &sums, (&a, &b), (matrix_a.along, matrix_b.along));
        }
        wgmma::commit(e);
        sums
    }

    /// Gives the stage of the tile before number `number` back to the producer, if it is one from `first` on.
    fn release_before(&self, e: &mut Emitter, start: &Start, number: &str, first: &str) {
        let later = e.op(format!("arith.cmpi ne, {number}, {first} : i64"));
        let release = |e: &mut Emitter| {
            let before = e.plus(number, -1);
            start.pipeline.release(e, &before);
        };
        e.branch(&later, release, |_| {});
    }

    /// Makes what the consumers' threads have written to a stage seen by all their products.
    pub(super) fn written(&self, e: &mut Emitter) {
        // Products read by the asynchronous proxy.
        e.line("nvvm.fence.proxy {kind = #nvvm.proxy_kind<async.shared>, space = #nvvm.shared_space<cta>}");
        self.consumers_sync(e);
    }

    /// A pointer to a byte of a stage.
    pub(super) fn stage_at(&self, e: &mut Emitter, stage: &str, byte: usize) -> Value {
        let (first, behind) = (e.shared_at(byte), e.times(stage, self.stage_bytes));
        e.bytes_behind(&first, &behind)
    }

    /// Waits for all threads of the consumers.
    pub(super) fn consumers_sync(&self, e: &mut Emitter) {
        let (barrier, threads) = (e.int_constant(BARRIER as i32, 1), e.int_constant((CONSUMERS * WARPGROUP) as i32, 1));
        e.line(format!("nvvm.barrier id = {barrier} number_of_threads = {threads}"));
    }
}
