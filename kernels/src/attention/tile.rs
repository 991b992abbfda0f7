//! A register tile of a small matrix product: rows of broadcast scalars times vectors.
//!
//! Both factors are words of four bytes along `k`: an f32, or two bf16 of successive steps, which are multiplied as a pair.
use crate::emit::{Elem, Emitter, Value, float_type};
use crate::pairs::{self, Pairs};

/// The shape of a tile: `rows * vectors` accumulators of `lanes` f32.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    pub rows: usize,
    pub vectors: usize,
    pub lanes: usize,
    /// How words of two bf16 are multiplied, if they are that.
    pub pairs: Option<Pairs>,
}

/// Words `pointer[row * row_step + k * step]`.
#[derive(Clone, Copy, Debug)]
pub struct Left<'a> {
    pub pointer: &'a str,
    pub row_step: usize,
    pub step: usize,
}

/// Vectors of words at `pointer[k * step + vector * lanes]`.
#[derive(Clone, Copy, Debug)]
pub struct Right<'a> {
    pub pointer: &'a str,
    pub step: usize,
}

impl Tile {
    pub fn count(self) -> usize {
        self.rows * self.vectors
    }

    /// `start + Σ_k left(row, k) · right(k)` for `k` in `0..terms`; `terms` is a multiple of `unroll`.
    pub fn multiply(
        self,
        e: &mut Emitter,
        left: Left,
        right: Right,
        (terms, unroll): (&str, usize),
        start: Vec<Value>,
    ) -> Vec<Value> {
        let zero = e.index(0);
        let carried: Vec<_> = start.into_iter().map(|v| (v, float_type(self.lanes))).collect();
        e.for_loop(&zero, terms, unroll as i64, &carried, |e, k, sums| {
            let (a, b) = (e.times(k, left.step), e.times(k, right.step));
            let (a, b) = (e.offset(left.pointer, &a, Elem::F32), e.offset(right.pointer, &b, Elem::F32));
            let mut sums = sums.to_vec();
            for u in 0..unroll {
                let a = e.at(&a, (u * left.step) as i64, Elem::F32);
                let b = e.at(&b, (u * right.step) as i64, Elem::F32);
                let left = Left { pointer: &a, ..left };
                sums = self.step(e, left, Right { pointer: &b, ..right }, &sums);
            }
            sums
        })
    }

    /// [`Tile::multiply`] over a number of terms known here.
    pub fn multiply_fixed(
        self,
        e: &mut Emitter,
        left: Left,
        right: Right,
        terms: usize,
        start: Vec<Value>,
    ) -> Vec<Value> {
        const UNROLL: usize = 4;
        let whole = terms / UNROLL * UNROLL;
        let limit = e.index(whole as i64);
        let mut sums = self.multiply(e, left, right, (&limit, UNROLL), start);
        for k in whole..terms {
            let a = e.at(left.pointer, (k * left.step) as i64, Elem::F32);
            let b = e.at(right.pointer, (k * right.step) as i64, Elem::F32);
            sums = self.step(e, Left { pointer: &a, ..left }, Right { pointer: &b, ..right }, &sums);
        }
        sums
    }

    fn step(self, e: &mut Emitter, left: Left, right: Right, sums: &[Value]) -> Vec<Value> {
        let vectors = self.load_row(e, right.pointer);
        let mut next = Vec::with_capacity(self.count());
        for row in 0..self.rows {
            let scalar = e.at(left.pointer, (row * left.row_step) as i64, Elem::F32);
            let scalar = e.load(&scalar, Elem::F32, 1);
            let scalar = e.splat(&scalar, self.lanes);
            for (v, vector) in vectors.iter().enumerate() {
                let sum = &sums[row * self.vectors + v];
                next.push(match self.pairs {
                    Some(how) => pairs::dot(e, how, &scalar, vector, sum, self.lanes),
                    None => e.fma(&scalar, vector, sum, self.lanes),
                });
            }
        }
        next
    }

    /// The vectors of one row.
    pub fn load_row(self, e: &mut Emitter, pointer: &str) -> Vec<Value> {
        let load = |v: usize| {
            let pointer = e.at(pointer, (v * self.lanes) as i64, Elem::F32);
            e.load(&pointer, Elem::F32, self.lanes)
        };
        (0..self.vectors).map(load).collect()
    }

    /// Zero accumulators.
    pub fn zeros(self, e: &mut Emitter) -> Vec<Value> {
        vec![e.float(0.0, self.lanes); self.count()]
    }

    /// All rows, `pitch` elements apart.
    pub fn load(self, e: &mut Emitter, pointer: &str, pitch: usize) -> Vec<Value> {
        let mut all = Vec::with_capacity(self.count());
        for row in 0..self.rows {
            let pointer = e.at(pointer, (row * pitch) as i64, Elem::F32);
            all.extend(self.load_row(e, &pointer));
        }
        all
    }

    /// Stores all rows, `pitch` elements apart.
    pub fn store(self, e: &mut Emitter, values: &[Value], pointer: &str, pitch: usize) {
        for (i, value) in values.iter().enumerate() {
            let place = i / self.vectors * pitch + i % self.vectors * self.lanes;
            let pointer = e.at(pointer, place as i64, Elem::F32);
            e.store(value, &pointer, Elem::F32, self.lanes);
        }
    }
}
