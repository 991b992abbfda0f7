//! What templates over rows share: copies, zeros, and i64 choices.
use crate::emit::{Elem, Emitter, Value};

impl Emitter {
    /// `to[j] = from[j]` for `j < n`, both stored as `elem`.
    pub fn copy_row(&mut self, from: &str, to: &str, elem: Elem, n: usize, wide: usize) {
        let count = self.index(n as i64);
        self.each(&count, wide, |e, j, lanes| {
            let value = e.load_at(from, j, elem, lanes);
            e.store_at(&value, to, j, elem, lanes);
        });
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
