//! Packing: `@pack_b{term}` lays a panel of B out as `[k][width]` f32, `@pack_a{term}` a block of A as widened rows or
//! as strips. Columns beyond the matrix become zero or like its last one: their sums are not stored. Terms whose steps go in
//! pairs are packed by [`pairs`], what whole blocks leave over by [`rest`].
use super::ask::Ask;
use super::plan::{Feed, FeedB, Panel, Plan};
use super::{Gemm, Operand, Term, pairs, prefetch, private_function, rest};
use crate::emit::{Elem, Emitter, Value};
use crate::transpose::{store_lines, transposed};

/// Parameters of every packing function: `%extent` is the number of columns of B, or of rows of A.
const PARAMS: &str = "%from: !llvm.ptr, %to: !llvm.ptr, %depth: i64, %extent: i64";

/// Steps of K that are cut into strips together, which fill a line of the cache where a strip has four rows, and how
/// far ahead stored rows are asked for: 2.55, with steps 2.46, with both 2.31 cycles an element beside a panel's tiles.
const STEPS: usize = 4;
const AHEAD: usize = 8;

/// All packing functions of the product.
pub fn functions(gemm: &Gemm, plan: &Plan) -> String {
    let mut text = String::new();
    for (t, term) in gemm.terms.iter().enumerate() {
        let paired = plan.paired(term);
        if plan.feed_b(gemm, term) == FeedB::Panel {
            text += &panel_function(&format!("pack_b{t}"), plan.panel(term), gemm.n, &term.b);
        }
        text += &Ask::of(gemm, plan, term).filter(|ask| !ask.along).map_or(String::new(), |ask| ask.function(t));
        let a = match plan.feed(gemm, term) {
            Feed::InPlace => continue,
            Feed::Rows => rows(plan, term),
            Feed::Strips if paired => pairs::strips(gemm, plan, term),
            Feed::Strips => strips(gemm, plan, term),
        };
        text += &private_function(&format!("pack_a{t}"), PARAMS, a);
    }
    text
}

/// `@{name}` packs a panel of B, which has `n` columns: whole, or with columns missing.
pub fn panel_function(name: &str, panel: Panel, n: usize, b: &Operand) -> String {
    let mut e = Emitter::for_cpu(panel.lanes, None);
    let whole = match (panel.paired, b.transposed) {
        (false, false) => whole_rows,
        (false, true) => whole_transposed,
        (true, false) => pairs::whole_rows,
        (true, true) => pairs::whole_transposed,
    };
    let partial = if b.transposed { rest::columns } else { rest::rows };
    if n.is_multiple_of(panel.width()) {
        whole(&mut e, panel, b);
    } else {
        let width = e.index(panel.width() as i64);
        let is_whole = e.op(format!("arith.cmpi eq, %extent, {width} : i64"));
        e.branch(&is_whole, |e| whole(e, panel, b), |e| partial(e, panel, b));
    }
    private_function(name, PARAMS, e)
}

/// B stored `[k, n]`: rows are copied.
fn whole_rows(e: &mut Emitter, panel: Panel, b: &Operand) {
    let zero = e.index(0);
    e.repeat(&zero, "%depth", 1, |e, k| {
        let (from, to) = (e.row("%from", k, b.stride, b.elem), e.row("%to", k, panel.width(), Elem::F32));
        for j in 0..panel.vectors {
            copy(e, &from, &to, j * panel.lanes, b.elem, panel.lanes);
        }
    });
}

/// B stored `[n, k]`: blocks are transposed, the last steps of K go under a mask. bf16 are transposed as words of two steps,
/// which are then taken apart.
fn whole_transposed(e: &mut Emitter, panel: Panel, b: &Operand) {
    let (zero, width) = (e.index(0), e.index(panel.width() as i64));
    let mut done = zero.clone();
    for block in blocks(panel.lanes) {
        done = transposed_blocks(e, panel, b, &done, &width, block);
    }
    rest::transposed_steps(e, panel, b, &done, &width);
}

/// Blocks of words of the first columns, a multiple of a block's, from step `from` on; returns the step behind the last.
fn transposed_blocks(e: &mut Emitter, panel: Panel, b: &Operand, from: &str, columns: &str, block: usize) -> Value {
    let steps = if b.elem == Elem::Bf16 { 2 } else { 1 };
    let (zero, end) = (e.index(0), e.rounded_down("%depth", block * steps));
    e.repeat(from, &end, (block * steps) as i64, |e, k| {
        e.repeat(&zero, columns, block as i64, |e, n| {
            let to = e.row("%to", k, panel.width(), Elem::F32);
            let to = e.offset(&to, n, Elem::F32);
            let rows = loaded_rows(e, b, (n, k), block);
            let words = transposed(e, &rows);
            let words = if steps == 1 { words } else { halves(e, &words, block) };
            store_lines(e, &words, &to, panel.width(), block);
        });
    });
    end
}

/// Words that are transposed at a time, both ways: first the large blocks, then what is left.
pub fn blocks(lanes: usize) -> Vec<usize> {
    if lanes > SMALL_BLOCK { vec![lanes, SMALL_BLOCK] } else { vec![SMALL_BLOCK] }
}

/// The smallest of these.
pub const SMALL_BLOCK: usize = 8;

/// Of `block` columns of B stored `[n, k]`, from column `n` on, as many words from step `k` on.
pub fn loaded_rows(e: &mut Emitter, b: &Operand, (n, k): (&str, &str), block: usize) -> Vec<Value> {
    let row = e.times(n, b.stride);
    let from = e.int2("addi", &row, k);
    let from = e.offset("%from", &from, b.elem);
    let load = |i: usize| {
        let from = e.at(&from, (i * b.stride) as i64, b.elem);
        e.load_words(&from, block)
    };
    (0..block).map(load).collect()
}

/// The low and the high halves of words, each widened.
pub fn halves(e: &mut Emitter, words: &[Value], lanes: usize) -> Vec<Value> {
    let (sixteen, high) = (e.int_constant(16, lanes), e.int_constant(-0x10000, lanes));
    let mut halves = vec![];
    for word in words {
        let bits = e.float_bits(word, lanes);
        for half in [e.int_lanes2("shli", &bits, &sixteen, lanes), e.int_lanes2("andi", &bits, &high, lanes)] {
            halves.push(e.bits_float(&half, lanes));
        }
    }
    halves
}

/// A stored `[m, k]`, widened row by row.
fn rows(plan: &Plan, term: &Term) -> Emitter {
    let mut e = Emitter::for_cpu(plan.lanes, None);
    let zero = e.index(0);
    e.repeat(&zero, "%extent", 1, |e, row| {
        let from = e.row("%from", row, term.a.stride, term.a.elem);
        let to = e.row("%to", row, plan.row_stride(term), Elem::F32);
        e.each("%depth", plan.lanes, |e, k, lanes| {
            let value = e.load_at(&from, k, term.a.elem, lanes);
            e.store_at(&value, &to, k, Elem::F32, lanes);
        });
    });
    e
}

/// A stored `[k, m]`, cut into strips of the tile's rows. The rows that a last strip lacks are left as they are: what
/// is computed from them is not stored.
fn strips(gemm: &Gemm, plan: &Plan, term: &Term) -> Emitter {
    let mut e = Emitter::for_cpu(plan.lanes, None);
    let zero = e.index(0);
    let whole = e.rounded_down("%extent", plan.rows);
    let most = e.rounded_down("%depth", STEPS);
    e.repeat(&zero, &most, STEPS as i64, |e, k| strip_steps(e, gemm, plan, term, k, &whole, STEPS));
    e.repeat(&most, "%depth", 1, |e, k| strip_steps(e, gemm, plan, term, k, &whole, 1));
    e
}

/// Some steps of K of all strips.
fn strip_steps(e: &mut Emitter, gemm: &Gemm, plan: &Plan, term: &Term, k: &str, whole: &str, steps: usize) {
    let zero = e.index(0);
    let stride = plan.row_stride(term);
    let from = e.row("%from", k, term.a.stride, term.a.elem);
    let to = e.row("%to", k, plan.rows, Elem::F32);
    e.repeat(&zero, whole, plan.rows as i64, |e, row| {
        let (from, to) = (e.offset(&from, row, term.a.elem), e.row(&to, row, stride, Elem::F32));
        for step in 0..steps {
            prefetch(e, &from, (step + AHEAD) * term.a.stride, term.a.elem);
            let from = e.at(&from, (step * term.a.stride) as i64, term.a.elem);
            let to = e.at(&to, (step * plan.rows) as i64, Elem::F32);
            for (at, lanes) in pieces(plan.rows, plan.lanes) {
                copy(e, &from, &to, at, term.a.elem, lanes);
            }
        }
    });
    if gemm.m.is_multiple_of(plan.rows) {
        return;
    }
    let to = e.row(&to, whole, stride, Elem::F32);
    let from = e.offset(&from, whole, term.a.elem);
    partial_strip(e, plan, whole, |e, at, lanes| {
        for step in 0..steps {
            let from = e.at(&from, (step * term.a.stride) as i64, term.a.elem);
            let to = e.at(&to, (step * plan.rows) as i64, Elem::F32);
            copy(e, &from, &to, at, term.a.elem, lanes);
        }
    });
}

/// `body(first row, lanes)` for the rows behind the `whole` strips, under a mask of those that there are.
pub fn partial_strip(e: &mut Emitter, plan: &Plan, whole: &str, mut body: impl FnMut(&mut Emitter, usize, usize)) {
    let rest = e.int2("subi", "%extent", whole);
    for at in (0..plan.rows).step_by(plan.lanes) {
        let left = e.plus(&rest, -(at as i64));
        let zero = e.index(0);
        let some = e.less(&zero, &left);
        let masked = |e: &mut Emitter| {
            let mask = e.first_lanes(&left, plan.lanes);
            e.masked(mask, |e| body(e, at, plan.lanes));
        };
        e.branch(&some, masked, |_| {});
    }
}

/// `count` lanes as powers of two of at most `most`: offsets and sizes.
pub fn pieces(count: usize, most: usize) -> Vec<(usize, usize)> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < count {
        let size = most.min(1 << (count - at).ilog2());
        pieces.push((at, size));
        at += size;
    }
    pieces
}

/// `to[at..at + lanes] = from[at..at + lanes]`, widened.
fn copy(e: &mut Emitter, from: &str, to: &str, at: usize, elem: Elem, lanes: usize) {
    let (from, to) = (e.at(from, at as i64, elem), e.at(to, at as i64, Elem::F32));
    let value = e.load(&from, elem, lanes);
    e.store(&value, &to, Elem::F32, lanes);
}
