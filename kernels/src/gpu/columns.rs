//! Sums of columns: the warps of a block take rows in turn, a lane some neighbouring columns of each, and their sums are joined in
//! the order of the warps. Where that makes few blocks, they have parts of the rows, and another launch adds the sums of all
//! parts in their order.
use super::block::{Block, ROW_THREADS, WARP};
use super::deal::Deal;
use crate::emit::{Elem, Emitter, Value, float_type};
use crate::reduce::ColumnSum;
use crate::steps::{Slot, Steps};
use crate::tuning::{ColumnTuning, GPU_COLUMNS};
use crate::{Kernel, Work};

const WARPS: usize = ROW_THREADS / WARP;

/// The column sums; operands as [`ColumnSum`] has them.
pub fn steps(problem: &ColumnSum) -> Steps {
    let [x, sum, parts] = [Slot::Operand(0), Slot::Operand(1), Slot::Temporary(0)];
    let strips = Strips::of(problem);
    if strips.parts == 1 {
        return Steps { temporaries: vec![], launches: vec![(strips.build(), vec![x, sum])] };
    }
    let n = problem.n;
    let joined = ColumnSum { rows: strips.parts, n, stride: n, elem: Elem::F32, accumulate: problem.accumulate };
    Steps {
        temporaries: vec![strips.parts * n * Elem::F32.bytes() as usize],
        launches: vec![(strips.build(), vec![x, parts]), (Strips::whole(&joined).build(), vec![parts, sum])],
    }
}

/// A block has a strip of columns and a part of the rows.
struct Strips<'a> {
    problem: &'a ColumnSum,
    parts: usize,
    /// Of a part, but for the last, which has what is left.
    rows: usize,
    /// Columns of a lane.
    width: usize,
}

impl Strips<'_> {
    /// In as many parts as the table wants.
    fn of(problem: &ColumnSum) -> Strips<'_> {
        let ColumnTuning { blocks, least_rows, .. } = GPU_COLUMNS;
        let whole = Strips::whole(problem);
        let parts = (blocks / whole.strips()).min(problem.rows / least_rows).max(1);
        let rows = problem.rows.div_ceil(parts);
        Strips { parts: problem.rows.div_ceil(rows), rows, ..whole }
    }

    fn whole(problem: &ColumnSum) -> Strips<'_> {
        let Deal { width, .. } = Deal::flat(problem.n | problem.stride, problem.elem);
        Strips { problem, parts: 1, rows: problem.rows, width }
    }

    /// Columns of a strip.
    fn columns(&self) -> usize {
        WARP * self.width
    }

    fn strips(&self) -> usize {
        self.problem.n.div_ceil(self.columns())
    }

    /// Operands: `x`, and the sums of every part, f32 `[parts, n]`.
    fn build(&self) -> Kernel {
        let ColumnSum { rows, n, elem, .. } = *self.problem;
        let mut e = Emitter::of_block(Block::new(ROW_THREADS));
        let (x, sums) = (e.arg(0), e.arg(1));
        let strips = e.index(self.strips() as i64);
        let (part, strip) = (e.int2("divui", "%task", &strips), e.int2("remui", "%task", &strips));
        let first = e.times(&strip, self.columns());
        let all = e.index(n as i64);
        let memory = e.shared(4 * WARPS * self.columns());
        let memory = e.shared_at(memory);
        self.sum_rows(&mut e, &x, &part, &first, &memory);
        e.sync();
        let (left, columns) = (e.int2("subi", &all, &first), e.index(self.columns() as i64));
        let columns = e.int2("minsi", &left, &columns);
        let start = e.times(&part, n);
        let start = e.int2("addi", &start, &first);
        e.apart(|e| {
            e.repeat("%thread", &columns, ROW_THREADS as i64, |e, column| {
                let at = e.int2("addi", &start, column);
                self.join(e, &memory, column, (&sums, &at));
            });
        });
        let work = Work::new("column_sum", rows * n).moving(rows * n, elem).moving(self.parts * n, Elem::F32);
        let name = format!("column_sum_{rows}x{n}_{}", elem.name());
        e.finish(&name, self.parts * self.strips(), 0, work)
    }

    /// Sums the rows of every warp into shared memory, for the columns from `first` on.
    fn sum_rows(&self, e: &mut Emitter, x: &str, part: &str, first: &str, memory: &str) {
        let ColumnSum { rows, n, stride, elem, .. } = *self.problem;
        let own = e.times("%lane", self.width);
        let column = e.int2("addi", first, &own);
        let (all, rows_of_part, rows) = (e.index(n as i64), e.index(self.rows as i64), e.index(rows as i64));
        let inside = e.less(&column, &all);
        let first_row = e.times(part, self.rows);
        let left = e.int2("subi", &rows, &first_row);
        let count = e.int2("minsi", &left, &rows_of_part);
        let x = e.row(x, &first_row, stride, elem);
        let x = e.offset(&x, &column, elem);
        let zero = e.float(0.0, self.width);
        let (nothing, types) = (zero.clone(), [float_type(self.width)]);
        let sum = |e: &mut Emitter| self.sum_own_rows(e, &x, &count, zero);
        let sum = e.either(&inside, &types, |e| e.apart(|e| e.aligned(sum)), |_| vec![nothing]);
        let place = e.times("%warp", self.columns());
        let place = e.int2("addi", &place, &own);
        e.apart(|e| e.aligned(|e| e.store_at(&sum[0], memory, &place, Elem::F32, self.width)));
    }

    /// The sum of every `WARPS`-th of `count` rows from the warp's first on, the loads of several on their way together.
    fn sum_own_rows(&self, e: &mut Emitter, x: &str, count: &str, zero: Value) -> Vec<Value> {
        let step = GPU_COLUMNS.ahead * WARPS;
        let ty = float_type(self.width);
        let add = |e: &mut Emitter, first: &str, rows: usize, sum: &str| {
            let rows = (0..rows).map(|k| {
                let row = e.plus(first, (k * WARPS) as i64);
                let row = e.row(x, &row, self.problem.stride, self.problem.elem);
                e.load(&row, self.problem.elem, self.width)
            });
            let rows: Vec<Value> = rows.collect();
            rows.iter().fold(sum.to_string(), |sum, row| e.float2("addf", &sum, row, self.width))
        };
        let whole = e.rounded_down(count, step);
        let sum = e.for_loop("%warp", &whole, step as i64, &[(zero, ty.clone())], |e, row, sum| {
            vec![add(e, row, GPU_COLUMNS.ahead, &sum[0])]
        });
        let next = e.int2("addi", &whole, "%warp");
        e.for_loop(&next, count, WARPS as i64, &[(sum[0].clone(), ty)], |e, row, sum| vec![add(e, row, 1, &sum[0])])
    }

    /// Stores the sum of a column of all warps to element `at` of the sums.
    fn join(&self, e: &mut Emitter, memory: &str, column: &str, (sums, at): (&str, &str)) {
        let own = e.offset(memory, column, Elem::F32);
        let warps: Vec<Value> = (0..WARPS)
            .map(|warp| {
                let place = e.at(&own, (warp * self.columns()) as i64, Elem::F32);
                e.load(&place, Elem::F32, 1)
            })
            .collect();
        let mut total =
            warps.into_iter().reduce(|sum, warp| e.float2("addf", &sum, &warp, 1)).expect("there are warps");
        if self.problem.accumulate && self.parts == 1 {
            let so_far = e.load_at(sums, at, Elem::F32, 1);
            total = e.float2("addf", &so_far, &total, 1);
        }
        e.store_at(&total, sums, at, Elem::F32, 1);
    }
}
