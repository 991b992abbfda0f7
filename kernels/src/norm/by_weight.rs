//! The gradient of a norm by its weight: a sum over all rows, in parts whose sums are added in their order.
use super::{Kind, inverse_root_mean, load_centred, mean, sum_of_squares};
use crate::emit::{Elem, Emitter, Value};
use crate::reduce::ColumnSum;
use crate::steps::Steps;
use crate::{Kernel, Machine, Work};

/// Gradient by the weight, in two kernels. [`NormGradWeight::build`]: operands `x [rows, n]`, `dy [rows, n]`,
/// `partials` f32 `[parts, n]`. [`NormGradWeight::finish`]: operands `partials`, `dw` f32 `[n]`.
#[derive(Clone, PartialEq, Debug)]
pub struct NormGradWeight {
    pub rows: usize,
    pub n: usize,
    pub kind: Kind,
    pub eps: f32,
    /// Whether `dw` is added to rather than overwritten.
    pub accumulate: bool,
    /// Storage of `x` and `dy`.
    pub elem: Elem,
}

impl NormGradWeight {
    /// Number of partial sums.
    pub fn parts(&self, machine: &dyn Machine) -> usize {
        self.rows.div_ceil(machine.rows_of_part(self.rows, self.n))
    }

    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let (n, elem, wide) = (self.n, self.elem, 4 * machine.lanes());
        let mut e = machine.rows(n, n, elem);
        let [x, dy, partials] = [0, 1, 2].map(|i| e.arg(i));
        let part_rows = machine.rows_of_part(self.rows, self.n);
        e.tasks(|e, part| {
            let sums = e.row(&partials, part, n, Elem::F32);
            if let Some(zeros) = e.kept_zeros(n) {
                return self.sum_in_registers(e, [&x, &dy, &sums], (part, part_rows), zeros);
            }
            let count = e.index(n as i64);
            e.each(&count, wide, |e, i, lanes| {
                let zero = e.float(0.0, lanes);
                e.store_at(&zero, &sums, i, Elem::F32, lanes);
            });
            let (first, size, total) = (e.times(part, part_rows), e.index(part_rows as i64), e.index(self.rows as i64));
            let last = e.int2("addi", &first, &size);
            let last = e.int2("minsi", &last, &total);
            e.repeat(&first, &last, 1, |e, row| {
                let [x, dy] = [&x, &dy].map(|p| e.row(p, row, n, elem));
                let mean = (self.kind == Kind::Layer).then(|| mean(e, &x, n, elem, wide));
                let square = sum_of_squares(e, &x, mean.as_ref(), n, elem, wide);
                let r = inverse_root_mean(e, &square[0], n, self.eps);
                e.each(&count, wide, |e, i, lanes| {
                    let x = load_centred(e, &x, mean.as_ref(), i, elem, lanes);
                    let dy = e.load_at(&dy, i, elem, lanes);
                    let r = e.splat(&r, lanes);
                    let normed = e.float2("mulf", &x, &r, lanes);
                    let so_far = e.load_at(&sums, i, Elem::F32, lanes);
                    let sum = e.fma(&normed, &dy, &so_far, lanes);
                    e.store_at(&sum, &sums, i, Elem::F32, lanes);
                });
            });
        });
        let operations = if self.kind == Kind::Rms { 5 } else { 8 };
        let work = Work::new("norm", operations * self.rows * n)
            .moving(2 * self.rows * n, elem)
            .moving(self.parts(machine) * n, Elem::F32);
        let name = format!("{}_grad_weight_{}x{n}_{}", self.kind.name(), self.rows, elem.name());
        e.finish(&name, self.parts(machine), 0, work)
    }

    /// The rows of a part, whose sums the threads of a GPU keep in registers.
    fn sum_in_registers(
        &self,
        e: &mut Emitter,
        [x, dy, sums]: [&Value; 3],
        (part, part_rows): (&str, usize),
        zeros: Vec<(Value, String)>,
    ) {
        let (n, elem) = (self.n, self.elem);
        let (first, all) = (e.times(part, part_rows), e.index(self.rows as i64));
        let last = e.plus(&first, part_rows as i64);
        let last = e.int2("minsi", &last, &all);
        let totals = e.for_loop(&first, &last, 1, &zeros, |e, row, so_far| {
            let [x, dy] = [x, dy].map(|p| e.row(p, row, n, elem));
            e.keeping(n, |e| {
                e.load_ahead(&x, elem);
                e.load_ahead(&dy, elem);
                let mean = (self.kind == Kind::Layer).then(|| mean(e, &x, n, elem, 1));
                let square = sum_of_squares(e, &x, mean.as_ref(), n, elem, 1);
                let r = inverse_root_mean(e, &square[0], n, self.eps);
                e.each_kept(so_far, |e, i, lanes, so_far| {
                    let x = load_centred(e, &x, mean.as_ref(), i, elem, lanes);
                    let (dy, r) = (e.load_at(&dy, i, elem, lanes), e.splat(&r, lanes));
                    let normed = e.float2("mulf", &x, &r, lanes);
                    e.fma(&normed, &dy, so_far, lanes)
                })
            })
        });
        e.keeping(n, |e| {
            e.each_kept(&totals, |e, i, lanes, total| {
                e.store_at(total, sums, i, Elem::F32, lanes);
                total.into()
            })
        });
    }

    /// The sum of the partial sums.
    pub fn finish(&self, machine: &dyn Machine) -> Steps {
        let (rows, n) = (self.parts(machine), self.n);
        machine.column_sum(&ColumnSum { rows, n, stride: n, elem: Elem::F32, accumulate: self.accumulate })
    }
}
