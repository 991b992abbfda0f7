//! What attention's gradient by warpgroups wants of every query: `-lse log2 e` and `delta = Σ do · o`, laid out so that one copy
//! brings a tile's.
//!
//! They are an array `[2, batch, heads, padded]` of f32. Rows are as long as whole blocks and as whole tiles, so tiles of queries
//! begin at multiples of 16 bytes and end within the row; behind a row's end are those of its last token, which no score takes.
use super::*;
use crate::attention::digits;
use crate::gpu::block::ROW_THREADS;

#[derive(Clone, Copy)]
pub enum Statistic {
    Logarithm,
    Delta,
}

/// A query of a head.
pub struct Query<'a> {
    pub batch: &'a str,
    pub head: &'a str,
    pub token: &'a str,
}

/// The array.
#[derive(Clone, Copy)]
pub struct Statistics<'a> {
    attention: &'a Attention,
    padded: usize,
}

impl<'a> Statistics<'a> {
    /// For walks over tiles of so many queries, multiples of 16.
    pub fn new(attention: &'a Attention, tiles: impl Iterator<Item = usize>) -> Statistics<'a> {
        let whole = |tokens| attention.seq.next_multiple_of(tokens);
        let padded = tiles.map(whole).fold(whole(WARP_ROWS * warpgroups::WARPS), usize::max);
        Statistics { attention, padded }
    }
}

impl Statistics<'_> {
    /// Elements of one statistic.
    fn count(&self) -> usize {
        self.attention.batch * self.attention.heads * self.padded
    }

    pub fn bytes(&self) -> usize {
        2 * self.count() * Elem::F32.bytes() as usize
    }

    /// The address of a query's statistic.
    pub fn at(&self, e: &mut Emitter, array: &str, which: Statistic, query: &Query) -> Value {
        let row = e.times(query.batch, self.attention.heads);
        let row = e.int2("addi", &row, query.head);
        let row = e.row(array, &row, self.padded, Elem::F32);
        let place = e.offset(&row, query.token, Elem::F32);
        e.at(&place, (which as usize * self.count()) as i64, Elem::F32)
    }

    /// The kernel that fills the array, from operands `o`, `do`, `lse` and the array; a warp for each query. Blocks take the heads of some
    /// tokens one after the other, as these lie in memory.
    pub fn build(&self) -> Kernel {
        let Attention { batch, seq, heads, value_dim, elem, .. } = *self.attention;
        let warps = ROW_THREADS / WARP;
        let mut e = Emitter::of_block(Block::new(ROW_THREADS));
        let [o, dy, lse, array] = [0, 1, 2, 3].map(|i| e.arg(i));
        let [b, turn, head] = digits(&mut e, "%task", [batch, self.padded / warps, heads]);
        let token = e.times(&turn, warps);
        let token = e.int2("addi", &token, "%warp");
        let last = e.index(seq as i64 - 1);
        let real = e.int2("minsi", &token, &last);
        let row = e.times(&b, seq);
        let row = e.int2("addi", &row, &real);
        let row = e.times(&row, heads);
        let row = e.int2("addi", &row, &head);
        let delta = delta(&mut e, [&o, &dy].map(|array| (array.as_str(), row.as_str())), value_dim, elem);
        let (logarithm, factor) = (e.load_at(&lse, &row, Elem::F32, 1), e.float(-std::f32::consts::LOG2_E, 1));
        let logarithm = e.float2("mulf", &logarithm, &factor, 1);
        let leads = e.op("arith.cmpi eq, %lane, %zero : i64");
        let store = |e: &mut Emitter| {
            for (which, value) in [(Statistic::Logarithm, &logarithm), (Statistic::Delta, &delta)] {
                let place = self.at(e, &array, which, &Query { batch: &b, head: &head, token: &token });
                e.apart(|e| e.store(value, &place, Elem::F32, 1));
            }
        };
        e.branch(&leads, store, |_| {});
        let rows = batch * seq * heads;
        let work = Work::new("attention_grad", 2 * rows * value_dim).moving(2 * rows * value_dim, elem);
        let work = work.moving(rows + 2 * self.count(), Elem::F32);
        e.finish(&self.attention.name("attention_statistics"), batch * heads * self.padded / warps, 0, work)
    }
}

/// The sum of the products of two rows, each of an array, by a warp: lanes have as many entries each as is a power of two and enough, and
/// those behind the rows' end none.
fn delta(e: &mut Emitter, rows: [(&str, &str); 2], entries: usize, elem: Elem) -> Value {
    let share = entries.div_ceil(WARP).next_power_of_two();
    assert!(entries.is_multiple_of(share), "rows of {entries} entries are no whole shares of {share}");
    let mine = e.times("%lane", share);
    let whole = entries == WARP * share;
    let column = if whole {
        mine.clone()
    } else {
        let last = e.index((entries - share) as i64);
        e.int2("minsi", &mine, &last)
    };
    let [a, b] = rows.map(|(array, row)| {
        let row = e.row(array, row, entries, elem);
        e.aligned(|e| e.load_at(&row, &column, elem, share))
    });
    let products = e.float2("mulf", &a, &b, share);
    let mut sum = e.horizontal(&products, Reduction::Sum, share);
    if !whole {
        let (end, zero) = (e.index(entries as i64), e.float(0.0, 1));
        let has_some = e.less(&mine, &end);
        sum = e.select(&has_some, &sum, &zero, 1);
    }
    e.across_lanes(&sum, Reduction::Sum, WARP)
}
