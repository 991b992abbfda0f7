//! What attention's gradient by warpgroups wants of every query: `-lse log2 e` and `delta = Σ do · o`, laid out so that one copy
//! brings a tile's.
//!
//! They are an array `[2, batch, heads, padded]` of f32. Rows are as long as whole blocks, so tiles of queries begin at multiples
//! of 16 bytes; behind a row's end are those of its last token, which no score takes.
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

/// Tokens of a row, rounded up to blocks.
fn padded(attention: &Attention) -> usize {
    attention.seq.next_multiple_of(WARP_ROWS * warpgroups::WARPS)
}

pub fn bytes(attention: &Attention) -> usize {
    2 * attention.batch * attention.heads * padded(attention) * Elem::F32.bytes() as usize
}

/// The address of a query's statistic.
pub fn at(attention: &Attention, e: &mut Emitter, array: &str, which: Statistic, query: &Query) -> Value {
    let row = e.times(query.batch, attention.heads);
    let row = e.int2("addi", &row, query.head);
    let row = e.row(array, &row, padded(attention), Elem::F32);
    let place = e.offset(&row, query.token, Elem::F32);
    e.at(&place, (which as usize * attention.batch * attention.heads * padded(attention)) as i64, Elem::F32)
}

/// The kernel that fills the array, from operands `o`, `do`, `lse` and the array; a warp for each query.
pub fn build(attention: &Attention) -> Kernel {
    let Attention { batch, seq, heads, head_dim, elem, .. } = *attention;
    let (padded, warps) = (padded(attention), ROW_THREADS / WARP);
    let mut e = Emitter::of_block(Block::new(ROW_THREADS));
    let [o, dy, lse, array] = [0, 1, 2, 3].map(|i| e.arg(i));
    let [b, head, turn] = digits(&mut e, "%task", [batch, heads, padded / warps]);
    let token = e.times(&turn, warps);
    let token = e.int2("addi", &token, "%warp");
    let last = e.index(seq as i64 - 1);
    let real = e.int2("minsi", &token, &last);
    let row = e.times(&b, seq);
    let row = e.int2("addi", &row, &real);
    let row = e.times(&row, heads);
    let row = e.int2("addi", &row, &head);
    let lanes = head_dim / WARP;
    let column = e.times("%lane", lanes);
    let [o, dy] = [&o, &dy].map(|array| {
        let row = e.row(array, &row, head_dim, elem);
        e.aligned(|e| e.load_at(&row, &column, elem, lanes))
    });
    let products = e.float2("mulf", &o, &dy, lanes);
    let delta = e.horizontal(&products, Reduction::Sum, lanes);
    let delta = e.across_lanes(&delta, Reduction::Sum, WARP);
    let (logarithm, factor) = (e.load_at(&lse, &row, Elem::F32, 1), e.float(-std::f32::consts::LOG2_E, 1));
    let logarithm = e.float2("mulf", &logarithm, &factor, 1);
    let leads = e.op("arith.cmpi eq, %lane, %zero : i64");
    let store = |e: &mut Emitter| {
        for (which, value) in [(Statistic::Logarithm, &logarithm), (Statistic::Delta, &delta)] {
            let place = at(attention, e, &array, which, &Query { batch: &b, head: &head, token: &token });
            e.apart(|e| e.store(value, &place, Elem::F32, 1));
        }
    };
    e.branch(&leads, store, |_| {});
    let rows = batch * seq * heads;
    let work = Work::new("attention_grad", 2 * rows * head_dim).moving(2 * rows * head_dim, elem);
    let work = work.moving(rows + 2 * batch * heads * padded, Elem::F32);
    e.finish(&attention.name("attention_statistics"), batch * heads * padded / warps, 0, work)
}
