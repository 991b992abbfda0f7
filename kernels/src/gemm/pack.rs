//! Packing: `@pack_b{term}` lays a panel of B out as `[k][width]` f32, `@pack_a{term}` a block of A as widened rows or
//! as strips. Columns beyond the matrix become zero. Terms whose steps go in pairs are packed by [`pairs`].
use super::plan::{Feed, Plan};
use super::{Gemm, Operand, Term, pairs, prefetch, private_function};
use crate::emit::{Elem, Emitter, Value};

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
        text += &private_function(&format!("pack_b{t}"), PARAMS, panel(gemm, plan, term));
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

/// A panel of B: vectors where it is whole, elements where columns are missing.
fn panel(gemm: &Gemm, plan: &Plan, term: &Term) -> Emitter {
    let mut e = Emitter::new();
    let b = &term.b;
    let whole = match (plan.paired(term), b.transposed) {
        (false, false) => whole_rows,
        (false, true) => whole_transposed,
        (true, false) => pairs::whole_rows,
        (true, true) => pairs::whole_transposed,
    };
    let partial = if plan.paired(term) { pairs::partial } else { partial };
    if gemm.n.is_multiple_of(plan.width()) {
        whole(&mut e, plan, b);
    } else {
        let width = e.index(plan.width() as i64);
        let is_whole = e.op(format!("arith.cmpi eq, %extent, {width} : i64"));
        e.branch(&is_whole, |e| whole(e, plan, b), |e| partial(e, plan, b));
    }
    e
}

/// B stored `[k, n]`: rows are copied.
fn whole_rows(e: &mut Emitter, plan: &Plan, b: &Operand) {
    let zero = e.index(0);
    e.repeat(&zero, "%depth", 1, |e, k| {
        let (from, to) = (e.row("%from", k, b.stride, b.elem), e.row("%to", k, plan.width(), Elem::F32));
        for j in 0..plan.vectors {
            copy(e, &from, &to, j * plan.lanes, b.elem, plan.lanes);
        }
    });
}

/// B stored `[n, k]`: blocks of 8 by 8 are transposed, the last steps of K go element by element.
fn whole_transposed(e: &mut Emitter, plan: &Plan, b: &Operand) {
    let zero = e.index(0);
    let whole = e.rounded_down("%depth", 8);
    let width = e.index(plan.width() as i64);
    e.repeat(&zero, &whole, 8, |e, k| {
        e.repeat(&zero, &width, 8, |e, n| {
            let row = e.times(n, b.stride);
            let from = e.int2("addi", &row, k);
            let from = e.offset("%from", &from, b.elem);
            let to = e.times(k, plan.width());
            let to = e.int2("addi", &to, n);
            let to = e.offset("%to", &to, Elem::F32);
            let load = |i: usize| {
                let from = e.at(&from, (i * b.stride) as i64, b.elem);
                e.load(&from, b.elem, 8)
            };
            let rows: Vec<Value> = (0..8).map(load).collect();
            transpose(e, &rows, &to, plan.width());
        });
    });
    e.repeat(&whole, "%depth", 1, |e, k| {
        let to = e.row("%to", k, plan.width(), Elem::F32);
        e.repeat(&zero, &width, 1, |e, n| copy_transposed(e, b, n, k, &to));
    });
}

/// A panel with fewer columns, element by element.
fn partial(e: &mut Emitter, plan: &Plan, b: &Operand) {
    let (zero, width, nothing) = (e.index(0), e.index(plan.width() as i64), e.float(0.0, 1));
    e.repeat(&zero, "%depth", 1, |e, k| {
        let to = e.row("%to", k, plan.width(), Elem::F32);
        let from = e.row("%from", k, if b.transposed { 1 } else { b.stride }, b.elem);
        e.repeat(&zero, "%extent", 1, |e, n| {
            let at = if b.transposed { e.times(n, b.stride) } else { n.to_string() };
            let value = e.load_at(&from, &at, b.elem, 1);
            e.store_at(&value, &to, n, Elem::F32, 1);
        });
        e.repeat("%extent", &width, 1, |e, n| e.store_at(&nothing, &to, n, Elem::F32, 1));
    });
}

/// `to[n] = from[n][k]`
fn copy_transposed(e: &mut Emitter, b: &Operand, n: &str, k: &str, to: &str) {
    let row = e.times(n, b.stride);
    let at = e.int2("addi", &row, k);
    let value = e.load_at("%from", &at, b.elem, 1);
    e.store_at(&value, to, n, Elem::F32, 1);
}

/// Eight rows of eight elements become eight columns, `width` apart.
pub fn transpose(e: &mut Emitter, rows: &[Value], to: &str, width: usize) {
    // Pairs of lanes, then pairs of pairs, then halves.
    let pairs = exchange(e, rows, 1, ["0, 8, 1, 9, 4, 12, 5, 13", "2, 10, 3, 11, 6, 14, 7, 15"]);
    let quads = exchange(e, &pairs, 2, ["0, 1, 8, 9, 4, 5, 12, 13", "2, 3, 10, 11, 6, 7, 14, 15"]);
    let columns = exchange(e, &quads, 4, ["0, 1, 2, 3, 8, 9, 10, 11", "4, 5, 6, 7, 12, 13, 14, 15"]);
    // The first step leaves columns 2 and 3 where 1 and 2 would be.
    for (i, slot) in [0, 2, 1, 3, 4, 6, 5, 7].into_iter().enumerate() {
        let column = &columns[slot];
        let to = e.at(to, (i * width) as i64, Elem::F32);
        e.store(column, &to, Elem::F32, 8);
    }
}

/// Shuffles vectors `i` and `i + distance` into two, by the two lane lists.
fn exchange(e: &mut Emitter, rows: &[Value], distance: usize, lists: [&str; 2]) -> Vec<Value> {
    let mut result = rows.to_vec();
    for i in (0..8).filter(|i| i & distance == 0) {
        let (a, b) = (&rows[i], &rows[i + distance]);
        for (slot, lanes) in [i, i + distance].into_iter().zip(lists) {
            result[slot] = e.op(format!("vector.shuffle {a}, {b} [{lanes}] : vector<8xf32>, vector<8xf32>"));
        }
    }
    result
}

/// A stored `[m, k]`, widened row by row.
fn rows(plan: &Plan, term: &Term) -> Emitter {
    let mut e = Emitter::new();
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
    let mut e = Emitter::new();
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
    let rest = e.int2("subi", "%extent", whole);
    e.repeat(&zero, &rest, 1, |e, row| {
        for step in 0..steps {
            let from = e.at(&from, (step * term.a.stride) as i64, term.a.elem);
            let to = e.at(&to, (step * plan.rows) as i64, Elem::F32);
            let value = e.load_at(&from, row, term.a.elem, 1);
            e.store_at(&value, &to, row, Elem::F32, 1);
        }
    });
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
