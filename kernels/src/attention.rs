//! Causal attention over packed rows, grouped heads, optional window, softcap and ALiBi; forward and gradient.
//!
//! `o = softmax(s) v` with scores `s = scale · q kᵀ`, which `scores.rs` may change further, without scores in memory
//! (Dao, "FlashAttention-2"). Everything is computed transposed: rows of a register tile are keys, its lanes are queries, so
//! that keys and values are broadcast as they lie in memory, and maxima and sums of the softmax are lane-wise. The gradient recomputes the scores from the stored logarithm of
//! their sum. Token `i` sees key `j` of its row of the batch if `j <= i`, `j > i - window`, and their segments are equal
//! and positive; a token that sees nothing gives zeros and has no gradient. Arithmetic is f32.
mod backward;
mod finish;
mod forward;
mod pack;
pub(crate) mod scores;
mod sight;
mod tile;

use crate::emit::{Elem, Emitter, Value};
use crate::steps::{Slot, Steps};
use crate::{Kernel, Target, Varies, Work};
use pack::HeadRows;
use sight::Sight;
use tile::Tile;

/// Queries of a block, whose transposes are kept in scratch.
const QUERIES: usize = 64;
/// Factor of alignment of arrays in scratch, in elements.
const LINE: usize = 16;

/// An attention problem. Token arrays have `batch * seq` rows.
#[derive(Clone, PartialEq, Debug)]
pub struct Attention {
    pub batch: usize,
    pub seq: usize,
    /// A multiple of `kv_heads`; query head `h` reads key head `h / (heads / kv_heads)`.
    pub heads: usize,
    pub kv_heads: usize,
    /// Entries of a head of queries and keys.
    pub head_dim: usize,
    /// Entries of a head of values and results.
    pub value_dim: usize,
    pub scale: f32,
    /// How many tokens a query sees, itself included.
    pub window: Option<usize>,
    /// The bound of scores: `c tanh(scale · q k / c)`.
    pub softcap: Option<f32>,
    /// What is subtracted from scores for a distance of one token, divided by the head's ALiBi slope.
    pub alibi: Option<f32>,
    /// Storage of queries, keys, values, results and their gradients.
    pub elem: Elem,
}

impl Attention {
    /// Operands: `q [tokens, heads * head_dim]`, `k [tokens, kv_heads * head_dim]`, `v [tokens, kv_heads * value_dim]`, `segments`
    /// i32 `[tokens]`, `o [tokens, heads * value_dim]`, `lse` f32 `[tokens, heads]`: the logarithm of the sum of exponentials, 0
    /// where nothing is seen.
    pub fn forward(&self, target: &Target) -> Kernel {
        forward::build(self, target)
    }

    /// The gradient up to the sum over the query heads of a key head.
    /// Operands: `q`, `k`, `v`, `segments`, `o`, `lse`, `do` like `o`, `dq` like `q`, `workspace` f32
    /// `[`[`Attention::workspace_len`]`]`.
    pub fn gradient(&self, target: &Target) -> Kernel {
        backward::build(self, target)
    }

    /// The rest of the gradient. Operands: `workspace`, `dk` like `k`, `dv` like `v`.
    pub fn gradient_finish(&self, target: &Target) -> Kernel {
        finish::build(self, target)
    }

    /// The whole gradient, from operands `q`, `k`, `v`, `segments`, `o`, `lse`, `do`, `dq`, `dk`, `dv`.
    pub fn gradient_steps(&self, target: &Target) -> Steps {
        let operands = |list: &[usize]| list.iter().map(|i| Slot::Operand(*i)).collect::<Vec<_>>();
        let workspace = Slot::Temporary(0);
        Steps {
            temporaries: vec![self.workspace_len(target) * 4],
            launches: vec![
                (self.gradient(target), [operands(&[0, 1, 2, 3, 4, 5, 6, 7]), vec![workspace]].concat()),
                (self.gradient_finish(target), [vec![workspace], operands(&[8, 9])].concat()),
            ],
        }
    }

    /// Elements of the workspace between the two kernels of the gradient.
    pub fn workspace_len(&self, target: &Target) -> usize {
        let layout = Layout::new(self, target);
        self.batch * self.heads * self.query_parts().len() * layout.part()
    }

    /// Where the parts end into which the gradient cuts a row's queries, each a task that sums gradients of keys and values of
    /// its own. One part, but for an odd number of heads: then two with about as many scores, so that two threads have
    /// the same to do (nine tasks kept them busy for 91 % of the time).
    fn query_parts(&self) -> Vec<usize> {
        if (self.batch * self.heads).is_multiple_of(2) || self.blocks() < 2 {
            return vec![self.seq];
        }
        let seen = |block: usize| self.window.map_or(block + 1, |window| (block + 1).min(window.div_ceil(QUERIES) + 1));
        let all: usize = (0..self.blocks()).map(seen).sum();
        let before = |end: usize| (0..end).map(seen).sum::<usize>();
        let middle = (1..self.blocks()).min_by_key(|end| all.abs_diff(2 * before(*end))).expect("there are two blocks");
        vec![middle * QUERIES, self.seq]
    }

    /// Query heads of a key head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn blocks(&self) -> usize {
        self.seq.div_ceil(QUERIES)
    }

    pub(crate) fn query_heads(&self) -> Heads {
        Heads { count: self.heads, entries: self.head_dim }
    }

    pub(crate) fn key_heads(&self) -> Heads {
        Heads { count: self.kv_heads, entries: self.head_dim }
    }

    pub(crate) fn value_heads(&self) -> Heads {
        Heads { count: self.kv_heads, entries: self.value_dim }
    }

    pub(crate) fn result_heads(&self) -> Heads {
        Heads { count: self.heads, entries: self.value_dim }
    }

    /// Rows of a head from `pointer` on.
    fn head_rows<'a>(&self, pointer: &'a str, heads: Heads) -> HeadRows<'a> {
        HeadRows { pointer, pitch: heads.width(), entries: heads.entries, elem: self.elem }
    }

    /// The address of token `token`, head `head`.
    fn head_at(&self, e: &mut Emitter, array: &str, heads: Heads, token: &str, head: &str) -> Value {
        let row = e.row(array, token, heads.width(), self.elem);
        e.row(&row, head, heads.entries, self.elem)
    }

    /// Work for every score that a query sees of so many products over the entries of `head_dim` and of `value_dim`, with
    /// `arrays` arrays like the queries, like the results, and of keys and values beside them read and as many written.
    pub(crate) fn work(&self, family: &'static str, [over_head, over_value]: [usize; 2], arrays: usize) -> Work {
        let window = self.window.map_or(self.seq, |window| window.min(self.seq));
        let seen = window * (window + 1) / 2 + (self.seq - window) * window;
        let tokens = self.batch * self.seq;
        let scores = self.batch * self.heads * seen;
        Work::new(family, 2 * scores * (over_head * self.head_dim + over_value * self.value_dim))
            .varying(Varies::Pairs { window: self.window })
            .moving(tokens * (self.head_dim + self.value_dim) * arrays * (self.heads + self.kv_heads), self.elem)
    }

    pub(crate) fn name(&self, kind: &str) -> String {
        let Attention { batch, seq, heads, kv_heads, head_dim, value_dim, elem, .. } = self;
        let values = if value_dim == head_dim { String::new() } else { format!("_{value_dim}") };
        format!("{kind}_{batch}x{seq}_{heads}x{kv_heads}x{head_dim}{values}_{}", elem.name())
    }
}

/// The heads of a token array: how many, and the entries of each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Heads {
    pub count: usize,
    pub entries: usize,
}

impl Heads {
    /// Elements of a token.
    pub fn width(self) -> usize {
        self.count * self.entries
    }
}

/// Sizes that follow from the problem and the target.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// Keys by queries.
    tile: Tile,
    /// Steps of a product in a word.
    words: usize,
    scale: f32,
    softcap: Option<f32>,
    /// Queries of a tile.
    panel: usize,
    /// Keys of a block.
    keys: usize,
    /// Entries of a head of keys and of values, rounded up to panels.
    key_width: usize,
    value_width: usize,
    seq: usize,
    window: Option<usize>,
}

impl Layout {
    fn new(attention: &Attention, target: &Target) -> Layout {
        let rows = if target.registers >= 32 { 12 } else { 6 };
        let panel = 2 * target.lanes;
        let whole_words = attention.head_dim.is_multiple_of(2) && attention.value_dim.is_multiple_of(2);
        let suits = attention.elem == Elem::Bf16 && whole_words;
        let pairs = target.pairs.filter(|_| suits);
        Layout {
            tile: Tile { rows, vectors: 2, lanes: target.lanes, pairs },
            words: if pairs.is_some() { 2 } else { 1 },
            scale: attention.scale,
            softcap: attention.softcap,
            panel,
            keys: 48,
            key_width: attention.head_dim.next_multiple_of(panel),
            value_width: attention.value_dim.next_multiple_of(panel),
            seq: attention.seq,
            window: attention.window,
        }
    }

    /// What queries are multiplied by when they are packed: bf16 stay what they are.
    fn query_scale(&self) -> f32 {
        if self.paired() { 1.0 } else { self.scale }
    }

    /// What scores are multiplied by, if queries are not.
    fn score_scale(&self) -> Option<f32> {
        self.paired().then_some(self.scale)
    }

    /// Whether products go in pairs of bf16.
    fn paired(&self) -> bool {
        self.tile.pairs.is_some()
    }

    /// The rows as they are multiplied along the head: in words of two where products go in pairs.
    fn along_head<'a>(&self, rows: HeadRows<'a>) -> HeadRows<'a> {
        if self.paired() { rows.as_words() } else { rows }
    }

    /// The family of kernels without and with pairs.
    fn family(&self, [single, paired]: [&'static str; 2]) -> &'static str {
        if self.paired() { paired } else { single }
    }

    /// Words of so many entries of a head.
    fn head_words(&self, entries: usize) -> usize {
        entries / self.words
    }

    /// Copies rows to be multiplied along them: by rows of f32, or by rows of pairs.
    fn pack_along(&self, e: &mut Emitter, rows: HeadRows, count: &str, all: usize, scale: f32, to: (&str, usize)) {
        if self.paired() { rows.pack_pairs(e, count, all, to) } else { rows.pack(e, count, all, scale, to) }
    }

    /// Turns that are taken at once along the keys of whole tiles.
    fn key_unroll(&self) -> usize {
        if (self.tile.rows / self.words).is_multiple_of(2) { 2 } else { 1 }
    }

    /// Scores that queries were not scaled for, scaled.
    fn scaled(&self, e: &mut Emitter, scores: Vec<Value>) -> Vec<Value> {
        let Some(scale) = self.score_scale() else { return scores };
        let scale = e.float(scale, self.tile.lanes);
        scores.iter().map(|score| e.float2("mulf", score, &scale, self.tile.lanes)).collect()
    }

    /// Tiles of a block of keys.
    fn tiles(&self) -> usize {
        self.keys / self.tile.rows
    }

    /// Tokens of a row of the batch, rounded up to blocks of keys.
    fn padded_keys(&self) -> usize {
        self.seq.next_multiple_of(self.keys)
    }

    /// Elements of a task's gradients of keys.
    fn key_part(&self) -> usize {
        self.padded_keys() * self.key_width
    }

    /// Elements of a task's gradients of keys and values together.
    fn part(&self) -> usize {
        self.key_part() + self.padded_keys() * self.value_width
    }

    fn sight(&self) -> Sight {
        Sight { window: self.window, tile_keys: self.tile.rows, panel: self.panel }
    }
}

/// Gives out pieces of scratch.
#[derive(Default)]
struct Scratch {
    elements: usize,
}

impl Scratch {
    /// `count` elements of 4 bytes.
    fn take(&mut self, e: &mut Emitter, count: usize) -> Value {
        let piece = e.at("%scratch", self.elements as i64, Elem::F32);
        self.elements += count.next_multiple_of(LINE);
        piece
    }

    fn bytes(&self) -> u64 {
        self.elements as u64 * 4
    }
}

/// The block that is `turn`-th in line: ends alternate, so that any range of tasks has about the same work.
fn block_of_turn(e: &mut Emitter, turn: &str, blocks: usize) -> Value {
    let (one, two) = (e.index(1), e.index(2));
    let half = e.int2("divui", turn, &two);
    let last = e.index(blocks as i64 - 1);
    let far = e.int2("subi", &last, &half);
    let odd = e.int2("andi", turn, &one);
    let odd = e.op(format!("arith.cmpi eq, {odd}, {one} : i64"));
    e.op(format!("arith.select {odd}, {far}, {half} : i64"))
}

/// `task` as digits: the last runs fastest.
pub(crate) fn digits<const N: usize>(e: &mut Emitter, task: &str, sizes: [usize; N]) -> [Value; N] {
    let mut rest = task.to_string();
    let mut result = std::array::from_fn(|_| Value::new());
    for (i, size) in sizes.into_iter().enumerate().rev() {
        let size = e.index(size as i64);
        result[i] = e.int2("remui", &rest, &size);
        rest = e.int2("divui", &rest, &size);
    }
    result
}

/// `min(size, total - first)`
fn count_from(e: &mut Emitter, first: &str, size: usize, total: usize) -> Value {
    let (size, total) = (e.index(size as i64), e.index(total as i64));
    let left = e.int2("subi", &total, first);
    e.int2("minsi", &left, &size)
}

/// The product's rows in strips of a tile's height: `strip(row, tile)`, the last with the rows that are left.
fn strips(e: &mut Emitter, rows: usize, tile: Tile, mut strip: impl FnMut(&mut Emitter, &str, Tile)) {
    let (zero, whole) = (e.index(0), e.index((rows / tile.rows * tile.rows) as i64));
    e.repeat(&zero, &whole, tile.rows as i64, |e, row| strip(e, row, tile));
    if !rows.is_multiple_of(tile.rows) {
        strip(e, &whole, Tile { rows: rows % tile.rows, ..tile });
    }
}
