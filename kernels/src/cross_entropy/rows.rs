//! Which rows have a label, and their way into blocks and back.
use crate::emit::{Elem, Emitter, Value, int_type};
use crate::{Kernel, Machine, Work};

/// Most tasks of a scatter: each counts the labels before its own.
const SCATTER_TASKS: usize = 256;
/// Fewest rows of a task of a scatter.
const SCATTER_ROWS: usize = 8;

/// Lists the rows that have a label, by one task.
///
/// Operands: `labels` i32 `[tokens]`, `index` i32 `[padded]`, `compact_labels` i32 `[padded]`, `counts` i32
/// `[padded / block]`. `index` and `compact_labels` hold number and label of the labelled rows in order, then zeros.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompactRows {
    pub tokens: usize,
    /// A multiple of `block`, at least `tokens`.
    pub padded: usize,
    pub block: usize,
}

impl CompactRows {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let mut e = machine.emitter();
        let [labels, index, compact, counts] = [0, 1, 2, 3].map(|i| e.arg(i));
        e.tasks(|e, _| {
            let (zero, tokens, padded) = (e.index(0), e.index(self.tokens as i64), e.index(self.padded as i64));
            let total = e.for_loop(&zero, &tokens, 1, &[(zero.clone(), int_type(1, 64))], |e, token, so_far| {
                let label = e.load_int_at(&labels, token);
                let unlabelled = e.less(&label, &zero);
                let put = |e: &mut Emitter| {
                    e.store_int_at(token, &index, &so_far[0]);
                    e.store_int_at(&label, &compact, &so_far[0]);
                };
                e.branch(&unlabelled, |_| {}, put);
                vec![one_more_unless(e, &unlabelled, &so_far[0])]
            });
            e.repeat(&total[0], &padded, 1, |e, row| {
                e.store_int_at(&zero, &index, row);
                e.store_int_at(&zero, &compact, row);
            });
            let (blocks, block) = (e.index((self.padded / self.block) as i64), e.index(self.block as i64));
            e.repeat(&zero, &blocks, 1, |e, b| {
                let before = e.times(b, self.block);
                let left = e.int2("subi", &total[0], &before);
                let left = e.int2("maxsi", &left, &zero);
                let left = e.int2("minsi", &left, &block);
                e.store_int_at(&left, &counts, b);
            });
        });
        let work = Work::new("rows", 0).moving(self.tokens + 2 * self.padded, Elem::I32);
        e.finish(&format!("compact_rows_{}x{}", self.tokens, self.block), 1, 0, work)
    }
}

/// Row `r` of `out` is row `index[r]` of `x` where its block has so many rows, else zeros.
///
/// Operands: `x [tokens, width]`, `index` i32 `[rows]`, `counts` i32 `[rows / block]`, `out [rows, width]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GatherRows {
    /// A multiple of `block`.
    pub rows: usize,
    pub block: usize,
    pub width: usize,
    /// Storage of `x` and `out`.
    pub elem: Elem,
}

impl GatherRows {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let (width, elem, wide) = (self.width, self.elem, 2 * machine.lanes());
        let mut e = machine.emitter();
        let [x, index, counts, out] = [0, 1, 2, 3].map(|i| e.arg(i));
        e.tasks(|e, row| {
            let to = e.row(&out, row, width, elem);
            let block = e.index(self.block as i64);
            let (b, place) = (e.int2("divui", row, &block), e.int2("remui", row, &block));
            let count = e.load_int_at(&counts, &b);
            let used = e.less(&place, &count);
            let copy = |e: &mut Emitter| {
                let from = e.load_int_at(&index, row);
                let from = e.row(&x, &from, width, elem);
                e.copy_row(&from, &to, elem, width, wide);
            };
            e.branch(&used, copy, |e| e.clear_row(&to, elem, width, wide));
        });
        let work = Work::new("rows", 0).moving(2 * self.rows * width, elem);
        e.finish(&format!("gather_rows_{}x{width}_{}", self.rows, elem.name()), self.rows, 0, work)
    }
}

/// Puts gathered rows back: row `t` of `dx` is the gathered row of token `t` where it has a label, else zeros.
///
/// Operands: `compact [padded, width]`, `index` i32 `[padded]`, `counts` i32 `[padded / block]`, `labels` i32 `[tokens]`,
/// `dx [tokens, width]`, where `padded` is `tokens` rounded up to a multiple of `block`. Gathered rows are in the order of
/// the tokens, so a task finds its first one by counting labels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScatterRows {
    pub tokens: usize,
    pub block: usize,
    pub width: usize,
    /// Storage of `compact` and `dx`.
    pub elem: Elem,
}

impl ScatterRows {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let (width, elem, wide) = (self.width, self.elem, 2 * machine.lanes());
        let part = self.tokens.div_ceil(SCATTER_TASKS).max(SCATTER_ROWS);
        let mut e = machine.emitter();
        let [compact, labels, dx] = [0, 3, 4].map(|i| e.arg(i));
        e.chunks(self.tokens, part, |e, first, count| {
            let (zero, end) = (e.index(0), e.int2("addi", first, count));
            let counter = (zero.clone(), int_type(1, 64));
            let before = e.for_loop(&zero, first, 1, &[counter], |e, token, so_far| {
                let label = e.load_int_at(&labels, token);
                let unlabelled = e.less(&label, &zero);
                vec![one_more_unless(e, &unlabelled, &so_far[0])]
            });
            e.for_loop(first, &end, 1, &[(before[0].clone(), int_type(1, 64))], |e, token, so_far| {
                let to = e.row(&dx, token, width, elem);
                let label = e.load_int_at(&labels, token);
                let unlabelled = e.less(&label, &zero);
                let copy = |e: &mut Emitter| {
                    let from = e.row(&compact, &so_far[0], width, elem);
                    e.copy_row(&from, &to, elem, width, wide);
                };
                e.branch(&unlabelled, |e| e.clear_row(&to, elem, width, wide), copy);
                vec![one_more_unless(e, &unlabelled, &so_far[0])]
            });
        });
        let name = format!("scatter_rows_{}x{width}_{}", self.tokens, elem.name());
        let work = Work::new("rows", 0).moving(2 * self.tokens * width, elem);
        e.finish(&name, self.tokens.div_ceil(part), 0, work)
    }
}

/// `count + 1`, or `count` where the i1 `not` holds.
fn one_more_unless(e: &mut Emitter, not: &str, count: &str) -> Value {
    let one = e.index(1);
    let more = e.int2("addi", count, &one);
    e.choose(not, count, &more)
}
