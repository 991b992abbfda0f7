//! How the elements of a task are dealt out to the threads of a GPU that share it.
//!
//! A thread takes some neighbours at a time, as many as 16 bytes hold, then those that lie as far behind as all threads take
//! together: a *turn* of all threads. What memory is fast enough for are many bytes on their way at a time, so the loads of
//! several turns are asked for before the first is waited for, and what a row's task has loaded it keeps in registers
//! ([`Emitter::keeping`]).
//!
//! Invariant: every loop over as many elements gives the same elements to the same threads.
use super::block::{Block, WARP};
use crate::emit::{Elem, Emitter, Value, float_type};
use crate::tuning::{GPU_ROWS, RowTuning};
use std::collections::HashMap;

/// Bytes that one instruction loads or stores for a thread.
const VECTOR_BYTES: usize = 16;

/// Which threads share a task, and what each takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deal {
    /// A warp or, of rows that all do the same, a part of one; or all threads of the block.
    pub sharing: usize,
    /// Neighbours that a thread takes; what loops go over begins and ends at multiples of as many.
    pub width: usize,
    /// Most turns whose loads are on their way together.
    pub ahead: usize,
}

impl Deal {
    /// One element for each of so many threads.
    pub fn single(sharing: usize) -> Deal {
        Deal { sharing, width: 1, ahead: 1 }
    }

    /// Of rows of `n` elements, a task each, whose parts begin and end at multiples of `unit` elements, stored as `widest` or
    /// narrower.
    pub fn of_rows(n: usize, unit: usize, widest: Elem) -> Deal {
        let RowTuning { ahead, threads, most_threads, .. } = GPU_ROWS;
        let width = width(unit, widest);
        let sharings = [WARP, threads, most_threads];
        let fitting = sharings.into_iter().find(|sharing| n.div_ceil(width * sharing) <= ahead);
        Deal { sharing: fitting.unwrap_or(most_threads), width, ahead }
    }

    /// Of so many rows that all do the same, whatever they hold: short ones share a warp, where all blocks are full.
    pub fn of_equal_rows(rows: usize, n: usize, widest: Elem) -> Deal {
        let deal = Deal::of_rows(n, n, widest);
        let sharing = n.div_ceil(deal.width).next_power_of_two();
        let full = rows.is_multiple_of(GPU_ROWS.threads / sharing.min(WARP));
        if full && sharing < deal.sharing { Deal { sharing, ..deal } } else { deal }
    }

    /// Of parts of an array, which begin and end at multiples of `unit` elements.
    pub fn flat(unit: usize, widest: Elem) -> Deal {
        Deal { sharing: GPU_ROWS.threads, width: width(unit, widest), ahead: GPU_ROWS.ahead }
    }

    /// Elements of a turn.
    pub fn turn(&self) -> usize {
        self.sharing * self.width
    }

    /// Threads of a block.
    pub fn threads(&self) -> usize {
        self.sharing.max(GPU_ROWS.threads)
    }
}

/// Neighbours that a thread takes of what begins at multiples of `unit` elements.
fn width(unit: usize, widest: Elem) -> usize {
    let most = VECTOR_BYTES / widest.bytes() as usize;
    1 << unit.trailing_zeros().min(most.ilog2())
}

/// Elements of one thread.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    pub index: Value,
    /// Whether it has elements there, where not all threads do.
    pub inside: Option<Value>,
}

/// A loop that is unrolled wherever it comes.
#[derive(Clone, Debug)]
pub(super) struct Unrolled {
    /// Over so many elements, an i64 value.
    count: Value,
    pub turns: Vec<Turn>,
    /// What was loaded from element `index` of a pointer on, if that is kept.
    pub loaded: Option<HashMap<(Value, Value), Value>>,
}

impl Block {
    /// Elements of a turn.
    pub(crate) fn turn(&self) -> usize {
        self.deal.turn()
    }
}

impl Emitter {
    /// The loops of a chunk of `count` elements, at most `chunk`, of which there are `total` in all.
    pub(crate) fn unrolling_chunks<T>(
        &mut self,
        (total, chunk): (usize, usize),
        count: &str,
        body: impl FnOnce(&mut Emitter) -> T,
    ) -> T {
        let Some(deal) = self.deal().filter(|deal| deal.ahead > 1 && chunk <= deal.turn()) else { return body(self) };
        let index = self.turn_index(0, deal);
        let inside = (!total.is_multiple_of(deal.turn())).then(|| self.less(&index, count));
        self.unrolling(Unrolled { count: count.into(), turns: vec![Turn { index, inside }], loaded: None }, body)
    }

    /// Code on rows of `n` elements, of which the threads of a GPU keep in registers what they load, where it is not too much: a
    /// place that was loaded is not loaded again. Nothing in it reads what was stored through another pointer.
    pub fn keeping<T>(&mut self, n: usize, body: impl FnOnce(&mut Emitter) -> T) -> T {
        let Some(deal) = self.deal().filter(|deal| n.div_ceil(deal.turn()) <= deal.ahead && deal.ahead > 1) else {
            return body(self);
        };
        let count = self.index(n as i64);
        let turn = |e: &mut Emitter, turn: usize| {
            let index = e.turn_index(turn, deal);
            let inside = ((turn + 1) * deal.turn() > n).then(|| e.less(&index, &count));
            Turn { index, inside }
        };
        let turns = (0..n.div_ceil(deal.turn())).map(|k| turn(self, k)).collect();
        self.unrolling(Unrolled { count, turns, loaded: Some(HashMap::new()) }, body)
    }

    /// A zero of every turn over rows of `n` elements, with its type, where the threads of a GPU can keep these.
    pub fn kept_zeros(&mut self, n: usize) -> Option<Vec<(Value, String)>> {
        let deal = self.deal().filter(|deal| n.div_ceil(deal.turn()) <= deal.ahead && deal.ahead > 1)?;
        let zero = self.float(0.0, deal.width);
        Some(vec![(zero, float_type(deal.width)); n.div_ceil(deal.turn())])
    }

    /// `body(index, lanes, value)` for the value of every turn, in [`Emitter::keeping`]; returns the next values.
    pub fn each_kept(
        &mut self,
        values: &[Value],
        mut body: impl FnMut(&mut Emitter, &str, usize, &str) -> Value,
    ) -> Vec<Value> {
        let width = self.deal().map_or(1, |deal| deal.width);
        let turns = self.unrolled().expect("rows are kept").turns;
        let mut next = |e: &mut Emitter, turn: &Turn, value: &str| {
            e.apart(|e| e.vectors(|e| e.inside(turn, |e| body(e, &turn.index, width, value))))
        };
        turns.iter().zip(values).map(|(turn, value)| next(self, turn, value)).collect()
    }

    fn unrolling<T>(&mut self, unrolled: Unrolled, body: impl FnOnce(&mut Emitter) -> T) -> T {
        let before = self.block.as_mut().and_then(|block| block.unrolled.replace(unrolled));
        let result = body(self);
        if let Some(block) = &mut self.block {
            block.unrolled = before;
        }
        result
    }

    /// Has the threads of a GPU load their elements of a row that a later loop of [`Emitter::keeping`] reads.
    pub fn load_ahead(&mut self, pointer: &str, elem: Elem) {
        let Some(unrolled) = self.unrolled().filter(|unrolled| unrolled.loaded.is_some()) else { return };
        let width = self.deal().map_or(1, |deal| deal.width);
        for turn in unrolled.turns {
            self.vectors(|e| e.inside(&turn, |e| e.load_at(pointer, &turn.index, elem, width)));
        }
    }

    pub(super) fn deal(&self) -> Option<Deal> {
        self.block.as_ref().map(|block| block.deal)
    }

    fn unrolled(&self) -> Option<Unrolled> {
        self.block.as_ref()?.unrolled.clone()
    }

    /// The loop over `count` elements, if it is unrolled: `count` is that value, or the same constant.
    pub(super) fn unrolled_for(&self, count: &str) -> Option<Unrolled> {
        let constant = |value: &str| self.block.as_ref()?.constants.get(value);
        let same = |unrolled: &Unrolled| {
            unrolled.count == count || (constant(count).is_some() && constant(count) == constant(&unrolled.count))
        };
        self.unrolled().filter(same)
    }

    /// The thread's first element of a turn.
    pub(super) fn turn_index(&mut self, turn: usize, deal: Deal) -> Value {
        let first = if deal.width == 1 { "%thread".into() } else { self.times("%thread", deal.width) };
        if turn == 0 { first } else { self.plus(&first, (turn * deal.turn()) as i64) }
    }

    /// Code whose vectors begin at multiples of their size.
    pub(super) fn vectors<T>(&mut self, body: impl FnOnce(&mut Emitter) -> T) -> T {
        if self.deal().is_some_and(|deal| deal.width > 1) { self.aligned(body) } else { body(self) }
    }

    /// Code of a turn, in which threads without elements load zeros and store nothing.
    pub(super) fn inside<T>(&mut self, turn: &Turn, body: impl FnOnce(&mut Emitter) -> T) -> T {
        let before = self.block.as_mut().and_then(|b| std::mem::replace(&mut b.inside, turn.inside.clone()));
        let result = body(self);
        if let Some(block) = &mut self.block {
            block.inside = before;
        }
        result
    }

    /// What is kept of element `index` of a pointer.
    pub(crate) fn kept(&self, pointer: &str, index: &str) -> Option<Value> {
        let loaded = self.block.as_ref()?.unrolled.as_ref()?.loaded.as_ref()?;
        loaded.get(&(pointer.into(), index.into())).cloned()
    }

    /// Keeps what was loaded, if it is the thread's own; or forgets it, as something else was stored there.
    pub(crate) fn keep(&mut self, pointer: &str, index: &str, value: Option<&str>) {
        let Some(unrolled) = self.block.as_mut().and_then(|block| block.unrolled.as_mut()) else { return };
        let own = unrolled.turns.iter().any(|turn| turn.index == index);
        let Some(loaded) = unrolled.loaded.as_mut().filter(|_| own) else { return };
        let place = (pointer.to_string(), index.to_string());
        match value {
            Some(value) => loaded.insert(place, value.into()),
            None => loaded.remove(&place),
        };
    }
}
