//! What templates over rows share: copies, zeros, and i64 choices.
use crate::emit::{Elem, Emitter, Value};

impl Emitter {
    /// `to[j] = from[j]` for `j < n`, both stored as `elem`; neither lies over the other.
    pub fn copy_row(&mut self, from: &str, to: &str, elem: Elem, n: usize, wide: usize) {
        let count = self.index(n as i64);
        let read = |e: &mut Emitter, j: &str, lanes| vec![e.load_at(from, j, elem, lanes)];
        self.each_ahead(&count, wide, read, |e, values, j, lanes| e.store_at(&values[0], to, j, elem, lanes));
    }

    /// Copies `n` elements of each of `rows` rows; of each side, where the first row is, and how far apart rows are. On a GPU the rows
    /// are dealt out as one.
    pub fn copy_rows(&mut self, [from, to]: [(&str, usize); 2], (rows, n): (usize, usize), elem: Elem, wide: usize) {
        if n == 0 {
            return;
        }
        if self.threads().is_none() {
            let (zero, count) = (self.index(0), self.index(rows as i64));
            return self.repeat(&zero, &count, 1, |e, row| {
                let [from, to] = [from, to].map(|(pointer, step)| e.row(pointer, row, step, elem));
                e.copy_row(&from, &to, elem, n, wide);
            });
        }
        let all = self.index((rows * n) as i64);
        let place = |e: &mut Emitter, (pointer, step): (&str, usize), i: &str| {
            let (row, column) = e.row_and_column(i, n);
            let row = e.row(pointer, &row, step, elem);
            e.offset(&row, &column, elem)
        };
        let read = |e: &mut Emitter, i: &str, lanes| {
            let place = place(e, from, i);
            vec![e.load(&place, elem, lanes)]
        };
        self.each_ahead(&all, wide, read, |e, values, i, lanes| {
            let place = place(e, to, i);
            e.store(&values[0], &place, elem, lanes);
        });
    }

    /// `i / n` and `i mod n`.
    pub fn row_and_column(&mut self, i: &str, n: usize) -> (Value, Value) {
        let n = self.index(n as i64);
        (self.int2("divui", i, &n), self.int2("remui", i, &n))
    }

    /// `to[j] = 0` for `j < n`.
    pub fn clear_row(&mut self, to: &str, elem: Elem, n: usize, wide: usize) {
        let count = self.index(n as i64);
        self.fill(to, &count, elem, wide);
    }

    /// Whether `a < b`, signed i64.
    pub fn less(&mut self, a: &str, b: &str) -> Value {
        self.op(format!("arith.cmpi slt, {a}, {b} : i64"))
    }

    /// `a` where the i1 `condition` holds, else `b`; i64.
    pub fn choose(&mut self, condition: &str, a: &str, b: &str) -> Value {
        self.op(format!("arith.select {condition}, {a}, {b} : i64"))
    }
}
