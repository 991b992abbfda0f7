//! The forward pass on a Hopper GPU: by warpgroups, as FlashAttention-3 divides the work (Shah et al.).
//!
//! One thread copies a block's queries, then tiles of keys and of values in turn to the stages of a ring
//! (`gpu::hopper::pipeline`). Two warpgroups have 64 queries each: while one computes its softmax, the other's products
//! run. Scores and results stay in registers; probabilities, rounded to bf16, go from there into the second product.
//!
//! A tile's rows may belong to the next row of the batch, or lie behind the last: their probabilities are zero. So a value that
//! is not finite makes NaN of the row before its own, too, as it does of the loss of all.
use super::forward::{Softmax, masked, store_logarithms};
use super::sight::WarpTokens;
use super::warpgroups::{Registers, Ring, WARPS, as_fragments, begin_consumer, over_entries, over_tokens};
use super::*;
use crate::emit::float_type;
use crate::gpu::hopper::producer::by_producer;
use crate::gpu::hopper::wgmma;
use crate::gpu::hopper::{SWIZZLE_PERIOD, THREADS};
use crate::tuning::WarpgroupAttention;

/// The kernel; operands as [`Attention::forward`] has them.
pub fn build(attention: &Attention, cut: WarpgroupAttention) -> Kernel {
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
    /// The keys that are walked over.
    keys: (Value, Value),
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
        let keys = self.walk.key_range(&mut e, &segments, &Place { batch: &b, first: &first });
        ring.pipeline.init(&mut e);
        let start = Start { ring, maps, segments, o, lse, queries_at, batch: b, head, kv_head, first, keys };
        let warps = e.index(self.walk.warps as i64);
        let consumes = e.less("%warp", &warps);
        e.branch(&consumes, |e| self.consume(e, &start), |e| self.produce(e, &start));
        let work = attention.work("attention", [1, 1], 2);
        e.finish(&attention.name("attention_wg"), batch * heads * blocks, 0, work)
    }

    /// Number in the ring of the tile of keys from `key` on; that of their values is the next.
    fn number(&self, e: &mut Emitter, start: &Start, key: &str) -> Value {
        let walked = e.int2("subi", key, &start.keys.0);
        let tiles = e.divided(&walked, self.walk.others);
        e.times(&tiles, 2)
    }

    fn produce(&self, e: &mut Emitter, start: &Start) {
        let (from, to) = &start.keys;
        let walk = |e: &mut Emitter| {
            let row = e.times(&start.batch, self.walk.attention.seq);
            e.repeat(from, to, self.walk.others as i64, |e, key| {
                let begins = e.op(format!("arith.cmpi eq, {key}, {from} : i64"));
                let number = self.number(e, start, key);
                let key_row = e.int2("addi", &row, key);
                let [keys, values] = [0, 1].map(|array| e.index(self.walk.other_head(array).bytes() as i64));
                // The queries come with the first keys.
                let both = e.plus(&keys, self.walk.own_head(0).bytes() as i64);
                let bytes = e.choose(&begins, &both, &keys);
                let place = (start.kv_head.as_str(), key_row.as_str());
                let (_, barrier) = start.ring.copy(e, (0, &number), &start.maps[1], place, &bytes);
                let queries = |e: &mut Emitter| {
                    let row = e.int2("addi", &row, &start.first);
                    let at = (start.queries_at, "%zero");
                    self.walk.own_head(0).copy(e, (&start.maps[0], &barrier), at, (&start.head, &row));
                };
                e.branch(&begins, queries, |_| {});
                let next = e.plus(&number, 1);
                start.ring.copy(e, (1, &next), &start.maps[2], place, &values);
            });
        };
        by_producer(e, Registers::FOR_SUMS.producer, walk);
    }

    fn consume(&self, e: &mut Emitter, start: &Start) {
        let walk = &self.walk;
        let (query, column) = begin_consumer(e, Registers::FOR_SUMS, &start.first);
        let queries = walk.tokens(e, &start.segments, &start.batch, &query, [0, 8].into_iter());
        let warp = WarpTokens::new(walk, e, &start.segments, &start.batch, &start.first, &queries);
        let (lowest, zero) = (e.float(f32::NEG_INFINITY, 1), e.float(0.0, 1));
        let slope = walk.slope(e, &start.head);
        let mut carried = self.walk.result_sums(1).part().zeros(e);
        let results = carried.len();
        carried.extend([&lowest, &lowest, &zero, &zero].map(|value| (value.clone(), float_type(1))));
        let (from, to) = &start.keys;
        let last = e.for_loop(from, to, walk.others as i64, &carried, |e, key, so_far| {
            let number = self.number(e, start, key);
            let mine = self.walk.own_head(0).mine(e, start.queries_at);
            let scores = self.scored(e, start, &number, &mine);
            let batch = e.anew(&start.batch);
            let segments = walk.spread_segments(e, &start.segments, &batch, key);
            let all = warp.see_all(walk, e, key, &segments);
            let types = vec![float_type(1); scores.len()];
            let distances = slope.as_deref().and_then(|slope| {
                let first_key = e.int2("addi", key, &column);
                walk.distances(e, Some(slope), (&query, &first_key), true)
            });
            let distances = distances.as_ref();
            let plain = |e: &mut Emitter| {
                let one = |element: Element| walk.score(e, &scores[element.register], &element, distances).0;
                walk.scores().elements().map(one).collect()
            };
            let some = |e: &mut Emitter| {
                let first_key = e.int2("addi", key, &column);
                let columns = column_distances(self.walk.score_sums().part());
                let keys = walk.tokens(e, &start.segments, &batch, &first_key, columns);
                masked(walk, e, &scores, [&queries, &keys], distances)
            };
            let scores = e.either(&all, &types, plain, some);
            let softmax = Softmax { top: so_far[results..results + 2].to_vec(), sum: so_far[results + 2..].to_vec() };
            let (softmax, factors, probabilities) = softmax.with(walk, e, &scores);
            let scale = |element: Element| e.float2("mulf", &so_far[element.register], by_row(&factors, &element), 1);
            let scaled: Vec<Value> = self.walk.result_sums(1).part().elements().map(scale).collect();
            let values = e.plus(&number, 1);
            let mut next = self.passed_on(e, start, &values, (&scaled, &probabilities));
            next.extend(softmax.top);
            next.extend(softmax.sum);
            next
        });
        let softmax = Softmax { top: last[results..results + 2].to_vec(), sum: last[results + 2..].to_vec() };
        let (factors, logarithms) = softmax.finish(e);
        let scale = |element: Element| e.float2("mulf", &last[element.register], by_row(&factors, &element), 1);
        let finished: Vec<Value> = self.walk.result_sums(1).part().elements().map(scale).collect();
        let heads = walk.attention.result_heads();
        walk.store(e, &finished, (&start.o, heads, &start.head), &start.batch, (&query, &column));
        store_logarithms(walk, e, &logarithms, &start.lse, (&start.batch, &start.head), (&query, &column));
    }

    /// The products of the queries with the tile of keys of that number, whose stage is given back.
    fn scored(&self, e: &mut Emitter, start: &Start, number: &str, mine: &str) -> Vec<Value> {
        let pipeline = &start.ring.pipeline;
        let slot = pipeline.slot(e, number);
        let keys = start.ring.along(e, 0, &slot.stage);
        pipeline.wait_full(e, &slot);
        let sums = over_entries(e, (self.walk.own_head(0), mine), (self.walk.other_head(0), &keys));
        wgmma::wait(e, 0);
        pipeline.release(e, number);
        self.walk.score_sums().waited_for(e, &sums)
    }

    /// The results with the probabilities' products with the tile of values of that number added; its stage is given back.
    fn passed_on(
        &self,
        e: &mut Emitter,
        start: &Start,
        number: &str,
        (results, probabilities): (&[Value], &[Value]),
    ) -> Vec<Value> {
        let pipeline = &start.ring.pipeline;
        let slot = pipeline.slot(e, number);
        let fragments = as_fragments(e, probabilities);
        let sums = self.walk.result_sums(1).pinned(e, results);
        let values = start.ring.down(e, 1, &slot.stage);
        pipeline.wait_full(e, &slot);
        let sums = over_tokens(e, sums, &fragments, (self.walk.other_head(1), &values));
        wgmma::wait(e, 0);
        pipeline.release(e, number);
        self.walk.result_sums(1).waited_for(e, &sums)
    }
}
