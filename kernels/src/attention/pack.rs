//! Copies between token rows in memory and blocks of f32 or of pairs of bf16 in scratch, plain or transposed.
use crate::emit::{Elem, Emitter, Value};
use crate::transpose::transposed;

/// Rows of one head in memory: `pointer` is the first row's first element, rows are `pitch` elements apart.
#[derive(Clone, Copy, Debug)]
pub struct HeadRows<'a> {
    pub pointer: &'a str,
    pub pitch: usize,
    pub head_dim: usize,
    pub elem: Elem,
}

/// Rows and columns of the blocks that are transposed in registers.
const BLOCK: usize = 8;

impl HeadRows<'_> {
    /// The same rows as words of two bf16 each, to be copied as if they were f32. Rows begin at whole words.
    pub fn as_words(self) -> Self {
        HeadRows { pitch: self.pitch / 2, head_dim: self.head_dim / 2, elem: Elem::F32, ..self }
    }

    /// `block[row / 2 * width + c]` becomes the word of `rows[row][c]` and `rows[row + 1][c]`, for an even number of `rows`;
    /// zeros from row `count` and column `head_dim` on.
    pub fn pack_pairs(self, e: &mut Emitter, count: &str, rows: usize, (block, width): (&str, usize)) {
        let (zero, all, columns) = (e.index(0), e.index(rows as i64 / 2), e.index(self.head_dim as i64));
        let full_width = e.index(width as i64);
        let whole = e.divided(count, 2);
        let end = e.plus(count, 1);
        let end = e.divided(&end, 2);
        for (from, to, both) in [(&zero, &whole, true), (&whole, &end, false)] {
            e.repeat(from, to, 1, |e, pair| {
                let low = e.row(self.pointer, pair, 2 * self.pitch, self.elem);
                let high = both.then(|| e.at(&low, self.pitch as i64, self.elem));
                let to = e.row(block, pair, width, Elem::F32);
                e.each(&columns, 2 * BLOCK, |e, i, lanes| {
                    let low = e.offset(&low, i, self.elem);
                    let high = high.as_deref().map(|high| e.offset(high, i, self.elem));
                    let words = e.load_halves(&low, high.as_deref(), lanes);
                    e.store_at(&words, &to, i, Elem::F32, lanes);
                });
                let none = e.float(0.0, 1);
                e.repeat(&columns, &full_width, 1, |e, i| e.store_at(&none, &to, i, Elem::F32, 1));
            });
        }
        e.repeat(&end, &all, 1, |e, pair| {
            let to = e.row(block, pair, width, Elem::F32);
            e.fill(&to, &full_width, Elem::F32, BLOCK);
        });
    }

    /// `block[row * width + c] = scale · rows[row][c]` for `rows` rows; zeros from row `count` and column `head_dim` on.
    pub fn pack(self, e: &mut Emitter, count: &str, rows: usize, scale: f32, (block, width): (&str, usize)) {
        let (zero, all, columns) = (e.index(0), e.index(rows as i64), e.index(self.head_dim as i64));
        let full_width = e.index(width as i64);
        e.repeat(&zero, count, 1, |e, row| {
            let (from, to) = (e.row(self.pointer, row, self.pitch, self.elem), e.row(block, row, width, Elem::F32));
            e.each(&columns, 2 * BLOCK, |e, i, lanes| {
                let value = e.load_at(&from, i, self.elem, lanes);
                let value = scaled(e, &value, scale, lanes);
                e.store_at(&value, &to, i, Elem::F32, lanes);
            });
            let none = e.float(0.0, 1);
            e.repeat(&columns, &full_width, 1, |e, i| e.store_at(&none, &to, i, Elem::F32, 1));
        });
        e.repeat(count, &all, 1, |e, row| {
            let to = e.row(block, row, width, Elem::F32);
            e.fill(&to, &full_width, Elem::F32, BLOCK);
        });
    }

    /// `block[c * rows + row] = scale · rows[row][c]`; zeros from row `count` on. `rows` is a multiple of 8.
    pub fn pack_transposed(self, e: &mut Emitter, count: &str, rows: usize, scale: f32, block: &str) {
        self.by_groups(
            e,
            count,
            rows,
            |e, row, column, lines| {
                let loaded: Vec<Value> = (0..BLOCK).map(|r| self.load_part(e, row, r, column)).collect();
                for (c, value) in transposed(e, &loaded).iter().enumerate() {
                    let value = scaled(e, value, scale, BLOCK);
                    let line = e.at(lines, (c * rows) as i64, Elem::F32);
                    e.store(&value, &line, Elem::F32, BLOCK);
                }
            },
            |e, row, column, place, inside| {
                let load = |e: &mut Emitter| {
                    let from = e.row(self.pointer, row, self.pitch, self.elem);
                    let value = e.load_at(&from, column, self.elem, 1);
                    let value = scaled(e, &value, scale, 1);
                    e.store(&value, place, Elem::F32, 1);
                };
                let clear = |e: &mut Emitter| {
                    let value = e.float(0.0, 1);
                    e.store(&value, place, Elem::F32, 1);
                };
                e.branch(inside, load, clear);
            },
            block,
        );
    }

    /// `rows[row][c] = block[c * rows + row] · factors[row]` for the first `count` rows. `rows` is a multiple of 8.
    pub fn unpack_transposed(self, e: &mut Emitter, count: &str, rows: usize, factors: &str, block: &str) {
        self.by_groups(
            e,
            count,
            rows,
            |e, row, column, lines| {
                let factor = e.load_at(factors, row, Elem::F32, BLOCK);
                let load = |c: usize| {
                    let line = e.at(lines, (c * rows) as i64, Elem::F32);
                    let value = e.load(&line, Elem::F32, BLOCK);
                    e.float2("mulf", &value, &factor, BLOCK)
                };
                let loaded: Vec<Value> = (0..BLOCK).map(load).collect();
                for (r, value) in transposed(e, &loaded).iter().enumerate() {
                    let to = self.part(e, row, r, column);
                    e.store(value, &to, self.elem, BLOCK);
                }
            },
            |e, row, column, place, inside| {
                let store = |e: &mut Emitter| {
                    let (value, factor) = (e.load(place, Elem::F32, 1), e.load_at(factors, row, Elem::F32, 1));
                    let value = e.float2("mulf", &value, &factor, 1);
                    let to = e.row(self.pointer, row, self.pitch, self.elem);
                    e.store_at(&value, &to, column, self.elem, 1);
                };
                e.branch(inside, store, |_| {});
            },
            block,
        );
    }

    /// Goes over a transposed block: `block(row, column, place)` for 8 x 8 elements where all 8 rows exist, otherwise
    /// `single(row, column, place, whether the row exists)`. `place` points into the transposed block.
    fn by_groups(
        self,
        e: &mut Emitter,
        count: &str,
        rows: usize,
        block: impl Fn(&mut Emitter, &str, &str, &str),
        single: impl Fn(&mut Emitter, &str, &str, &str, &str),
        target: &str,
    ) {
        let (zero, all) = (e.index(0), e.index(rows as i64));
        let whole = e.rounded_down(count, BLOCK);
        let blocked = e.index((self.head_dim / BLOCK * BLOCK) as i64);
        let columns = e.index(self.head_dim as i64);
        let place = |e: &mut Emitter, row: &str, column: &str| {
            let line = e.row(target, column, rows, Elem::F32);
            e.offset(&line, row, Elem::F32)
        };
        let singles = |e: &mut Emitter, rows: (&str, &str), columns: (&str, &str)| {
            e.repeat(rows.0, rows.1, 1, |e, row| {
                let inside = e.op(format!("arith.cmpi slt, {row}, {count} : i64"));
                e.repeat(columns.0, columns.1, 1, |e, column| {
                    let place = place(e, row, column);
                    single(e, row, column, &place, &inside);
                });
            });
        };
        e.repeat(&zero, &whole, BLOCK as i64, |e, row| {
            e.repeat(&zero, &blocked, BLOCK as i64, |e, column| {
                let place = place(e, row, column);
                block(e, row, column, &place);
            });
        });
        singles(e, (&zero, &whole), (&blocked, &columns));
        singles(e, (&whole, &all), (&zero, &columns));
    }

    /// The address of element `column` of row `row + r`.
    fn part(self, e: &mut Emitter, row: &str, r: usize, column: &str) -> Value {
        let from = e.row(self.pointer, row, self.pitch, self.elem);
        let from = e.at(&from, (r * self.pitch) as i64, self.elem);
        e.offset(&from, column, self.elem)
    }

    fn load_part(self, e: &mut Emitter, row: &str, r: usize, column: &str) -> Value {
        let from = self.part(e, row, r, column);
        e.load(&from, self.elem, BLOCK)
    }
}

fn scaled(e: &mut Emitter, value: &str, scale: f32, lanes: usize) -> Value {
    if scale == 1.0 {
        return value.into();
    }
    let scale = e.float(scale, lanes);
    e.float2("mulf", value, &scale, lanes)
}
