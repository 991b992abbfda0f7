//! The producer: one thread that keeps the ring full.
use super::operand::Matrix;
use super::pipeline::shared_byte;
use super::{CONSUMERS, Share, Start, Template, WARPGROUP, cluster, consumer, loads_a, loads_b, registers_fit};
use crate::emit::{Emitter, Value};
use crate::gpu::block::WARP;

/// Registers of its threads, which give up the others.
const REGISTERS: usize = 40;
const _: () = assert!(registers_fit(consumer::REGISTERS, REGISTERS));

impl Template<'_> {
    /// Copies all tiles, in the order in which the consumers multiply them.
    pub(super) fn produce(&self, e: &mut Emitter, start: &Start) {
        by_producer(e, REGISTERS, |e| {
            self.walk(e, start, |e, share, first| self.copy_all(e, start, share, first.into()));
        });
    }

    /// Copies a block's tiles, of which the first has such a number; returns that of the next block's.
    fn copy_all(&self, e: &mut Emitter, start: &Start, share: &Share, mut first: Value) -> Value {
        for (i, term) in self.gemm.terms.iter().enumerate() {
            let tiles = self.tiles(e, &share.depths[i]);
            let (a, b) = (self.a(term), self.b(term));
            let (map_a, map_b) = &share.operands[i];
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
                let step = share.first_step.as_ref().map_or(step.clone(), |first| e.int2("addi", first, &step));
                if copies_a {
                    self.copy(e, &a, (map_a, &barrier), (&stage, 0), (&share.row, &step), None);
                }
                if copies_b {
                    self.copy_b(e, &b, start, (map_b, &barrier), &stage, (&share.column, &step));
                }
            });
            first = e.int2("addi", &first, &tiles);
        }
        first
    }

    /// Starts the copies of a tile of B: of all of it, or of this block's part for all blocks of the cluster, whose
    /// others bring the rest. Of every block it is the same stage and the same barrier, which expects the bytes of all
    /// parts.
    fn copy_b(
        &self,
        e: &mut Emitter,
        b: &Matrix,
        start: &Start,
        target: (&str, &str),
        stage: &str,
        (column, step): (&str, &str),
    ) {
        let Some(rank) = &start.rank else {
            return self.copy(e, b, target, (stage, self.b_at), (column, step), None);
        };
        let lines = b.part_lines();
        let (before, bytes_before) = (e.times(rank, lines), e.times(rank, b.line_at(lines)));
        let (column, stage) = (e.int2("addi", column, &before), e.int2("addi", stage, &bytes_before));
        self.copy(e, b, target, (&stage, self.b_at), (&column, step), Some(cluster::everyone(self.cluster)));
    }

    /// Starts the copies of a tile or a part of one, from a line and a step on, to so many bytes behind the beginning
    /// of a stage, of this block or of all whose ranks are bits of `blocks`.
    fn copy(
        &self,
        e: &mut Emitter,
        matrix: &Matrix,
        (map, barrier): (&str, &str),
        (stage, at): (&str, usize),
        (line, step): (&str, &str),
        blocks: Option<u16>,
    ) {
        for (first, place) in matrix.boxes() {
            let line = e.plus(line, first as i64);
            let corner = if matrix.along { (step, line.as_str()) } else { (line.as_str(), step) };
            start_copy(e, (map, barrier), (at + place, stage), corner, blocks);
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
    start_copy(e, (map, barrier), (byte, behind), (column, row), None);
}

/// The same; with `blocks`, to that place in all blocks of the cluster whose ranks are its bits, ending on the barrier
/// at the same place in each.
fn start_copy(
    e: &mut Emitter,
    (map, barrier): (&str, &str),
    (byte, behind): (usize, &str),
    (column, row): (&str, &str),
    blocks: Option<u16>,
) {
    let [column, row] = [column, row].map(|index| e.op(format!("arith.trunci {index} : i64 to i32")));
    let to = destination(e, byte, behind);
    let mask = blocks.map_or(String::new(), |blocks| {
        let mask = e.op(format!("arith.constant {blocks} : i16"));
        format!(" multicast_mask = {mask}")
    });
    e.line(format!(
        "nvvm.cp.async.bulk.tensor.shared.cluster.global {to}, {map}, {barrier}, box[{column}, {row}]{mask} : !llvm.ptr<7>, \
         !llvm.ptr"
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
