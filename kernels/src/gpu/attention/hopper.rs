//! The forward pass on a Hopper GPU: by warpgroups, as FlashAttention-3 divides the work (Shah et al.).
//!
//! One thread copies a block's queries, then tiles of keys and of values in turn to the stages of a ring
//! (`gpu::hopper::pipeline`). Two warpgroups have 64 queries each: while one computes its softmax, the other's products
//! run. Scores and results stay in registers; probabilities, rounded to bf16, go from there into the second product.
//!
//! A tile's rows may belong to the next row of the batch, or lie behind the last: their probabilities are zero. So a value that
//! is not finite makes NaN of the row before its own, too, as it does of the loss of all.
use super::forward::{Softmax, masked, store_logarithms};
use super::*;
use crate::attention::digits;
use crate::emit::float_type;
use crate::gpu::hopper::descriptor::{self, distance};
use crate::gpu::hopper::pipeline::Pipeline;
use crate::gpu::hopper::producer::{by_producer, copy_box};
use crate::gpu::hopper::wgmma::{self, Fragment, STEPS, Sums, pinned_fragments};
use crate::gpu::hopper::{CONSUMERS, SWIZZLE_PERIOD, THREADS, WARPGROUP, registers_fit};
use crate::gpu::tensor_map::{BOX_ROW_BYTES, TensorMap};
use crate::gpu::warp::pack;
use crate::tuning::WarpgroupAttention;

/// Registers of a thread of the producer's warpgroup and of the consumers', together those that the block begins with.
const PRODUCER_REGISTERS: usize = 24;
const CONSUMER_REGISTERS: usize = 240;
const _: () = assert!(registers_fit(CONSUMER_REGISTERS, PRODUCER_REGISTERS));
/// Entries of a head in a box.
const BOX_ENTRIES: usize = BOX_ROW_BYTES / 2;
/// Bytes of a product's steps along a row of a box, and down its rows.
const STEP_BYTES: usize = 2 * STEPS;
const STEP_ROWS_BYTES: usize = STEPS * BOX_ROW_BYTES;

/// Whether warpgroups can compute it: heads of bf16 that are whole boxes, as many as fit into registers.
pub fn suits(attention: &Attention) -> bool {
    attention.elem == Elem::Bf16 && [BOX_ENTRIES, 2 * BOX_ENTRIES].contains(&attention.head_dim)
}

/// The kernel; operands as [`Attention::forward`] has them.
pub fn build(attention: &Attention, cut: WarpgroupAttention) -> Kernel {
    let warps = CONSUMERS * WARPGROUP / WARP;
    let walk = Walk { attention, warps, others: cut.keys, width: attention.head_dim, arrays: 1 };
    Forward { walk, stages: cut.stages }.build()
}

struct Forward<'a> {
    walk: Walk<'a>,
    stages: usize,
}

/// What a block begins with.
struct Start {
    pipeline: Pipeline,
    /// Maps of queries, keys and values.
    maps: [Value; 3],
    segments: Value,
    o: Value,
    lse: Value,
    /// Where queries and the ring begin in shared memory.
    queries_at: usize,
    ring_at: usize,
    batch: Value,
    head: Value,
    kv_head: Value,
    /// The first query.
    first: Value,
    /// The keys that are walked over.
    keys: (Value, Value),
}

/// What the queries of a warp have in common.
struct Sight {
    /// The first of them, and its segment.
    first: Value,
    segment: Value,
    /// Whether this thread's queries are of that segment, which is a document.
    alike: Value,
}

impl Forward<'_> {
    /// Bytes of so many tokens of a head.
    fn bytes(&self, tokens: usize) -> usize {
        tokens * self.walk.width * Elem::Bf16.bytes() as usize
    }

    fn scores(&self) -> Sums {
        Sums { columns: self.walk.others }
    }

    fn results(&self) -> Sums {
        Sums { columns: self.walk.width }
    }

    fn build(&self) -> Kernel {
        let Attention { batch, seq, heads, kv_heads, head_dim, elem, .. } = *self.walk.attention;
        let blocks = seq.div_ceil(self.walk.own());
        let mut e = Emitter::of_block(Block::aligned(THREADS, SWIZZLE_PERIOD).with_register_pool());
        let maps = [(0, heads, self.walk.own()), (1, kv_heads, self.walk.others), (2, kv_heads, self.walk.others)];
        let maps = maps.map(|(operand, heads, box_rows)| {
            let columns = heads * head_dim;
            e.tensor_map(TensorMap { operand, elem, rows: batch * seq, columns, stride: columns, box_rows })
        });
        let [segments, o, lse] = [3, 4, 5].map(|i| e.arg(i));
        let queries_at = e.shared(self.bytes(self.walk.own()));
        let ring_at = e.shared(self.stages * self.bytes(self.walk.others));
        let begins = |at: usize| at.is_multiple_of(SWIZZLE_PERIOD);
        debug_assert!(begins(queries_at) && begins(ring_at) && begins(self.bytes(self.walk.others)));
        let pipeline = Pipeline::new(&mut e, self.stages);
        let [b, head, block] = digits(&mut e, "%task", [batch, heads, blocks]);
        let kv_head = e.divided(&head, heads / kv_heads);
        let first = e.times(&block, self.walk.own());
        let keys = self.walk.key_range(&mut e, &segments, &Place { batch: &b, first: &first });
        pipeline.init(&mut e);
        let start =
            Start { pipeline, maps, segments, o, lse, queries_at, ring_at, batch: b, head, kv_head, first, keys };
        let warps = e.index(self.walk.warps as i64);
        let consumes = e.less("%warp", &warps);
        e.branch(&consumes, |e| self.consume(e, &start), |e| self.produce(e, &start));
        let work = self.walk.attention.work("attention", 2, 2);
        e.finish(&self.walk.attention.name("attention_wg"), batch * heads * blocks, 0, work)
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
                let tile = e.index(self.bytes(self.walk.others) as i64);
                // The queries come with the first keys.
                let both = e.plus(&tile, self.bytes(self.walk.own()) as i64);
                let bytes = e.choose(&begins, &both, &tile);
                let barrier = self.copy(e, start, (&number, 1), (&key_row, &bytes));
                let queries = |e: &mut Emitter| {
                    let row = e.int2("addi", &row, &start.first);
                    let place = (start.queries_at, "%zero", self.walk.own());
                    self.copy_head(e, (&start.maps[0], &barrier), place, (&start.head, &row));
                };
                e.branch(&begins, queries, |_| {});
                let next = e.plus(&number, 1);
                self.copy(e, start, (&next, 2), (&key_row, &tile));
            });
        };
        by_producer(e, PRODUCER_REGISTERS, walk);
    }

    /// Copies the tile of that number from a map, from a row on, to its stage, on whose barrier so many bytes come; returns
    /// the barrier.
    fn copy(&self, e: &mut Emitter, start: &Start, (number, map): (&str, usize), (row, bytes): (&str, &str)) -> Value {
        let slot = start.pipeline.slot(e, number);
        start.pipeline.wait_empty(e, &slot);
        let bytes = e.op(format!("arith.trunci {bytes} : i64 to i32"));
        let barrier = start.pipeline.expect(e, &slot, &bytes);
        let stage = e.times(&slot.stage, self.bytes(self.walk.others));
        let place = (start.ring_at, stage.as_str(), self.walk.others);
        self.copy_head(e, (&start.maps[map], &barrier), place, (&start.kv_head, row));
        barrier
    }

    /// Copies some tokens of a head, box by box, to so many bytes behind a byte of shared memory.
    fn copy_head(
        &self,
        e: &mut Emitter,
        map: (&str, &str),
        (byte, behind, tokens): (usize, &str, usize),
        (head, row): (&str, &str),
    ) {
        let column = e.times(head, self.walk.width);
        for number in 0..self.walk.width / BOX_ENTRIES {
            let column = e.plus(&column, (number * BOX_ENTRIES) as i64);
            copy_box(e, map, (byte + number * tokens * BOX_ROW_BYTES, behind), (&column, row));
        }
    }

    fn consume(&self, e: &mut Emitter, start: &Start) {
        e.line(format!("nvvm.setmaxregister increase {CONSUMER_REGISTERS}"));
        let walk = &self.walk;
        let (row, column) = Part::origin(e);
        let warp_row = e.times("%warp", WARP_ROWS);
        let row = e.int2("addi", &row, &warp_row);
        let query = e.int2("addi", &start.first, &row);
        let queries = walk.tokens(e, &start.segments, &start.batch, &query, [0, 8].into_iter());
        let sight = self.sight(e, start, &queries);
        let (q, k, v) = self.descriptors(e, start);
        let (lowest, zero) = (e.float(f32::NEG_INFINITY, 1), e.float(0.0, 1));
        let mut carried = self.results().part().zeros(e);
        let results = carried.len();
        carried.extend([&lowest, &lowest, &zero, &zero].map(|value| (value.clone(), float_type(1))));
        let (from, to) = &start.keys;
        let last = e.for_loop(from, to, walk.others as i64, &carried, |e, key, so_far| {
            let number = self.number(e, start, key);
            let scores = self.scored(e, start, &number, (&q, &k));
            let all = self.sees_all(e, start, &sight, key);
            let types = vec![float_type(1); scores.len()];
            let plain = |e: &mut Emitter| {
                let scale = e.float(walk.attention.scale, 1);
                scores.iter().map(|score| e.float2("mulf", score, &scale, 1)).collect()
            };
            let some = |e: &mut Emitter| {
                let first_key = e.int2("addi", key, &column);
                let distances = column_distances(self.scores().part());
                let keys = walk.tokens(e, &start.segments, &start.batch, &first_key, distances);
                masked(walk, e, &scores, &queries, &keys)
            };
            let scores = e.either(&all, &types, plain, some);
            let softmax = Softmax { top: so_far[results..results + 2].to_vec(), sum: so_far[results + 2..].to_vec() };
            let (softmax, factors, probabilities) = softmax.with(walk, e, &scores);
            let scale = |element: Element| e.float2("mulf", &so_far[element.register], by_row(&factors, &element), 1);
            let scaled: Vec<Value> = self.results().part().elements().map(scale).collect();
            let values = e.plus(&number, 1);
            let mut next = self.passed_on(e, start, &values, (&scaled, &probabilities, &v));
            next.extend(softmax.top);
            next.extend(softmax.sum);
            next
        });
        let softmax = Softmax { top: last[results..results + 2].to_vec(), sum: last[results + 2..].to_vec() };
        let (factors, logarithms) = softmax.finish(e);
        let scale = |element: Element| e.float2("mulf", &last[element.register], by_row(&factors, &element), 1);
        let finished: Vec<Value> = self.results().part().elements().map(scale).collect();
        let heads = walk.attention.heads;
        walk.store(e, &finished, (&start.o, heads, &start.head), &start.batch, (&query, &column));
        store_logarithms(walk, e, &logarithms, &start.lse, (&start.batch, &start.head), (&query, &column));
    }

    /// What the queries of this thread's warp have in common, of which it has two.
    fn sight(&self, e: &mut Emitter, start: &Start, queries: &[(Value, Value)]) -> Sight {
        let row = e.times("%warp", WARP_ROWS);
        let first = e.int2("addi", &start.first, &row);
        let segment = self.walk.segment(e, &start.segments, &start.batch, &first);
        let mut alike = e.op(format!("arith.cmpi sgt, {segment}, %zero : i64"));
        for (_, other) in queries {
            let same = e.op(format!("arith.cmpi eq, {other}, {segment} : i64"));
            alike = e.op(format!("arith.andi {alike}, {same} : i1"));
        }
        Sight { first, segment, alike }
    }

    /// Whether every query of the warp sees every key of the tile from `key` on: then there is nothing to mask. Each thread
    /// looks at some of the keys.
    fn sees_all(&self, e: &mut Emitter, start: &Start, sight: &Sight, key: &str) -> Value {
        let last = e.plus(key, self.walk.others as i64 - 1);
        let mut all = e.op(format!("arith.cmpi sle, {last}, {} : i64", sight.first));
        all = e.op(format!("arith.andi {all}, {} : i1", sight.alike));
        if let Some(window) = self.walk.attention.window {
            let (last_query, reach) = (e.plus(&sight.first, WARP_ROWS as i64 - 1), e.plus(key, window as i64));
            let near = e.less(&last_query, &reach);
            all = e.op(format!("arith.andi {all}, {near} : i1"));
        }
        let mine = e.int2("addi", key, "%lane");
        for turn in 0..self.walk.others / WARP {
            let token = e.plus(&mine, (turn * WARP) as i64);
            let segment = self.walk.segment(e, &start.segments, &start.batch, &token);
            let same = e.op(format!("arith.cmpi eq, {segment}, {} : i64", sight.segment));
            all = e.op(format!("arith.andi {all}, {same} : i1"));
        }
        let warp = e.int_constant(-1, 1);
        e.op(format!("nvvm.vote.sync all {warp}, {all} -> i1"))
    }

    /// Descriptors of the warpgroup's queries, and of keys and values in the first stage.
    fn descriptors(&self, e: &mut Emitter, start: &Start) -> (Value, Value, Value) {
        let warps = e.index((WARPGROUP / WARP) as i64);
        let consumer = e.int2("divui", "%warp", &warps);
        let mine = e.times(&consumer, distance(wgmma::ROWS * BOX_ROW_BYTES) as usize);
        let along = descriptor::first(e, None);
        let down = descriptor::first(e, Some(self.walk.others * BOX_ROW_BYTES));
        let q = e.plus(&along, distance(start.queries_at));
        let q = e.int2("addi", &q, &mine);
        let ring = distance(start.ring_at);
        (q, e.plus(&along, ring), e.plus(&down, ring))
    }

    /// A descriptor's distance of the stage of a tile.
    fn stage(&self, e: &mut Emitter, stage: &str) -> Value {
        e.times(stage, distance(self.bytes(self.walk.others)) as usize)
    }

    /// The products of the queries with the tile of keys of that number, whose stage is given back.
    fn scored(&self, e: &mut Emitter, start: &Start, number: &str, (q, k): (&str, &str)) -> Vec<Value> {
        let slot = start.pipeline.slot(e, number);
        let mut sums = self.scores().zeros(e);
        start.pipeline.wait_full(e, &slot);
        let stage = self.stage(e, &slot.stage);
        let k = e.int2("addi", k, &stage);
        wgmma::fence(e);
        for entry in (0..self.walk.width).step_by(STEPS) {
            let (number, step) = (entry / BOX_ENTRIES, entry % BOX_ENTRIES / STEPS * STEP_BYTES);
            let q = e.plus(q, distance(number * self.walk.own() * BOX_ROW_BYTES + step));
            let k = e.plus(&k, distance(number * self.walk.others * BOX_ROW_BYTES + step));
            sums = self.scores().multiply(e, &sums, (&q, &k), (true, true));
        }
        wgmma::commit(e);
        wgmma::wait(e, 0);
        start.pipeline.release(e, number);
        self.scores().waited_for(e, &sums)
    }

    /// The results with the probabilities' products with the tile of values of that number added; its stage is given back.
    fn passed_on(
        &self,
        e: &mut Emitter,
        start: &Start,
        number: &str,
        (results, probabilities, v): (&[Value], &[Value], &str),
    ) -> Vec<Value> {
        let slot = start.pipeline.slot(e, number);
        // Sums of sixteen columns are laid out as those columns of A are.
        let words = |e: &mut Emitter, p: &[Value]| [0, 2, 4, 6].map(|i| pack(e, &p[i], &p[i + 1]));
        let fragments: Vec<Fragment> = probabilities.chunks(8).map(|columns| words(e, columns)).collect();
        let fragments = pinned_fragments(e, fragments);
        let mut sums = self.results().pinned(e, results);
        start.pipeline.wait_full(e, &slot);
        let stage = self.stage(e, &slot.stage);
        let v = e.int2("addi", v, &stage);
        wgmma::fence(e);
        for (step, fragment) in fragments.iter().enumerate() {
            let v = e.plus(&v, distance(step * STEP_ROWS_BYTES));
            let values = self.results().values(e, &sums);
            sums = self.results().multiply_words(e, &values, fragment, (&v, false));
        }
        wgmma::commit(e);
        wgmma::wait(e, 0);
        start.pipeline.release(e, number);
        self.results().waited_for(e, &sums)
    }
}
