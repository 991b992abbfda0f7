//! Mixtures of experts beside their products: the choice of experts ([`Route`]), the slots sorted by expert
//! ([`GroupRows`]), and rows on the way to experts and back ([`Gather`], [`SumRows`]). `ir/src/ops/experts.rs` has the
//! words.
//!
//! Numbers of experts, slots and rows are read from memory: whatever they are, nothing outside of the operands is
//! touched.
mod group;
mod route;
mod rows;

use crate::emit::{Emitter, Value, int_type};
pub use group::GroupRows;
pub use route::{Route, RouteGrad};
pub use rows::{Gather, SumRows};

/// Numbers that a thread of a GPU asks for before it uses the first.
const LOADS_AHEAD: usize = 8;

impl Emitter {
    /// `value`, an i64, or the nearest of `0..count`.
    fn nearest_below(&mut self, value: &str, count: usize) -> Value {
        let (zero, last) = (self.index(0), self.index(count as i64 - 1));
        let value = self.int2("maxsi", value, &zero);
        self.int2("minsi", &value, &last)
    }

    /// A running i64 over `0..count`, from 0: `step(i, loaded, so far)` is the next one. What `load(i)` reads, no earlier step writes, so
    /// that a GPU's thread asks for several of them at a time.
    fn running(
        &mut self,
        count: usize,
        mut load: impl FnMut(&mut Emitter, &str) -> Value,
        mut step: impl FnMut(&mut Emitter, &str, &str, &str) -> Value,
    ) -> Value {
        let ahead = if self.threads().is_some() { LOADS_AHEAD.min(count) } else { 1 };
        let whole = count / ahead * ahead;
        let mut turns = |e: &mut Emitter, first: &str, turns: usize, so_far: &Value| {
            let at = |e: &mut Emitter, k: usize| if k == 0 { first.to_string() } else { e.plus(first, k as i64) };
            let places: Vec<Value> = (0..turns).map(|k| at(e, k)).collect();
            let loaded: Vec<Value> = places.iter().map(|i| load(e, i)).collect();
            places.iter().zip(&loaded).fold(so_far.clone(), |so_far, (i, value)| step(e, i, value, &so_far))
        };
        let (zero, end) = (self.index(0), self.index(whole as i64));
        let last = self.for_loop(&zero, &end, ahead as i64, &[(zero.clone(), int_type(1, 64))], |e, i, so_far| {
            vec![turns(e, i, ahead, &so_far[0])]
        });
        if whole == count { last[0].clone() } else { turns(self, &end, count - whole, &last[0]) }
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
