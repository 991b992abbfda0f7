//! Rows on the way from tokens to experts, and back.
use crate::emit::{Elem, Value};
use crate::{Kernel, Machine, Work};

/// Row r of `out` is row `slots[r] / k` of `x`.
///
/// Operands: `x [tokens, width]`, `slots` i32 `[tokens · k]`, `out [tokens · k, width]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gather {
    pub tokens: usize,
    pub k: usize,
    pub width: usize,
    /// Storage of `x` and `out`.
    pub elem: Elem,
}

impl Gather {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let (width, elem, rows) = (self.width, self.elem, self.tokens * self.k);
        let mut e = machine.rows(width, width, elem);
        let [x, slots, out] = [0, 1, 2].map(|i| e.arg(i));
        e.tasks(|e, row| {
            let slot = e.load_int_at(&slots, row);
            let token = e.divided(&slot, self.k);
            let token = e.nearest_below(&token, self.tokens);
            let (from, to) = (e.row(&x, &token, width, elem), e.row(&out, row, width, elem));
            e.copy_row(&from, &to, elem, width, 2 * machine.lanes());
        });
        let work = Work::new("rows", 0).moving((self.tokens + rows) * width, elem).moving(rows, Elem::I32);
        e.finish(&format!("gather_{}x{}x{width}_{}", self.tokens, self.k, elem.name()), rows, 0, work)
    }
}

/// Row t of `out` is the sum of rows `rows[t · k]`, …, `rows[t · k + k - 1]` of `x`, in that order in f32.
///
/// Operands: `x [tokens · k, width]`, `rows` i32 `[tokens · k]`, `out [tokens, width]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SumRows {
    pub tokens: usize,
    pub k: usize,
    pub width: usize,
    /// Storage of `x` and `out`.
    pub elem: Elem,
}

impl SumRows {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let (width, elem, all) = (self.width, self.elem, self.tokens * self.k);
        let mut e = machine.rows(width, width, elem);
        let [x, rows, out] = [0, 1, 2].map(|i| e.arg(i));
        e.tasks(|e, token| {
            let (to, first) = (e.row(&out, token, width, elem), e.times(token, self.k));
            let from = |j: usize| {
                let at = e.plus(&first, j as i64);
                let row = e.load_int_at(&rows, &at);
                let row = e.nearest_below(&row, all);
                e.row(&x, &row, width, elem)
            };
            let from: Vec<Value> = (0..self.k).map(from).collect();
            let count = e.index(width as i64);
            e.each(&count, 2 * machine.lanes(), |e, i, lanes| {
                let first = e.load_at(&from[0], i, elem, lanes);
                let sum = from[1..].iter().fold(first, |sum, from| {
                    let value = e.load_at(from, i, elem, lanes);
                    e.float2("addf", &sum, &value, lanes)
                });
                e.store_at(&sum, &to, i, elem, lanes);
            });
        });
        let work = Work::new("rows", all * width).moving((self.tokens + all) * width, elem).moving(all, Elem::I32);
        e.finish(&format!("sum_rows_{}x{}x{width}_{}", self.tokens, self.k, elem.name()), self.tokens, 0, work)
    }
}
