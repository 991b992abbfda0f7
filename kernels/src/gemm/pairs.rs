//! Two steps of K in a word of four bytes, the first in its low half, as `vdpbf16ps` takes them.
//!
//! A panel of B is packed as `[k / 2][width]` words, A stored `[k, m]` as strips `[k / 2][rows]` of words; A stored
//! `[m, k]` is used in place. The last word of an odd depth has zero in its high half, and A in place is then read by
//! its low half alone: what lies beyond the last step is never a number of the product.
use super::pack::{blocks, loaded_rows, partial_strip, pieces};
use super::plan::{Panel, Plan};
use super::{Gemm, Operand, Term, prefetch, rest};
use crate::emit::{Elem, Emitter, Value};
use crate::transpose::{store_lines, transposed};

/// `body(pair, whether its second step exists)` for all of `%depth` from pair `from` on.
pub fn each_pair(e: &mut Emitter, from: &str, mut body: impl FnMut(&mut Emitter, &str, bool)) {
    let whole = e.divided("%depth", 2);
    let end = e.plus("%depth", 1);
    let end = e.divided(&end, 2);
    e.repeat(from, &whole, 1, |e, pair| body(e, pair, true));
    e.repeat(&whole, &end, 1, |e, pair| body(e, pair, false));
}

/// B stored `[k, n]`: two rows are interleaved.
pub fn whole_rows(e: &mut Emitter, panel: Panel, b: &Operand) {
    let zero = e.index(0);
    each_pair(e, &zero, |e, pair, both| {
        let (from, to) = (e.row("%from", pair, 2 * b.stride, Elem::Bf16), e.row("%to", pair, panel.width(), Elem::F32));
        for j in 0..panel.vectors {
            interleave(e, (&from, b.stride, both), &to, j * panel.lanes, panel.lanes);
        }
    });
}

/// B stored `[n, k]`: blocks of words are transposed, the last pairs go under a mask.
pub fn whole_transposed(e: &mut Emitter, panel: Panel, b: &Operand) {
    let (zero, width) = (e.index(0), e.index(panel.width() as i64));
    let mut done = zero.clone();
    for block in blocks(panel.lanes) {
        done = transposed_blocks(e, panel, b, &done, &width, block);
    }
    let done = e.times(&done, 2);
    rest::transposed_steps(e, panel, b, &done, &width);
}

/// Blocks of words of the first columns, a multiple of a block's, from pair `from` on; returns the pair behind the last.
fn transposed_blocks(e: &mut Emitter, panel: Panel, b: &Operand, from: &str, columns: &str, block: usize) -> Value {
    let (zero, all) = (e.index(0), e.divided("%depth", 2));
    let end = e.rounded_down(&all, block);
    e.repeat(from, &end, block as i64, |e, pair| {
        let k = e.times(pair, 2);
        e.repeat(&zero, columns, block as i64, |e, n| {
            let to = e.row("%to", pair, panel.width(), Elem::F32);
            let to = e.offset(&to, n, Elem::F32);
            let rows = loaded_rows(e, b, (n, &k), block);
            let words = transposed(e, &rows);
            store_lines(e, &words, &to, panel.width(), block);
        });
    });
    end
}

/// The words of two rows, or of one and zero, from column `at` on.
pub fn interleaved(e: &mut Emitter, (from, stride, both): (&str, usize, bool), at: usize, lanes: usize) -> Value {
    let low = e.at(from, at as i64, Elem::Bf16);
    let high = both.then(|| e.at(&low, stride as i64, Elem::Bf16));
    e.load_halves(&low, high.as_deref(), lanes)
}

/// `to[at..at + lanes]` becomes these words.
fn interleave(e: &mut Emitter, rows: (&str, usize, bool), to: &str, at: usize, lanes: usize) {
    let words = interleaved(e, rows, at, lanes);
    let to = e.at(to, at as i64, Elem::F32);
    e.store(&words, &to, Elem::F32, lanes);
}

/// Pairs that are cut into strips together, which fill two lines of the cache where a strip has eight rows, and how many
/// stored rows ahead are asked for.
const STEPS: usize = 4;
const AHEAD: usize = 8;

/// The body of `@pack_a{term}`, of A stored `[k, m]`. The rows that a last strip lacks are left as they are: what is
/// computed from them is not stored.
pub fn strips(gemm: &Gemm, plan: &Plan, term: &Term) -> Emitter {
    let mut e = Emitter::for_cpu(plan.lanes, None);
    let zero = e.index(0);
    let rows = e.rounded_down("%extent", plan.rows);
    let whole = e.divided("%depth", 2);
    let most = e.rounded_down(&whole, STEPS);
    let end = e.plus("%depth", 1);
    let end = e.divided(&end, 2);
    let strips = Strips { gemm, plan, term, rows };
    e.repeat(&zero, &most, STEPS as i64, |e, pair| strips.pairs(e, pair, STEPS, true));
    e.repeat(&most, &whole, 1, |e, pair| strips.pairs(e, pair, 1, true));
    e.repeat(&whole, &end, 1, |e, pair| strips.pairs(e, pair, 1, false));
    e
}

struct Strips<'a> {
    gemm: &'a Gemm,
    plan: &'a Plan,
    term: &'a Term,
    /// Rows of whole strips.
    rows: Value,
}

impl Strips<'_> {
    /// `count` pairs of all strips; the second step of a pair need not exist.
    fn pairs(&self, e: &mut Emitter, pair: &str, count: usize, both: bool) {
        let (zero, height, stored) = (e.index(0), self.plan.rows, self.term.a.stride);
        let from = e.row("%from", pair, 2 * stored, Elem::Bf16);
        let to = e.row("%to", pair, height, Elem::F32);
        let step_of = |e: &mut Emitter, from: &str, to: &str, step: usize| {
            (e.at(from, (2 * step * stored) as i64, Elem::Bf16), e.at(to, (step * height) as i64, Elem::F32))
        };
        e.repeat(&zero, &self.rows, height as i64, |e, row| {
            let (from, to) =
                (e.offset(&from, row, Elem::Bf16), e.row(&to, row, self.plan.row_stride(self.term), Elem::F32));
            for step in 0..count {
                for ahead in [2 * step + AHEAD, 2 * step + AHEAD + 1] {
                    prefetch(e, &from, ahead * stored, Elem::Bf16);
                }
                let (from, to) = step_of(e, &from, &to, step);
                for (at, lanes) in pieces(height, self.plan.lanes) {
                    interleave(e, (&from, stored, both), &to, at, lanes);
                }
            }
        });
        if self.gemm.m.is_multiple_of(height) {
            return;
        }
        let to = e.row(&to, &self.rows, self.plan.row_stride(self.term), Elem::F32);
        let from = e.offset(&from, &self.rows, Elem::Bf16);
        partial_strip(e, self.plan, &self.rows, |e, at, lanes| {
            for step in 0..count {
                let (from, to) = step_of(e, &from, &to, step);
                interleave(e, (&from, stored, both), &to, at, lanes);
            }
        });
    }
}
