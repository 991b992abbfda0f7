//! The gradient: scores computed again, along the keys for queries and along the queries for keys and values.
//!
//! With `p` the probabilities and `delta = Σ do · o` of a query: `ds = p (do vᵀ - delta) scale`, `dq = ds k`, `dk = dsᵀ q`,
//! `dv = pᵀ do`; where scores are capped, `ds` is multiplied by their derivatives.
use super::*;
use crate::emit::float_type;
use crate::gpu::block::ROW_THREADS;

/// `delta [tokens, heads]` f32 from `o` and `do`; a warp for each token and head.
pub fn delta(attention: &Attention) -> Kernel {
    let Attention { batch, seq, heads, value_dim, elem, .. } = *attention;
    let (rows, warps) = (batch * seq * heads, ROW_THREADS / WARP);
    let mut e = Emitter::of_block(Block::new(ROW_THREADS));
    let [o, dy, delta] = [0, 1, 2].map(|i| e.arg(i));
    let first = e.times("%task", warps);
    let row = e.int2("addi", &first, "%warp");
    let all = e.index(rows as i64);
    let inside = e.less(&row, &all);
    // All threads of a warp take part in its sum.
    let last = e.index(rows as i64 - 1);
    let row = e.int2("minsi", &row, &last);
    let [o, dy] = [&o, &dy].map(|p| e.row(p, &row, value_dim, elem));
    let (zero, count) = (e.float(0.0, 1), e.index(value_dim as i64));
    let sum = e.for_loop("%lane", &count, WARP as i64, &[(zero, float_type(1))], |e, i, so_far| {
        let (a, b) = (e.load_at(&o, i, elem, 1), e.load_at(&dy, i, elem, 1));
        vec![e.fma(&a, &b, &so_far[0], 1)]
    });
    let sum = e.across_lanes(&sum[0], Reduction::Sum, WARP);
    let leads = e.op("arith.cmpi eq, %lane, %zero : i64");
    let wanted = e.op(format!("arith.andi {inside}, {leads} : i1"));
    e.branch(&wanted, |e| e.apart(|e| e.store_at(&sum, &delta, &row, Elem::F32, 1)), |_| {});
    let elements = rows * value_dim;
    let work = Work::new("attention_grad", 2 * elements).moving(2 * elements, elem).moving(rows, Elem::F32);
    e.finish(&attention.name("attention_delta"), rows.div_ceil(warps), 0, work)
}

/// What a kernel computes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Queries,
    Keys,
    Values,
    KeysAndValues,
}

impl Wanted {
    /// The arrays of the block's side whose gradients are computed.
    pub fn arrays(self) -> &'static [usize] {
        match self {
            Wanted::Queries | Wanted::Keys => &[0],
            Wanted::Values => &[1],
            Wanted::KeysAndValues => &[0, 1],
        }
    }

    /// A thread's sums as those of each of these arrays.
    pub fn split<'v>(self, walk: &Walk, mut sums: &'v [Value]) -> Vec<(usize, &'v [Value])> {
        let mut parts = vec![];
        for array in self.arrays() {
            let (part, rest) = sums.split_at(walk.results(*array).registers());
            parts.push((*array, part));
            sums = rest;
        }
        parts
    }
}

/// The kernel of what is wanted. Operands: `q`, `k`, `v`, `segments`, `lse`, `do`, `delta`, and each gradient.
pub fn build(walk: &Walk, wanted: Wanted) -> Kernel {
    Gradient { walk, wanted }.build()
}

/// The gradient of queries, which walk over keys; or of keys or values, which walk over the queries of all their heads.
struct Gradient<'a> {
    walk: &'a Walk<'a>,
    wanted: Wanted,
}

/// Addresses: what the block owns (two arrays and where they lie in shared memory), what it walks over, and the rest.
struct Arrays {
    own: [Value; 2],
    own_at: [Value; 2],
    others: [Value; 2],
    others_at: [Value; 2],
    segments: Value,
    lse: Value,
    delta: Value,
    passed: Option<Value>,
}

/// A block's rows: of the batch, its head of queries and what that adds to scores for a distance, and this thread's first column.
struct Position {
    batch: Value,
    head: Value,
    slope: Option<Value>,
    column: Value,
}

impl Gradient<'_> {
    fn of_queries(&self) -> bool {
        self.wanted == Wanted::Queries
    }

    /// The heads of the block's arrays, and of those that it walks over.
    fn heads(&self) -> ([Heads; 2], [Heads; 2]) {
        let a = self.walk.attention;
        let (queries, keys) = ([a.query_heads(), a.result_heads()], [a.key_heads(), a.value_heads()]);
        if self.of_queries() { (queries, keys) } else { (keys, queries) }
    }

    fn build(&self) -> Kernel {
        let walk = self.walk;
        let Attention { batch, seq, heads, kv_heads, .. } = *walk.attention;
        let (blocks, group) = (seq.div_ceil(walk.own()), heads / kv_heads);
        let (own_heads, other_heads) = self.heads();
        let mut e = walk.emitter();
        let arrays = self.arrays(&mut e);
        let results: Vec<Value> = (0..self.wanted.arrays().len()).map(|i| e.arg(7 + i)).collect();
        let [b, own_head, block] = walk.block_of_task(&mut e, self.of_queries());
        let first = e.times(&block, walk.own());
        let at = Place { batch: &b, first: &first };
        for array in [0, 1] {
            let (from, to) = (&arrays.own[array], &arrays.own_at[array]);
            walk.load(&mut e, &walk.own_tile(array), to, (from, own_heads[array]), &at, &own_head);
        }
        let (row, column) = Part::origin(&mut e);
        let warp_row = e.times("%warp", WARP_ROWS);
        let row = e.int2("addi", &row, &warp_row);
        let token = e.int2("addi", &first, &row);
        let own = walk.tokens(&mut e, &arrays.segments, &b, &token, [0, 8].into_iter());
        let (from, to) = if self.of_queries() {
            walk.key_range(&mut e, &arrays.segments, &at)
        } else {
            walk.query_range(&mut e, &arrays.segments, &at)
        };
        let zeros: Vec<(Value, String)> =
            self.wanted.arrays().iter().flat_map(|array| walk.results(*array).zeros(&mut e)).collect();
        // Heads of the other side that meet this one: one of the keys, or a group of queries.
        let (first_other, count) =
            if self.of_queries() { (e.divided(&own_head, group), 1) } else { (e.times(&own_head, group), group) };
        let last_other = e.plus(&first_other, count as i64);
        let sums = e.for_loop(&first_other, &last_other, 1, &zeros, |e, other_head, sums| {
            let head = if self.of_queries() { own_head.clone() } else { other_head.to_string() };
            let slope = walk.slope(e, &head);
            let position = Position { batch: b.clone(), head, slope, column: column.clone() };
            let carried: Vec<_> = sums.iter().map(|sum| (sum.clone(), float_type(1))).collect();
            e.for_loop(&from, &to, walk.others as i64, &carried, |e, other, sums| {
                e.sync();
                for array in [0, 1] {
                    let (from, to) = (&arrays.others[array], &arrays.others_at[array]);
                    let place = Place { batch: &b, first: other };
                    walk.load(e, &walk.other_tile(array), to, (from, other_heads[array]), &place, other_head);
                }
                walk.arrived(e);
                self.tile(e, &arrays, &position, &own, other, sums)
            })
        });
        for ((array, sums), result) in self.wanted.split(walk, &sums).into_iter().zip(&results) {
            walk.store(&mut e, sums, (result, own_heads[array], &own_head), &b, (&token, &column));
        }
        let (kind, products) = match self.wanted {
            Wanted::Queries => ("attention_grad_q", [2, 1]),
            Wanted::Keys => ("attention_grad_k", [2, 1]),
            Wanted::Values => ("attention_grad_v", [1, 1]),
            Wanted::KeysAndValues => ("attention_grad_kv", [2, 2]),
        };
        let work = walk.attention.work("attention_grad", products, 2);
        e.finish(&walk.attention.name(kind), batch * own_heads[0].count * blocks, 0, work)
    }

    fn arrays(&self, e: &mut Emitter) -> Arrays {
        let walk = self.walk;
        let [q, k, v, segments, lse, dy, delta] = [0, 1, 2, 3, 4, 5, 6].map(|i| e.arg(i));
        let (own, others) = if self.of_queries() { ([q, dy], [k, v]) } else { ([k, v], [q, dy]) };
        let own_at = [0, 1].map(|array| walk.place(e, &walk.own_tile(array)));
        let others_at = [0, 1].map(|array| walk.place(e, &walk.other_tile(array)));
        let passed = walk.passed(e);
        Arrays { own, own_at, others, others_at, segments, lse, delta, passed }
    }

    /// The sums with a tile of the other side.
    fn tile(
        &self,
        e: &mut Emitter,
        arrays: &Arrays,
        position: &Position,
        own: &[(Value, Value)],
        other: &str,
        sums: &[Value],
    ) -> Vec<Value> {
        let walk = self.walk;
        let [scores, slopes] = [0, 1].map(|array| {
            let mine = walk.mine(e, &walk.own_tile(array), &arrays.own_at[array]);
            let zeros = walk.scores().zeros(e).into_iter().map(|(value, _)| value).collect();
            let a = walk.own_factor(&walk.own_tile(array), &mine);
            let b = walk.other_factor((array, &arrays.others_at[array]), true);
            walk.scores().multiply(e, zeros, &a, &b, walk.width(array))
        });
        let first = e.int2("addi", other, &position.column);
        let others = walk.tokens(e, &arrays.segments, &position.batch, &first, column_distances(walk.scores()));
        let queries = if self.of_queries() { own } else { &others };
        let statistics: Vec<(Value, Value)> = queries
            .iter()
            .map(|(token, _)| {
                let (number, _) = walk.token(e, &position.batch, token);
                let [lse, delta] = [&arrays.lse, &arrays.delta].map(|array| {
                    let row = e.row(array, &number, walk.attention.heads, Elem::F32);
                    e.load_at(&row, &position.head, Elem::F32, 1)
                });
                (lse, delta)
            })
            .collect();
        let tokens = if self.of_queries() { (&own[0].0, &first) } else { (&first, &own[0].0) };
        let distances = walk.distances(e, position.slope.as_deref(), (tokens.0, tokens.1), self.of_queries());
        let (mut probabilities, mut gradients) = (vec![], vec![]);
        for element in walk.scores().elements() {
            let (row, column) = (element.row / 8, column_number(&element));
            let (query, key, statistic) = if self.of_queries() {
                (&own[row], &others[column], &statistics[row])
            } else {
                (&others[column], &own[row], &statistics[column])
            };
            let sees = walk.sees(e, query, key);
            let (score, derivative) = walk.score(e, &scores[element.register], &element, distances.as_ref());
            let slope = &slopes[element.register];
            let (p, ds) = self.element(e, &sees, (&score, derivative.as_deref()), slope, statistic);
            probabilities.push(p);
            gradients.push(ds);
        }
        let mut next = vec![];
        for (array, sums) in self.wanted.split(walk, sums) {
            let values = [&gradients, &probabilities][array];
            let other = (array, arrays.others_at[array].as_str());
            next.extend(walk.pass_on(e, sums.to_vec(), values, other, arrays.passed.as_deref()));
        }
        next
    }

    /// Probability and gradient of a score; both 0 where the query does not see the key.
    fn element(
        &self,
        e: &mut Emitter,
        sees: &str,
        (score, derivative): (&str, Option<&str>),
        slope: &str,
        (lse, delta): &(Value, Value),
    ) -> (Value, Value) {
        let (scale, zero) = (e.float(self.walk.attention.scale, 1), e.float(0.0, 1));
        let x = e.float2("subf", score, lse, 1);
        let p = self.walk.exponential(e, &x);
        let p = e.select(sees, &p, &zero, 1);
        let slope = e.float2("subf", slope, delta, 1);
        let mut slope = e.float2("mulf", &slope, &scale, 1);
        if let Some(derivative) = derivative {
            slope = e.float2("mulf", &slope, derivative, 1);
        }
        let ds = e.float2("mulf", &p, &slope, 1);
        (p, ds)
    }
}
