//! Terms whose A is f32: what a LoRA has summed in f32 over its rank's columns, times a matrix of bf16.
//!
//! The tensor cores take A from registers, as bf16. So every thread loads its elements and splits each into three of bf16,
//! the rounded value and twice the rounded rest: 24 bits, all that an f32 has. Their three products differ from that of the f32
//! by as little as f32 sums do. An infinite element gives NaN.
use super::descriptor::distance;
use super::wgmma::{self, Fragment, PAIRS, STEPS, pinned_fragments};
use super::{DEPTH, Start, Template};
use crate::emit::{Elem, Emitter, Value};
use crate::gemm::Term;
use crate::gpu::warp::{Part, pack};

const PARTS: usize = 3;

impl Template<'_> {
    /// The fragments of tile number `tile` of term number `i`, by step and part; zeros where there is no step.
    pub(super) fn wide_parts(
        &self,
        e: &mut Emitter,
        term: &Term,
        i: usize,
        start: &Start,
        tile: &str,
    ) -> Vec<Fragment> {
        let (row, column) = Part::origin(e);
        let first = e.times("%warp", self.part().rows);
        let row = e.int2("addi", &row, &first);
        let row = e.int2("addi", &row, &start.row);
        let before = e.times(tile, DEPTH);
        let column = e.int2("addi", &column, &before);
        let (a, depth) = (&start.operands[i].0, &start.depths[i]);
        let (last_row, last_column) = (e.index(self.gemm.m as i64 - 1), e.plus(depth, -1));
        let rows = [0, 8].map(|below| {
            let row = e.plus(&row, below);
            // Rows outside of the matrix give rows outside of the result.
            let row = e.int2("minui", &row, &last_row);
            e.row(a, &row, term.a.stride, Elem::F32)
        });
        let element = |e: &mut Emitter, below: usize, beside: usize| {
            let column = e.plus(&column, beside as i64);
            let inside = e.less(&column, depth);
            let column = e.int2("minui", &column, &last_column);
            let value = e.load_at(&rows[below / 8], &column, Elem::F32, 1);
            let zero = e.float(0.0, 1);
            e.select(&inside, &value, &zero, 1)
        };
        let steps = DEPTH.min(term.k).div_ceil(STEPS);
        let mut fragments = vec![];
        for step in 0..steps {
            let pairs = PAIRS.map(|(below, beside)| [0, 1].map(|next| element(e, below, step * STEPS + beside + next)));
            fragments.extend(split(e, pairs));
        }
        pinned_fragments(e, fragments)
    }

    /// Starts the products of a stage's tile of B with the parts of A: a group.
    pub(super) fn multiply_wide(
        &self,
        e: &mut Emitter,
        sums: &str,
        (term, parts): (&Term, &[Fragment]),
        b: &str,
        stage: &str,
    ) -> Value {
        let stage = e.times(stage, distance(self.stage_bytes) as usize);
        let (b, matrix) = (e.int2("addi", b, &stage), self.b(term));
        let mut sums = sums.to_string();
        wgmma::fence(e);
        for (number, part) in parts.iter().enumerate() {
            let b = e.plus(&b, distance(matrix.step_at(number / PARTS * STEPS)));
            let values = self.sums().values(e, &sums);
            sums = self.sums().multiply_words(e, &values, part, (&b, matrix.along));
        }
        wgmma::commit(e);
        sums
    }
}

/// The fragments of the parts of four pairs: the rounded values, and twice what is left, rounded.
fn split(e: &mut Emitter, mut pairs: [[Value; 2]; 4]) -> [Fragment; PARTS] {
    [(); PARTS].map(|()| {
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
    })
}
