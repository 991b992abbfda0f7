//! The producer: one thread that keeps the ring full.
use super::operand::Matrix;
use super::pipeline::shared_byte;
use super::{CONSUMERS, Corner, Start, Template, WARPGROUP, consumer, loads_a, loads_b, registers_fit};
use crate::emit::{Emitter, Value};
use crate::gpu::block::WARP;

/// Registers of its threads, which give up the others.
const REGISTERS: usize = 40;
const _: () = assert!(registers_fit(consumer::REGISTERS, REGISTERS));

impl Template<'_> {
    /// Copies all tiles, in the order in which the consumers multiply them.
    pub(super) fn produce(&self, e: &mut Emitter, start: &Start) {
        by_producer(e, REGISTERS, |e| {
            self.walk(e, start, |e, corner, first| self.copy_all(e, start, corner, first.into()));
        });
    }

    /// Copies a block's tiles, of which the first has such a number; returns that of the next block's.
    fn copy_all(&self, e: &mut Emitter, start: &Start, corner: &Corner, mut first: Value) -> Value {
        for (i, term) in self.gemm.terms.iter().enumerate() {
            let tiles = self.tiles(e, &start.depths[i]);
            let (a, b) = (self.a(term), self.b(term));
            let (map_a, map_b) = &start.operands[i];
            let (copies_a, copies_b) = (!loads_a(term), !loads_b(term));
            // Without any, the stage is at once the consumers'.
            let bytes = if copies_a { self.b_at } else { 0 } + if copies_b { self.stage_bytes - self.b_at } else { 0 };
            e.repeat("%zero", &tiles, 1, |e, tile| {
                let number = e.int2("addi", &first, tile);
                let slot = start.pipeline.slot(e, &number);
                start.pipeline.wait_empty(e, &slot);
                let bytes = e.int_constant(bytes as i32, 1);
                let barrier = start.pipeline.expect(e, &slot, &bytes);
                let stage = e.times(&slot.stage, self.stage_bytes);
                let step = e.times(tile, super::DEPTH);
                if copies_a {
                    self.copy(e, &a, (map_a, &barrier), (&stage, 0), (&corner.row, &step));
                }
                if copies_b {
                    self.copy(e, &b, (map_b, &barrier), (&stage, self.b_at), (&corner.column, &step));
                }
            });
            first = e.int2("addi", &first, &tiles);
        }
        first
    }

    /// Starts the copies of a tile, from a line and a step on, to so many bytes behind the beginning of a stage.
    fn copy(
        &self,
        e: &mut Emitter,
        matrix: &Matrix,
        (map, barrier): (&str, &str),
        (stage, at): (&str, usize),
        (line, step): (&str, &str),
    ) {
        for (first, place) in matrix.boxes() {
            let line = e.plus(line, first as i64);
            let corner = if matrix.along { (step, line.as_str()) } else { (line.as_str(), step) };
            copy_box(e, (map, barrier), (at + place, stage), corner);
        }
    }
}

/// What one thread of the producer's warpgroup does, whose threads keep so many registers.
pub fn by_producer(e: &mut Emitter, registers: usize, body: impl FnOnce(&mut Emitter)) {
    e.line(format!("nvvm.setmaxregister decrease {registers}"));
    let first_warp = e.index((CONSUMERS * WARPGROUP / WARP) as i64);
    let chosen = e.op(format!("arith.cmpi eq, %warp, {first_warp} : i64"));
    let elected = |e: &mut Emitter| {
        let chosen = e.op("nvvm.elect.sync -> i1");
        e.branch(&chosen, body, |_| {});
    };
    e.branch(&chosen, elected, |_| {});
}

/// Starts the copy of the box whose first element is in that column and row, to so many bytes behind a byte of shared memory;
/// it ends on the barrier.
pub fn copy_box(
    e: &mut Emitter,
    (map, barrier): (&str, &str),
    (byte, behind): (usize, &str),
    (column, row): (&str, &str),
) {
    let [column, row] = [column, row].map(|index| e.op(format!("arith.trunci {index} : i64 to i32")));
    let to = destination(e, byte, behind);
    e.line(format!(
        "nvvm.cp.async.bulk.tensor.shared.cluster.global {to}, {map}, {barrier}, box[{column}, {row}] : !llvm.ptr<7>, !llvm.ptr"
    ));
}

/// Starts the copy of so many bytes, a multiple of 16 as both places are, to so many bytes behind a byte of shared memory; it ends
/// on the barrier.
pub fn copy_range(e: &mut Emitter, (from, barrier): (&str, &str), (byte, behind): (usize, &str), bytes: usize) {
    let (from, to) =
        (e.op(format!("llvm.addrspacecast {from} : !llvm.ptr to !llvm.ptr<1>")), destination(e, byte, behind));
    let bytes = e.int_constant(bytes as i32, 1);
    e.line(format!(
        "nvvm.cp.async.bulk.shared.cluster.global {to}, {from}, {barrier}, {bytes} : !llvm.ptr<7>, !llvm.ptr<1>"
    ));
}

fn destination(e: &mut Emitter, byte: usize, behind: &str) -> Value {
    let to = shared_byte(e, byte);
    let to = e.op(format!("llvm.getelementptr inbounds {to}[{behind}] : (!llvm.ptr<3>, i64) -> !llvm.ptr<3>, i8"));
    e.op(format!("llvm.addrspacecast {to} : !llvm.ptr<3> to !llvm.ptr<7>"))
}
