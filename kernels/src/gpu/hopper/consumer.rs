//! The consumers: warpgroups that multiply what is in the ring.
//!
//! A tile is a group of four `wgmma` of 16 steps each (PTX ISA, "wgmma.mma_async"). While a group runs, the one before it
//! ends and its stage is given back, so the tensor cores always have something to do.
use super::descriptor::{self, distance};
use super::{CONSUMER_ROWS, CONSUMERS, DEPTH, Start, Template, WARPGROUP, is_wide};
use crate::emit::{Emitter, Value};
use crate::gemm::Term;
use crate::gpu::block::WARP;

/// Registers of a consumer's thread. With the producer's they are the 168 of each thread that a block begins with.
const REGISTERS: usize = 232;
/// Steps of a `wgmma` of bf16.
pub(super) const STEPS: usize = 16;
/// The barrier of the consumers' threads; 0 is that of the whole block.
const BARRIER: usize = 1;

impl Template<'_> {
    /// Multiplies all tiles and stores what the epilogue makes of the sums.
    pub(super) fn consume(&self, e: &mut Emitter, start: &Start) {
        e.line(format!("nvvm.setmaxregister increase {REGISTERS}"));
        let warps = e.index((WARPGROUP / WARP) as i64);
        let consumer = e.int2("divui", "%warp", &warps);
        let zeros = e.op(format!("llvm.mlir.zero : {}", self.sums_type()));
        let mut sums = self.pinned(e, &zeros);
        let mut first = Value::from("%zero");
        for (i, term) in self.gemm.terms.iter().enumerate() {
            let tiles = self.tiles(e, &start.depths[i]);
            let matrices = self.descriptors(e, term, &consumer);
            let carried = [(sums, self.sums_type())];
            let last = e.for_loop("%zero", &tiles, 1, &carried, |e, tile, sums| {
                let number = e.int2("addi", &first, tile);
                let slot = start.pipeline.slot(e, &number);
                let parts = is_wide(term).then(|| self.wide_parts(e, term, i, start, tile));
                start.pipeline.wait_full(e, &slot);
                if self.gemm.inner_limit.is_some() {
                    self.clear_tail(e, term, &slot.stage, (&start.depths[i], tile));
                }
                let sums = match &parts {
                    None => self.multiply(e, sums[0].clone(), term, &matrices, &slot.stage),
                    Some(parts) => self.multiply_wide(e, &sums[0], (term, parts), &matrices.1, &slot.stage),
                };
                // The parts of a wide A lie in registers, which the next tile needs.
                self.wait(e, if parts.is_some() { 0 } else { 1 });
                self.release_before(e, start, &number);
                vec![sums]
            });
            sums = last.concat();
            first = e.int2("addi", &first, &tiles);
        }
        self.wait(e, 0);
        let sums = self.pinned(e, &sums);
        let sums = self.values(e, &sums);
        // The sums take the ring's place when the other consumer has read it, too.
        self.consumers_sync(e);
        self.finish(e, &sums, start);
    }

    /// The sums of a thread.
    pub(super) fn sums_type(&self) -> String {
        format!("!llvm.struct<({})>", vec!["f32"; self.part().registers()].join(", "))
    }

    /// Descriptors of the consumer's part of A and of B in the first stage.
    fn descriptors(&self, e: &mut Emitter, term: &Term, consumer: &str) -> (Value, Value) {
        let (a, b) = (self.a(term), self.b(term));
        let (first_a, first_b) = (descriptor::first(e, &a), descriptor::first(e, &b));
        let mine = e.times(consumer, distance(a.line_at(CONSUMER_ROWS)) as usize);
        (e.int2("addi", &first_a, &mine), e.plus(&first_b, distance(self.b_at)))
    }

    /// Starts the products of a stage's tiles: a group.
    fn multiply(&self, e: &mut Emitter, mut sums: Value, term: &Term, (a, b): &(Value, Value), stage: &str) -> Value {
        let stage = e.times(stage, distance(self.stage_bytes) as usize);
        let (a, b) = (e.int2("addi", a, &stage), e.int2("addi", b, &stage));
        let (matrix_a, matrix_b) = (self.a(term), self.b(term));
        // `row` is what the instruction takes as it is of A: K along the rows; of B that is `col`.
        let layout_a = if matrix_a.along { "row" } else { "col" };
        let layout_b = if matrix_b.along { "col" } else { "row" };
        let ty = self.sums_type();
        e.line("nvvm.wgmma.fence.aligned");
        for step in (0..DEPTH).step_by(STEPS) {
            let a = e.plus(&a, distance(matrix_a.step_at(step)));
            let b = e.plus(&b, distance(matrix_b.step_at(step)));
            sums = e.op(format!(
                "nvvm.wgmma.mma_async {a}, {b}, {sums}, <m = {CONSUMER_ROWS}, n = {}, k = {STEPS}>, D[<f32>, <one>], \
                 A[<bf16>, <one>, <{layout_a}>], B[<bf16>, <one>, <{layout_b}>] : {ty} -> {ty}",
                self.columns
            ));
        }
        e.line("nvvm.wgmma.commit.group.sync.aligned");
        sums
    }

    /// Waits until all but the newest `pending` groups are done.
    fn wait(&self, e: &mut Emitter, pending: usize) {
        e.line(format!("nvvm.wgmma.wait.group.sync.aligned {pending}"));
    }

    /// Gives the stage of the tile before number `number`, if there is one, back to the producer.
    fn release_before(&self, e: &mut Emitter, start: &Start, number: &str) {
        let threads = e.index(WARPGROUP as i64);
        let mine = e.int2("remui", "%thread", &threads);
        let leads = e.op(format!("arith.cmpi eq, {mine}, %zero : i64"));
        let later = e.op(format!("arith.cmpi ne, {number}, %zero : i64"));
        let releases = e.op(format!("arith.andi {leads}, {later} : i1"));
        let release = |e: &mut Emitter| {
            let before = e.plus(number, -1);
            start.pipeline.release(e, &before);
        };
        e.branch(&releases, release, |_| {});
    }

    /// The sums, taken and given by an empty instruction, which keeps LLVM from moving what comes before it behind a
    /// fence, or what comes behind it before a wait; else the assembler serialises the products (its warnings C75xx).
    fn pinned(&self, e: &mut Emitter, sums: &str) -> Value {
        let (count, ty) = (self.part().registers(), self.sums_type());
        let values = self.values(e, sums);
        let outputs = vec!["=f"; count].join(",");
        let inputs: Vec<String> = (0..count).map(|i| i.to_string()).collect();
        e.op(format!(
            "llvm.inline_asm has_side_effects asm_dialect = att \"\", \"{outputs},{}\" {} : ({}) -> {ty}",
            inputs.join(","),
            values.join(", "),
            vec!["f32"; count].join(", ")
        ))
    }

    /// The sums one by one.
    pub(super) fn values(&self, e: &mut Emitter, sums: &str) -> Vec<Value> {
        let ty = self.sums_type();
        (0..self.part().registers()).map(|i| e.op(format!("llvm.extractvalue {sums}[{i}] : {ty}"))).collect()
    }

    /// Waits for all threads of the consumers.
    pub(super) fn consumers_sync(&self, e: &mut Emitter) {
        let (barrier, threads) = (e.int_constant(BARRIER as i32, 1), e.int_constant((CONSUMERS * WARPGROUP) as i32, 1));
        e.line(format!("nvvm.barrier id = {barrier} number_of_threads = {threads}"));
    }
}
