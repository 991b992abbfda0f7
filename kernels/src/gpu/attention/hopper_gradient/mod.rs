//! The gradient on a Hopper GPU, by warpgroups: a kernel for `dq` and one for `dk` and `dv`, or, where heads are so large that
//! the sums of both do not fit into registers, one for each; divided as the forward pass is (`super::hopper`), with the
//! formulas of `super::gradient`.
//!
//! A block has 128 queries or keys of a head, 64 to each of its two warpgroups, and walks over tiles of the other side: keys and
//! values for `dq`; queries and gradients of results, of all heads of the group, for `dk` and `dv`. Scores and their gradients
//! come as the own tokens by the others, so both go as they are from registers into the next product, and nothing but what
//! was copied passes through shared memory. What belongs to a query (`super::statistics`) comes with the tiles where the queries
//! are the others. While the gradients of probabilities are multiplied, the warpgroup looks which scores count and makes them
//! probabilities; while `dv` grows, it rounds the gradients of scores. `dv` alone needs no gradients of scores, and so no own values.
//!
//! No two blocks add to one sum, and the order of each is that of the tiles. What a tile has of another row of the batch counts
//! nothing, as in the forward pass.
mod consumer;

use super::gradient::Wanted;
use super::sight::Range;
use super::statistics::{Query, Statistic, Statistics};
use super::warpgroups::{Registers, Ring, WARPS};
use super::*;
use crate::emit::int_type;
use crate::gpu::hopper::pipeline;
use crate::gpu::hopper::producer::{by_producer, copy_range};
use crate::gpu::hopper::{SWIZZLE_PERIOD, THREADS};
use crate::tuning::{KeysWalk, WarpgroupGradient, WarpgroupWalk};

/// Boxes of a tile that a producer with the fewest registers can copy without spills.
const MOST_BOXES: usize = 3;

/// The whole gradient, with the operands of `super::gradient`.
pub fn steps(attention: &Attention, cut: WarpgroupGradient) -> Steps {
    let array = Slot::Temporary(0);
    let operands = |list: &[usize]| list.iter().map(|i| Slot::Operand(*i)).collect::<Vec<_>>();
    let of_keys = match cut.keys {
        KeysWalk::Together(walk) => vec![(Wanted::KeysAndValues, walk, vec![8, 9])],
        KeysWalk::Apart { keys, values } => vec![(Wanted::Keys, keys, vec![8]), (Wanted::Values, values, vec![9])],
    };
    let statistics = Statistics::new(attention, of_keys.iter().map(|(_, walk, _)| walk.tokens));
    let kernel = |(wanted, cut, results): (Wanted, WarpgroupWalk, Vec<usize>)| {
        let walk = Walk { attention, warps: WARPS, others: cut.tokens, arrays: 2 };
        let kernel = Gradient { walk, stages: cut.stages, wanted, statistics }.build();
        (kernel, [operands(&[0, 1, 2, 3, 6]), vec![array], operands(&results)].concat())
    };
    let first = (statistics.build(), [operands(&[4, 6, 5]), vec![array]].concat());
    let walks = [vec![(Wanted::Queries, cut.queries, vec![7])], of_keys].concat();
    let launches = [first].into_iter().chain(walks.into_iter().map(kernel)).collect();
    Steps { temporaries: vec![statistics.bytes()], launches }
}

struct Gradient<'a> {
    walk: Walk<'a>,
    stages: usize,
    wanted: Wanted,
    statistics: Statistics<'a>,
}

/// What a block begins with.
struct Start {
    ring: Ring,
    /// Maps of the arrays that it has tokens of, and of the two that it walks over.
    own: Vec<Value>,
    others: [Value; 2],
    /// Where its own tokens are in shared memory, and what the ring's stages have of [`Statistics`].
    own_at: Vec<usize>,
    statistics_at: usize,
    segments: Value,
    statistics: Value,
    batch: Value,
    head: Value,
    /// The first of its tokens.
    first: Value,
    /// The other side's tokens that are walked over.
    range: Range,
}

/// Where a block is on its way.
struct Turn {
    /// Of the first array's tile in the ring; the second's is the next.
    number: Value,
    batch: Value,
    query_head: Value,
    /// What the head of queries adds to scores for a distance of one token, with ALiBi.
    slope: Option<Value>,
    other_head: Value,
    /// The first of the other tokens.
    other: Value,
}

impl Gradient<'_> {
    fn of_queries(&self) -> bool {
        self.wanted == Wanted::Queries
    }

    /// Of what its first own tokens are multiplied by the tiles' first: scores. And by the second, where they are wanted: gradients of
    /// probabilities.
    fn own_arrays(&self) -> usize {
        if self.wanted == Wanted::Values { 1 } else { 2 }
    }

    fn registers(&self) -> Registers {
        if [0, 1].iter().any(|array| self.walk.other_head(*array).boxes() > MOST_BOXES) {
            Registers::FOR_BOXES
        } else {
            Registers::FOR_SUMS
        }
    }

    /// Bytes of a statistic of a tile of queries.
    fn statistic_bytes(&self) -> usize {
        self.walk.others * Elem::F32.bytes() as usize
    }

    /// Heads of the block's side and of the other.
    fn heads(&self) -> (usize, usize) {
        let Attention { heads, kv_heads, .. } = *self.walk.attention;
        if self.of_queries() { (heads, kv_heads) } else { (kv_heads, heads) }
    }

    fn build(&self) -> Kernel {
        let attention = self.walk.attention;
        let (blocks, own_heads) = (attention.seq.div_ceil(self.walk.own()), self.heads().0);
        let mut e = Emitter::of_block(Block::aligned(THREADS, SWIZZLE_PERIOD).with_register_pool());
        let start = self.start(&mut e);
        let results: Vec<Value> = (0..self.wanted.arrays().len()).map(|i| e.arg(6 + i)).collect();
        let warps = e.index(self.walk.warps as i64);
        let consumes = e.less("%warp", &warps);
        e.branch(&consumes, |e| self.consume(e, &start, &results), |e| self.produce(e, &start));
        let (kind, products) = match self.wanted {
            Wanted::Queries => ("attention_wg_grad_q", [2, 1]),
            Wanted::Keys => ("attention_wg_grad_k", [2, 1]),
            Wanted::Values => ("attention_wg_grad_v", [1, 1]),
            Wanted::KeysAndValues => ("attention_wg_grad_kv", [2, 2]),
        };
        let work = attention.work("attention_grad", products, 2);
        e.finish(&attention.name(kind), attention.batch * own_heads * blocks, 0, work)
    }

    fn start(&self, e: &mut Emitter) -> Start {
        let attention = self.walk.attention;
        let (own_heads, other_heads) = self.heads();
        let (queries, keys) = ([0, 4], [1, 2]);
        let (own, others) = if self.of_queries() { (queries, keys) } else { (keys, queries) };
        let own: Vec<Value> = (0..self.own_arrays())
            .map(|array| e.tensor_map(self.walk.own_head(array).map(attention, own[array], own_heads)))
            .collect();
        let others =
            [0, 1].map(|array| e.tensor_map(self.walk.other_head(array).map(attention, others[array], other_heads)));
        let (segments, statistics) = (e.arg(3), e.arg(5));
        let own_at: Vec<usize> =
            (0..self.own_arrays()).map(|array| e.shared(self.walk.own_head(array).bytes())).collect();
        let begin = own_at.iter().enumerate().all(|(array, at)| self.walk.own_head(array).may_begin_at(*at));
        assert!(begin, "boxes begin patterns of the swizzle");
        let ring = Ring::new(e, [0, 1].map(|array| self.walk.other_head(array)), self.stages);
        let statistics_at = if self.of_queries() { 0 } else { e.shared(self.stages * self.statistic_bytes()) };
        let [batch, head, block] = self.walk.block_of_task(e, self.of_queries());
        let first = e.times(&block, self.walk.own());
        let at = Place { batch: &batch, first: &first };
        let range = self.walk.range(e, &segments, &at, self.of_queries());
        ring.pipeline.init(e);
        Start { ring, own, others, own_at, statistics_at, segments, statistics, batch, head, first, range }
    }

    /// `body` for every tile of every head of the other side that meets the block's, with values carried from one to the next.
    fn each_tile(
        &self,
        e: &mut Emitter,
        start: &Start,
        carried: &[(Value, String)],
        body: impl FnOnce(&mut Emitter, &Turn, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let group = self.walk.attention.heads / self.walk.attention.kv_heads;
        let Range { from, to, .. } = &start.range;
        let (first_head, heads) =
            if self.of_queries() { (e.divided(&start.head, group), 1) } else { (e.times(&start.head, group), group) };
        let last_head = e.plus(&first_head, heads as i64);
        let numbered = [&[("%zero".into(), int_type(1, 64))], carried].concat();
        let types: Vec<String> = numbered.iter().map(|(_, ty)| ty.clone()).collect();
        let last = e.for_loop(&first_head, &last_head, 1, &numbered, |e, other_head, so_far| {
            let query_head = if self.of_queries() { start.head.clone() } else { other_head.into() };
            let slope = self.walk.slope(e, &query_head);
            let so_far: Vec<_> = so_far.iter().cloned().zip(types).collect();
            e.for_loop(from, to, self.walk.others as i64, &so_far, |e, other, so_far| {
                let (number, so_far) = so_far.split_first().expect("a number comes first");
                let (number, other) = (number.clone(), e.anew(other));
                let batch = e.anew(&start.batch);
                let next = e.plus(&number, 2);
                let turn = Turn { number, batch, query_head, slope, other_head: other_head.into(), other };
                let so_far = body(e, &turn, so_far);
                [vec![next], so_far].concat()
            })
        });
        last[1..].to_vec()
    }

    fn produce(&self, e: &mut Emitter, start: &Start) {
        by_producer(e, self.registers().producer, |e| {
            self.each_tile(e, start, &[], |e, turn, _| {
                let batch_row = e.times(&turn.batch, self.walk.attention.seq);
                let begins = e.op(format!("arith.cmpi eq, {}, %zero : i64", turn.number));
                let row = e.int2("addi", &batch_row, &turn.other);
                let statistic = if self.of_queries() { 0 } else { self.statistic_bytes() };
                for (array, which) in [Statistic::Logarithm, Statistic::Delta].into_iter().enumerate() {
                    let number = e.plus(&turn.number, array as i64);
                    let place = (turn.other_head.as_str(), row.as_str());
                    let copies_own = array < start.own.len();
                    let mut bytes = e.index((self.walk.other_head(array).bytes() + statistic) as i64);
                    if copies_own {
                        // The own tokens come with the first tiles.
                        let both = e.plus(&bytes, self.walk.own_head(array).bytes() as i64);
                        bytes = e.choose(&begins, &both, &bytes);
                    }
                    let (slot, barrier) = start.ring.copy(e, (array, &number), &start.others[array], place, &bytes);
                    if !self.of_queries() {
                        self.copy_statistic(e, start, turn, which, (&slot, &barrier));
                    }
                    if !copies_own {
                        continue;
                    }
                    let own = |e: &mut Emitter| {
                        let (head, first) = (e.anew(&start.head), e.anew(&start.first));
                        let row = e.int2("addi", &batch_row, &first);
                        let (map, at) = ((start.own[array].as_str(), barrier.as_str()), (start.own_at[array], "%zero"));
                        self.walk.own_head(array).copy(e, map, at, (&head, &row));
                    };
                    e.branch(&begins, own, |_| {});
                }
                vec![]
            });
        });
    }

    fn copy_statistic(
        &self,
        e: &mut Emitter,
        start: &Start,
        turn: &Turn,
        which: Statistic,
        (slot, barrier): (&pipeline::Slot, &str),
    ) {
        let query = Query { batch: &turn.batch, head: &turn.query_head, token: &turn.other };
        let from = self.statistics.at(e, &start.statistics, which, &query);
        let stage = e.times(&slot.stage, self.statistic_bytes());
        copy_range(e, (&from, barrier), (start.statistics_at, &stage), self.statistic_bytes());
    }
}
