//! Which rows have a label, and their way into blocks and back.
use crate::emit::{Elem, Emitter, Value, float_type, int_type};
use crate::gpu::block::WARP;
use crate::loops::Reduction;
use crate::{Kernel, Machine, Work};

/// Most tasks of a scatter on a CPU: each counts the labels before its own.
const SCATTER_TASKS: usize = 256;
/// Fewest rows of a task of a scatter, and all that a block of a GPU has, whose threads count labels together; a multiple of what one
/// of them takes side by side.
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
            let clear = |e: &mut Emitter, row: &str| {
                e.store_int_at(&zero, &index, row);
                e.store_int_at(&zero, &compact, row);
            };
            let total = if let Some(threads) = e.threads() {
                let total = self.list_by_threads(e, [&labels, &index, &compact], threads);
                let first = e.int2("addi", &total[0], "%thread");
                e.apart(|e| e.repeat(&first, &padded, threads as i64, clear));
                total
            } else {
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
                e.repeat(&total[0], &padded, 1, clear);
                total
            };
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

    /// Lists the rows, each thread of a block one of as many at a time; returns how many there are.
    fn list_by_threads(&self, e: &mut Emitter, [labels, index, compact]: [&Value; 3], threads: usize) -> Vec<Value> {
        let (zero, all) = (e.index(0), e.index(self.tokens as i64));
        let memory = e.shared(4 * threads / WARP);
        let memory = e.shared_at(memory);
        e.for_loop(&zero, &all, threads as i64, &[(zero.clone(), int_type(1, 64))], |e, first, so_far| {
            let token = e.int2("addi", first, "%thread");
            let (inside, none) = (e.less(&token, &all), e.index(-1));
            let load = |e: &mut Emitter| vec![e.load_int_at(labels, &token)];
            let label = e.either(&inside, &[int_type(1, 64)], load, |_| vec![none]);
            let given = e.op(format!("arith.cmpi sge, {}, {zero} : i64", label[0]));
            let (place, total) = places(e, &given, &memory, threads);
            let place = e.int2("addi", &so_far[0], &place);
            let put = |e: &mut Emitter| {
                e.store_int_at(&token, index, &place);
                e.store_int_at(&label[0], compact, &place);
            };
            e.branch(&given, |e| e.apart(put), |_| {});
            vec![e.int2("addi", &so_far[0], &total)]
        })
    }
}

/// For how many threads of the block before this one, and for how many of all, the i1 `condition` holds, i64; `memory` has a word for
/// every warp.
fn places(e: &mut Emitter, condition: &str, memory: &str, threads: usize) -> (Value, Value) {
    let found = e.ballot(condition);
    let of_warp = e.count_bits(&found);
    let one = e.index(1);
    let before = e.int2("shli", &one, "%lane");
    let before = e.int2("subi", &before, &one);
    let before = e.op(format!("arith.trunci {before} : i64 to i32"));
    let before = e.int_lanes2("andi", &found, &before, 1);
    let mut place = e.count_bits(&before);
    let leads = e.op("arith.cmpi eq, %lane, %zero : i64");
    e.branch(&leads, |e| e.apart(|e| e.store_int_at(&of_warp, memory, "%warp")), |_| {});
    e.sync();
    let (mut total, nothing) = (e.index(0), e.index(0));
    for warp in 0..threads / WARP {
        let warp = e.index(warp as i64);
        let count = e.load_int_at(memory, &warp);
        let earlier = e.less(&warp, "%warp");
        let counted = e.choose(&earlier, &count, &nothing);
        place = e.int2("addi", &place, &counted);
        total = e.int2("addi", &total, &count);
    }
    // The words are written again in the next turn.
    e.sync();
    (place, total)
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
        let mut e = machine.rows(width, width, elem);
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
        let mut e = machine.rows(width, width, elem);
        let shared = e.threads().is_some();
        let part = if shared { SCATTER_ROWS } else { self.tokens.div_ceil(SCATTER_TASKS).max(SCATTER_ROWS) };
        let [compact, labels, dx] = [0, 3, 4].map(|i| e.arg(i));
        e.chunks(self.tokens, part, |e, first, count| {
            let (zero, end) = (e.index(0), e.int2("addi", first, count));
            let counter = (zero.clone(), int_type(1, 64));
            let count_one_by_one = |e: &mut Emitter| {
                e.for_loop(&zero, first, 1, &[counter], |e, token, so_far| {
                    let label = e.load_int_at(&labels, token);
                    let unlabelled = e.less(&label, &zero);
                    vec![one_more_unless(e, &unlabelled, &so_far[0])]
                })
                .remove(0)
            };
            let before = if shared { labels_before(e, &labels, first) } else { count_one_by_one(e) };
            e.for_loop(first, &end, 1, &[(before, int_type(1, 64))], |e, token, so_far| {
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

/// How many of `labels` before number `end` there are, i64, counted by all threads of a GPU's task. They are counted in f32, exact
/// below 2^24.
fn labels_before(e: &mut Emitter, labels: &str, end: &str) -> Value {
    let count = e.reduce(end, 1, &[Reduction::Sum], |e, token, lanes, so_far| {
        let place = e.offset(labels, token, Elem::I32);
        let (label, zero) = (e.load_ints(&place, lanes), e.int_constant(0, lanes));
        let given = e.op(format!("arith.cmpi sge, {label}, {zero} : {}", int_type(lanes, 32)));
        let given = e.op(format!("arith.uitofp {given} : {} to {}", int_type(lanes, 1), float_type(lanes)));
        vec![e.float2("addf", &so_far[0], &given, lanes)]
    });
    e.op(format!("arith.fptosi {} : f32 to i64", count[0]))
}

/// `count + 1`, or `count` where the i1 `not` holds.
fn one_more_unless(e: &mut Emitter, not: &str, count: &str) -> Value {
    let one = e.index(1);
    let more = e.int2("addi", count, &one);
    e.choose(not, count, &more)
}
