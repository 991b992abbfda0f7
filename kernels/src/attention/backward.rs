//! Gradient: a task is one query head of one row of the batch, or of a part of its queries; blocks of queries outside, blocks
//! of keys inside.
//!
//! With `p = e^(s - lse)`, `D = Σ do · o` and `ds = p (do · v - D)`: `dv = pᵀ do`, `dk = scale · dsᵀ q`,
//! `dq = scale · ds k`; where scores are capped, `ds` is multiplied by their derivatives. Where products go in pairs of
//! bf16, `ds` holds the scale instead of the queries. Gradients of keys and values grow in the task's part of the workspace.
use super::scores::{Scored, penalty};
use super::sight::{Meeting, Segments, Sight};
use super::tile::{Left, Right};
use super::{Attention, Layout, QUERIES, Scratch, count_from, digits, strips};
use crate::emit::{Elem, Emitter, Value};
use crate::loops::Reduction;
use crate::{Kernel, Target, math, pairs};

/// Operand pointers and scratch.
struct Buffers {
    operands: [Value; 9],
    /// All keys and values of the row, and the keys again for products along them.
    k: Value,
    v: Value,
    k_along: Value,
    /// Queries and result gradients of a block: `[entries of a head, QUERIES]` and `[QUERIES, width]`.
    q_columns: Value,
    q_rows: Value,
    do_columns: Value,
    do_rows: Value,
    /// `[head_dim, QUERIES]`
    dq: Value,
    /// `[QUERIES]` each.
    dots: Value,
    lse: Value,
    scale: Value,
    query_segments: Value,
    key_segments: Value,
    /// `[keys, QUERIES]` each; what is multiplied along the queries may be stored once more, in bf16.
    p: Value,
    ds: Value,
    p_rows: Value,
    ds_rows: Value,
    /// Derivatives of capped scores, if they are that.
    derivatives: Option<Value>,
    /// What a distance of one token takes from a score, with ALiBi.
    penalty: Option<Value>,
}

struct Backward<'a> {
    attention: &'a Attention,
    layout: Layout,
    buffers: Buffers,
}

/// What a task works on.
struct Head {
    /// First token of the row.
    row: Value,
    head: Value,
    /// Gradients of keys and values, `[padded_keys, width]` each, of their widths.
    dk: Value,
    dv: Value,
}

/// A block of queries.
struct Queries {
    first: Value,
    count: Value,
    /// Panels that hold any.
    panels: Value,
    segments: Segments,
}

pub fn build(attention: &Attention, target: &Target) -> Kernel {
    let mut e = Emitter::for_cpu(target.lanes, target.pairs);
    let layout = Layout::new(attention, target);
    let (d, keys) = (attention.head_dim, layout.padded_keys());
    let operands = std::array::from_fn(|i| e.arg(i));
    let mut scratch = Scratch::default();
    let mut take = |count| scratch.take(&mut e, count);
    let (words, [key_words, value_words]) = (layout.words, [d, attention.value_dim].map(|n| layout.head_words(n)));
    let k = take(keys * key_words);
    let k_along = if layout.paired() { take(keys / words * d) } else { k.clone() };
    let scores = layout.keys * QUERIES;
    let [p, ds] = [take(scores), take(scores / words)];
    let rows = if layout.paired() { [take(scores / words), take(scores / words)] } else { [p.clone(), ds.clone()] };
    let [p_rows, ds_rows] = rows;
    let buffers = Buffers {
        operands,
        k,
        k_along,
        p,
        ds,
        p_rows,
        ds_rows,
        v: take(keys * value_words),
        q_columns: take(key_words * QUERIES),
        q_rows: take(layout.key_width * QUERIES / words),
        do_columns: take(value_words * QUERIES),
        do_rows: take(layout.value_width * QUERIES / words),
        dq: take(d * QUERIES),
        dots: take(QUERIES),
        lse: take(QUERIES),
        scale: take(QUERIES),
        query_segments: take(QUERIES),
        key_segments: take(layout.keys),
        derivatives: attention.softcap.map(|_| take(scores)),
        penalty: attention.alibi.map(|_| take(1)),
    };
    let scale = e.float(layout.query_scale(), QUERIES);
    e.store(&scale, &buffers.scale, Elem::F32, QUERIES);
    let backward = Backward { attention, layout, buffers };
    e.tasks(|e, task| backward.task(e, task));
    let work = attention.work(backward.layout.family(["attention_grad", "attention_grad_bf16"]), [3, 2], 2);
    let tasks = attention.batch * attention.heads * attention.query_parts().len();
    e.finish(&attention.name("attention_grad"), tasks, scratch.bytes(), work)
}

impl Backward<'_> {
    fn task(&self, e: &mut Emitter, task: &str) {
        let (a, b, keys) = (self.attention, &self.buffers, self.layout.padded_keys());
        let dk = e.row(&b.operands[8], task, self.layout.part(), Elem::F32);
        let dv = e.at(&dk, self.layout.key_part() as i64, Elem::F32);
        let parts = a.query_parts();
        let [row, head, number] = digits(e, task, [a.batch, a.heads, parts.len()]);
        let row = e.times(&row, a.seq);
        let (first, end) = queries_of_part(e, &number, &parts);
        let (group, both) = (e.index(a.group() as i64), e.index(self.layout.part() as i64));
        let kv_head = e.int2("divui", &head, &group);
        for (operand, heads, block) in [(1, a.key_heads(), &b.k), (2, a.value_heads(), &b.v)] {
            let rows = a.head_at(e, &b.operands[operand], heads, &row, &kv_head);
            let rows = a.head_rows(&rows, heads);
            let words = self.layout.along_head(rows);
            // No query sees a key behind the last query.
            words.pack(e, &end, keys, 1.0, (block, words.entries));
            if operand == 1 && self.layout.paired() {
                rows.pack_pairs(e, &end, keys, (&b.k_along, a.head_dim));
            }
        }
        e.fill(&dk, &both, Elem::F32, 4 * self.layout.tile.lanes);
        if let (Some(place), Some(penalty)) = (&b.penalty, penalty(e, a.alibi, a.heads, &head)) {
            e.store(&penalty, place, Elem::F32, 1);
        }
        let head = Head { row, head, dk, dv };
        e.repeat(&first, &end, QUERIES as i64, |e, first| self.query_block(e, &head, first));
    }

    fn query_block(&self, e: &mut Emitter, head: &Head, first: &str) {
        let (a, b, d) = (self.attention, &self.buffers, self.attention.head_dim);
        let count = count_from(e, first, QUERIES, a.seq);
        let token = e.int2("addi", &head.row, first);
        let segments = Sight::segments(e, (&b.operands[3], &token, &count), (&b.query_segments, QUERIES), 0);
        let heads = [a.query_heads(), a.result_heads(), a.result_heads(), a.query_heads()];
        let rows: [Value; 4] =
            std::array::from_fn(|i| a.head_at(e, &b.operands[[0, 4, 6, 7][i]], heads[i], &token, &head.head));
        let [q, o, result_gradient, dq] = [0, 1, 2, 3].map(|i| a.head_rows(&rows[i], heads[i]));
        let (layout, scale) = (&self.layout, self.layout.query_scale());
        layout.along_head(q).pack_transposed(e, &count, QUERIES, scale, &b.q_columns);
        layout.pack_along(e, q, &count, QUERIES, scale, (&b.q_rows, layout.key_width));
        layout.along_head(result_gradient).pack_transposed(e, &count, QUERIES, 1.0, &b.do_columns);
        layout.pack_along(e, result_gradient, &count, QUERIES, 1.0, (&b.do_rows, layout.value_width));
        self.dots(e, (o.pointer, result_gradient.pointer), &count);
        self.load_lse(e, head, &token, &count);
        let elements = e.index((d * QUERIES) as i64);
        e.fill(&b.dq, &elements, Elem::F32, 4 * self.layout.tile.lanes);
        let panels = e.plus(&count, self.layout.panel as i64 - 1);
        let panels = e.divided(&panels, self.layout.panel);
        let queries = Queries { first: first.into(), count, panels, segments };
        let (from, to) = self.layout.sight().key_range(e, &queries.first, &queries.count);
        let from = e.rounded_down(&from, self.layout.keys);
        e.repeat(&from, &to, self.layout.keys as i64, |e, first_key| self.key_block(e, head, &queries, first_key));
        dq.unpack_transposed(e, &queries.count, QUERIES, &b.scale, &b.dq);
    }

    /// `D` of every query, 0 beyond the last.
    fn dots(&self, e: &mut Emitter, (o, gradient): (&str, &str), count: &str) {
        let (a, b, heads) = (self.attention, &self.buffers, self.attention.result_heads());
        self.clear(e, &b.dots);
        let (zero, columns) = (e.index(0), e.index(heads.entries as i64));
        e.repeat(&zero, count, 1, |e, i| {
            let [o, gradient] = [o, gradient].map(|rows| e.row(rows, i, heads.width(), a.elem));
            let dot = e.reduce(&columns, self.layout.panel, &[Reduction::Sum], |e, c, lanes, so_far| {
                let [o, gradient] = [&o, &gradient].map(|row| e.load_at(row, c, a.elem, lanes));
                vec![e.fma(&o, &gradient, &so_far[0], lanes)]
            });
            e.store_at(&dot[0], &b.dots, i, Elem::F32, 1);
        });
    }

    fn load_lse(&self, e: &mut Emitter, head: &Head, token: &str, count: &str) {
        let (a, b) = (self.attention, &self.buffers);
        self.clear(e, &b.lse);
        let lse = e.row(&b.operands[5], token, a.heads, Elem::F32);
        let lse = e.offset(&lse, &head.head, Elem::F32);
        let zero = e.index(0);
        e.repeat(&zero, count, 1, |e, i| {
            let value = e.row(&lse, i, a.heads, Elem::F32);
            let value = e.load(&value, Elem::F32, 1);
            e.store_at(&value, &b.lse, i, Elem::F32, 1);
        });
    }

    fn clear(&self, e: &mut Emitter, array: &str) {
        let zero = e.float(0.0, QUERIES);
        e.store(&zero, array, Elem::F32, QUERIES);
    }

    fn key_block(&self, e: &mut Emitter, head: &Head, queries: &Queries, first_key: &str) {
        let (a, b, layout) = (self.attention, &self.buffers, &self.layout);
        let count = count_from(e, first_key, layout.keys, a.seq);
        let token = e.int2("addi", &head.row, first_key);
        let segments = Sight::segments(e, (&b.operands[3], &token, &count), (&b.key_segments, layout.keys), -1);
        let meet = Sight::may_meet(e, &queries.segments, &segments);
        let one_document = Sight::one_document(e, &queries.segments, &segments);
        let work = |e: &mut Emitter| {
            let [k, v] = [(&b.k, a.head_dim), (&b.v, a.value_dim)]
                .map(|(all, entries)| e.row(all, first_key, layout.head_words(entries), Elem::F32));
            let first_word = e.divided(first_key, layout.words);
            let k_along = e.row(&b.k_along, &first_word, a.head_dim, Elem::F32);
            let zero = e.index(0);
            e.repeat(&zero, &queries.count, layout.panel as i64, |e, panel| {
                let first_query = e.int2("addi", &queries.first, panel);
                let query_segments = e.offset(&b.query_segments, panel, Elem::I32);
                let at = Meeting {
                    first_query: &first_query,
                    query_segments: &query_segments,
                    first_key,
                    key_segments: &b.key_segments,
                    one_document: &one_document,
                    penalty: b.penalty.as_deref(),
                };
                let (from, to) = layout.sight().tiles(e, at.first_query, at.first_key, layout.tiles());
                e.repeat(&from, &to, 1, |e, t| self.tile(e, (&k, &v), panel, t, &at));
                self.query_gradient(e, &k_along, panel, (&from, &to));
            });
            let tiles = e.index(layout.tiles() as i64);
            e.repeat(&zero, &tiles, 1, |e, t| self.key_gradients(e, head, queries, first_key, t));
        };
        e.branch(&meet, work, |_| {});
    }

    /// `p` and `ds` of a tile.
    fn tile(&self, e: &mut Emitter, (k, v): (&str, &str), panel: &str, t: &str, at: &Meeting) {
        let (b, tile) = (&self.buffers, self.layout.tile);
        let [d, value_dim] =
            [self.attention.head_dim, self.attention.value_dim].map(|entries| self.layout.head_words(entries));
        let key = e.times(t, tile.rows);
        let (k, v) = (e.row(k, &key, d, Elem::F32), e.row(v, &key, value_dim, Elem::F32));
        let [q, gradient, lse, dots] =
            [&b.q_columns, &b.do_columns, &b.lse, &b.dots].map(|block| e.offset(block, panel, Elem::F32));
        let p = e.row(&b.p, &key, QUERIES, Elem::F32);
        let p = e.offset(&p, panel, Elem::F32);
        let left = |pointer, row_step| Left { pointer, row_step, step: 1 };
        let right = |pointer| Right { pointer, step: QUERIES };
        let start = tile.zeros(e);
        let products = tile.multiply_fixed(e, left(&k, d), right(&q), d, start);
        let first_key = e.int2("addi", at.first_key, &key);
        let key_segments = e.offset(at.key_segments, &key, Elem::I32);
        let at = Meeting { first_key: &first_key, key_segments: &key_segments, ..*at };
        let Scored { scores, derivatives } = self.layout.scored(e, products, &at);
        let derivatives = derivatives.zip(b.derivatives.as_ref()).map(|(values, block)| {
            let place = e.row(block, &key, QUERIES, Elem::F32);
            let place = e.offset(&place, panel, Elem::F32);
            tile.store(e, &values, &place, QUERIES);
            place
        });
        let scores = self.layout.sight().masked(e, tile, scores, &at);
        let lse = tile.load_row(e, &lse);
        let mut values = vec![];
        for (i, score) in scores.iter().enumerate() {
            let below = e.float2("subf", score, &lse[i % tile.vectors], tile.lanes);
            values.push(math::exp_of_small(e, &below, tile.lanes));
        }
        tile.store(e, &values, &p, QUERIES);
        if self.layout.paired() {
            self.store_rows(e, &values, &b.p_rows, (&key, panel));
        }
        let dots = tile.load_row(e, &dots);
        let start: Vec<Value> =
            (0..tile.count()).map(|i| e.float1("negf", &dots[i % tile.vectors], tile.lanes)).collect();
        let mut slopes = tile.multiply_fixed(e, left(&v, value_dim), right(&gradient), value_dim, start);
        for factors in [Some(p), derivatives].into_iter().flatten() {
            let factors = tile.load(e, &factors, QUERIES);
            slopes = slopes.iter().zip(&factors).map(|(s, factor)| e.float2("mulf", s, factor, tile.lanes)).collect();
        }
        let slopes = self.layout.scaled(e, slopes);
        let row = e.divided(&key, self.layout.words);
        let ds = e.row(&b.ds, &row, QUERIES, Elem::F32);
        let ds = e.offset(&ds, panel, Elem::F32);
        if !self.layout.paired() {
            return tile.store(e, &slopes, &ds, QUERIES);
        }
        self.store_rows(e, &slopes, &b.ds_rows, (&key, panel));
        let words: Vec<Value> = slopes
            .chunks(2 * tile.vectors)
            .flat_map(|rows| rows[..tile.vectors].iter().zip(&rows[tile.vectors..]))
            .map(|(low, high)| pairs::words(e, low, high, tile.lanes))
            .collect();
        tile.store(e, &words, &ds, QUERIES);
    }

    /// Stores a tile's values in bf16, to be multiplied along the queries.
    fn store_rows(&self, e: &mut Emitter, values: &[Value], rows: &str, (key, panel): (&str, &str)) {
        let tile = self.layout.tile;
        let first = e.row(rows, key, QUERIES, Elem::Bf16);
        let first = e.offset(&first, panel, Elem::Bf16);
        for (i, value) in values.iter().enumerate() {
            let place = i / tile.vectors * QUERIES + i % tile.vectors * tile.lanes;
            let place = e.at(&first, place as i64, Elem::Bf16);
            e.store(value, &place, Elem::Bf16, tile.lanes);
        }
    }

    /// `dq += kᵀ ds` of a panel over tiles `from..to`.
    fn query_gradient(&self, e: &mut Emitter, k: &str, panel: &str, (from, to): (&str, &str)) {
        let (b, d) = (&self.buffers, self.attention.head_dim);
        let [from, to] = [from, to].map(|t| e.times(t, self.layout.tile.rows / self.layout.words));
        let terms = e.int2("subi", &to, &from);
        let (k, ds) = (e.row(k, &from, d, Elem::F32), e.row(&b.ds, &from, QUERIES, Elem::F32));
        let (ds, dq) = (e.offset(&ds, panel, Elem::F32), e.offset(&b.dq, panel, Elem::F32));
        strips(e, d, self.layout.tile, |e, first, tile| {
            let (place, k) = (e.row(&dq, first, QUERIES, Elem::F32), e.offset(&k, first, Elem::F32));
            let start = tile.load(e, &place, QUERIES);
            let (left, right) = (Left { pointer: &k, row_step: 1, step: d }, Right { pointer: &ds, step: QUERIES });
            let sums = tile.multiply(e, left, right, (&terms, self.layout.key_unroll()), start);
            tile.store(e, &sums, &place, QUERIES);
        });
    }

    /// `dv += p do` and `dk += ds q` of the keys of a tile.
    fn key_gradients(&self, e: &mut Emitter, head: &Head, queries: &Queries, first_key: &str, t: &str) {
        let (b, layout, tile) = (&self.buffers, &self.layout, self.layout.tile);
        let key = e.times(t, tile.rows);
        let position = e.int2("addi", first_key, &key);
        let (from, to) = layout.sight().panels(e, &queries.first, &position, &queries.panels);
        let [from, to] = [from, to].map(|p| e.times(&p, layout.panel / layout.words));
        let row_step = QUERIES / layout.words;
        let terms = e.int2("subi", &to, &from);
        let zero = e.index(0);
        let of_values = (layout.value_width, &b.p_rows, &b.do_rows, &head.dv);
        let of_keys = (layout.key_width, &b.ds_rows, &b.q_rows, &head.dk);
        for (width, weights, rows, gradients) in [of_values, of_keys] {
            let weights = e.row(weights, &key, row_step, Elem::F32);
            let weights = e.offset(&weights, &from, Elem::F32);
            let rows = e.row(rows, &from, width, Elem::F32);
            let gradients = e.row(gradients, &position, width, Elem::F32);
            let columns = e.index(width as i64);
            e.repeat(&zero, &columns, layout.panel as i64, |e, column| {
                let (rows, place) = (e.offset(&rows, column, Elem::F32), e.offset(&gradients, column, Elem::F32));
                let start = tile.load(e, &place, width);
                let (left, right) =
                    (Left { pointer: &weights, row_step, step: 1 }, Right { pointer: &rows, step: width });
                let sums = tile.multiply(e, left, right, (&terms, 4), start);
                tile.store(e, &sums, &place, width);
            });
        }
    }
}

/// First query of a part, and the end; `ends` are those of all parts.
fn queries_of_part(e: &mut Emitter, number: &str, ends: &[usize]) -> (Value, Value) {
    let (zero, all) = (e.index(0), e.index(ends[ends.len() - 1] as i64));
    let [middle, _] = ends else { return (zero, all) };
    let middle = e.index(*middle as i64);
    let is_first = e.op(format!("arith.cmpi eq, {number}, {zero} : i64"));
    let first = e.op(format!("arith.select {is_first}, {zero}, {middle} : i64"));
    let end = e.op(format!("arith.select {is_first}, {middle}, {all} : i64"));
    (first, end)
}
