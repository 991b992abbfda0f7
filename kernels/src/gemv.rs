//! Products with few rows, such as those of generation: `C[m, n]` with B stored `[n, k]`, which is read once and never
//! packed. Vectors run along K; a task is a block of columns. Memory bounds it: one row is as slow as reading B.
//!
//! Asking for the next rows of B while these are multiplied raises what one Zen 3 core reads from memory, rows of 1536
//! elements, from 16 to 24 GB/s in bf16 and from 21 to 24 GB/s in f32.
use crate::emit::{Elem, Emitter, Value, float_type};
use crate::gemm::{Gemm, Term, call, finish, prefetch, private_function, store};
use crate::loops::Reduction;
use crate::{Kernel, Target};
use std::fmt::Write;

/// The most rows for which reading B as it lies is faster than packing it: with f32, and with bf16, which is widened
/// again for every few rows.
const MOST_ROWS: [usize; 2] = [16, 12];
/// Bytes of B of a task, roughly.
const TASK_BYTES: u64 = 256 << 10;

/// Whether a product is built here.
pub fn suits(gemm: &Gemm) -> bool {
    let as_stored = |term: &Term| !term.a.transposed && term.b.transposed;
    let unlimited = gemm.row_limit.is_none() && gemm.inner_limit.is_none();
    let widened = gemm.terms.iter().any(|term| term.b.elem != Elem::F32);
    gemm.m <= MOST_ROWS[usize::from(widened)] && unlimited && gemm.terms.iter().all(as_stored)
}

/// The kernel; its operands are those of [`Gemm`].
pub fn build(gemm: &Gemm, target: &Target) -> Kernel {
    let gemv = Gemv::new(gemm, target);
    let mut functions = store::function(gemm, Emitter::for_cpu(target.pairs), target.lanes, gemv.block, (0, 0));
    for rows in gemv.chunks().iter().map(|chunk| chunk.1).collect::<std::collections::BTreeSet<_>>() {
        for columns in std::collections::BTreeSet::from([1, gemv.columns]) {
            functions += &gemv.dots(rows, columns);
        }
    }
    let mut e = Emitter::new();
    gemv.body(&mut e);
    let scratch = gemv.sums_offset() + gemm.m * gemv.block;
    finish(gemm, ("gemv", "gemv"), &functions, e, gemm.n.div_ceil(gemv.block), scratch)
}

struct Gemv<'a> {
    gemm: &'a Gemm,
    lanes: usize,
    /// Rows of A, and of B, whose products are formed at a time.
    rows: usize,
    columns: usize,
    /// Columns of a task, a multiple of `columns`.
    block: usize,
}

impl<'a> Gemv<'a> {
    fn new(gemm: &'a Gemm, target: &Target) -> Gemv<'a> {
        // As many sums as keep the multipliers busy and leave registers for what is multiplied.
        let (rows, columns) = match (gemm.m, target.registers > 16) {
            (1, _) => (1, 8),
            (2, _) => (2, 4),
            (_, false) => (3, 4),
            (_, true) => (4, 6),
        };
        let row_bytes: u64 = gemm.terms.iter().map(|term| term.k as u64 * term.b.elem.bytes()).sum();
        let tasks = (gemm.n as u64 * row_bytes).div_ceil(TASK_BYTES).clamp(2, 64) as usize;
        let block = gemm.n.div_ceil(tasks).next_multiple_of(columns);
        Gemv { gemm, lanes: target.lanes, rows, columns, block }
    }

    /// First row and number of rows of the groups that all rows are cut into.
    fn chunks(&self) -> Vec<(usize, usize)> {
        (0..self.gemm.m).step_by(self.rows).map(|first| (first, self.rows.min(self.gemm.m - first))).collect()
    }

    /// Where widened A of a term begins in scratch, in f32 elements.
    fn widened_offset(&self, t: usize) -> usize {
        let widened = self.gemm.terms[..t].iter().filter(|term| term.a.elem != Elem::F32);
        widened.map(|term| self.gemm.m * row_length(term)).sum()
    }

    /// Where the sums of a task begin in scratch.
    fn sums_offset(&self) -> usize {
        self.widened_offset(self.gemm.terms.len())
    }

    fn body(&self, e: &mut Emitter) {
        let operands: Vec<(Value, Value)> =
            (0..self.gemm.terms.len()).map(|t| (e.arg(2 * t), e.arg(2 * t + 1))).collect();
        let a: Vec<Value> = operands.iter().enumerate().map(|(t, (a, _))| self.widen(e, t, a)).collect();
        let sums = e.at("%scratch", self.sums_offset() as i64, Elem::F32);
        e.chunks(self.gemm.n, self.block, |e, first, count| {
            let (zero, whole) = (e.index(0), e.rounded_down(count, self.columns));
            for (from, to, columns) in [(zero.as_str(), whole.as_str(), self.columns), (&whole, count, 1)] {
                e.repeat(from, to, columns as i64, |e, j| {
                    let column = e.int2("addi", first, j);
                    let b = operands.iter().zip(&self.gemm.terms);
                    let b: Vec<Value> = b.map(|((_, b), term)| e.row(b, &column, term.b.stride, term.b.elem)).collect();
                    let sums = e.offset(&sums, j, Elem::F32);
                    self.chunks().iter().for_each(|chunk| self.call_dots(e, *chunk, columns, (&sums, &a, &b)));
                });
            }
            let (pointer, int, rows) = ("!llvm.ptr", "i64", e.index(self.gemm.m as i64));
            let args = [("%args", pointer), (&sums, pointer), (&zero, int), (&rows, int), (first, int), (count, int)];
            call(e, "store", &args);
        });
    }

    /// A of a term as f32: where it is, or a copy in scratch.
    fn widen(&self, e: &mut Emitter, t: usize, a: &str) -> Value {
        let term = &self.gemm.terms[t];
        if term.a.elem == Elem::F32 {
            return a.into();
        }
        let copy = e.at("%scratch", self.widened_offset(t) as i64, Elem::F32);
        let (zero, rows, depth) = (e.index(0), e.index(self.gemm.m as i64), e.index(term.k as i64));
        e.repeat(&zero, &rows, 1, |e, row| {
            let (from, to) =
                (e.row(a, row, term.a.stride, term.a.elem), e.row(&copy, row, row_length(term), Elem::F32));
            e.each(&depth, self.lanes, |e, k, lanes| {
                let value = e.load_at(&from, k, term.a.elem, lanes);
                e.store_at(&value, &to, k, Elem::F32, lanes);
            });
        });
        copy
    }

    fn call_dots(
        &self,
        e: &mut Emitter,
        (first, rows): (usize, usize),
        columns: usize,
        (sums, a, b): (&str, &[Value], &[Value]),
    ) {
        let mut args = vec![(e.at(sums, (first * self.block) as i64, Elem::F32), "!llvm.ptr")];
        for ((term, a), b) in self.gemm.terms.iter().zip(a).zip(b) {
            args.push((e.at(a, (first * a_stride(term)) as i64, Elem::F32), "!llvm.ptr"));
            args.push((b.clone(), "!llvm.ptr"));
        }
        let args: Vec<(&str, &str)> = args.iter().map(|(value, ty)| (value.as_str(), *ty)).collect();
        call(e, &format!("dots{rows}_{columns}"), &args);
    }

    /// `@dots{rows}_{columns}`: the products of some rows of A and some rows of B, along all of K.
    fn dots(&self, rows: usize, columns: usize) -> String {
        let mut e = Emitter::new();
        let mut params = "%sums: !llvm.ptr".to_string();
        let zero = e.float(0.0, self.lanes);
        let mut sums = vec![zero; rows * columns];
        for (t, term) in self.gemm.terms.iter().enumerate() {
            write!(params, ", %a{t}: !llvm.ptr, %b{t}: !llvm.ptr").expect("writing to a string");
            let whole = term.k - term.k % self.lanes;
            sums = self.along(&mut e, t, (0, whole), sums, (rows, columns), self.lanes);
        }
        let mut sums: Vec<Value> = sums.iter().map(|sum| e.horizontal(sum, Reduction::Sum, self.lanes)).collect();
        for (t, term) in self.gemm.terms.iter().enumerate() {
            let whole = term.k - term.k % self.lanes;
            sums = self.along(&mut e, t, (whole, term.k), sums, (rows, columns), 1);
        }
        for (i, sum) in sums.iter().enumerate() {
            let place = e.at("%sums", (i / columns * self.block + i % columns) as i64, Elem::F32);
            e.store(sum, &place, Elem::F32, 1);
        }
        private_function(&format!("dots{rows}_{columns}"), &params, e)
    }

    /// The sums after a term's steps `from..to`, `lanes` at a time.
    fn along(
        &self,
        e: &mut Emitter,
        t: usize,
        (from, to): (usize, usize),
        sums: Vec<Value>,
        (rows, columns): (usize, usize),
        lanes: usize,
    ) -> Vec<Value> {
        if from == to {
            return sums;
        }
        let term = &self.gemm.terms[t];
        let (from, to) = (e.index(from as i64), e.index(to as i64));
        let carried: Vec<_> = sums.into_iter().map(|sum| (sum, float_type(lanes))).collect();
        e.for_loop(&from, &to, lanes as i64, &carried, |e, k, sums| {
            let (a, b) = (e.offset(&format!("%a{t}"), k, Elem::F32), e.offset(&format!("%b{t}"), k, term.b.elem));
            let load = |e: &mut Emitter, pointer: &str, at: usize, elem: Elem| {
                let pointer = e.at(pointer, at as i64, elem);
                e.load(&pointer, elem, lanes)
            };
            let a: Vec<Value> = (0..rows).map(|i| load(e, &a, i * a_stride(term), Elem::F32)).collect();
            let mut next = sums.to_vec();
            for j in 0..columns {
                if lanes > 1 {
                    prefetch(e, &b, (j + columns) * term.b.stride, term.b.elem);
                }
                let b = load(e, &b, j * term.b.stride, term.b.elem);
                for (i, a) in a.iter().enumerate() {
                    next[i * columns + j] = e.fma(a, &b, &sums[i * columns + j], lanes);
                }
            }
            next
        })
    }
}

/// Elements between rows of A as f32.
fn a_stride(term: &Term) -> usize {
    if term.a.elem == Elem::F32 { term.a.stride } else { row_length(term) }
}

/// Elements between rows of widened A: whole lines of the cache.
fn row_length(term: &Term) -> usize {
    term.k.next_multiple_of(16)
}
