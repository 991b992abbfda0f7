//! Forward: a task is a block of queries of one key head, with all query heads of its group.
use super::scores::penalty;
use super::sight::{Meeting, Segments, Sight};
use super::tile::{Left, Right, Tile};
use super::{Attention, Heads, Layout, QUERIES, Scratch, block_of_turn, count_from, digits, strips};
use crate::emit::{Elem, Emitter, Value, float_type};
use crate::loops::Reduction;
use crate::{Kernel, Target, math, pairs};

/// Maximum of a query that has seen nothing; far below every score, but finite.
const NOTHING: f32 = -1e30;

/// Operand pointers and scratch. Blocks by head: `q` is `[head_dim, QUERIES]`, `o` `[value_dim, QUERIES]`, `top`, `sum` are
/// `[QUERIES]`. Where products go in pairs, two steps share a word: of the head in `q` and `k`, of the keys in `v` and `weights`.
struct Buffers {
    operands: [Value; 6],
    q: Value,
    o: Value,
    top: Value,
    sum: Value,
    /// Rows of a block of keys.
    k: Value,
    v: Value,
    /// Scores of a block of keys and a panel of queries, and their exponentials, which may take their place.
    scores: Value,
    weights: Value,
    query_segments: Value,
    key_segments: Value,
    /// What a distance of one token takes from a score, of every head, with ALiBi.
    penalties: Option<Value>,
}

struct Forward<'a> {
    attention: &'a Attention,
    layout: Layout,
    buffers: Buffers,
}

/// One block of queries: token numbers count within their row of the batch.
struct Queries {
    /// First token of the row.
    row: Value,
    kv_head: Value,
    first: Value,
    count: Value,
    segments: Segments,
}

pub fn build(attention: &Attention, target: &Target) -> Kernel {
    let mut e = Emitter::for_cpu(target.lanes, target.pairs);
    let layout = Layout::new(attention, target);
    let (d, value_dim, group) = (attention.head_dim, attention.value_dim, attention.group());
    let operands = [0, 1, 2, 3, 4, 5].map(|i| e.arg(i));
    let mut scratch = Scratch::default();
    let mut take = |count| scratch.take(&mut e, count);
    let words = layout.words;
    let scores = take(layout.keys * layout.panel);
    let weights = if layout.paired() { take(layout.keys / 2 * layout.panel) } else { scores.clone() };
    let buffers = Buffers {
        operands,
        scores,
        weights,
        q: take(group * layout.head_words(d) * QUERIES),
        o: take(group * value_dim * QUERIES),
        top: take(group * QUERIES),
        sum: take(group * QUERIES),
        k: take(layout.keys * layout.head_words(d)),
        v: take(layout.keys / words * value_dim),
        query_segments: take(QUERIES),
        key_segments: take(layout.keys),
        penalties: attention.alibi.map(|_| take(group)),
    };
    let forward = Forward { attention, layout, buffers };
    e.tasks(|e, task| forward.task(e, task));
    let tasks = attention.batch * attention.kv_heads * attention.blocks();
    e.finish(
        &attention.name("attention"),
        tasks,
        scratch.bytes(),
        attention.work(layout.family(["attention", "attention_bf16"]), [1, 1], 1),
    )
}

impl Forward<'_> {
    fn task(&self, e: &mut Emitter, task: &str) {
        let (a, b) = (self.attention, &self.buffers);
        let [row, kv_head, turn] = digits(e, task, [a.batch, a.kv_heads, a.blocks()]);
        let block = block_of_turn(e, &turn, a.blocks());
        let (row, first) = (e.times(&row, a.seq), e.times(&block, QUERIES));
        let count = count_from(e, &first, QUERIES, a.seq);
        let token = e.int2("addi", &row, &first);
        let segments = Sight::segments(e, (&b.operands[3], &token, &count), (&b.query_segments, QUERIES), 0);
        let queries = Queries { row, kv_head, first, count, segments };
        self.each_head(e, |e, h| self.start_head(e, &queries, h));
        let (from, to) = self.layout.sight().key_range(e, &queries.first, &queries.count);
        let from = e.rounded_down(&from, self.layout.keys);
        e.repeat(&from, &to, self.layout.keys as i64, |e, first_key| self.key_block(e, &queries, first_key));
        self.each_head(e, |e, h| self.finish_head(e, &queries, h));
    }

    /// Once for every query head of the group.
    fn each_head(&self, e: &mut Emitter, body: impl FnOnce(&mut Emitter, &str)) {
        let (zero, group) = (e.index(0), e.index(self.attention.group() as i64));
        e.repeat(&zero, &group, 1, body);
    }

    /// The queries of head `h`.
    fn q_of(&self, e: &mut Emitter, h: &str) -> Value {
        e.row(&self.buffers.q, h, self.layout.head_words(self.attention.head_dim) * QUERIES, Elem::F32)
    }

    /// The sums of head `h`.
    fn o_of(&self, e: &mut Emitter, h: &str) -> Value {
        e.row(&self.buffers.o, h, self.attention.value_dim * QUERIES, Elem::F32)
    }

    /// The number of query head `h` of the group.
    fn head(&self, e: &mut Emitter, queries: &Queries, h: &str) -> Value {
        let head = e.times(&queries.kv_head, self.attention.group());
        e.int2("addi", &head, h)
    }

    /// Where the queries' rows of a head are in operand `i`, which has such heads.
    fn query_rows(&self, e: &mut Emitter, (i, heads): (usize, Heads), queries: &Queries, head: &str) -> Value {
        let token = e.int2("addi", &queries.row, &queries.first);
        self.attention.head_at(e, &self.buffers.operands[i], heads, &token, head)
    }

    fn start_head(&self, e: &mut Emitter, queries: &Queries, h: &str) {
        let (a, b) = (self.attention, &self.buffers);
        let (head, heads) = (self.head(e, queries, h), a.query_heads());
        let rows = self.query_rows(e, (0, heads), queries, &head);
        let (block, scale) = (self.q_of(e, h), self.layout.query_scale());
        let rows = self.layout.along_head(a.head_rows(&rows, heads));
        rows.pack_transposed(e, &queries.count, QUERIES, scale, &block);
        let (o, elements) = (self.o_of(e, h), e.index((a.value_dim * QUERIES) as i64));
        e.fill(&o, &elements, Elem::F32, 4 * self.layout.tile.lanes);
        let (top, sum, lanes) = (e.row(&b.top, h, QUERIES, Elem::F32), e.row(&b.sum, h, QUERIES, Elem::F32), QUERIES);
        let (nothing, zero) = (e.float(NOTHING, lanes), e.float(0.0, lanes));
        e.store(&nothing, &top, Elem::F32, lanes);
        e.store(&zero, &sum, Elem::F32, lanes);
        if let (Some(all), Some(penalty)) = (&b.penalties, penalty(e, a.alibi, a.heads, &head)) {
            e.store_at(&penalty, all, h, Elem::F32, 1);
        }
    }

    fn key_block(&self, e: &mut Emitter, queries: &Queries, first_key: &str) {
        let (a, b, keys) = (self.attention, &self.buffers, self.layout.keys);
        let count = count_from(e, first_key, keys, a.seq);
        let token = e.int2("addi", &queries.row, first_key);
        let segments = Sight::segments(e, (&b.operands[3], &token, &count), (&b.key_segments, keys), -1);
        let meet = Sight::may_meet(e, &queries.segments, &segments);
        let one_document = Sight::one_document(e, &queries.segments, &segments);
        let work = |e: &mut Emitter| {
            let heads = [a.key_heads(), a.value_heads()];
            let rows = [0, 1].map(|i| a.head_at(e, &b.operands[1 + i], heads[i], &token, &queries.kv_head));
            let [k, v] = [0, 1].map(|i| a.head_rows(&rows[i], heads[i]));
            let k = self.layout.along_head(k);
            k.pack(e, &count, keys, 1.0, (&b.k, k.entries));
            self.layout.pack_along(e, v, &count, keys, 1.0, (&b.v, v.entries));
            self.each_head(e, |e, h| {
                let penalty = b.penalties.as_ref().map(|all| e.offset(all, h, Elem::F32));
                let zero = e.index(0);
                e.repeat(&zero, &queries.count, self.layout.panel as i64, |e, panel| {
                    let first_query = e.int2("addi", &queries.first, panel);
                    let query_segments = e.offset(&b.query_segments, panel, Elem::I32);
                    let at = Meeting {
                        first_query: &first_query,
                        query_segments: &query_segments,
                        first_key,
                        key_segments: &b.key_segments,
                        one_document: &one_document,
                        penalty: penalty.as_deref(),
                    };
                    self.panel(e, h, panel, &at);
                });
            });
        };
        e.branch(&meet, work, |_| {});
    }

    /// A panel of queries meets a block of keys.
    fn panel(&self, e: &mut Emitter, h: &str, panel: &str, at: &Meeting) {
        let (b, tile, width) = (&self.buffers, self.layout.tile, self.layout.panel);
        let (q, o) = (self.q_of(e, h), self.o_of(e, h));
        let [q, o] = [q, o].map(|block| e.offset(&block, panel, Elem::F32));
        let [top, sum] = [&b.top, &b.sum].map(|all| {
            let all = e.row(all, h, QUERIES, Elem::F32);
            e.offset(&all, panel, Elem::F32)
        });
        let (from, to) = self.layout.sight().tiles(e, at.first_query, at.first_key, self.layout.tiles());
        let old = tile.load_row(e, &top);
        let new = self.scores(e, &q, (&from, &to), &old, at);
        let factors: Vec<Value> = old
            .iter()
            .zip(&new)
            .map(|(old, new)| {
                let change = e.float2("subf", old, new, tile.lanes);
                math::exp_of_small(e, &change, tile.lanes)
            })
            .collect();
        let [from, to] = [from, to].map(|t| e.times(&t, tile.rows));
        let sums = self.exponentials(e, (&from, &to), &new);
        let row = Tile { rows: 1, ..tile };
        let old_sums = row.load_row(e, &sum);
        let sums: Vec<Value> =
            (0..sums.len()).map(|v| e.fma(&old_sums[v], &factors[v], &sums[v], tile.lanes)).collect();
        row.store(e, &sums, &sum, 0);
        row.store(e, &new, &top, 0);
        let [from, to] = [from, to].map(|key| e.divided(&key, self.layout.words));
        let (v, weights) =
            (e.row(&b.v, &from, self.attention.value_dim, Elem::F32), e.row(&b.weights, &from, width, Elem::F32));
        let terms = e.int2("subi", &to, &from);
        self.values(e, &o, (&v, &weights, &terms), &factors);
    }

    /// Stores the scores of tiles `from..to` and returns the new maxima.
    fn scores(&self, e: &mut Emitter, q: &str, (from, to): (&str, &str), top: &[Value], at: &Meeting) -> Vec<Value> {
        let (tile, width) = (self.layout.tile, self.layout.panel);
        let d = self.layout.head_words(self.attention.head_dim);
        let carried: Vec<_> = top.iter().map(|t| (t.clone(), float_type(tile.lanes))).collect();
        e.for_loop(from, to, 1, &carried, |e, t, top| {
            let key = e.times(t, tile.rows);
            let k = e.row(&self.buffers.k, &key, d, Elem::F32);
            let (left, right) = (Left { pointer: &k, row_step: d, step: 1 }, Right { pointer: q, step: QUERIES });
            let start = tile.zeros(e);
            let products = tile.multiply_fixed(e, left, right, d, start);
            let first_key = e.int2("addi", at.first_key, &key);
            let key_segments = e.offset(at.key_segments, &key, Elem::I32);
            let at = Meeting { first_key: &first_key, key_segments: &key_segments, ..*at };
            let scores = self.layout.scored(e, products, &at).scores;
            let scores = self.layout.sight().masked(e, tile, scores, &at);
            let place = e.row(&self.buffers.scores, &key, width, Elem::F32);
            tile.store(e, &scores, &place, width);
            let mut top = top.to_vec();
            for (i, score) in scores.iter().enumerate() {
                let v = i % tile.vectors;
                top[v] = Reduction::Max.join(e, &top[v], score, tile.lanes);
            }
            top
        })
    }

    /// Stores `e^(score - top)` of keys `from..to` as weights and returns their sums.
    fn exponentials(&self, e: &mut Emitter, (from, to): (&str, &str), top: &[Value]) -> Vec<Value> {
        // Tiles have an even number of keys; two at a time hide the latency of the exponential.
        let pair = Tile { rows: 2, ..self.layout.tile };
        let zero = (e.float(0.0, pair.lanes), float_type(pair.lanes));
        let sums = e.for_loop(from, to, 2, &vec![zero; pair.count()], |e, key, sums| {
            let place = e.row(&self.buffers.scores, key, self.layout.panel, Elem::F32);
            let scores = pair.load(e, &place, self.layout.panel);
            let mut next = vec![];
            let mut values = vec![];
            for (i, score) in scores.iter().enumerate() {
                let below = e.float2("subf", score, &top[i % pair.vectors], pair.lanes);
                let value = math::exp_of_small(e, &below, pair.lanes);
                next.push(e.float2("addf", &sums[i], &value, pair.lanes));
                values.push(value);
            }
            self.store_weights(e, pair, key, &values);
            next
        });
        (0..pair.vectors).map(|v| e.float2("addf", &sums[v], &sums[v + pair.vectors], pair.lanes)).collect()
    }

    /// The weights of two keys.
    fn store_weights(&self, e: &mut Emitter, pair: Tile, key: &str, values: &[Value]) {
        let row = e.divided(key, self.layout.words);
        let place = e.row(&self.buffers.weights, &row, self.layout.panel, Elem::F32);
        if !self.layout.paired() {
            return pair.store(e, values, &place, self.layout.panel);
        }
        let (low, high) = values.split_at(pair.vectors);
        let words: Vec<Value> = low.iter().zip(high).map(|(l, h)| pairs::words(e, l, h, pair.lanes)).collect();
        pair.store(e, &words, &place, self.layout.panel);
    }

    /// `o = o · factors + vᵀ · exponentials` over so many words of keys.
    fn values(&self, e: &mut Emitter, o: &str, (v, exponentials, terms): (&str, &str, &str), factors: &[Value]) {
        let d = self.attention.value_dim;
        strips(e, d, self.layout.tile, |e, first, tile| {
            let (place, v) = (e.row(o, first, QUERIES, Elem::F32), e.offset(v, first, Elem::F32));
            let old = tile.load(e, &place, QUERIES);
            let start: Vec<Value> = old
                .iter()
                .enumerate()
                .map(|(i, old)| e.float2("mulf", old, &factors[i % tile.vectors], tile.lanes))
                .collect();
            let (left, right) =
                (Left { pointer: &v, row_step: 1, step: d }, Right { pointer: exponentials, step: self.layout.panel });
            let sums = tile.multiply(e, left, right, (terms, self.layout.key_unroll()), start);
            tile.store(e, &sums, &place, QUERIES);
        });
    }

    /// Divides by the sums and stores results.
    fn finish_head(&self, e: &mut Emitter, queries: &Queries, h: &str) {
        let (a, b, lanes) = (self.attention, &self.buffers, self.layout.tile.lanes);
        let [top, sum] = [&b.top, &b.sum].map(|all| e.row(all, h, QUERIES, Elem::F32));
        let count = e.index(QUERIES as i64);
        e.each(&count, lanes, |e, i, lanes| {
            let (t, s) = (e.load_at(&top, i, Elem::F32, lanes), e.load_at(&sum, i, Elem::F32, lanes));
            let (zero, one) = (e.float(0.0, lanes), e.float(1.0, lanes));
            let seen = e.compare("one", &s, &zero, lanes);
            let inverse = e.float2("divf", &one, &s, lanes);
            // A NaN stays one: it is neither seen nor unseen, so it goes by way of the sum itself.
            let inverse = e.select(&seen, &inverse, &s, lanes);
            let log = math::log(e, &s, lanes);
            let log = e.float2("addf", &log, &t, lanes);
            let log = e.select(&seen, &log, &s, lanes);
            e.store_at(&inverse, &sum, i, Elem::F32, lanes);
            e.store_at(&log, &top, i, Elem::F32, lanes);
        });
        let (head, heads) = (self.head(e, queries, h), a.result_heads());
        let rows = self.query_rows(e, (4, heads), queries, &head);
        let block = self.o_of(e, h);
        a.head_rows(&rows, heads).unpack_transposed(e, &queries.count, QUERIES, &sum, &block);
        let token = e.int2("addi", &queries.row, &queries.first);
        let lse = e.row(&b.operands[5], &token, a.heads, Elem::F32);
        let lse = e.offset(&lse, &head, Elem::F32);
        let zero = e.index(0);
        e.repeat(&zero, &queries.count, 1, |e, i| {
            let value = e.load_at(&top, i, Elem::F32, 1);
            let place = e.row(&lse, i, a.heads, Elem::F32);
            e.store(&value, &place, Elem::F32, 1);
        });
    }
}
