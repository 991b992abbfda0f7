//! What becomes of a block's sums: through shared memory, so that a warp stores a row's neighbours together.
//!
//! The ring keeps its memory, as the producer is filling it with the next block's tiles. It leaves some 35 of 227 KiB, and all sums
//! are 128. So they pass a *strip* of columns at a time, 20 KiB. Every warp has its own sixteen rows and waits for nobody
//! else. Rows in shared memory are eight elements longer than a strip is wide: pairs of columns that the threads of half a warp
//! store, four rows of four pairs, then lie in different banks.
use super::{CONSUMERS, ROWS, Share, Start, Template, WARPGROUP};
use crate::emit::{Elem, Emitter, Value, float_type};
use crate::gpu::block::WARP;
use crate::gpu::warp::{Element, Part};
use crate::region::Place;

/// Columns of a strip: those of every block are a multiple of them.
const STRIP: usize = 32;
/// Elements from one row of a strip in shared memory to the next.
const PITCH: usize = STRIP + 8;
/// Of shared memory.
pub(super) const BYTES: usize = ROWS * PITCH * 4;
/// Columns that a thread takes at a time where the result's rows are a multiple of them.
const LANES: usize = 4;
/// Rows for which a thread reads the epilogue's inputs before it stores a result, so that it waits once for all.
const TOGETHER: usize = 4;

impl Template<'_> {
    /// The epilogue on the sums of this thread's warp.
    pub(super) fn finish(&self, e: &mut Emitter, sums: &[Value], start: &Start, share: &Share) {
        debug_assert_eq!(ROWS, CONSUMERS * WARPGROUP / WARP * self.part().rows);
        let first = e.times("%warp", self.part().rows);
        let memory = e.shared_at(start.sums_at);
        let mine = e.row(&memory, &first, PITCH, Elem::F32);
        let row = e.int2("addi", &share.row, &first);
        let columns = e.index(self.columns as i64);
        e.repeat("%zero", &columns, STRIP as i64, |e, strip| {
            self.put(e, sums, &mine, strip);
            e.sync_warp();
            let column = e.int2("addi", &share.column, strip);
            e.apart(|e| e.aligned(|e| self.store(e, &mine, (&row, &column), share)));
            e.sync_warp();
        });
    }

    /// Stores a thread's sums of a strip, its first column given, to its warp's rows in shared memory.
    fn put(&self, e: &mut Emitter, sums: &[Value], mine: &str, strip: &str) {
        let (row, column) = Part::origin(e);
        let place = e.row(mine, &row, PITCH, Elem::F32);
        let place = e.offset(&place, &column, Elem::F32);
        self.put_from(e, sums, &place, (strip, 0));
    }

    /// The same of a strip that does not begin before column `first`: which registers those are has to be known here.
    fn put_from(&self, e: &mut Emitter, sums: &[Value], place: &str, (strip, first): (&str, usize)) {
        let next = first + STRIP;
        if next == self.columns {
            return self.put_strip(e, sums, place, first);
        }
        let number = e.index(first as i64);
        let chosen = e.op(format!("arith.cmpi eq, {strip}, {number} : i64"));
        let put = |e: &mut Emitter| self.put_strip(e, sums, place, first);
        e.branch(&chosen, put, |e| self.put_from(e, sums, place, (strip, next)));
    }

    /// Stores a thread's sums of the strip that begins at column `first`, two neighbours at a time.
    fn put_strip(&self, e: &mut Emitter, sums: &[Value], place: &str, first: usize) {
        let within = |element: &Element| (first..first + STRIP).contains(&element.column);
        let elements: Vec<_> = self.part().elements().filter(within).collect();
        for pair in elements.chunks(2) {
            let [low, high] = [&sums[pair[0].register], &sums[pair[1].register]];
            let both = e.op(format!("vector.from_elements {low}, {high} : vector<2xf32>"));
            let place = e.at(place, (pair[0].row * PITCH + pair[0].column - first) as i64, Elem::F32);
            e.apart(|e| e.aligned(|e| e.store(&both, &place, Elem::F32, 2)));
        }
    }

    /// Computes and stores the elements of the warp's rows of a strip; `row` and `column` are its first.
    fn store(&self, e: &mut Emitter, mine: &str, (row, column): (&str, &str), share: &Share) {
        let lanes = if self.gemm.n.is_multiple_of(LANES) { LANES } else { 1 };
        let across = e.index((STRIP / lanes) as i64);
        let (below, beside) = (e.int2("divui", "%lane", &across), e.int2("remui", "%lane", &across));
        let beside = e.times(&beside, lanes);
        let c = e.int2("addi", column, &beside);
        let n = e.index(self.gemm.n as i64);
        let inside = e.less(&c, &n);
        let rows = e.index(self.part().rows as i64);
        e.repeat("%zero", &rows, (TOGETHER * lanes) as i64, |e, first| {
            let first = e.int2("addi", first, &below);
            let element = |e: &mut Emitter, turn: usize| {
                let r = e.plus(&first, (turn * lanes) as i64);
                let place = e.row(mine, &r, PITCH, Elem::F32);
                let sum = e.load_at(&place, &beside, Elem::F32, lanes);
                let r = e.int2("addi", row, &r);
                let fits = e.less(&r, &share.rows);
                let wanted = e.op(format!("arith.andi {inside}, {fits} : i1"));
                let before = e.times(&r, self.gemm.n);
                let full = e.int2("addi", &before, &c);
                let place = Place { full: &full, row: &r, column: &c };
                let mut inputs = vec![sum];
                inputs.extend(self.inputs(e, &wanted, &place, lanes, share));
                (wanted, full, inputs)
            };
            let elements: Vec<_> = (0..TOGETHER).map(|turn| element(e, turn)).collect();
            for (wanted, full, inputs) in &elements {
                let store = |e: &mut Emitter| self.gemm.epilogue.store(e, inputs, &share.epilogue, full, lanes);
                e.branch(wanted, store, |_| {});
            }
        });
    }

    /// The epilogue's inputs behind the sum, if they are wanted: elsewhere others may be writing.
    fn inputs(&self, e: &mut Emitter, wanted: &str, place: &Place, lanes: usize, share: &Share) -> Vec<Value> {
        let count = self.gemm.epilogue.inputs.len() - 1;
        if count == 0 {
            return vec![];
        }
        let load = |e: &mut Emitter| self.gemm.epilogue.load(e, 1, &share.epilogue, place, lanes);
        e.either(wanted, &vec![float_type(lanes); count], load, |e| vec![e.float(0.0, lanes); count])
    }
}
