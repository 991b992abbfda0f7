//! What a consumer does: scores and their gradients in registers, and sums of them.
use super::*;
use crate::attention::scores::{derivative, times};
use crate::gpu::attention::results::Results;
use crate::gpu::attention::scores::Distances;
use crate::gpu::attention::seen::{OtherTile, Seen, WarpTokens};
use crate::gpu::attention::warpgroups::{as_fragments, begin_consumer, over_entries, over_tokens};
use crate::gpu::hopper::descriptor::distance;
use crate::gpu::hopper::wgmma;

/// A thread's own tokens.
struct Mine {
    warp: WarpTokens,
    /// Logarithms and deltas of its tokens, where they are queries.
    statistics: Option<[[Value; 2]; 2]>,
}

/// A statistic of queries.
enum OfQueries {
    /// Of a thread's two rows.
    Rows([Value; 2]),
    /// Where in shared memory that of its first column is.
    Columns(Value),
}

impl Gradient<'_> {
    pub(super) fn consume(&self, e: &mut Emitter, start: &Start, results: &[Value]) {
        let walk = &self.walk;
        begin_consumer(e, self.registers());
        let mine = self.mine(e, start);
        let zeros: Vec<_> = self.wanted.arrays().iter().flat_map(|array| walk.results(*array).zeros(e)).collect();
        let sums = self.each_tile(e, start, &zeros, |e, turn, sums| self.tile(e, start, turn, &mine, sums));
        let stored = Results::begin(walk, e, (&start.batch, &start.first), start.own_at[0], 1);
        for ((array, sums), result) in self.wanted.split(walk, &sums).into_iter().zip(results) {
            // Gradients of scores lack their scale so far.
            let factor = e.float(if array == 0 { walk.attention.scale } else { 1.0 }, 1);
            let sums: Vec<Value> = sums.iter().map(|sum| e.float2("mulf", sum, &factor, 1)).collect();
            let heads = Heads { count: self.heads().0, entries: walk.width(array) };
            stored.store(e, &sums, (result, heads, &start.head));
        }
    }

    fn mine(&self, e: &mut Emitter, start: &Start) -> Mine {
        let warp = WarpTokens { block: start.first.clone(), are_queries: self.of_queries() };
        let statistic = |e: &mut Emitter, which| {
            let (token, _) = warp.origin(e);
            let query = Query { batch: &start.batch, head: &start.head, token: &token };
            let first = self.statistics.at(e, &start.statistics, which, &query);
            [0, 8].map(|row| {
                let place = e.at(&first, row, Elem::F32);
                e.load(&place, Elem::F32, 1)
            })
        };
        let statistics =
            self.of_queries().then(|| [Statistic::Logarithm, Statistic::Delta].map(|which| statistic(e, which)));
        Mine { warp, statistics }
    }

    /// The sums with a tile of the other side, whose stages are given back.
    fn tile(&self, e: &mut Emitter, start: &Start, turn: &Turn, mine: &Mine, sums: &[Value]) -> Vec<Value> {
        let pipeline = &start.ring.pipeline;
        let numbers = [turn.number.clone(), e.plus(&turn.number, 1)];
        let slots = [0, 1].map(|array| pipeline.slot(e, &numbers[array]));
        let running = self.products(e, start, &slots);
        // Computed for every tile, so that it takes no registers between them.
        let lane = e.anew("%lane");
        let origin = Part::origin_of(e, &lane);
        let tile = OtherTile { segments: &start.segments, batch: &turn.batch, first: &turn.other, range: &start.range };
        let seen = mine.warp.seen(&self.walk, e, &tile, &origin);
        let distances = self.distances(e, turn, mine, &origin);
        let logarithms = self.of_queries_at(e, start, mine, (&slots[0], &origin.1), Statistic::Logarithm);
        wgmma::wait(e, running.len() - 1);
        let mut scores = self.walk.score_sums().waited_for(e, &running[0]);
        let of_slopes = |e: &mut Emitter, pending: usize| {
            let deltas = self.of_queries_at(e, start, mine, (&slots[1], &origin.1), Statistic::Delta);
            wgmma::wait(e, pending);
            let slopes = self.walk.score_sums().waited_for(e, &running[1]);
            if self.of_queries() {
                pipeline.release(e, &numbers[1]);
            }
            (slopes, deltas)
        };
        let mut capped = None;
        if let Some(tanhs) = scores.iter().map(|score| self.walk.tanh(e, score)).collect() {
            scores = tanhs;
            if self.wanted != Wanted::Values {
                // Before anything else, so that the derivatives of scores take no registers.
                let (slopes, deltas) = of_slopes(e, 0);
                capped = Some(self.capped_slopes(e, &scores, &slopes, &deltas));
            }
        }
        let probabilities = self.probabilities(e, &scores, (&logarithms, distances.as_ref()), &seen);
        if self.wanted == Wanted::Values {
            pipeline.wait_full(e, &slots[1]);
            let of_values = self.passed_on(e, start, (1, &slots[1]), sums, &probabilities);
            return self.ended(e, start, &numbers, &[of_values]);
        }
        let (by_slope, by_probability) = sums.split_at(self.walk.results(0).registers());
        let of_values = (!by_probability.is_empty())
            .then(|| self.passed_on(e, start, (1, &slots[1]), by_probability, &probabilities));
        let gradients = match capped {
            Some(slopes) => probabilities.iter().zip(&slopes).map(|(p, slope)| e.float2("mulf", p, slope, 1)).collect(),
            None => {
                let (slopes, deltas) = of_slopes(e, usize::from(of_values.is_some()));
                self.gradients(e, &probabilities, &slopes, &deltas)
            }
        };
        let of_keys = self.passed_on(e, start, (0, &slots[0]), by_slope, &gradients);
        let held = if self.of_queries() { &numbers[..1] } else { &numbers };
        let results: Vec<Value> = [of_keys].into_iter().chain(of_values).collect();
        self.ended(e, start, held, &results)
    }

    /// Starts the products of the block's own tokens with a tile's: those of scores, and of gradients of probabilities.
    fn products(&self, e: &mut Emitter, start: &Start, slots: &[pipeline::Slot; 2]) -> Vec<Value> {
        let mut running = vec![];
        let own = self.walk.own_head(0).mine(e, start.own_at[0]);
        for (array, (slot, at)) in slots.iter().zip(&start.own_at).enumerate() {
            let own = if self.walk.own_head(array).box_row_bytes() == self.walk.own_head(0).box_row_bytes() {
                e.plus(&own, distance(at - start.own_at[0]))
            } else {
                self.walk.own_head(array).mine(e, *at)
            };
            let other = start.ring.along(e, array, &slot.stage);
            start.ring.pipeline.wait_full(e, slot);
            running.push(over_entries(e, (self.walk.own_head(array), &own), (self.walk.other_head(array), &other)));
        }
        running
    }

    /// Waits for the last products of a tile, whose stages of these numbers are given back: all that has read them came before.
    fn ended(&self, e: &mut Emitter, start: &Start, numbers: &[Value], results: &[Value]) -> Vec<Value> {
        wgmma::wait(e, 0);
        for number in numbers.iter().rev() {
            start.ring.pipeline.release(e, number);
        }
        let arrays = self.wanted.arrays().iter().zip(results);
        arrays.flat_map(|(array, sums)| self.walk.result_sums(*array).waited_for(e, sums)).collect()
    }

    /// Starts adding the products of what is in registers with an array's tile in a stage to some sums.
    fn passed_on(
        &self,
        e: &mut Emitter,
        start: &Start,
        (array, slot): (usize, &pipeline::Slot),
        sums: &[Value],
        values: &[Value],
    ) -> Value {
        let values = as_fragments(e, values);
        let other = start.ring.down(e, array, &slot.stage);
        let sums = self.walk.result_sums(array).pinned(e, sums);
        over_tokens(e, sums, &values, (self.walk.other_head(array), &other))
    }

    /// What lowers the scores of a tile, with ALiBi, as powers of 2 have them.
    fn distances(
        &self,
        e: &mut Emitter,
        turn: &Turn,
        mine: &Mine,
        (row, column): &(Value, Value),
    ) -> Option<Distances> {
        let slope = times(e, turn.slope.as_deref()?, std::f32::consts::LOG2_E, 1);
        let first = mine.warp.first(e);
        let (own, other) = (e.int2("addi", &first, row), e.int2("addi", &turn.other, column));
        let tokens = if self.of_queries() { (own.as_str(), other.as_str()) } else { (other.as_str(), own.as_str()) };
        self.walk.distances(e, Some(&slope), tokens, self.of_queries())
    }

    /// A statistic of the queries of a tile's scores.
    fn of_queries_at(
        &self,
        e: &mut Emitter,
        start: &Start,
        mine: &Mine,
        (slot, column): (&pipeline::Slot, &str),
        which: Statistic,
    ) -> OfQueries {
        if let Some(own) = &mine.statistics {
            return OfQueries::Rows(own[which as usize].clone());
        }
        let stage = e.times(&slot.stage, self.walk.others);
        let first = e.shared_at(start.statistics_at);
        let first = e.offset(&first, &stage, Elem::F32);
        OfQueries::Columns(e.offset(&first, column, Elem::F32))
    }

    /// `one(element, statistic)` of every score.
    fn each_score(
        &self,
        e: &mut Emitter,
        statistic: &OfQueries,
        mut one: impl FnMut(&mut Emitter, &Element, &str) -> Value,
    ) -> Vec<Value> {
        let elements: Vec<Element> = self.walk.score_sums().part().elements().collect();
        let mut values = vec![];
        // Pieces of two columns, whose statistics are taken as late as can be, for their registers.
        for piece in elements.chunks(4) {
            let pair = match statistic {
                OfQueries::Rows(rows) => rows.clone(),
                OfQueries::Columns(first) => {
                    let place = e.at(first, piece[0].column as i64, Elem::F32);
                    // What the compiler does not know of has written them.
                    let both = e.aligned(|e| e.load_volatile(&place, 2));
                    [0, 1].map(|i| e.slice(&both, 2, i, 1))
                }
            };
            for element in piece {
                let place = if self.of_queries() { element.row / 8 } else { element.column % 2 };
                values.push(one(e, element, &pair[place]));
            }
        }
        values
    }

    /// `2^(score factor log2 e - lse log2 e)`, lowered by distances, zero where the score does not count. The factor is the scale, or
    /// the softcap of scores that are so far what it is multiplied by.
    fn probabilities(
        &self,
        e: &mut Emitter,
        scores: &[Value],
        (logarithms, distances): (&OfQueries, Option<&Distances>),
        seen: &Seen,
    ) -> Vec<Value> {
        let Attention { scale, softcap, .. } = *self.walk.attention;
        let factor = e.float(softcap.unwrap_or(scale) * std::f32::consts::LOG2_E, 1);
        let values = self.each_score(e, logarithms, |e, element, logarithm| {
            let x = e.fma(&scores[element.register], &factor, logarithm, 1);
            let x = distances.map_or(x.clone(), |distances| distances.lowered(e, &x, element));
            power_of_two(e, &x)
        });
        seen.masked(&self.walk, e, &values, 0.0)
    }

    /// Gradients of the scores, but for their scale.
    fn gradients(&self, e: &mut Emitter, probabilities: &[Value], slopes: &[Value], deltas: &OfQueries) -> Vec<Value> {
        self.each_score(e, deltas, |e, element, delta| {
            let slope = e.float2("subf", &slopes[element.register], delta, 1);
            e.float2("mulf", &probabilities[element.register], &slope, 1)
        })
    }

    /// What gradients of capped scores are, but for their probabilities and their scale.
    fn capped_slopes(&self, e: &mut Emitter, tanhs: &[Value], slopes: &[Value], deltas: &OfQueries) -> Vec<Value> {
        self.each_score(e, deltas, |e, element, delta| {
            let slope = e.float2("subf", &slopes[element.register], delta, 1);
            let derivative = derivative(e, &tanhs[element.register], 1);
            e.float2("mulf", &slope, &derivative, 1)
        })
    }
}
