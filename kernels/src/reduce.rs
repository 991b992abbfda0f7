//! Sums in f32 whose order is fixed: over the rows of a matrix, over a vector, of squares; and sums into an accumulator.
use crate::emit::{Elem, float_type};
use crate::loops::Reduction;
use crate::region::{Place, Region};
use crate::{Kernel, Machine, Target, Work};

/// Elements of a task over flat arrays; of a CPU's where nothing is left of them but one sum.
const FLAT_CHUNK: usize = 16_384;

/// `sum[j] = Σ_i x[i, j]`, rows in order, or in an order that follows from the sizes alone. Operands: `x [rows, n]`, its rows `stride` elements apart, `sum` f32 `[n]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ColumnSum {
    pub rows: usize,
    pub n: usize,
    pub stride: usize,
    /// Storage of `x`.
    pub elem: Elem,
    /// Whether the sums are added to `sum` rather than stored.
    pub accumulate: bool,
}

impl ColumnSum {
    /// The kernel of a CPU; [`Machine::column_sum`] is that of any machine.
    pub fn build(&self, machine: &Target) -> Kernel {
        let (n, elem, wide) = (self.n, self.elem, 4 * machine.lanes());
        let mut e = machine.emitter();
        let (x, sum) = (e.arg(0), e.arg(1));
        e.chunks(n, wide, |e, first, count| {
            let (x, sum) = (e.offset(&x, first, elem), e.offset(&sum, first, Elem::F32));
            e.each(count, wide, |e, column, lanes| {
                let x = e.offset(&x, column, elem);
                let start =
                    if self.accumulate { e.load_at(&sum, column, Elem::F32, lanes) } else { e.float(0.0, lanes) };
                let (zero, rows) = (e.index(0), e.index(self.rows as i64));
                let total = e.for_loop(&zero, &rows, 1, &[(start, float_type(lanes))], |e, row, so_far| {
                    let x = e.row(&x, row, self.stride, elem);
                    let x = e.load(&x, elem, lanes);
                    vec![e.float2("addf", &so_far[0], &x, lanes)]
                });
                e.store_at(&total[0], &sum, column, Elem::F32, lanes);
            });
        });
        let work = Work::new("column_sum", self.rows * n).moving(self.rows * n, elem).moving(n, Elem::F32);
        e.finish(&format!("column_sum_{}x{n}_{}", self.rows, elem.name()), n.div_ceil(wide), 0, work)
    }
}

/// `sum[i] = Σ_j x[i, j]`, x being what a region computes at every element.
///
/// Operands: the region's inputs in order, `sum` f32 `[rows]`. The region's only output is what is summed, and stored nowhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowSum {
    pub rows: usize,
    pub n: usize,
    pub region: Region,
}

impl RowSum {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let Region { inputs, outputs, .. } = &self.region;
        assert!(outputs.len() == 1, "one value of a region is summed, not {}", outputs.len());
        let mut e = machine.rows(self.n, self.n, self.region.widest());
        let operands = self.region.operands(&mut e, 0, 0);
        e.tasks(|e, row| {
            let (start, count) = (e.times(row, self.n), e.index(self.n as i64));
            let total = e.reduce(&count, 2 * machine.lanes(), &[Reduction::Sum], |e, column, lanes, so_far| {
                let full = e.int2("addi", &start, column);
                let place = Place { full: &full, row, column };
                let inputs = self.region.load(e, 0, &operands, &place, lanes);
                let values = self.region.emit(e, &inputs, lanes);
                vec![e.float2("addf", &so_far[0], &values[0], lanes)]
            });
            e.store_at(&total[0], &operands[inputs.len()], row, Elem::F32, 1);
        });
        let read = Region { outputs: vec![], ..self.region.clone() };
        let work = Work::new("rows", self.rows * self.n).moving(self.rows, Elem::F32);
        e.finish(&format!("row_sum_{}x{}", self.rows, self.n), self.rows, 0, read.work(work, 0, self.rows, self.n))
    }
}

/// `sum += x`. Operands: `x [n]`, `sum` f32 `[n]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accumulate {
    pub n: usize,
    /// Storage of `x`.
    pub elem: Elem,
}

impl Accumulate {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let mut e = machine.flat(self.n, Elem::F32);
        let chunk = e.chunk(FLAT_CHUNK);
        let (x, sum) = (e.arg(0), e.arg(1));
        e.chunks(self.n, chunk, |e, first, count| {
            let (x, sum) = (e.offset(&x, first, self.elem), e.offset(&sum, first, Elem::F32));
            e.each(count, 4 * machine.lanes(), |e, i, lanes| {
                let (x, so_far) = (e.load_at(&x, i, self.elem, lanes), e.load_at(&sum, i, Elem::F32, lanes));
                let total = e.float2("addf", &so_far, &x, lanes);
                e.store_at(&total, &sum, i, Elem::F32, lanes);
            });
        });
        let work = Work::new("pointwise", self.n).moving(self.n, self.elem).moving(2 * self.n, Elem::F32);
        e.finish(&format!("accumulate_{}_{}", self.n, self.elem.name()), self.n.div_ceil(chunk), 0, work)
    }
}

/// The sum of all elements, by one task. Operands: `x` f32 `[n]`, `sum` f32 `[1]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sum {
    pub n: usize,
}

impl Sum {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let mut e = machine.flat(self.n, Elem::F32);
        let (x, sum) = (e.arg(0), e.arg(1));
        e.tasks(|e, _| {
            let count = e.index(self.n as i64);
            let total = e.reduce(&count, 4 * machine.lanes(), &[Reduction::Sum], |e, i, lanes, so_far| {
                let x = e.load_at(&x, i, Elem::F32, lanes);
                vec![e.float2("addf", &so_far[0], &x, lanes)]
            });
            e.store(&total[0], &sum, Elem::F32, 1);
        });
        e.finish(&format!("sum_{}", self.n), 1, 0, Work::new("sum", self.n).moving(self.n, Elem::F32))
    }
}

/// Sums of squares of consecutive parts. Operands: `x` f32 `[n]`, `partials` f32 `[parts]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SumSquares {
    pub n: usize,
}

impl SumSquares {
    /// Number of partial sums.
    pub fn parts(&self) -> usize {
        self.n.div_ceil(FLAT_CHUNK)
    }

    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let mut e = machine.flat(self.n, Elem::F32);
        let (x, partials) = (e.arg(0), e.arg(1));
        e.chunks(self.n, FLAT_CHUNK, |e, first, count| {
            let x = e.offset(&x, first, Elem::F32);
            let total = e.reduce(count, 4 * machine.lanes(), &[Reduction::Sum], |e, i, lanes, so_far| {
                let x = e.load_at(&x, i, Elem::F32, lanes);
                vec![e.fma(&x, &x, &so_far[0], lanes)]
            });
            let chunk = e.index(FLAT_CHUNK as i64);
            let part = e.int2("divui", first, &chunk);
            e.store_at(&total[0], &partials, &part, Elem::F32, 1);
        });
        let work = Work::new("sum", 2 * self.n).moving(self.n, Elem::F32);
        e.finish(&format!("sum_squares_{}", self.n), self.parts(), 0, work)
    }
}
