//! The forward pass on a Hopper GPU: by warpgroups, as FlashAttention-3 divides the work (Shah et al.).
//!
//! One thread copies a block's queries, then tiles of keys and of values in turn to the stages of a ring
//! (`gpu::hopper::pipeline`). Two warpgroups have 64 queries each. Scores and results stay in registers; probabilities, rounded to
//! bf16, go from there into the second product. The tensor cores have something to do while a warpgroup computes its softmax: its own
//! products of the tile before with the values, and the other warpgroup's, which takes turns with it where heads are small enough.
//!
//! A tile's rows may belong to the next row of the batch, or lie behind the last: their probabilities are zero. So a value that
//! is not finite makes NaN of the row before its own, too, as it does of the loss of all.
use super::forward::{Softmax, store_logarithms};
use super::results::Results;
use super::seen::{OtherTile, Seen, WarpTokens};
use super::sight::Range;
use super::warpgroups::{Registers, Ring, Turns, WARPS, as_fragments, begin_consumer, over_entries, over_tokens};
use super::*;
use crate::emit::{float_type, int_type};
use crate::gpu::hopper::producer::by_producer;
use crate::gpu::hopper::wgmma::{self, Fragment};
use crate::gpu::hopper::{SWIZZLE_PERIOD, THREADS};
use crate::tuning::WarpgroupAttention;

/// The largest heads whose consumers take turns. The products of larger ones take so long that the other's softmax is over before.
const MOST_ENTRIES_IN_TURNS: usize = 128;

/// Stages at the least: while a consumer waits for its turn, it still holds the values of the tile before, and the other wants the next
/// tile of keys and its values.
const LEAST_STAGES: usize = 4;

/// The kernel; operands as [`Attention::forward`] has them.
pub fn build(attention: &Attention, cut: WarpgroupAttention) -> Kernel {
    assert!(cut.stages >= LEAST_STAGES, "consumers would wait for each other: {cut:?}");
    let walk = Walk { attention, warps: WARPS, others: cut.keys, arrays: 1 };
    Forward { walk, stages: cut.stages }.build()
}

struct Forward<'a> {
    walk: Walk<'a>,
    stages: usize,
}

/// What a block begins with.
struct Start {
    ring: Ring,
    /// Maps of queries, keys and values.
    maps: [Value; 3],
    segments: Value,
    o: Value,
    lse: Value,
    /// Where queries begin in shared memory.
    queries_at: usize,
    batch: Value,
    head: Value,
    kv_head: Value,
    /// The first query.
    first: Value,
    /// The keys that are walked over: a tile at least.
    keys: Range,
}

/// What a consumer has of its queries.
struct Mine {
    warp: WarpTokens,
    /// What is added to its scores for a distance of one token, with ALiBi.
    slope: Option<Value>,
}

/// What passes from one tile to the next.
struct SoFar {
    /// In the ring, of the tile of keys.
    number: Value,
    /// Products with the values of the tile before, which run and are added to the results of those before that.
    running: Value,
    /// What all these results are to be multiplied by, of a thread's two rows.
    factors: Vec<Value>,
    /// The tile's exponentials, which wait for its values.
    exponentials: Vec<Value>,
    softmax: Softmax,
}

impl Forward<'_> {
    fn build(&self) -> Kernel {
        let attention = self.walk.attention;
        let Attention { batch, seq, heads, kv_heads, .. } = *attention;
        let blocks = seq.div_ceil(self.walk.own());
        let mut e = Emitter::of_block(Block::aligned(THREADS, SWIZZLE_PERIOD).with_register_pool());
        let maps = [
            (0, heads, self.walk.own_head(0)),
            (1, kv_heads, self.walk.other_head(0)),
            (2, kv_heads, self.walk.other_head(1)),
        ];
        let maps = maps.map(|(operand, heads, tile)| e.tensor_map(tile.map(attention, operand, heads)));
        let [segments, o, lse] = [3, 4, 5].map(|i| e.arg(i));
        let queries_at = e.shared(self.walk.own_head(0).bytes());
        assert!(self.walk.own_head(0).may_begin_at(queries_at), "boxes begin patterns of the swizzle");
        let ring = Ring::new(&mut e, [0, 1].map(|array| self.walk.other_head(array)), self.stages);
        let [b, head, block] = self.walk.block_of_task(&mut e, true);
        let kv_head = e.divided(&head, heads / kv_heads);
        let first = e.times(&block, self.walk.own());
        let keys = self.walk.range(&mut e, &segments, &Place { batch: &b, first: &first }, true);
        // Of a block that sees nothing, the first tile, which none of its queries sees.
        let least = e.plus(&keys.from, 1);
        let keys = Range { to: e.int2("maxsi", &keys.to, &least), ..keys };
        ring.pipeline.init(&mut e);
        let start = Start { ring, maps, segments, o, lse, queries_at, batch: b, head, kv_head, first, keys };
        let warps = e.index(self.walk.warps as i64);
        let consumes = e.less("%warp", &warps);
        e.branch(&consumes, |e| self.consume(e, &start), |e| self.produce(e, &start));
        let work = attention.work("attention", [1, 1], 2);
        e.finish(&attention.name("attention_wg"), batch * heads * blocks, 0, work)
    }

    fn produce(&self, e: &mut Emitter, start: &Start) {
        let Range { from, to, .. } = &start.keys;
        let walk = |e: &mut Emitter| {
            let row = e.times(&start.batch, self.walk.attention.seq);
            let first = [("%zero".into(), int_type(1, 64))];
            e.for_loop(from, to, self.walk.others as i64, &first, |e, key, number| {
                let number = &number[0];
                let begins = e.op(format!("arith.cmpi eq, {number}, %zero : i64"));
                let key_row = e.int2("addi", &row, key);
                let [keys, values] = [0, 1].map(|array| e.index(self.walk.other_head(array).bytes() as i64));
                // The queries come with the first keys.
                let both = e.plus(&keys, self.walk.own_head(0).bytes() as i64);
                let bytes = e.choose(&begins, &both, &keys);
                let place = (start.kv_head.as_str(), key_row.as_str());
                let (_, barrier) = start.ring.copy(e, (0, number), &start.maps[1], place, &bytes);
                let queries = |e: &mut Emitter| {
                    let row = e.int2("addi", &row, &start.first);
                    let at = (start.queries_at, "%zero");
                    self.walk.own_head(0).copy(e, (&start.maps[0], &barrier), at, (&start.head, &row));
                };
                e.branch(&begins, queries, |_| {});
                let next = e.plus(number, 1);
                start.ring.copy(e, (1, &next), &start.maps[2], place, &values);
                vec![e.plus(number, 2)]
            });
        };
        by_producer(e, Registers::FOR_SUMS.producer, walk);
    }

    fn consume(&self, e: &mut Emitter, start: &Start) {
        let walk = &self.walk;
        begin_consumer(e, Registers::FOR_SUMS);
        let (warp, slope) =
            (WarpTokens { block: start.first.clone(), are_queries: true }, walk.unscaled_slope(e, &start.head));
        let mine = Mine { warp, slope };
        let turns = self.takes_turns().then(|| Turns::begin(e));
        let first = self.first_tile(e, start, &mine);
        let second = e.plus(&start.keys.from, walk.others as i64);
        let last = e.for_loop(&second, &start.keys.to, walk.others as i64, &first.carried(walk), |e, key, so_far| {
            let next = self.next_tile(e, start, &mine, key, turns.as_ref(), SoFar::of(so_far));
            next.carried(walk).into_iter().map(|(value, _)| value).collect()
        });
        if let Some(turns) = turns {
            turns.end(e);
        }
        let last = SoFar::of(&last);
        let values = e.plus(&last.number, 1);
        let (results, probabilities) = self.settled(e, start, &last);
        let running = self.start_results(e, start, &values, (results, &probabilities));
        wgmma::wait(e, 0);
        let results = walk.result_sums(1).waited_for(e, &running);
        start.ring.pipeline.release(e, &values);
        let (factors, logarithms) = last.softmax.finish(walk, e);
        let finished = self.scaled(e, &results, &factors);
        let heads = walk.attention.result_heads();
        let (query, column) = mine.warp.origin(e);
        let stored = Results::begin(walk, e, (&start.batch, &start.first), start.queries_at, Turns::BARRIERS);
        stored.store(e, &finished, (&start.o, heads, &start.head));
        store_logarithms(walk, e, &logarithms, &start.lse, (&start.batch, &start.head), (&query, &column));
    }

    fn takes_turns(&self) -> bool {
        most_entries(self.walk.attention) <= MOST_ENTRIES_IN_TURNS
    }

    fn first_tile(&self, e: &mut Emitter, start: &Start, mine: &Mine) -> SoFar {
        let number: Value = "%zero".into();
        let queries = self.walk.own_head(0).mine(e, start.queries_at);
        let scores = self.start_scores(e, start, &queries, &number);
        let seen = self.seen(e, start, mine, &start.keys.from);
        wgmma::wait(e, 0);
        let values = self.values(e, start, mine, (&start.keys.from, &number), (&scores, &seen));
        let nothing = Softmax::of_nothing(e);
        let (softmax, factors, exponentials) = nothing.with(&self.walk, e, &values);
        SoFar { number, running: self.walk.result_sums(1).zeros(e), factors, exponentials, softmax }
    }

    /// The tile of keys from `key` on. Its products with the queries run, and behind them those of the tile before with its values,
    /// during which this tile's softmax is computed.
    fn next_tile(
        &self,
        e: &mut Emitter,
        start: &Start,
        mine: &Mine,
        key: &str,
        turns: Option<&Turns>,
        so_far: SoFar,
    ) -> SoFar {
        let (before, number) = (e.plus(&so_far.number, 1), e.plus(&so_far.number, 2));
        let queries = self.walk.own_head(0).mine(e, start.queries_at);
        let (results, probabilities) = self.settled(e, start, &so_far);
        if let Some(turns) = turns {
            turns.wait(e);
        }
        let scores = self.start_scores(e, start, &queries, &number);
        let running = self.start_results(e, start, &before, (results, &probabilities));
        if let Some(turns) = turns {
            turns.pass(e);
        }
        let seen = self.seen(e, start, mine, key);
        wgmma::wait(e, 1);
        let values = self.values(e, start, mine, (key, &number), (&scores, &seen));
        let (softmax, factors, exponentials) = so_far.softmax.with(&self.walk, e, &values);
        SoFar { number, running, factors, exponentials, softmax }
    }

    /// The results, when all products are done, and the last tile's probabilities, both made before the next products are started.
    ///
    /// This begins a turn instead of ending it, since the assembler moves a wait up to where its block of instructions begins:
    /// before the softmax that is to be computed meanwhile.
    fn settled(&self, e: &mut Emitter, start: &Start, so_far: &SoFar) -> (Value, Vec<Fragment>) {
        wgmma::wait(e, 0);
        let sums = self.walk.result_sums(1);
        let results = sums.waited_for(e, &so_far.running);
        let later = e.op(format!("arith.cmpi ne, {}, %zero : i64", so_far.number));
        let release = |e: &mut Emitter| {
            let values = e.plus(&so_far.number, -1);
            start.ring.pipeline.release(e, &values);
        };
        e.branch(&later, release, |_| {});
        let results = self.rescaled(e, &results, &so_far.factors);
        let results = sums.pinned(e, &results);
        (results, as_fragments(e, &so_far.exponentials))
    }

    /// Starts the products of the queries of that descriptor with the tile of keys of that number.
    fn start_scores(&self, e: &mut Emitter, start: &Start, queries: &str, number: &str) -> Value {
        let pipeline = &start.ring.pipeline;
        let slot = pipeline.slot(e, number);
        let keys = start.ring.along(e, 0, &slot.stage);
        pipeline.wait_full(e, &slot);
        over_entries(e, (self.walk.own_head(0), queries), (self.walk.other_head(0), &keys))
    }

    fn seen(&self, e: &mut Emitter, start: &Start, mine: &Mine, key: &str) -> Seen {
        let (batch, lane) = (e.anew(&start.batch), e.anew("%lane"));
        let origin = Part::origin_of(e, &lane);
        let tile = OtherTile { segments: &start.segments, batch: &batch, first: key, range: &start.keys };
        mine.warp.seen(&self.walk, e, &tile, &origin)
    }

    /// The scores of products that are done with the tile of keys of that number, from `key` on, whose stage is given back:
    /// as [`Walk::unscaled`] has them, and -infinity where they do not count.
    fn values(
        &self,
        e: &mut Emitter,
        start: &Start,
        mine: &Mine,
        (key, number): (&str, &str),
        (products, seen): (&str, &Seen),
    ) -> Vec<Value> {
        let walk = &self.walk;
        let products = walk.score_sums().waited_for(e, products);
        start.ring.pipeline.release(e, number);
        let distances = mine.slope.as_deref().and_then(|slope| {
            let (query, column) = mine.warp.origin(e);
            let first_key = e.int2("addi", key, &column);
            walk.distances(e, Some(slope), (&query, &first_key), true)
        });
        let one = |element: Element| walk.unscaled(e, &products[element.register], &element, distances.as_ref());
        let values: Vec<Value> = walk.scores().elements().map(one).collect();
        seen.masked(walk, e, &values, f32::NEG_INFINITY)
    }

    /// Starts adding the probabilities' products with the tile of values of that number to the results.
    fn start_results(
        &self,
        e: &mut Emitter,
        start: &Start,
        number: &str,
        (results, probabilities): (Value, &[Fragment]),
    ) -> Value {
        let pipeline = &start.ring.pipeline;
        let slot = pipeline.slot(e, number);
        let values = start.ring.down(e, 1, &slot.stage);
        pipeline.wait_full(e, &slot);
        over_tokens(e, results, probabilities, (self.walk.other_head(1), &values))
    }

    /// Results times their rows' factors, if there is any but 1 in the warp: that becomes rare as rows have seen more keys.
    fn rescaled(&self, e: &mut Emitter, results: &[Value], factors: &[Value]) -> Vec<Value> {
        let one = e.float(1.0, 1);
        let [first, second] = [0, 1].map(|row| e.compare("une", &factors[row], &one, 1));
        let any = e.op(format!("arith.ori {first}, {second} : i1"));
        let any = e.any_in_warp(&any);
        let types = vec![float_type(1); results.len()];
        e.either(&any, &types, |e| self.scaled(e, results, factors), |_| results.to_vec())
    }

    /// Results times their rows' factors.
    fn scaled(&self, e: &mut Emitter, results: &[Value], factors: &[Value]) -> Vec<Value> {
        let scale = |element: Element| e.float2("mulf", &results[element.register], by_row(factors, &element), 1);
        self.walk.result_sums(1).part().elements().map(scale).collect()
    }
}

impl SoFar {
    /// All of its values, for a loop to carry.
    fn carried(&self, walk: &Walk) -> Vec<(Value, String)> {
        let floats = [&self.factors, &self.softmax.top, &self.softmax.sum, &self.exponentials].into_iter().flatten();
        let floats = floats.map(|value| (value.clone(), float_type(1)));
        let running = (self.running.clone(), walk.result_sums(1).ty());
        [(self.number.clone(), int_type(1, 64)), running].into_iter().chain(floats).collect()
    }

    fn of(values: &[Value]) -> SoFar {
        let [factors, top, sum] = [2, 4, 6].map(|first| values[first..first + 2].to_vec());
        let (number, running) = (values[0].clone(), values[1].clone());
        SoFar { number, running, factors, exponentials: values[8..].into(), softmax: Softmax { top, sum } }
    }
}
