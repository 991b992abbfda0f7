//! Products with few rows, such as those of generation and, turned over, LoRA's: `C[m, n]` with B stored `[n, k]`, which is read once and never
//! packed. Vectors run along K; a task is a block of columns. Memory bounds it: one row is as slow as reading B.
//!
//! Asking for the next rows of B while these are multiplied raises what one Zen 3 core reads from memory, rows of 1536
//! elements, from 16 to 24 GB/s in bf16 and from 21 to 24 GB/s in f32.
use crate::emit::{Elem, Emitter, Value, float_type};
use crate::gemm::way::Way;
use crate::gemm::{Gemm, Term, call, finish, prefetch, private_function};
use crate::loops::Reduction;
use crate::transpose::{store_lines, transposed};
use crate::{Kernel, Target};
use std::fmt::Write;

/// The most rows for which reading B as it lies is faster than packing it: with f32, and with bf16, which is widened
/// again for every few rows.
const MOST_ROWS: [usize; 2] = [16, 12];
/// Rows and steps of A that are turned at a time.
const BLOCK: usize = 8;
/// Bytes of B of a task, roughly.
const TASK_BYTES: u64 = 256 << 10;

/// Whether a product is built here.
pub fn suits(gemm: &Gemm) -> bool {
    let unlimited = gemm.row_limit.is_none() && gemm.inner_limit.is_none();
    let widened = gemm.terms.iter().any(|term| term.b.elem != Elem::F32);
    gemm.m <= MOST_ROWS[usize::from(widened)] && unlimited && gemm.terms.iter().all(|term| term.b.transposed)
}

/// The kernel; its operands are those of [`Gemm`].
pub(crate) fn build(way: &Way, target: &Target) -> Kernel {
    let gemm = &way.computed;
    let gemv = Gemv::new(way, target);
    let mut functions = way.functions(Emitter::for_cpu(target.lanes, target.pairs), target.lanes, gemv.block, 0);
    for rows in gemv.chunks().iter().map(|chunk| chunk.1).collect::<std::collections::BTreeSet<_>>() {
        for columns in std::collections::BTreeSet::from([1, gemv.columns]) {
            functions += &gemv.dots(rows, columns);
        }
    }
    let mut e = Emitter::for_cpu(target.lanes, target.pairs);
    gemv.body(&mut e);
    let scratch = gemv.turned_offset() + way.scratch(gemv.block);
    let family = if way.turned { "product_thin" } else { "gemv" };
    finish(way.stored, ("gemv", family), &functions, e, gemm.n.div_ceil(gemv.block), scratch)
}

struct Gemv<'a> {
    way: &'a Way<'a>,
    gemm: &'a Gemm,
    lanes: usize,
    /// Rows of A, and of B, whose products are formed at a time.
    rows: usize,
    columns: usize,
    /// Columns of a task, a multiple of `columns`.
    block: usize,
}

impl<'a> Gemv<'a> {
    fn new(way: &'a Way, target: &Target) -> Gemv<'a> {
        let gemm = &way.computed;
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
        Gemv { way, gemm, lanes: target.lanes, rows, columns, block }
    }

    /// First row and number of rows of the groups that all rows are cut into.
    fn chunks(&self) -> Vec<(usize, usize)> {
        (0..self.gemm.m).step_by(self.rows).map(|first| (first, self.rows.min(self.gemm.m - first))).collect()
    }

    /// Where the copy of A of a term begins in scratch, in f32 elements.
    fn copy_offset(&self, t: usize) -> usize {
        let copied = self.gemm.terms[..t].iter().filter(|term| is_copied(term));
        copied.map(|term| self.gemm.m * row_length(term)).sum()
    }

    /// Where the sums of a task begin in scratch.
    fn sums_offset(&self) -> usize {
        self.copy_offset(self.gemm.terms.len())
    }

    /// Where the sums of a task are turned back.
    fn turned_offset(&self) -> usize {
        self.sums_offset() + self.gemm.m * self.block
    }

    fn body(&self, e: &mut Emitter) {
        let operands = self.way.operands(e);
        let a: Vec<Value> = operands.iter().enumerate().map(|(t, (a, _))| self.rows_of_a(e, t, a)).collect();
        let [sums, turned] =
            [self.sums_offset(), self.turned_offset()].map(|at| e.at("%scratch", at as i64, Elem::F32));
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
            let rows = e.index(self.gemm.m as i64);
            self.way.store(e, &sums, (&zero, &rows), (first, count), &turned);
        });
    }

    /// A of a term as rows of f32: where it is, or a copy in scratch.
    fn rows_of_a(&self, e: &mut Emitter, t: usize, a: &str) -> Value {
        let term = &self.gemm.terms[t];
        if !is_copied(term) {
            return a.into();
        }
        let copy = e.at("%scratch", self.copy_offset(t) as i64, Elem::F32);
        let (zero, rows, depth) = (e.index(0), e.index(self.gemm.m as i64), e.index(term.k as i64));
        if term.a.transposed {
            self.turn_rows(e, term, a, &copy);
            return copy;
        }
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

    /// Copies A stored `[k, m]` by blocks of eight rows and steps. The last steps of a row lie in whole lines, so what is
    /// stored beyond them hurts nobody.
    fn turn_rows(&self, e: &mut Emitter, term: &Term, a: &str, copy: &str) {
        let (zero, whole, rest) = (e.index(0), e.index((term.k - term.k % BLOCK) as i64), term.k % BLOCK);
        for first in (0..self.gemm.m).step_by(BLOCK) {
            let rows = BLOCK.min(self.gemm.m - first);
            let turn = |e: &mut Emitter, k: &str, steps: usize| {
                let from = e.row(a, k, term.a.stride, term.a.elem);
                let load = |step: usize| {
                    let from = e.at(&from, (step * term.a.stride + first) as i64, term.a.elem);
                    e.within_first(rows, BLOCK, |e| e.load(&from, term.a.elem, BLOCK))
                };
                let mut block: Vec<Value> = (0..steps).map(load).collect();
                block.resize(BLOCK, e.float(0.0, BLOCK));
                let to = e.at(copy, (first * row_length(term)) as i64, Elem::F32);
                let to = e.offset(&to, k, Elem::F32);
                let lines = transposed(e, &block);
                store_lines(e, &lines[..rows], &to, row_length(term), BLOCK);
            };
            e.repeat(&zero, &whole, BLOCK as i64, |e, k| turn(e, k, BLOCK));
            if rest > 0 {
                turn(e, &whole, rest);
            }
        }
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
        let mut e = Emitter::for_cpu(self.lanes, None);
        let mut params = "%sums: !llvm.ptr".to_string();
        let zero = e.float(0.0, self.lanes);
        let mut sums = vec![zero; rows * columns];
        for (t, term) in self.gemm.terms.iter().enumerate() {
            write!(params, ", %a{t}: !llvm.ptr, %b{t}: !llvm.ptr").expect("writing to a string");
            let (whole, rest) = (term.k - term.k % self.lanes, term.k % self.lanes);
            sums = self.along(&mut e, t, (0, whole), sums, (rows, columns), self.lanes);
            // What is loaded beyond the last step is zero.
            sums = e.within_first(rest, self.lanes, |e| {
                self.along(e, t, (whole, term.k), sums, (rows, columns), self.lanes)
            });
        }
        let sums: Vec<Value> = sums.iter().map(|sum| e.horizontal(sum, Reduction::Sum, self.lanes)).collect();
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
                prefetch(e, &b, (j + columns) * term.b.stride, term.b.elem);
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
    if is_copied(term) { row_length(term) } else { term.a.stride }
}

/// Whether A is not what the products read.
fn is_copied(term: &Term) -> bool {
    term.a.transposed || term.a.elem != Elem::F32
}

/// Elements between rows of widened A: whole lines of the cache.
fn row_length(term: &Term) -> usize {
    term.k.next_multiple_of(16)
}
