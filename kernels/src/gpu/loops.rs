//! Loops over elements that are dealt out to the threads of a GPU ([`super::deal`]).
use super::deal::{Deal, Unrolled};
use crate::emit::{Emitter, Value, float_type};
use crate::loops::Reduction;

impl Emitter {
    /// [`Emitter::each`] on a GPU.
    pub(crate) fn each_dealt(&mut self, count: &str, mut body: impl FnMut(&mut Emitter, &str, usize)) {
        let deal = self.deal().expect("threads share the task");
        let Some(unrolled) = self.unrolled_for(count) else {
            return self.apart(|e| {
                e.vectors(|e| {
                    let first = e.turn_index(0, deal);
                    e.repeat(&first, count, deal.turn() as i64, |e, i| body(e, i, deal.width));
                });
            });
        };
        for turn in &unrolled.turns {
            self.apart(|e| {
                e.vectors(|e| match (&turn.inside, &unrolled.loaded) {
                    (Some(inside), None) => e.branch(inside, |e| body(e, &turn.index, deal.width), |_| {}),
                    _ => e.inside(turn, |e| body(e, &turn.index, deal.width)),
                });
            });
        }
    }

    /// [`Emitter::reduce`] on a GPU.
    pub(crate) fn reduce_dealt(
        &mut self,
        count: &str,
        kinds: &[Reduction],
        mut body: impl FnMut(&mut Emitter, &str, usize, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let deal = self.deal().expect("threads share the task");
        let start: Vec<Value> = kinds.iter().map(|kind| self.float(kind.initial(), deal.width)).collect();
        let own = self.apart(|e| {
            e.vectors(|e| match e.unrolled_for(count) {
                Some(unrolled) => e.reduce_unrolled(&unrolled, start, deal.width, &mut body),
                None => e.reduce_ahead(count, start, deal, &mut body),
            })
        });
        let own: Vec<Value> = own.iter().zip(kinds).map(|(v, kind)| self.horizontal(v, *kind, deal.width)).collect();
        self.across_task(&own, kinds)
    }

    fn reduce_unrolled(
        &mut self,
        unrolled: &Unrolled,
        start: Vec<Value>,
        width: usize,
        body: &mut impl FnMut(&mut Emitter, &str, usize, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let ty = float_type(width);
        unrolled.turns.iter().fold(start, |so_far, turn| {
            let next = self.inside(turn, |e| body(e, &turn.index, width, &so_far));
            let Some(inside) = &turn.inside else { return next };
            let merged = next.iter().zip(&so_far);
            merged.map(|(next, so_far)| self.op(format!("arith.select {inside}, {next}, {so_far} : {ty}"))).collect()
        })
    }

    fn reduce_ahead(
        &mut self,
        count: &str,
        start: Vec<Value>,
        deal: Deal,
        body: &mut impl FnMut(&mut Emitter, &str, usize, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let start = start.into_iter().map(|value| (value, float_type(deal.width))).collect();
        self.fold_turns(count, start, deal, |e, indices, so_far| {
            indices.iter().fold(so_far.to_vec(), |so_far, i| body(e, i, deal.width, &so_far))
        })
    }

    /// Every thread's own values, from `start` on, after `body(indices, lanes, so far)` for its elements of `0..count`, those of
    /// several turns at a time.
    pub(crate) fn fold_own(
        &mut self,
        count: &str,
        start: Vec<(Value, String)>,
        mut body: impl FnMut(&mut Emitter, &[Value], usize, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let deal = self.deal().expect("threads share the task");
        let mut body = |e: &mut Emitter, i: &[Value], so_far: &[Value]| body(e, i, deal.width, so_far);
        self.apart(|e| e.vectors(|e| e.fold_turns(count, start, deal, &mut body)))
    }

    /// Several turns at a time, then one by one those that are left.
    fn fold_turns(
        &mut self,
        count: &str,
        start: Vec<(Value, String)>,
        deal: Deal,
        mut body: impl FnMut(&mut Emitter, &[Value], &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let mut first = self.turn_index(0, deal);
        let mut carried = start;
        if deal.ahead > 1 {
            let step = deal.ahead * deal.turn();
            let whole = self.rounded_down(count, step);
            let next = self.for_loop(&first, &whole, step as i64, &carried, |e, i, so_far| {
                let indices = e.turns_from(i, deal.ahead, deal);
                body(e, &indices, so_far)
            });
            carried = next.into_iter().zip(carried).map(|(value, (_, ty))| (value, ty)).collect();
            first = self.int2("addi", &whole, &first);
        }
        let turn = deal.turn() as i64;
        self.for_loop(&first, count, turn, &carried, |e, i, so_far| body(e, &[i.to_string()], so_far))
    }

    /// Where a thread's elements of `turns` turns begin, the first at `i`.
    fn turns_from(&mut self, i: &str, turns: usize, deal: Deal) -> Vec<Value> {
        let mut indices = vec![i.to_string()];
        indices.extend((1..turns).map(|turn| self.plus(i, (turn * deal.turn()) as i64)));
        indices
    }

    /// [`Emitter::each_ahead`] on a GPU.
    pub(crate) fn each_ahead_dealt(
        &mut self,
        count: &str,
        mut read: impl FnMut(&mut Emitter, &str, usize) -> Vec<Value>,
        mut write: impl FnMut(&mut Emitter, &[Value], &str, usize),
    ) {
        let deal = self.deal().expect("threads share the task");
        let mut turns = |e: &mut Emitter, indices: &[Value]| {
            let values: Vec<_> = indices.iter().map(|i| read(e, i, deal.width)).collect();
            for (values, i) in values.iter().zip(indices) {
                write(e, values, i, deal.width);
            }
        };
        self.apart(|e| {
            e.vectors(|e| {
                let mut first = e.turn_index(0, deal);
                let known = e.block.as_ref().and_then(|block| block.constants.get(count).copied());
                let ahead = known.map_or(deal.ahead, |n| deal.ahead.min(n as usize / deal.turn()));
                if ahead > 1 {
                    let step = ahead * deal.turn();
                    let whole = e.rounded_down(count, step);
                    e.repeat(&first, &whole, step as i64, |e, i| {
                        let indices = e.turns_from(i, ahead, deal);
                        turns(e, &indices);
                    });
                    first = e.int2("addi", &whole, &first);
                }
                e.repeat(&first, count, deal.turn() as i64, |e, i| turns(e, &[i.to_string()]));
            });
        });
    }

    /// [`Emitter::each_trailing`] on a GPU: all threads take their turns together, so that the elements of turns are read before one
    /// of them is written.
    pub(crate) fn each_trailing_dealt(
        &mut self,
        count: &str,
        mut read: impl FnMut(&mut Emitter, &str, usize) -> Value,
        mut write: impl FnMut(&mut Emitter, &str, &str, usize),
    ) {
        let deal = self.deal().expect("threads share the task");
        let ty = float_type(deal.width);
        self.repeat("%zero", count, (deal.ahead * deal.turn()) as i64, |e, first| {
            let own = e.turn_index(0, deal);
            let own = e.int2("addi", first, &own);
            let mut turns = vec![];
            for i in e.turns_from(&own, deal.ahead, deal) {
                let inside = e.less(&i, count);
                let nothing = e.float(0.0, deal.width);
                let read = |e: &mut Emitter| vec![e.vectors(|e| read(e, &i, deal.width))];
                let value = e.either(&inside, std::slice::from_ref(&ty), read, |_| vec![nothing]);
                turns.push((i, inside, value[0].clone()));
            }
            e.sync();
            for (i, inside, value) in turns {
                let write = |e: &mut Emitter| e.apart(|e| e.vectors(|e| write(e, &value, &i, deal.width)));
                e.branch(&inside, write, |_| {});
            }
        });
    }
}
