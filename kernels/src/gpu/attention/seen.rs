//! Which of a tile's scores count, for warpgroups: found while the products of the tile run, and applied to what becomes of them.
//!
//! Most tiles are seen by all of a warp's queries, and nothing is masked. Behind that, causality and the window leave every
//! row of scores an interval of columns, whose bits are made by shifts. Documents are looked at only where a block's range
//! ([`Range::alike`]) does not say that there is but one.
use super::sight::Range;
use super::*;
use crate::emit::{float_type, int_type};

/// The own tokens of a warp: queries, or keys.
pub struct WarpTokens {
    /// The first of the block's.
    pub block: Value,
    pub are_queries: bool,
}

/// A tile of the other side's tokens.
pub struct OtherTile<'a> {
    pub segments: &'a str,
    pub batch: &'a str,
    /// The first of them.
    pub first: &'a str,
    pub range: &'a Range,
}

/// Which scores of a tile count.
pub struct Seen {
    /// Whether all of the warp's do.
    all: Value,
    /// For each of the thread's two rows the bits of its columns.
    rows: Vec<Value>,
}

impl WarpTokens {
    /// The first of them: computed for every tile, so that it takes no registers between them.
    pub fn first(&self, e: &mut Emitter) -> Value {
        let warp = e.anew("%warp");
        let row = e.times(&warp, WARP_ROWS);
        e.int2("addi", &self.block, &row)
    }

    /// A thread's first token, and its first column, likewise.
    pub fn origin(&self, e: &mut Emitter) -> (Value, Value) {
        let (first, lane) = (self.first(e), e.anew("%lane"));
        let (row, column) = Part::origin_of(e, &lane);
        (e.int2("addi", &first, &row), column)
    }

    /// Which scores count of a tile; `origin` is row and column of the thread's first.
    pub fn seen(&self, walk: &Walk, e: &mut Emitter, tile: &OtherTile, origin: &(Value, Value)) -> Seen {
        let (own, first) = (self.first(e), e.narrow(tile.first));
        let near = self.all_near(walk, e, &own, &first);
        let one_document = if self.are_queries {
            e.op(format!("arith.cmpi sge, {first}, {} : i32", tile.range.alike))
        } else {
            let end = e.int_plus(&first, walk.others as i32);
            e.op(format!("arith.cmpi sle, {end}, {} : i32", tile.range.alike))
        };
        // Of the thread's own two tokens, and of the tile's.
        let segments = 2 + walk.others.div_ceil(WARP);
        let types = [vec![int_type(1, 1)], vec![int_type(1, 32); segments]].concat();
        let unseen = |e: &mut Emitter| [vec![near.clone()], vec![e.int_constant(0, 1); segments]].concat();
        let looked_at = |e: &mut Emitter| {
            let (mine, all) = own_segments(walk, e, tile, (&own, &origin.0));
            let spread = spread_segments(walk, e, tile);
            let all = alike_with(e, &mine[0], &spread, &all);
            let all = e.op(format!("arith.andi {near}, {all} : i1"));
            [vec![all], mine[1..].to_vec(), spread].concat()
        };
        let found = e.either(&one_document, &types, unseen, looked_at);
        let all = e.all_in_warp(&found[0]);
        let rows = vec![int_type(1, 32); 2];
        let every = |e: &mut Emitter| vec![e.int_constant(-1, 1); 2];
        let some = |e: &mut Emitter| {
            let near = self.near(walk, e, (&own, &first), origin);
            let both = |e: &mut Emitter| {
                let same = same(walk, e, (&found[1..3], &found[3..]), &origin.1);
                near.iter().zip(&same).map(|(a, b)| e.int_lanes2("andi", a, b, 1)).collect()
            };
            e.either(&one_document, &rows, |_| near.clone(), both)
        };
        let rows = e.either(&all, &rows, every, some);
        Seen { all, rows }
    }

    /// Whether none of the keys, the warp's or a tile's, is behind or too far before any of the queries; `own` and `other` are the first.
    fn all_near(&self, walk: &Walk, e: &mut Emitter, own: &str, other: &str) -> Value {
        let own = e.narrow(own);
        let (own_last, other_last) =
            (e.int_plus(&own, WARP_ROWS as i32 - 1), e.int_plus(other, walk.others as i32 - 1));
        let (first_query, last_query, first_key, last_key) = if self.are_queries {
            (own.as_str(), own_last.as_str(), other, other_last.as_str())
        } else {
            (other, other_last.as_str(), own.as_str(), own_last.as_str())
        };
        let not_behind = e.op(format!("arith.cmpi sle, {last_key}, {first_query} : i32"));
        let Some(window) = walk.attention.window else { return not_behind };
        let reach = e.int_plus(first_key, window.min(walk.attention.seq) as i32);
        let near = e.op(format!("arith.cmpi slt, {last_query}, {reach} : i32"));
        e.op(format!("arith.andi {not_behind}, {near} : i1"))
    }

    /// Bits of the scores that count as far as places go, for each row; `own` and `other` are the first tokens.
    fn near(
        &self,
        walk: &Walk,
        e: &mut Emitter,
        (own, other): (&str, &str),
        (row, column): &(Value, Value),
    ) -> Vec<Value> {
        let (row, column) = (e.narrow(row), e.narrow(column));
        let first = e.narrow(own);
        let (own, other) = (e.int_lanes2("addi", &first, &row, 1), e.int_lanes2("addi", other, &column, 1));
        // A column is near if its distance from the thread's first is within these of the own token's from the first other.
        let ahead = e.int_lanes2("subi", &own, &other, 1);
        let window = walk.attention.window.map(|window| window.min(walk.attention.seq) as i32);
        // Keys are near up to the query and not before the window; queries from the key on, within the window.
        let (near, hidden) =
            if self.are_queries { (Some(0), window.map(|w| -w)) } else { (window.map(|w| w - 1), Some(-1)) };
        let minus_one = e.int_constant(-1, 1);
        let one = |row: i32| {
            let up_to = |e: &mut Emitter, further: i32| {
                let last = e.int_plus(&ahead, row + further);
                columns_up_to(e, &last, walk.others)
            };
            let near = near.map(|further| up_to(e, further));
            let hidden = hidden.map(|further| up_to(e, further));
            let shown = hidden.map(|hidden| e.int_lanes2("xori", &hidden, &minus_one, 1));
            match (near, shown) {
                (Some(near), Some(shown)) => e.int_lanes2("andi", &near, &shown, 1),
                (near, shown) => near.or(shown).expect("causality hides some"),
            }
        };
        [0, 8].map(one).into()
    }
}

impl Seen {
    /// The values of a tile's scores, but `hidden` for those that do not count.
    pub fn masked(&self, walk: &Walk, e: &mut Emitter, values: &[Value], hidden: f32) -> Vec<Value> {
        let some = |e: &mut Emitter| {
            let (hidden, zero) = (e.float(hidden, 1), e.int_constant(0, 1));
            let one = |element: Element| {
                let bit = e.int_constant(1 << column_number(&element), 1);
                let bit = e.int_lanes2("andi", &self.rows[element.row / 8], &bit, 1);
                let counts = e.op(format!("arith.cmpi ne, {bit}, {zero} : i32"));
                e.select(&counts, &values[element.register], &hidden, 1)
            };
            walk.scores().elements().map(one).collect()
        };
        e.either(&self.all, &vec![float_type(1); values.len()], |_| values.to_vec(), some)
    }
}

/// Segments of the warp's first token and of the thread's two, and whether these are of the first's, which is a document.
fn own_segments(walk: &Walk, e: &mut Emitter, tile: &OtherTile, (first, row): (&str, &str)) -> (Vec<Value>, Value) {
    let token = e.int2("addi", first, row);
    let tokens = [first.to_string(), token.clone(), e.plus(&token, 8)];
    let segments = tokens.map(|token| segment(walk, e, tile, &token));
    let zero = e.int_constant(0, 1);
    let mut all = e.op(format!("arith.cmpi sgt, {}, {zero} : i32", segments[0]));
    for other in &segments[1..] {
        let same = e.op(format!("arith.cmpi eq, {other}, {} : i32", segments[0]));
        all = e.op(format!("arith.andi {all}, {same} : i1"));
    }
    (segments.into(), all)
}

/// The segments of a tile, spread over a warp: lane `i` has those of tokens `i`, `i + 32` and so on.
fn spread_segments(walk: &Walk, e: &mut Emitter, tile: &OtherTile) -> Vec<Value> {
    let mine = e.int2("addi", tile.first, "%lane");
    let last = e.plus(tile.first, walk.others as i64 - 1);
    let one = |turn: usize| {
        let token = e.plus(&mine, (turn * WARP) as i64);
        // Lanes that are left over look at the last token.
        let token = if walk.others.is_multiple_of(WARP) { token } else { e.int2("minsi", &token, &last) };
        segment(walk, e, tile, &token)
    };
    (0..walk.others.div_ceil(WARP)).map(one).collect()
}

/// The segment of a token of the tile's row of the batch, an i32.
fn segment(walk: &Walk, e: &mut Emitter, tile: &OtherTile, token: &str) -> Value {
    let segment = walk.segment(e, tile.segments, tile.batch, token);
    e.narrow(&segment)
}

/// Whether `so_far` holds, and all of a tile's segments are the same as `own`.
fn alike_with(e: &mut Emitter, own: &str, spread: &[Value], so_far: &str) -> Value {
    let mut all = so_far.to_string();
    for segment in spread {
        let same = e.op(format!("arith.cmpi eq, {segment}, {own} : i32"));
        all = e.op(format!("arith.andi {all}, {same} : i1"));
    }
    all
}

/// Bits of the scores whose two tokens are of one document, for each row; `own` has the segments of the thread's rows, `spread` the tile's.
fn same(walk: &Walk, e: &mut Emitter, (own, spread): (&[Value], &[Value]), column: &str) -> Vec<Value> {
    let (zero, none, lane) = (e.int_constant(0, 1), e.int_constant(-1, 1), e.narrow(column));
    let spread: Vec<Value> = spread.iter().map(|segment| e.int_lanes2("maxsi", segment, &zero, 1)).collect();
    // What is no document is like nothing.
    let real = |segment: &Value| {
        let real = e.op(format!("arith.cmpi sgt, {segment}, {zero} : i32"));
        e.op(format!("arith.select {real}, {segment}, {none} : i32"))
    };
    let own: Vec<Value> = own.iter().map(real).collect();
    let mut words = vec![zero.clone(); 2];
    // Each column's comes from the lane that has it.
    for (number, column) in column_distances(walk.scores()).enumerate() {
        let lane = e.int_plus(&lane, (column % WARP) as i32);
        let other = e.from_lane(&spread[column / WARP], &lane);
        let bit = e.int_constant(1 << number, 1);
        for (word, own) in words.iter_mut().zip(&own) {
            let same = e.op(format!("arith.cmpi eq, {own}, {other} : i32"));
            let bit = e.op(format!("arith.select {same}, {bit}, {zero} : i32"));
            *word = e.int_lanes2("ori", word, &bit, 1);
        }
    }
    words
}

/// Bits of a thread's columns up to the one that is `last`, an i32, behind its first: of every eight columns a thread has two, so
/// there are `2 (last div 8) + min(last mod 8, 1) + 1`.
fn columns_up_to(e: &mut Emitter, last: &str, columns: usize) -> Value {
    let [minus_one, one, three, seven, end] = [-1, 1, 3, 7, columns as i32 - 1].map(|value| e.int_constant(value, 1));
    let last = e.int_lanes2("maxsi", last, &minus_one, 1);
    let last = e.int_lanes2("minsi", &last, &end, 1);
    let pieces = e.int_lanes2("shrsi", &last, &three, 1);
    let pairs = e.int_lanes2("shli", &pieces, &one, 1);
    let rest = e.int_lanes2("andi", &last, &seven, 1);
    let rest = e.int_lanes2("minsi", &rest, &one, 1);
    let count = e.int_lanes2("addi", &pairs, &rest, 1);
    let count = e.int_plus(&count, 1);
    let wide = e.op(format!("arith.extui {count} : i32 to i64"));
    let one = e.index(1);
    let above = e.int2("shli", &one, &wide);
    let bits = e.plus(&above, -1);
    e.narrow(&bits)
}

impl Emitter {
    /// The lower half of an i64.
    fn narrow(&mut self, value: &str) -> Value {
        self.op(format!("arith.trunci {value} : i64 to i32"))
    }

    /// `value + constant` on i32.
    fn int_plus(&mut self, value: &str, constant: i32) -> Value {
        let constant = self.int_constant(constant, 1);
        self.int_lanes2("addi", value, &constant, 1)
    }
}
