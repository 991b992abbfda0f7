//! The producer: one thread that keeps the ring full.
use super::operand::Matrix;
use super::pipeline::shared_byte;
use super::{CONSUMERS, Start, Template, WARPGROUP, is_wide};
use crate::emit::{Emitter, Value};
use crate::gpu::block::WARP;

/// Registers of its threads, which give up the others: a multiple of 8, at least 24 (PTX ISA, `setmaxnreg`).
const REGISTERS: usize = 40;

impl Template<'_> {
    /// Copies all tiles, in the order in which the consumers multiply them.
    pub(super) fn produce(&self, e: &mut Emitter, start: &Start) {
        e.line(format!("nvvm.setmaxregister decrease {REGISTERS}"));
        let first_warp = e.index((CONSUMERS * WARPGROUP / WARP) as i64);
        let chosen = e.op(format!("arith.cmpi eq, %warp, {first_warp} : i64"));
        let copy = |e: &mut Emitter| {
            let chosen = e.op("nvvm.elect.sync -> i1");
            e.branch(&chosen, |e| self.copy_all(e, start), |_| {});
        };
        e.branch(&chosen, copy, |_| {});
    }

    fn copy_all(&self, e: &mut Emitter, start: &Start) {
        let mut first: Value = "%zero".into();
        for (i, term) in self.gemm.terms.iter().enumerate() {
            let tiles = self.tiles(e, &start.depths[i]);
            let (a, b) = (self.a(term), self.b(term));
            let (map_a, map_b) = &start.operands[i];
            let wide = is_wide(term);
            let bytes = if wide { self.stage_bytes - self.b_at } else { self.stage_bytes };
            e.repeat("%zero", &tiles, 1, |e, tile| {
                let number = e.int2("addi", &first, tile);
                let slot = start.pipeline.slot(e, &number);
                start.pipeline.wait_empty(e, &slot);
                let barrier = start.pipeline.expect(e, &slot, bytes);
                let stage = e.times(&slot.stage, self.stage_bytes);
                let step = e.times(tile, super::DEPTH);
                if !wide {
                    self.copy(e, &a, (map_a, &barrier), (&stage, 0), (&start.row, &step));
                }
                self.copy(e, &b, (map_b, &barrier), (&stage, self.b_at), (&start.column, &step));
            });
            first = e.int2("addi", &first, &tiles);
        }
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
            let (column, row) = if matrix.along { (step, line.as_str()) } else { (line.as_str(), step) };
            let [column, row] = [column, row].map(|index| e.op(format!("arith.trunci {index} : i64 to i32")));
            let to = shared_byte(e, at + place);
            let to =
                e.op(format!("llvm.getelementptr inbounds {to}[{stage}] : (!llvm.ptr<3>, i64) -> !llvm.ptr<3>, i8"));
            let to = e.op(format!("llvm.addrspacecast {to} : !llvm.ptr<3> to !llvm.ptr<7>"));
            e.line(format!(
                "nvvm.cp.async.bulk.tensor.shared.cluster.global {to}, {map}, {barrier}, box[{column}, {row}] : \
                 !llvm.ptr<7>, !llvm.ptr"
            ));
        }
    }
}
