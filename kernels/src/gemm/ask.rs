//! Asking for the next panel of B while tiles of this one are computed. Weights come from memory: packed without being asked
//! for, they took 12 % of the time of SmolLM2's logits.
//!
//! Each strip of rows asks for as many of the panel's rows as make all of them for all strips of a block, a line every few
//! turns along K. Asked for at once before the strip, they keep the tile's own loads waiting: logits on Zen 5 reached 83 % of the
//! peak, 88 % so; with packed weights 85 and 90 %, the head's gradient 88 and 93 %. Only where a panel is packed from short
//! parts of long rows, to ask at once is better: 87 instead of 83 % of the head's gradient.
use super::plan::{FeedB, Plan};
use super::{Gemm, Term, prefetch, private_function};
use crate::emit::{Elem, Emitter, Value};

/// Panels of fewer bytes than this are near by themselves.
const FAR_PANEL: u64 = 8 << 10;
/// Bytes of a line of the cache.
const CACHE_LINE: u64 = 64;

/// What strips ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// Rows of a panel, as it is stored or as it was packed before, and those that each strip asks for.
    all: usize,
    pub rows: usize,
    /// Elements of a row, and from one to the next.
    columns: usize,
    stride: usize,
    elem: Elem,
    /// Whether a row begins with a line.
    aligned: bool,
    /// Whether tiles ask along K, or tasks before each strip.
    pub along: bool,
}

impl Ask {
    /// What to ask for of a term; nothing where B is read in place, or a panel is small.
    pub fn of(gemm: &Gemm, plan: &Plan, term: &Term) -> Option<Ask> {
        let (steps, width) = (plan.steps(term), plan.width());
        let strips = plan.m_cache / plan.rows;
        let stored = |all: usize, columns| {
            let (stride, elem) = (term.b.stride, term.b.elem);
            Ask { all, rows: all.div_ceil(strips), columns, stride, elem, aligned: false, along: term.b.transposed }
        };
        let ask = match plan.feed_b(gemm, term) {
            FeedB::InPlace => return None,
            FeedB::Packed => {
                let all = plan.capacity(term);
                let rows = all.div_ceil(strips);
                Ask { all, rows, columns: width, stride: width, elem: Elem::F32, aligned: true, along: true }
            }
            FeedB::Panel if term.b.transposed => stored(width, steps),
            FeedB::Panel => stored(steps, width),
        };
        let far = (steps * width) as u64 * term.b.elem.bytes() > FAR_PANEL;
        far.then_some(ask)
    }

    /// Elements of a line.
    fn line(&self) -> usize {
        (CACHE_LINE / self.elem.bytes()) as usize
    }

    /// Lines that a row may touch.
    fn lines(&self) -> usize {
        self.columns.div_ceil(self.line()) + usize::from(!self.aligned)
    }

    /// Where the rows begin that the strip of that number asks for, of a panel from `pointer` on.
    pub fn first(&self, e: &mut Emitter, pointer: &str, strip: &str) -> Value {
        let row = e.times(strip, self.rows);
        e.row(pointer, &row, self.stride, self.elem)
    }

    /// Asks for a part of the rows from `pointer` on, in turn `turn` of `turns` along K.
    pub fn along(&self, e: &mut Emitter, pointer: &str, turn: &str, turns: usize) {
        if self.stride == self.columns {
            let count = (self.rows * self.columns).div_ceil(self.line()).div_ceil(turns.max(1));
            let first = e.row(pointer, turn, count * self.line(), self.elem);
            (0..count).for_each(|line| prefetch(e, &first, line * self.line(), self.elem));
            return;
        }
        let count = (self.rows * self.lines()).div_ceil(turns.max(1));
        for i in 0..count {
            let index = e.times(turn, count);
            let index = e.plus(&index, i as i64);
            self.line_of(e, pointer, &index);
        }
    }

    /// `@ask_b{term}`: asks for the rows from `%from` on, of which row `%first` is the first.
    pub fn function(&self, t: usize) -> String {
        let mut e = Emitter::new();
        let (zero, all, rows) = (e.index(0), e.index(self.all as i64), e.index(self.rows as i64));
        let left = e.int2("subi", &all, "%first");
        let rows = e.int2("minsi", &left, &rows);
        e.repeat(&zero, &rows, 1, |e, row| {
            let row = e.row("%from", row, self.stride, self.elem);
            for line in 0..self.lines() {
                prefetch(e, &row, (line * self.line()).min(self.columns - 1), self.elem);
            }
        });
        private_function(&format!("ask_b{t}"), "%from: !llvm.ptr, %first: i64", e)
    }

    /// Asks for a line, counted row by row.
    fn line_of(&self, e: &mut Emitter, pointer: &str, index: &str) {
        let (lines, last) = (e.index(self.lines() as i64), e.index(self.columns as i64 - 1));
        let (row, line) = (e.int2("divui", index, &lines), e.int2("remui", index, &lines));
        let column = e.times(&line, self.line());
        let column = e.int2("minsi", &column, &last);
        let row = e.row(pointer, &row, self.stride, self.elem);
        let place = e.offset(&row, &column, self.elem);
        prefetch(e, &place, 0, self.elem);
    }
}
