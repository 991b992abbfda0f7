//! Steps behind a limit that is known only when the kernel runs.
//!
//! Memory there may hold anything, NaN too, and a copy brings it where a tile straddles the limit. So the consumers
//! write zeros over those steps of A and of B before they multiply the tile.
use super::operand::Matrix;
use super::{CONSUMERS, DEPTH, Template, WARPGROUP, loads_a};
use crate::emit::{Elem, Emitter, Value};
use crate::gemm::Term;
use crate::gpu::tensor_map::BOX_ROW_BYTES;

/// Of a box's row.
const ROW_ELEMENTS: usize = BOX_ROW_BYTES / 2;
/// Elements of 16 bytes, which a store takes at a time and the swizzle leaves together.
pub(super) const PIECE: usize = 8;

impl Template<'_> {
    /// Makes the steps from `depth` on zeros in tile number `tile` of a term, which is in `stage`.
    pub(super) fn clear_tail(&self, e: &mut Emitter, term: &Term, stage: &str, (depth, tile): (&str, &str)) {
        let (before, all) = (e.times(tile, DEPTH), e.index(DEPTH as i64));
        let left = e.int2("subi", depth, &before);
        let cut = e.less(&left, &all);
        let clear = |e: &mut Emitter| {
            let a = (!loads_a(term)).then(|| (self.a(term), 0));
            for (matrix, at) in a.into_iter().chain([(self.b(term), self.b_at)]) {
                let tile = self.stage_at(e, stage, at);
                clear(e, &matrix, &tile, &left);
            }
            self.written(e);
        };
        e.branch(&cut, clear, |_| {});
    }
}

/// Zeros in the steps from `left` on of a tile; all threads of the consumers share the work.
fn clear(e: &mut Emitter, matrix: &Matrix, tile: &str, left: &str) {
    if !matrix.along {
        return clear_rows(e, matrix, tile, left);
    }
    let count = e.index((matrix.tile_lines * DEPTH) as i64);
    let zero = e.float(0.0, 1);
    e.apart(|e| {
        e.repeat("%thread", &count, (CONSUMERS * WARPGROUP) as i64, |e, i| {
            let across = e.index(ROW_ELEMENTS as i64);
            let (row, column) = (e.int2("divui", i, &across), e.int2("remui", i, &across));
            let behind = e.op(format!("arith.cmpi sge, {column}, {left} : i64"));
            let store = |e: &mut Emitter| {
                let place = swizzled(e, &row, &column);
                e.store_at(&zero, tile, &place, Elem::Bf16, 1);
            };
            e.branch(&behind, store, |_| {});
        });
    });
}

/// The same where steps are rows of the boxes: whole rows, 16 bytes at a time.
fn clear_rows(e: &mut Emitter, matrix: &Matrix, tile: &str, left: &str) {
    let steps = e.index(DEPTH as i64);
    let steps = e.int2("subi", &steps, left);
    let across = matrix.tile_lines / PIECE;
    let count = e.times(&steps, across);
    let zeros = e.op("arith.constant dense<0> : vector<4xi32>");
    e.repeat("%thread", &count, (CONSUMERS * WARPGROUP) as i64, |e, i| {
        let (across, pieces) = (e.index(across as i64), e.index((ROW_ELEMENTS / PIECE) as i64));
        let (step, piece) = (e.int2("divui", i, &across), e.int2("remui", i, &across));
        let (number, piece) = (e.int2("divui", &piece, &pieces), e.int2("remui", &piece, &pieces));
        let (before, step) = (e.times(&number, DEPTH), e.int2("addi", &step, left));
        let row = e.int2("addi", &before, &step);
        let (row, piece) = (e.times(&row, ROW_ELEMENTS), e.times(&piece, PIECE));
        let place = e.int2("addi", &row, &piece);
        let place = e.offset(tile, &place, Elem::Bf16);
        e.line(format!("llvm.store {zeros}, {place} {{alignment = 16 : i64}} : vector<4xi32>, !llvm.ptr"));
    });
}

/// The element of a tile that holds (`row`, `column`): the swizzle of 128 bytes exchanges the eight pieces of eight elements
/// of a row by its number modulo 8.
pub(super) fn swizzled(e: &mut Emitter, row: &str, column: &str) -> Value {
    let turn = remainder(e, row, 8);
    let turn = e.times(&turn, 8);
    let column = e.int2("xori", column, &turn);
    let row = e.times(row, ROW_ELEMENTS);
    e.int2("addi", &row, &column)
}

fn remainder(e: &mut Emitter, value: &str, by: usize) -> Value {
    let by = e.index(by as i64);
    e.int2("remui", value, &by)
}
