//! What tiles ask the memory for while they are computed: the next panel of B, and what the epilogue of their own sums reads and
//! writes. Without, packing took 12 % of the time of SmolLM2's logits, and the sums of weight gradients 40 %.
//!
//! Each strip of rows asks for as many of the next panel's rows as make all of them for all strips of a block. A line every few
//! turns along K is best: asked for at once, before or behind a tile, lines keep the tile's own loads waiting. On Zen 5, percent of the
//! peak in bf16, at once and along K:
//!
//! | | at once | along K |
//! |---|---|---|
//! | head, its gradient on packed weights | 83, 88 | 95, 93 |
//! | query, up, down on packed weights | 91, 84, 87 | 95, 86, 91 |
//! | dw of up and gate, of the head | 80, 80 | 87, 86 |
//!
//! Only where a panel is packed from short parts of long rows, to ask at once is better: 87 instead of 83 % of the head's gradient.
use super::plan::{FeedB, Plan};
use super::{Gemm, Term, prefetch, prefetch_to_write, private_function};
use crate::emit::{Elem, Emitter, Value};
use crate::region::Broadcast;

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
    form: Rows,
    /// Whether tiles ask along K, or tasks before each strip.
    pub along: bool,
}

/// Rows of a matrix, or parts of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rows {
    /// Elements of a row, and from one to the next.
    columns: usize,
    stride: usize,
    elem: Elem,
    /// Whether a row begins with a line of the cache.
    aligned: bool,
}

impl Rows {
    /// Lines that a row may touch.
    fn touched(&self) -> usize {
        self.columns.div_ceil(line_of(self.elem)) + usize::from(!self.aligned)
    }

    /// Those, or a few more: a power of two, which numbers are quickly divided by.
    fn lines(&self) -> usize {
        self.touched().next_power_of_two()
    }

    /// Where a line is, counted row by row.
    fn line(&self, e: &mut Emitter, pointer: &str, index: &str) -> Value {
        let (lines, last) = (e.index(self.lines() as i64), e.index(self.columns as i64 - 1));
        let (row, line) = (e.int2("divui", index, &lines), e.int2("remui", index, &lines));
        let column = e.times(&line, line_of(self.elem));
        let column = e.int2("minsi", &column, &last);
        let row = e.row(pointer, &row, self.stride, self.elem);
        e.offset(&row, &column, self.elem)
    }
}

/// Elements of a line of the cache.
fn line_of(elem: Elem) -> usize {
    (CACHE_LINE / elem.bytes()) as usize
}

impl Ask {
    /// What to ask for of a term; nothing where B is read in place, or a panel is small.
    pub fn of(gemm: &Gemm, plan: &Plan, term: &Term) -> Option<Ask> {
        let (steps, width) = (plan.steps(term), plan.width());
        let strips = plan.m_cache / plan.rows;
        let stored = |all: usize, columns| {
            let form = Rows { columns, stride: term.b.stride, elem: term.b.elem, aligned: false };
            Ask { all, rows: all.div_ceil(strips), form, along: term.b.transposed }
        };
        let ask = match plan.feed_b(gemm, term) {
            FeedB::InPlace => return None,
            FeedB::Packed => {
                let all = plan.capacity(term);
                let form = Rows { columns: width, stride: width, elem: Elem::F32, aligned: true };
                Ask { all, rows: all.div_ceil(strips), form, along: true }
            }
            FeedB::Panel if term.b.transposed => stored(width, steps),
            FeedB::Panel => stored(steps, width),
        };
        let far = (steps * width) as u64 * term.b.elem.bytes() > FAR_PANEL;
        far.then_some(ask)
    }

    /// Where the rows begin that the strip of that number asks for, of a panel from `pointer` on.
    pub fn first(&self, e: &mut Emitter, pointer: &str, strip: &str) -> Value {
        let row = e.times(strip, self.rows);
        e.row(pointer, &row, self.form.stride, self.form.elem)
    }

    /// Asks for a part of the rows from `pointer` on, in turn `turn` of `turns` along K.
    pub fn along(&self, e: &mut Emitter, pointer: &str, turn: &str, turns: usize) {
        let (form, turns) = (self.form, turns.max(1));
        if form.stride == form.columns {
            let line = line_of(form.elem);
            let count = (self.rows * form.columns).div_ceil(line).div_ceil(turns);
            let first = e.row(pointer, turn, count * line, form.elem);
            return (0..count).for_each(|number| prefetch(e, &first, number * line, form.elem));
        }
        let count = (self.rows * form.lines()).div_ceil(turns);
        for i in 0..count {
            let index = e.times(turn, count);
            let index = e.plus(&index, i as i64);
            let place = form.line(e, pointer, &index);
            prefetch(e, &place, 0, form.elem);
        }
    }

    /// `@ask_b{term}`: asks for the rows from `%from` on, of which row `%first` is the first.
    pub fn function(&self, t: usize) -> String {
        let mut e = Emitter::new();
        let (zero, all, rows) = (e.index(0), e.index(self.all as i64), e.index(self.rows as i64));
        let left = e.int2("subi", &all, "%first");
        let rows = e.int2("minsi", &left, &rows);
        e.repeat(&zero, &rows, 1, |e, row| {
            let Rows { columns, stride, elem, .. } = self.form;
            let row = e.row("%from", row, stride, elem);
            for line in 0..self.form.touched() {
                prefetch(e, &row, (line * line_of(elem)).min(columns - 1), elem);
            }
        });
        private_function(&format!("ask_b{t}"), "%from: !llvm.ptr, %first: i64", e)
    }
}

/// What the epilogue of a tile reads and writes beside its sums: met once, so no line of it is near, unless tiles ask for it
/// along K.
#[derive(Default)]
pub struct AskResult {
    /// Number of the operand, its elements, whether it is written.
    matrices: Vec<(usize, Elem, bool)>,
    /// Of a tile.
    rows: usize,
    width: usize,
    n: usize,
}

impl AskResult {
    pub fn of(gemm: &Gemm, plan: &Plan) -> AskResult {
        let first = gemm.first_epilogue_operand();
        let inputs = gemm.epilogue.inputs.iter().enumerate().skip(1);
        let inputs = inputs.filter(|(_, input)| input.broadcast == Broadcast::Full);
        let inputs = inputs.map(|(i, input)| (first + i - 1, input.elem, false));
        let outputs = first + gemm.epilogue.inputs.len() - 1;
        let outputs = gemm.epilogue.outputs.iter().enumerate().map(|(i, output)| (outputs + i, output.elem, true));
        AskResult { matrices: inputs.chain(outputs).collect(), rows: plan.rows, width: plan.width(), n: gemm.n }
    }

    /// The parameters of a tile function: where the tile begins in each matrix, and how many lines of each are asked for.
    pub fn params(&self) -> String {
        let pointers: String = self.matrices.iter().map(|(operand, ..)| format!(", %c{operand}: !llvm.ptr")).collect();
        format!("{pointers}, %asked: i64")
    }

    /// Their values for the tile at that row and column: all lines where the i1 `wanted` holds.
    pub fn args(&self, e: &mut Emitter, row: &str, column: &str, wanted: &str) -> Vec<(Value, &'static str)> {
        let pointers = self.pointers(e, row, column);
        let lines = self.matrices.iter().map(|(_, elem, _)| self.form(*elem).lines()).max().unwrap_or(0);
        let (all, none) = (e.index((self.rows * lines) as i64), e.index(0));
        let asked = e.choose(wanted, &all, &none);
        pointers.into_iter().map(|pointer| (pointer, "!llvm.ptr")).chain([(asked, "i64")]).collect()
    }

    fn pointers(&self, e: &mut Emitter, row: &str, column: &str) -> Vec<Value> {
        let at = e.times(row, self.n);
        let at = e.int2("addi", &at, column);
        let pointer = |(operand, elem, _): &(usize, Elem, bool)| {
            let pointer = e.arg(*operand);
            e.offset(&pointer, &at, *elem)
        };
        self.matrices.iter().map(pointer).collect()
    }

    fn form(&self, elem: Elem) -> Rows {
        let line = line_of(elem);
        let aligned = self.width.is_multiple_of(line) && self.n.is_multiple_of(line);
        Rows { columns: self.width, stride: self.n, elem, aligned }
    }

    /// Asks for a line of each matrix; when all are asked for, for the same one again.
    pub fn along(&self, e: &mut Emitter, turn: &str) {
        let index = e.int2("minsi", turn, "%asked");
        for (operand, elem, writes) in &self.matrices {
            let place = self.form(*elem).line(e, &format!("%c{operand}"), &index);
            if *writes { prefetch_to_write(e, &place, 0, *elem) } else { prefetch(e, &place, 0, *elem) }
        }
    }
}
