//! Which tokens see each other: the range that a block walks over, and masks within a tile.
use super::*;
use crate::emit::int_type;

/// What the joining of the block's findings takes of shared memory: two times two numbers of each warp.
pub const SHARED_BYTES: usize = 2 * 128;

/// More tokens than a row has.
const MOST_TOKENS: f32 = 16_777_216.0;

/// The tokens of the other side that a block walks over: those of `from..to`, of which `from` begins a tile.
pub struct Range {
    pub from: Value,
    pub to: Value,
    /// An i32: where a walk over keys comes to tokens that are all of the one document which the block's are of, as far as they
    /// see each other by their places; or where a walk over queries leaves such tokens.
    pub alike: Value,
}

/// What is looked for among the other side's tokens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looks {
    /// Where walks begin and end.
    Ends,
    /// And where tokens of other documents end, or begin.
    LastOthers,
    FirstOthers,
}

impl Walk<'_> {
    /// Keys `from..to` that some query of a block may see; `from` begins a tile. No key before or behind them shares a
    /// document with any of the queries.
    pub fn key_range(&self, e: &mut Emitter, segments: &str, at: &Place) -> (Value, Value) {
        let within = self.keys_within(e, at.first);
        let range = self.of_documents(e, segments, at, within, Looks::Ends);
        (range.from, range.to)
    }

    /// Queries `from..to` that may see some key of a block, likewise.
    pub fn query_range(&self, e: &mut Emitter, segments: &str, at: &Place) -> (Value, Value) {
        let within = self.queries_within(e, at.first);
        let range = self.of_documents(e, segments, at, within, Looks::Ends);
        (range.from, range.to)
    }

    /// The range of a block of queries, or of keys.
    pub fn range(&self, e: &mut Emitter, segments: &str, at: &Place, of_queries: bool) -> Range {
        let (within, looks) = if of_queries {
            (self.keys_within(e, at.first), Looks::LastOthers)
        } else {
            (self.queries_within(e, at.first), Looks::FirstOthers)
        };
        let Range { from, to, alike } = self.of_documents(e, segments, at, within, looks);
        let [from, to] = [from, to].map(|place| {
            let place = e.op(format!("arith.trunci {place} : i64 to i32"));
            let place = e.of_warp(&place);
            e.op(format!("arith.extsi {place} : i32 to i64"))
        });
        Range { from, to, alike: e.of_warp(&alike) }
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
    fn of_documents(
        &self,
        e: &mut Emitter,
        segments: &str,
        at: &Place,
        (from, to): (Value, Value),
        looks: Looks,
    ) -> Range {
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
        let kinds = vec![Reduction::Max; if looks == Looks::Ends { 2 } else { 3 }];
        let tokens = e.reduce(&count, 1, &kinds, |e, i, _, so_far| {
            let token = e.int2("addi", &from, i);
            let (segment, real) = self.document(e, segments, at.batch, &token);
            let (above, below) =
                (e.compare("oge", &segment, &smallest, 1), e.compare("ole", &segment, &documents[1], 1));
            let within = e.op(format!("arith.andi {above}, {below} : i1"));
            let within = e.op(format!("arith.andi {within}, {real} : i1"));
            let number = e.op(format!("arith.sitofp {token} : i64 to f32"));
            let mut found = e.extremes(so_far, &number, &within, &lowest);
            if let Some(so_far) = so_far.get(2) {
                let number = if looks == Looks::LastOthers { number } else { e.negated(&number) };
                let number = e.select(&within, &lowest, &number, 1);
                found.push(Reduction::Max.join(e, so_far, &number, 1));
            }
            found
        });
        let alike = match tokens.get(2) {
            Some(others) => self.alike_from(e, (&smallest, &documents[1]), others, looks),
            None => e.int_constant(0, 1),
        };
        let any = e.compare("ogt", &tokens[1], &lowest, 1);
        let first = e.negated(&tokens[0]);
        let [first, last] = [&first, &tokens[1]].map(|x| e.op(format!("arith.fptosi {x} : f32 to i64")));
        let (first, end) = (e.rounded_down(&first, self.others), e.plus(&last, 1));
        let [from, to] = [&first, &end].map(|value| e.choose(&any, value, "%zero"));
        Range { from, to, alike }
    }

    /// [`Range::alike`], from the smallest and the largest document of the block, and from the last token of others, or the first one's
    /// negative. Where the block has several documents, the walk never comes there, or leaves it before it begins.
    fn alike_from(&self, e: &mut Emitter, documents: (&str, &str), others: &str, looks: Looks) -> Value {
        let (place, never) = if looks == Looks::LastOthers {
            let (one, zero) = (e.float(1.0, 1), e.float(0.0, 1));
            let behind = e.float2("addf", others, &one, 1);
            (Reduction::Max.join(e, &behind, &zero, 1), e.float(MOST_TOKENS, 1))
        } else {
            let end = e.float(-(self.attention.seq as f32), 1);
            let before = Reduction::Max.join(e, others, &end, 1);
            (e.negated(&before), e.float(0.0, 1))
        };
        let one = e.compare("oeq", documents.0, documents.1, 1);
        let place = e.select(&one, &place, &never, 1);
        e.op(format!("arith.fptosi {place} : f32 to i32"))
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
    /// An i32 that all threads of a warp have alike: so the assembler sees it, and has it in a register that they share.
    fn of_warp(&mut self, value: &str) -> Value {
        let warp = self.int_constant(-1, 1);
        self.op(format!("nvvm.redux.sync max {value}, {warp} : i32 -> i32"))
    }

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
