//! Which tokens see each other: the range that a block walks over, and masks within a tile.
use super::*;
use crate::emit::int_type;

/// What the joining of the block's findings takes of shared memory: two times two numbers of each warp.
pub const SHARED_BYTES: usize = 2 * 128;

impl Walk<'_> {
    /// Keys `from..to` that some query of a block may see; `from` begins a tile. No key before or behind them shares a
    /// document with any of the queries.
    pub fn key_range(&self, e: &mut Emitter, segments: &str, at: &Place) -> (Value, Value) {
        let within = self.keys_within(e, at.first);
        self.of_documents(e, segments, at, within)
    }

    /// Queries `from..to` that may see some key of a block, likewise.
    pub fn query_range(&self, e: &mut Emitter, segments: &str, at: &Place) -> (Value, Value) {
        let within = self.queries_within(e, at.first);
        self.of_documents(e, segments, at, within)
    }

    /// Keys `from..to` that the queries of a block may see as far as their places go.
    fn keys_within(&self, e: &mut Emitter, first: &str) -> (Value, Value) {
        let seq = e.index(self.attention.seq as i64);
        let to = e.plus(first, self.own() as i64);
        let to = e.int2("minsi", &to, &seq);
        let Some(window) = self.attention.window else { return ("%zero".into(), to) };
        let from = e.plus(first, 1 - window as i64);
        (e.int2("maxsi", &from, "%zero"), to)
    }

    /// Queries `from..to` that may see the keys of a block as far as their places go.
    fn queries_within(&self, e: &mut Emitter, first: &str) -> (Value, Value) {
        let seq = e.index(self.attention.seq as i64);
        let Some(window) = self.attention.window else { return (first.into(), seq) };
        let to = e.plus(first, (self.own() + window - 1) as i64);
        (first.into(), e.int2("minsi", &to, &seq))
    }

    /// What remains of `from..to` between the first and the last token whose document may be one of the block's.
    fn of_documents(&self, e: &mut Emitter, segments: &str, at: &Place, (from, to): (Value, Value)) -> (Value, Value) {
        let lowest = e.float(f32::NEG_INFINITY, 1);
        let own = e.index(self.own() as i64);
        // Numbers of tokens and documents are below 2^24, so f32 holds them; the smallest is the largest of the negative.
        let documents = e.reduce(&own, 1, &[Reduction::Max; 2], |e, i, _, so_far| {
            let token = e.int2("addi", at.first, i);
            let (segment, real) = self.document(e, segments, at.batch, &token);
            e.extremes(so_far, &segment, &real, &lowest)
        });
        let smallest = e.negated(&documents[0]);
        let count = e.int2("subi", &to, &from);
        let tokens = e.reduce(&count, 1, &[Reduction::Max; 2], |e, i, _, so_far| {
            let token = e.int2("addi", &from, i);
            let (segment, real) = self.document(e, segments, at.batch, &token);
            let (above, below) =
                (e.compare("oge", &segment, &smallest, 1), e.compare("ole", &segment, &documents[1], 1));
            let within = e.op(format!("arith.andi {above}, {below} : i1"));
            let within = e.op(format!("arith.andi {within}, {real} : i1"));
            let number = e.op(format!("arith.sitofp {token} : i64 to f32"));
            e.extremes(so_far, &number, &within, &lowest)
        });
        let any = e.compare("ogt", &tokens[1], &lowest, 1);
        let first = e.negated(&tokens[0]);
        let [first, last] = [&first, &tokens[1]].map(|x| e.op(format!("arith.fptosi {x} : f32 to i64")));
        let (first, end) = (e.rounded_down(&first, self.others), e.plus(&last, 1));
        (e.choose(&any, &first, "%zero"), e.choose(&any, &end, "%zero"))
    }

    /// A token's segment as f32, and whether it is a document's.
    fn document(&self, e: &mut Emitter, segments: &str, batch: &str, token: &str) -> (Value, Value) {
        let segment = self.segment(e, segments, batch, token);
        let real = e.op(format!("arith.cmpi sgt, {segment}, %zero : i64"));
        (e.op(format!("arith.sitofp {segment} : {} to f32", int_type(1, 64))), real)
    }

    /// Segment of token `token` of a row of the batch; 0, which is no document, behind its end.
    pub fn segment(&self, e: &mut Emitter, segments: &str, batch: &str, token: &str) -> Value {
        let (place, inside) = self.token(e, batch, token);
        let segment = e.load_int_at(segments, &place);
        e.choose(&inside, &segment, "%zero")
    }

    /// The segments of the tile from `other` on, spread over a warp: lane `i` has those of tokens `i`, `i + 32` and so on.
    pub fn spread_segments(&self, e: &mut Emitter, segments: &str, batch: &str, other: &str) -> Vec<Value> {
        let mine = e.int2("addi", other, "%lane");
        let last = e.plus(other, self.others as i64 - 1);
        let one = |turn: usize| {
            let token = e.plus(&mine, (turn * WARP) as i64);
            // Lanes that are left over look at the last token.
            let token = if self.others.is_multiple_of(WARP) { token } else { e.int2("minsi", &token, &last) };
            self.segment(e, segments, batch, &token)
        };
        (0..self.others.div_ceil(WARP)).map(one).collect()
    }

    /// Whether none of some keys, the first to the last, is behind or too far before any of some queries.
    fn all_near(&self, e: &mut Emitter, queries: (&str, &str), keys: (&str, &str)) -> Value {
        let not_behind = e.op(format!("arith.cmpi sle, {}, {} : i64", keys.1, queries.0));
        let Some(window) = self.attention.window else { return not_behind };
        let reach = e.plus(keys.0, window as i64);
        let near = e.less(queries.1, &reach);
        e.op(format!("arith.andi {not_behind}, {near} : i1"))
    }

    /// A token's number in the batch, and whether there is such a token; if not, another's number.
    pub fn token(&self, e: &mut Emitter, batch: &str, token: &str) -> (Value, Value) {
        let (seq, last) = (e.index(self.attention.seq as i64), e.index(self.attention.seq as i64 - 1));
        let inside = e.less(token, &seq);
        let token = e.int2("minsi", token, &last);
        let row = e.times(batch, self.attention.seq);
        (e.int2("addi", &row, &token), inside)
    }

    /// Whether a query sees a key, each given by number and segment.
    pub fn sees(&self, e: &mut Emitter, query: &(Value, Value), key: &(Value, Value)) -> Value {
        let mut parts = vec![
            e.op(format!("arith.cmpi sle, {}, {} : i64", key.0, query.0)),
            e.op(format!("arith.cmpi eq, {}, {} : i64", key.1, query.1)),
            e.op(format!("arith.cmpi sgt, {}, %zero : i64", key.1)),
        ];
        if let Some(window) = self.attention.window {
            let reach = e.plus(&key.0, window as i64);
            parts.push(e.less(&query.0, &reach));
        }
        parts.into_iter().reduce(|a, b| e.op(format!("arith.andi {a}, {b} : i1"))).expect("at least three")
    }
}

impl Emitter {
    fn negated(&mut self, x: &str) -> Value {
        let minus_one = self.float(-1.0, 1);
        self.float2("mulf", x, &minus_one, 1)
    }

    /// The largest of the negative values so far, and the largest, with a value joined where it `counts`.
    fn extremes(&mut self, so_far: &[Value], value: &str, counts: &str, lowest: &str) -> Vec<Value> {
        let negative = self.negated(value);
        let pairs = [(&so_far[0], negative), (&so_far[1], value.to_string())];
        let join = |(so_far, value): (&Value, Value)| {
            let value = self.select(counts, &value, lowest, 1);
            Reduction::Max.join(self, so_far, &value, 1)
        };
        pairs.map(join).into()
    }
}

/// What the own tokens of a warp have in common: queries, or keys.
pub struct WarpTokens {
    /// The first of them, and its segment.
    pub first: Value,
    segment: Value,
    /// Whether this thread's tokens are of that segment, which is a document.
    alike: Value,
}

impl WarpTokens {
    /// Of the block's tokens from `block` on; `mine` are those that this thread has.
    pub fn new(
        walk: &Walk,
        e: &mut Emitter,
        segments: &str,
        batch: &str,
        block: &str,
        mine: &[(Value, Value)],
    ) -> WarpTokens {
        let row = e.times("%warp", WARP_ROWS);
        let first = e.int2("addi", block, &row);
        let segment = walk.segment(e, segments, batch, &first);
        let mut alike = e.op(format!("arith.cmpi sgt, {segment}, %zero : i64"));
        for (_, other) in mine {
            let same = e.op(format!("arith.cmpi eq, {other}, {segment} : i64"));
            alike = e.op(format!("arith.andi {alike}, {same} : i1"));
        }
        WarpTokens { first, segment, alike }
    }

    /// Whether every one of the warp's queries sees every key of the tile from `key` on, of these segments: then there is nothing to
    /// mask.
    pub fn see_all(&self, walk: &Walk, e: &mut Emitter, key: &str, segments: &[Value]) -> Value {
        let (last_query, last_key) = (self.last(e), e.plus(key, walk.others as i64 - 1));
        let near = walk.all_near(e, (&self.first, &last_query), (key, &last_key));
        self.alike_with(e, segments, &near)
    }

    /// The other way round: whether every query of the tile from `query` on sees every one of the warp's keys.
    pub fn are_seen_by_all(&self, walk: &Walk, e: &mut Emitter, query: &str, segments: &[Value]) -> Value {
        let (last_query, last_key) = (e.plus(query, walk.others as i64 - 1), self.last(e));
        let near = walk.all_near(e, (query, &last_query), (&self.first, &last_key));
        self.alike_with(e, segments, &near)
    }

    fn last(&self, e: &mut Emitter) -> Value {
        e.plus(&self.first, WARP_ROWS as i64 - 1)
    }

    /// Whether `so_far` holds, and the warp's tokens and those of a tile are all of one document.
    fn alike_with(&self, e: &mut Emitter, segments: &[Value], so_far: &str) -> Value {
        let mut all = e.op(format!("arith.andi {so_far}, {} : i1", self.alike));
        for segment in segments {
            let same = e.op(format!("arith.cmpi eq, {segment}, {} : i64", self.segment));
            all = e.op(format!("arith.andi {all}, {same} : i1"));
        }
        let warp = e.int_constant(-1, 1);
        e.op(format!("nvvm.vote.sync all {warp}, {all} -> i1"))
    }
}
