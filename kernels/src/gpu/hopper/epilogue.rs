//! What becomes of the sums: through shared memory, so that a warp stores a row's neighbours together.
//!
//! Every warp has its own sixteen rows and waits for nobody else. Rows in shared memory are eight elements longer than the
//! block is wide: pairs of columns that the threads of half a warp store, four rows of four pairs, then lie in different banks.
use super::{CONSUMERS, ROWS, Start, Template, WARPGROUP};
use crate::emit::{Elem, Emitter, Value};
use crate::gpu::block::WARP;
use crate::gpu::warp::Part;
use crate::region::Place;

/// Columns that a thread takes at a time where the result's rows are a multiple of them.
const LANES: usize = 4;
const GAP: usize = 8;

impl Template<'_> {
    /// Elements from one row of the sums in shared memory to the next.
    fn pitch(&self) -> usize {
        self.columns + GAP
    }

    pub(super) fn sums_bytes(&self) -> usize {
        ROWS * self.pitch() * Elem::F32.bytes() as usize
    }

    /// The epilogue on the sums of this thread's warp.
    pub(super) fn finish(&self, e: &mut Emitter, sums: &[Value], start: &Start) {
        debug_assert_eq!(ROWS, CONSUMERS * WARPGROUP / WARP * self.part().rows);
        let first = e.times("%warp", self.part().rows);
        let mine = e.row("%block_memory", &first, self.pitch(), Elem::F32);
        self.put(e, sums, &mine);
        let all = e.int_constant(-1, 1);
        e.line(format!("nvvm.bar.warp.sync {all} : i32"));
        let lanes = if self.gemm.n.is_multiple_of(LANES) { LANES } else { 1 };
        let row = e.int2("addi", &start.row, &first);
        e.apart(|e| e.aligned(|e| self.store(e, &mine, lanes, (&row, &start.column), start)));
    }

    /// Stores a thread's sums to its warp's rows in shared memory, two neighbours at a time.
    fn put(&self, e: &mut Emitter, sums: &[Value], mine: &str) {
        let (row, column) = Part::origin(e);
        let place = e.row(mine, &row, self.pitch(), Elem::F32);
        let place = e.offset(&place, &column, Elem::F32);
        let elements: Vec<_> = self.part().elements().collect();
        e.apart(|e| {
            e.aligned(|e| {
                for pair in elements.chunks(2) {
                    let [low, high] = [&sums[pair[0].register], &sums[pair[1].register]];
                    let both = e.op(format!("vector.from_elements {low}, {high} : vector<2xf32>"));
                    let place = e.at(&place, (pair[0].row * self.pitch() + pair[0].column) as i64, Elem::F32);
                    e.store(&both, &place, Elem::F32, 2);
                }
            });
        });
    }

    /// Computes and stores the elements of the warp's rows, `lanes` at a time; `row` and `column` are its first.
    fn store(&self, e: &mut Emitter, mine: &str, lanes: usize, (row, column): (&str, &str), start: &Start) {
        let across = self.columns / lanes;
        let count = e.index((self.part().rows * across) as i64);
        let n = e.index(self.gemm.n as i64);
        e.repeat("%lane", &count, WARP as i64, |e, i| {
            let across = e.index(across as i64);
            let (r, c) = (e.int2("divui", i, &across), e.int2("remui", i, &across));
            let c = e.times(&c, lanes);
            let place = e.row(mine, &r, self.pitch(), Elem::F32);
            let place = e.offset(&place, &c, Elem::F32);
            let (r, c) = (e.int2("addi", row, &r), e.int2("addi", column, &c));
            let (fits, inside) = (e.less(&r, &start.rows), e.less(&c, &n));
            let inside = e.op(format!("arith.andi {fits}, {inside} : i1"));
            let store = |e: &mut Emitter| {
                let sum = e.load(&place, Elem::F32, lanes);
                let first = e.times(&r, self.gemm.n);
                let full = e.int2("addi", &first, &c);
                let place = Place { full: &full, row: &r, column: &c };
                self.gemm.epilogue.element(e, &[sum], &start.epilogue, &place, lanes);
            };
            e.branch(&inside, store, |_| {});
        });
    }
}
