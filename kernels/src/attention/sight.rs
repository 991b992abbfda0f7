//! Which keys a query sees: ranges of tiles, and masks within a tile.
use super::tile::Tile;
use crate::emit::{Elem, Emitter, Value, float_type, int_type};

/// Token `i` sees key `j` if `j <= i`, `j > i - window`, and their segments are equal and positive.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    pub window: Option<usize>,
    /// Keys of a tile, queries of a panel.
    pub tile_keys: usize,
    pub panel: usize,
}

/// Largest and smallest segment of a block, and the smallest positive one.
pub struct Segments {
    pub largest: Value,
    pub smallest: Value,
    pub smallest_real: Value,
}

/// Where the tokens of a panel and of a tile stand in their row, and their segments in scratch.
pub struct Meeting<'a> {
    pub first_query: &'a str,
    pub query_segments: &'a str,
    pub first_key: &'a str,
    pub key_segments: &'a str,
    /// i1: all segments of both blocks are one and the same document.
    pub one_document: &'a str,
    /// Where it is kept, with ALiBi, what a distance of one token takes from a score of this head; in a register it would push
    /// others out of the loops.
    pub penalty: Option<&'a str>,
}

impl Sight {
    /// Keys `from..to` that a query of `first..first + count` may see.
    pub fn key_range(&self, e: &mut Emitter, first: &str, count: &str) -> (Value, Value) {
        let to = e.int2("addi", first, count);
        let zero = e.index(0);
        let Some(window) = self.window else { return (zero, to) };
        let window = e.index(window as i64 - 1);
        let from = e.int2("subi", first, &window);
        (e.int2("maxsi", &from, &zero), to)
    }

    /// Tiles `from..to` of a block of `tiles` that starts at `first_key`, of which the panel sees any key.
    pub fn tiles(&self, e: &mut Emitter, first_query: &str, first_key: &str, tiles: usize) -> (Value, Value) {
        let ahead = e.int2("subi", first_query, first_key);
        let all = e.index(tiles as i64);
        let to = e.plus(&ahead, (self.panel + self.tile_keys - 1) as i64);
        let to = e.divided(&to, self.tile_keys);
        let to = e.int2("minsi", &to, &all);
        let Some(window) = self.window else { return (e.index(0), to) };
        let from = e.plus(&ahead, 1 - window as i64);
        let from = e.divided(&from, self.tile_keys);
        (e.int2("minsi", &from, &all), to)
    }

    /// Panels `from..to` of a block of `panels` that starts at `first_query`, which see any key of the tile: those for
    /// which [`Sight::tiles`] has this tile.
    pub fn panels(&self, e: &mut Emitter, first_query: &str, first_key: &str, panels: &str) -> (Value, Value) {
        let ahead = e.int2("subi", first_key, first_query);
        let from = e.divided(&ahead, self.panel);
        let Some(window) = self.window else { return (from, panels.into()) };
        let to = e.plus(&ahead, (window + self.tile_keys - 1 + self.panel - 1) as i64);
        let to = e.divided(&to, self.panel);
        (from, e.int2("minsi", &to, panels))
    }

    /// Copies the segments of tokens `first..first + count` to scratch, `none` for padding and up to `total`.
    pub fn segments(
        e: &mut Emitter,
        (from, first, count): (&str, &str, &str),
        (to, total): (&str, usize),
        none: i64,
    ) -> Segments {
        let (zero, all, none) = (e.index(0), e.index(total as i64), e.index(none));
        let large = e.index(i64::from(i32::MAX));
        let integer = || "i64".to_string();
        let start = [(none.clone(), integer()), (large.clone(), integer()), (large, integer())];
        let stats = e.for_loop(&zero, count, 1, &start, |e, i, so_far| {
            let token = e.int2("addi", first, i);
            let segment = e.load_int_at(from, &token);
            let real = e.op(format!("arith.cmpi sgt, {segment}, {zero} : i64"));
            let stored = e.op(format!("arith.select {real}, {segment}, {none} : i64"));
            e.store_int_at(&stored, to, i);
            let smaller = e.int2("minsi", &so_far[2], &segment);
            let smaller = e.op(format!("arith.select {real}, {smaller}, {} : i64", so_far[2]));
            vec![e.int2("maxsi", &so_far[0], &stored), e.int2("minsi", &so_far[1], &stored), smaller]
        });
        let rest = e.for_loop(count, &all, 1, &[(stats[1].clone(), integer())], |e, i, _| {
            e.store_int_at(&none, to, i);
            vec![none.clone()]
        });
        Segments { largest: stats[0].clone(), smallest: rest[0].clone(), smallest_real: stats[2].clone() }
    }

    /// i1: some query may see some key, as far as their documents go.
    pub fn may_meet(e: &mut Emitter, queries: &Segments, keys: &Segments) -> Value {
        let below = e.op(format!("arith.cmpi sge, {}, {} : i64", keys.largest, queries.smallest_real));
        let above = e.op(format!("arith.cmpi sle, {}, {} : i64", keys.smallest_real, queries.largest));
        e.op(format!("arith.andi {below}, {above} : i1"))
    }

    /// i1: all are of one document.
    pub fn one_document(e: &mut Emitter, queries: &Segments, keys: &Segments) -> Value {
        let pairs =
            [(&queries.largest, &queries.smallest), (&keys.largest, &keys.smallest), (&queries.largest, &keys.largest)];
        let equal = pairs.map(|(a, b)| e.op(format!("arith.cmpi eq, {a}, {b} : i64")));
        let both = e.op(format!("arith.andi {}, {} : i1", equal[0], equal[1]));
        e.op(format!("arith.andi {both}, {} : i1", equal[2]))
    }

    /// The scores of a tile (rows are keys, lanes are queries) with -infinity where the query does not see the key.
    pub fn masked(&self, e: &mut Emitter, tile: Tile, scores: Vec<Value>, at: &Meeting) -> Vec<Value> {
        let last_key = e.plus(at.first_key, tile.rows as i64 - 1);
        let mut plain = e.op(format!("arith.cmpi sle, {last_key}, {} : i64", at.first_query));
        plain = e.op(format!("arith.andi {plain}, {} : i1", at.one_document));
        if let Some(window) = self.window {
            let reach = e.plus(at.first_key, window as i64);
            let last_query = e.plus(at.first_query, self.panel as i64 - 1);
            let inside = e.op(format!("arith.cmpi slt, {last_query}, {reach} : i64"));
            plain = e.op(format!("arith.andi {plain}, {inside} : i1"));
        }
        let types = vec![float_type(tile.lanes); scores.len()];
        e.either(&plain, &types, |_| scores.clone(), |e| self.mask(e, tile, &scores, at))
    }

    fn mask(&self, e: &mut Emitter, tile: Tile, scores: &[Value], at: &Meeting) -> Vec<Value> {
        let lowest = e.float(f32::NEG_INFINITY, tile.lanes);
        let queries: Vec<(Value, Value)> = (0..tile.vectors)
            .map(|v| {
                let segments = e.at(at.query_segments, (v * tile.lanes) as i64, Elem::I32);
                (lane_tokens(e, at.first_query, v, tile.lanes), load_ints(e, &segments, tile.lanes))
            })
            .collect();
        let mut result = vec![];
        for row in 0..tile.rows {
            let key = e.plus(at.first_key, row as i64);
            let key = splat_int(e, &key, tile.lanes);
            let segment = e.at(at.key_segments, row as i64, Elem::I32);
            let segment = e.op(format!("llvm.load {segment} {{alignment = 4 : i64}} : !llvm.ptr -> i32"));
            let segment = e.op(format!("vector.broadcast {segment} : i32 to {}", int_type(tile.lanes, 32)));
            for (v, (tokens, segments)) in queries.iter().enumerate() {
                let sees = self.sees(e, (tokens, segments), (&key, &segment), tile.lanes);
                result.push(e.select(&sees, &scores[row * tile.vectors + v], &lowest, tile.lanes));
            }
        }
        result
    }

    fn sees(&self, e: &mut Emitter, query: (&str, &str), key: (&str, &str), lanes: usize) -> Value {
        let ty = int_type(lanes, 32);
        let mut compare = |predicate: &str, a: &str, b: &str| e.op(format!("arith.cmpi {predicate}, {a}, {b} : {ty}"));
        let mut parts = vec![compare("sle", key.0, query.0), compare("eq", key.1, query.1)];
        if let Some(window) = self.window {
            let window = e.int_constant(window as i32, lanes);
            let reach = e.op(format!("arith.addi {}, {window} : {ty}", key.0));
            parts.push(e.op(format!("arith.cmpi slt, {}, {reach} : {ty}", query.0)));
        }
        let mask = int_type(lanes, 1);
        parts.into_iter().reduce(|a, b| e.op(format!("arith.andi {a}, {b} : {mask}"))).expect("at least two")
    }
}

/// The i32 numbers of the tokens in vector `v` of a panel that starts at `first`.
pub fn lane_tokens(e: &mut Emitter, first: &str, v: usize, lanes: usize) -> Value {
    let first = splat_int(e, first, lanes);
    let steps: Vec<String> = (0..lanes).map(|lane| (v * lanes + lane).to_string()).collect();
    let steps = e.op(format!("arith.constant dense<[{}]> : {}", steps.join(", "), int_type(lanes, 32)));
    e.op(format!("arith.addi {first}, {steps} : {}", int_type(lanes, 32)))
}

pub fn splat_int(e: &mut Emitter, value: &str, lanes: usize) -> Value {
    let value = e.op(format!("arith.trunci {value} : i64 to i32"));
    e.op(format!("vector.broadcast {value} : i32 to {}", int_type(lanes, 32)))
}

fn load_ints(e: &mut Emitter, pointer: &str, lanes: usize) -> Value {
    e.op(format!("llvm.load {pointer} {{alignment = 4 : i64}} : !llvm.ptr -> {}", int_type(lanes, 32)))
}
