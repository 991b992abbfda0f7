//! Mixtures of experts beside their products: the choice of experts ([`Route`]), the slots sorted by expert
//! ([`GroupRows`]), and rows on the way to experts and back ([`Gather`], [`SumRows`]). `ir/src/ops/experts.rs` has the
//! words.
//!
//! Numbers of experts, slots and rows are read from memory: whatever they are, nothing outside of the operands is
//! touched.
mod group;
mod route;
mod rows;

use crate::emit::{Emitter, Value};
pub use group::GroupRows;
pub use route::{Route, RouteGrad};
pub use rows::{Gather, SumRows};

impl Emitter {
    /// `value`, an i64, or the nearest of `0..count`.
    fn nearest_below(&mut self, value: &str, count: usize) -> Value {
        let (zero, last) = (self.index(0), self.index(count as i64 - 1));
        let value = self.int2("maxsi", value, &zero);
        self.int2("minsi", &value, &last)
    }

    /// `body` for every `0..count`, one after the other; on a GPU each for a thread.
    fn one_by_one(&mut self, count: usize, body: impl FnOnce(&mut Emitter, &str)) {
        let count = self.index(count as i64);
        match self.threads() {
            Some(threads) => self.apart(|e| e.repeat("%thread", &count, threads as i64, body)),
            None => {
                let zero = self.index(0);
                self.repeat(&zero, &count, 1, body);
            }
        }
    }
}
