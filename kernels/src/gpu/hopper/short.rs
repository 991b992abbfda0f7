//! Short terms that threads load: what a LoRA has summed in f32 over its rank's columns, times a matrix of bf16, whose rows
//! are no multiple of 16 bytes apart where the rank is no multiple of 8.
//!
//! The tensor cores take A from registers, as bf16. So every thread loads its elements and splits those of f32 into three of
//! bf16, the rounded value and twice the rounded rest: 24 bits, all that an f32 has. Their three products differ from that of
//! the f32 by as little as f32 sums do. An infinite element gives NaN.
//!
//! B is read from shared memory. Where no copy takes it, the producer gives the consumers an empty stage, to which they write
//! the tile, swizzled. All of that happens while the tensor cores have the tile before.
use super::descriptor::distance;
use super::tail::{PIECE, swizzled};
use super::wgmma::{self, Fragment, PAIRS, STEPS, pinned_fragments};
use super::{CONSUMERS, DEPTH, Share, Template, WARPGROUP};
use crate::emit::{Elem, Emitter, Value};
use crate::gemm::Term;
use crate::gpu::warp::{Part, pack};

/// How many matrices of bf16 hold A.
fn parts(term: &Term) -> usize {
    if term.a.elem == Elem::F32 { 3 } else { 1 }
}

/// Steps of a tile that are multiplied.
fn steps(term: &Term) -> usize {
    DEPTH.min(term.k.next_multiple_of(STEPS))
}

impl Template<'_> {
    /// The fragments of A's tile number `tile` of term number `i`, by step and part; zeros where there is no step.
    pub(super) fn parts_of_a(
        &self,
        e: &mut Emitter,
        term: &Term,
        i: usize,
        share: &Share,
        tile: &str,
    ) -> Vec<Fragment> {
        let (row, column) = Part::origin(e);
        let first = e.times("%warp", self.part().rows);
        let row = e.int2("addi", &row, &first);
        let row = e.int2("addi", &row, &share.row);
        let before = e.times(tile, DEPTH);
        let column = e.int2("addi", &column, &before);
        let (a, depth) = (&share.operands[i].0, &share.depths[i]);
        let (last_row, last_column) = (e.index(self.gemm.m as i64 - 1), e.plus(depth, -1));
        let rows = [0, 8].map(|below| {
            let row = e.plus(&row, below);
            // Rows outside of the matrix give rows outside of the result.
            let row = e.int2("minui", &row, &last_row);
            e.row(a, &row, term.a.stride, term.a.elem)
        });
        let element = |e: &mut Emitter, below: usize, beside: usize| {
            let column = e.plus(&column, beside as i64);
            let inside = e.less(&column, depth);
            let column = e.int2("minui", &column, &last_column);
            let value = e.load_at(&rows[below / 8], &column, term.a.elem, 1);
            let zero = e.float(0.0, 1);
            e.select(&inside, &value, &zero, 1)
        };
        let mut fragments = vec![];
        for step in (0..steps(term)).step_by(STEPS) {
            let pairs = PAIRS.map(|(below, beside)| [0, 1].map(|next| element(e, below, step + beside + next)));
            fragments.extend(split(e, pairs, parts(term)));
        }
        pinned_fragments(e, fragments)
    }

    /// Writes B's tile number `tile` of term number `i` to its stage, which is empty, a thread sixteen steps of a column at a
    /// time.
    pub(super) fn write_b(&self, e: &mut Emitter, term: &Term, i: usize, share: &Share, (tile, stage): (&str, &str)) {
        let (b, depth) = (&share.operands[i].1, &share.depths[i]);
        let (last_line, last_step) = (e.index(self.gemm.n as i64 - 1), e.plus(depth, -1));
        let (before, to) = (e.times(tile, DEPTH), self.stage_at(e, stage, self.b_at));
        let count = e.index((self.columns * steps(term) / STEPS) as i64);
        e.repeat("%thread", &count, (CONSUMERS * WARPGROUP) as i64, |e, i| {
            let columns = e.index(self.columns as i64);
            let (group, line) = (e.int2("divui", i, &columns), e.int2("remui", i, &columns));
            let first = e.times(&group, STEPS);
            let column = e.int2("addi", &share.column, &line);
            // Columns outside of the matrix give columns outside of the result.
            let column = e.int2("minui", &column, &last_line);
            let from = e.row(b, &column, term.b.stride, Elem::Bf16);
            let step = e.int2("addi", &before, &first);
            let element = |e: &mut Emitter, beside: usize| {
                // Behind the last step A has zeros.
                let step = e.plus(&step, beside as i64);
                let step = e.int2("minui", &step, &last_step);
                e.load_at(&from, &step, Elem::Bf16, 1)
            };
            let values: Vec<Value> = (0..STEPS).map(|beside| element(e, beside)).collect();
            for (number, piece) in values.chunks(PIECE).enumerate() {
                let words: Vec<Value> = piece.chunks(2).map(|pair| pack(e, &pair[0], &pair[1])).collect();
                let words = e.op(format!("vector.from_elements {} : vector<4xi32>", words.join(", ")));
                let column = e.plus(&first, (number * PIECE) as i64);
                let place = swizzled(e, &line, &column);
                let place = e.offset(&to, &place, Elem::Bf16);
                e.line(format!("llvm.store {words}, {place} {{alignment = 16 : i64}} : vector<4xi32>, !llvm.ptr"));
            }
        });
        self.written(e);
    }

    /// Starts the products of a stage's tile of B with the parts of A: a group.
    pub(super) fn multiply_parts(
        &self,
        e: &mut Emitter,
        sums: &str,
        (term, fragments): (&Term, &[Fragment]),
        b: &str,
        stage: &str,
    ) -> Value {
        let stage = e.times(stage, distance(self.stage_bytes) as usize);
        let (b, matrix) = (e.int2("addi", b, &stage), self.b(term));
        let mut sums = sums.to_string();
        wgmma::fence(e);
        for (number, fragment) in fragments.iter().enumerate() {
            let b = e.plus(&b, distance(matrix.step_at(number / parts(term) * STEPS)));
            let values = self.sums().values(e, &sums);
            sums = self.sums().multiply_words(e, &values, fragment, (&b, matrix.along));
        }
        wgmma::commit(e);
        sums
    }
}

/// The fragments of the parts of four pairs: the rounded values, and then what is left, rounded.
fn split(e: &mut Emitter, mut pairs: [[Value; 2]; 4], parts: usize) -> Vec<Fragment> {
    let part = |_| {
        let fragment: Fragment = std::array::from_fn(|i| pack(e, &pairs[i][0], &pairs[i][1]));
        for (pair, word) in pairs.iter_mut().zip(&fragment) {
            let (sixteen, high_half) = (e.int_constant(16, 1), e.int_constant(0xffff_0000_u32 as i32, 1));
            let rounded = [e.int_lanes2("shli", word, &sixteen, 1), e.int_lanes2("andi", word, &high_half, 1)];
            for (value, rounded) in pair.iter_mut().zip(rounded) {
                let rounded = e.bits_float(&rounded, 1);
                *value = e.float2("subf", value, &rounded, 1);
            }
        }
        fragment
    };
    (0..parts).map(part).collect()
}
