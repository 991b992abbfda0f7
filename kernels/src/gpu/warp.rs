//! Products of tiles by the threads of a warp, which hold the sums in registers.
//!
//! Sums are laid out as `mma.sync` wants them (PTX ISA, "Matrix fragments for mma.m16n8k16"): of every piece of 16 by 8, a
//! thread has two neighbours in row `lane / 4` from column `2 (lane mod 4)` on, and those eight rows below. Where there
//! are no tensor cores for the elements (f32), threads compute the same sums by multiply-adds; rounded to TF32, f32 go to the tensor
//! cores as well ("Matrix fragments for mma.m16n8k8").
use super::block::WARP;
use crate::emit::{Elem, Emitter, Value, float_type};

/// Steps that the tensor cores take at a time.
pub const STEPS: usize = 16;

/// A warp's part of a matrix: rows a multiple of 16, columns of 16.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    pub rows: usize,
    pub columns: usize,
}

/// A matrix of the product in shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Factor<'a> {
    /// Its element (0, 0), as this warp sees it.
    pub pointer: &'a str,
    pub pitch: usize,
    pub elem: Elem,
    /// Whether the summed index runs along the rows in memory.
    pub along: bool,
}

/// One of a thread's sums: which of its registers, and where the element is, relative to the thread's first.
#[derive(Clone, Copy, Debug)]
pub struct Element {
    pub register: usize,
    pub row: usize,
    pub column: usize,
}

impl Part {
    /// Registers of a thread.
    pub fn registers(&self) -> usize {
        self.rows * self.columns / WARP
    }

    /// Zeros, with their types, for a loop to carry.
    pub fn zeros(&self, e: &mut Emitter) -> Vec<(Value, String)> {
        let zero = e.float(0.0, 1);
        vec![(zero, float_type(1)); self.registers()]
    }

    /// All of a thread's elements, in the order of the registers.
    pub fn elements(self) -> impl Iterator<Item = Element> + Clone {
        let across = self.columns / 8;
        (0..self.registers()).map(move |register| {
            let (piece, within) = (register / 4, register % 4);
            let (row, column) = (16 * (piece / across) + 8 * (within / 2), 8 * (piece % across) + within % 2);
            Element { register, row, column }
        })
    }

    /// Row and column of a thread's first element.
    pub fn origin(e: &mut Emitter) -> (Value, Value) {
        Part::origin_of(e, "%lane")
    }

    /// Those of the thread in a lane.
    pub fn origin_of(e: &mut Emitter, lane: &str) -> (Value, Value) {
        let four = e.index(4);
        let (row, pair) = (e.int2("divui", lane, &four), e.int2("remui", lane, &four));
        let column = e.times(&pair, 2);
        (row, column)
    }

    /// `sums + a · b` over `k` steps, a multiple of 16; `a` is rows by `k`, `b` is `k` by columns.
    pub fn multiply(&self, e: &mut Emitter, sums: Vec<Value>, a: &Factor, b: &Factor, k: usize) -> Vec<Value> {
        assert!(a.elem == b.elem && k.is_multiple_of(16), "{self:?}: {a:?} · {b:?}, {k} steps");
        if a.elem == Elem::F32 {
            return self.multiply_add(e, sums, a, b, k);
        }
        let (a, b) = (Fragments::rows(e, a), Fragments::columns(e, b));
        (0..k / 16).fold(sums, |sums, step| {
            let rows: Vec<[Value; 4]> = (0..self.rows / 16).map(|i| a.load(e, 16 * i, 16 * step)).collect();
            self.step(e, sums, &rows, &b, step)
        })
    }

    /// The same with `a`, rows by `k`, in registers: the sums of a part of 16 rows and `k` columns, rounded to bf16.
    pub fn multiply_registers(&self, e: &mut Emitter, sums: Vec<Value>, a: &[Value], b: &Factor) -> Vec<Value> {
        let b = Fragments::columns(e, b);
        a.chunks(8).enumerate().fold(sums, |sums, (step, a)| {
            let rows = [[0, 2, 4, 6].map(|i| pack(e, &a[i], &a[i + 1]))];
            self.step(e, sums, &rows, &b, step)
        })
    }

    /// Sixteen steps of the sum.
    fn step(&self, e: &mut Emitter, sums: Vec<Value>, rows: &[[Value; 4]], b: &Fragments, step: usize) -> Vec<Value> {
        let columns: Vec<[Value; 4]> = (0..self.columns / 16).map(|j| b.load(e, 16 * j, 16 * step)).collect();
        let pieces = columns.iter().flat_map(|[a, b, c, d]| [[a, b], [c, d]]);
        let pairs = rows.iter().flat_map(|row| pieces.clone().map(move |column| (row, column)));
        let sixteen = |(sums, (a, [b, c])): (&[Value], (&[Value; 4], [&Value; 2]))| {
            tensor_core(e, sums, a, &[b.clone(), c.clone()], ("bf16", 16))
        };
        sums.chunks(4).zip(pairs).flat_map(sixteen).collect()
    }

    /// The same of f32, each rounded to TF32 first, to nearest with ties away from zero.
    pub fn multiply_tf32(&self, e: &mut Emitter, sums: Vec<Value>, a: &Factor, b: &Factor, k: usize) -> Vec<Value> {
        let four = e.index(4);
        let (line, first) = (e.int2("divui", "%lane", &four), e.int2("remui", "%lane", &four));
        let [a_first, b_first] = [a, b].map(|factor| {
            let pointer = factor.line(e, &line);
            factor.step(e, &pointer, &first)
        });
        let k = e.index(k as i64);
        let carried: Vec<_> = sums.into_iter().map(|sum| (sum, float_type(1))).collect();
        e.for_loop("%zero", &k, 8, &carried, |e, k, sums| {
            let (a_at, b_at) = (a.step(e, &a_first, k), b.step(e, &b_first, k));
            let mut rounded = |factor: &Factor, at: &str, line: usize, step: usize| {
                let steps = if factor.along { step } else { step * factor.pitch } as i64;
                let place = e.at(at, factor.stride(line) + steps, Elem::F32);
                let value = e.load(&place, Elem::F32, 1);
                e.op(format!("llvm.inline_asm \"cvt.rna.tf32.f32 $0, $1;\", \"=r,f\" {value} : (f32) -> i32"))
            };
            let rows: Vec<Vec<Value>> = (0..self.rows / 16)
                .map(|i| {
                    [(0, 0), (8, 0), (0, 4), (8, 4)].map(|(row, step)| rounded(a, &a_at, 16 * i + row, step)).into()
                })
                .collect();
            let columns: Vec<Vec<Value>> =
                (0..self.columns / 8).map(|j| [0, 4].map(|step| rounded(b, &b_at, 8 * j, step)).into()).collect();
            let pairs = rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column)));
            sums.chunks(4).zip(pairs).flat_map(|(sums, (a, b))| tensor_core(e, sums, a, b, ("tf32", 8))).collect()
        })
    }

    fn multiply_add(&self, e: &mut Emitter, sums: Vec<Value>, a: &Factor, b: &Factor, k: usize) -> Vec<Value> {
        let (row, column) = Part::origin(e);
        let (a_first, b_first) = (a.line(e, &row), b.line(e, &column));
        let k = e.index(k as i64);
        let carried: Vec<_> = sums.into_iter().map(|sum| (sum, float_type(1))).collect();
        e.for_loop("%zero", &k, 1, &carried, |e, k, sums| {
            let (a_first, b_first) = (a.step(e, &a_first, k), b.step(e, &b_first, k));
            let rows: Vec<Value> = (0..self.rows / 8).map(|i| a.value(e, &a_first, 8 * i)).collect();
            let columns: Vec<Value> =
                (0..self.columns / 4).map(|j| b.value(e, &b_first, 8 * (j / 2) + j % 2)).collect();
            let one = |element: Element| {
                let (row, column) = (&rows[element.row / 8], &columns[element.column / 8 * 2 + element.column % 8]);
                e.fma(row, column, &sums[element.register], 1)
            };
            self.elements().map(one).collect()
        })
    }
}

impl Factor<'_> {
    /// The factor `rows` rows (or columns) further on, a constant.
    fn stride(&self, lines: usize) -> i64 {
        (if self.along { lines * self.pitch } else { lines }) as i64
    }

    /// Where line `line` begins: a row of `a`, a column of `b`.
    fn line(&self, e: &mut Emitter, line: &str) -> Value {
        if self.along {
            e.row(self.pointer, line, self.pitch, self.elem)
        } else {
            e.offset(self.pointer, line, self.elem)
        }
    }

    /// Step `k` of the line at `pointer`.
    fn step(&self, e: &mut Emitter, pointer: &str, k: &str) -> Value {
        if self.along { e.offset(pointer, k, self.elem) } else { e.row(pointer, k, self.pitch, self.elem) }
    }

    fn value(&self, e: &mut Emitter, pointer: &str, lines: usize) -> Value {
        let pointer = e.at(pointer, self.stride(lines), self.elem);
        e.load(&pointer, self.elem, 1)
    }
}

/// Loads pieces of 16 by 16 of a bf16 factor as the tensor cores want them: four pieces of 8 by 8, of which each row's
/// address comes from another thread.
struct Fragments<'a> {
    factor: &'a Factor<'a>,
    /// The address that this thread gives.
    pointer: Value,
}

impl<'a> Fragments<'a> {
    /// Of the first factor: four registers for 16 rows and 16 steps.
    fn rows(e: &mut Emitter, factor: &'a Factor) -> Fragments<'a> {
        Fragments::new(e, factor, factor.along)
    }

    /// Of the second factor: two registers for 8 columns and 16 steps, then two for the next 8 columns.
    fn columns(e: &mut Emitter, factor: &'a Factor) -> Fragments<'a> {
        Fragments::new(e, factor, !factor.along)
    }

    /// With `down`, the second piece lies below the first in memory and the third beside it; otherwise the other way round.
    fn new(e: &mut Emitter, factor: &'a Factor, down: bool) -> Fragments<'a> {
        let [eight, second, third] = [(1, 8), (8, 2), (16, 2)].map(|(unit, count)| {
            let (unit, count) = (e.index(unit), e.index(count));
            let digit = e.int2("divui", "%lane", &unit);
            e.int2("remui", &digit, &count)
        });
        let (below, beside) = if down { (&second, &third) } else { (&third, &second) };
        let (below, beside) = (e.times(below, 8), e.times(beside, 8));
        let row = e.int2("addi", &eight, &below);
        let row = e.row(factor.pointer, &row, factor.pitch, factor.elem);
        Fragments { factor, pointer: e.offset(&row, &beside, factor.elem) }
    }

    /// The piece from (`line`, `step`) on: a line is a row of the first factor, a column of the second.
    fn load(&self, e: &mut Emitter, line: usize, step: usize) -> [Value; 4] {
        let factor = self.factor;
        let at = if factor.along { line * factor.pitch + step } else { step * factor.pitch + line };
        let place = e.at(&self.pointer, at as i64, factor.elem);
        let place = e.op(format!("llvm.addrspacecast {place} : !llvm.ptr to !llvm.ptr<3>"));
        let layout = if factor.along { "row" } else { "col" };
        let four = e.op(format!(
            "nvvm.ldmatrix {place} {{num = 4 : i32, layout = #nvvm.mma_layout<{layout}>, shape = \
             #nvvm.ld_st_matrix_shape<m = 8, n = 8>, eltType = #nvvm.ld_st_matrix_elt_type<b16>}} : (!llvm.ptr<3>) -> \
             !llvm.struct<(i32, i32, i32, i32)>"
        ));
        [0, 1, 2, 3].map(|i| e.op(format!("llvm.extractvalue {four}[{i}] : !llvm.struct<(i32, i32, i32, i32)>")))
    }
}

/// Two f32 rounded to bf16 in one word, the first in its low half.
pub(super) fn pack(e: &mut Emitter, low: &str, high: &str) -> Value {
    e.op(format!("llvm.inline_asm \"cvt.rn.bf16x2.f32 $0, $1, $2;\", \"=r,f,f\" {high}, {low} : (f32, f32) -> i32"))
}

/// `sums + a · b` of 16 by 8 sums over so many steps of elements of that type.
fn tensor_core(e: &mut Emitter, sums: &[Value], a: &[Value], b: &[Value], (ty, steps): (&str, usize)) -> [Value; 4] {
    let types = "!llvm.struct<(f32, f32, f32, f32)>";
    let d = e.op(format!(
        "nvvm.mma.sync A[{}] B[{}] C[{}] {{layoutA = #nvvm.mma_layout<row>, layoutB = #nvvm.mma_layout<col>, \
         multiplicandAPtxType = #nvvm.mma_type<{ty}>, multiplicandBPtxType = #nvvm.mma_type<{ty}>, \
         shape = #nvvm.shape<m = 16, n = 8, k = {steps}>}} : (i32, i32, f32) -> {types}",
        a.join(", "),
        b.join(", "),
        sums.join(", ")
    ));
    [0, 1, 2, 3].map(|i| e.op(format!("llvm.extractvalue {d}[{i}] : {types}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_one_threads() {
        let part = Part { rows: 32, columns: 48 };
        let mut seen = vec![0; part.rows * part.columns];
        for lane in 0..WARP {
            for element in part.elements() {
                seen[(lane / 4 + element.row) * part.columns + 2 * (lane % 4) + element.column] += 1;
            }
        }
        assert!(seen.iter().all(|count| *count == 1), "{seen:?}");
    }
}
