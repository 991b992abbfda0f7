//! Copies between token rows in memory and blocks of f32 or of pairs of bf16 in scratch, plain or transposed.
use crate::emit::{Elem, Emitter, Value, float_type};
use crate::transpose::transposed;

/// Rows of one head in memory: `pointer` is the first row's first element, rows are `pitch` elements apart.
#[derive(Clone, Copy, Debug)]
pub struct HeadRows<'a> {
    pub pointer: &'a str,
    pub pitch: usize,
    pub entries: usize,
    pub elem: Elem,
}

/// Rows and columns of the blocks that are transposed in registers.
const BLOCK: usize = 8;

impl HeadRows<'_> {
    /// The same rows as words of two bf16 each, to be copied as if they were f32. Rows begin at whole words.
    pub fn as_words(self) -> Self {
        HeadRows { pitch: self.pitch / 2, entries: self.entries / 2, elem: Elem::F32, ..self }
    }

    /// `block[row / 2 * width + c]` becomes the word of `rows[row][c]` and `rows[row + 1][c]`, for an even number of `rows`;
    /// zeros from row `count` and column `entries` on.
    pub fn pack_pairs(self, e: &mut Emitter, count: &str, rows: usize, (block, width): (&str, usize)) {
        let (zero, all, columns) = (e.index(0), e.index(rows as i64 / 2), e.index(self.entries as i64));
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
                self.clear_beyond(e, &to, width);
            });
        }
        e.repeat(&end, &all, 1, |e, pair| {
            let to = e.row(block, pair, width, Elem::F32);
            e.fill(&to, &full_width, Elem::F32, BLOCK);
        });
    }

    /// `block[row * width + c] = scale · rows[row][c]` for `rows` rows; zeros from row `count` and column `entries` on.
    pub fn pack(self, e: &mut Emitter, count: &str, rows: usize, scale: f32, (block, width): (&str, usize)) {
        let (zero, all, columns) = (e.index(0), e.index(rows as i64), e.index(self.entries as i64));
        let full_width = e.index(width as i64);
        e.repeat(&zero, count, 1, |e, row| {
            let (from, to) = (e.row(self.pointer, row, self.pitch, self.elem), e.row(block, row, width, Elem::F32));
            e.each(&columns, 2 * BLOCK, |e, i, lanes| {
                let value = e.load_at(&from, i, self.elem, lanes);
                let value = scaled(e, &value, scale, lanes);
                e.store_at(&value, &to, i, Elem::F32, lanes);
            });
            self.clear_beyond(e, &to, width);
        });
        e.repeat(count, &all, 1, |e, row| {
            let to = e.row(block, row, width, Elem::F32);
            e.fill(&to, &full_width, Elem::F32, BLOCK);
        });
    }

    /// Zeros from column `entries` on of a row of `width`.
    fn clear_beyond(self, e: &mut Emitter, row: &str, width: usize) {
        if self.entries < width {
            let (to, count) = (e.at(row, self.entries as i64, Elem::F32), e.index((width - self.entries) as i64));
            e.fill(&to, &count, Elem::F32, BLOCK);
        }
    }

    /// `block[c * rows + row] = scale · rows[row][c]`; zeros from row `count` on. `rows` is a multiple of 8.
    pub fn pack_transposed(self, e: &mut Emitter, count: &str, rows: usize, scale: f32, block: &str) {
        self.by_groups(e, count, rows, block, |e, group| {
            let nothing = e.float(0.0, BLOCK);
            let load = |r: usize| {
                let load = |e: &mut Emitter| {
                    let from = self.part(e, group.row, r, group.column);
                    vec![e.within_first(group.columns, BLOCK, |e| e.load(&from, self.elem, BLOCK))]
                };
                match group.has_row(e, r) {
                    Some(exists) => {
                        e.either(&exists, &[float_type(BLOCK)], load, |_| vec![nothing.clone()]).swap_remove(0)
                    }
                    None => load(e).swap_remove(0),
                }
            };
            let loaded: Vec<Value> = (0..BLOCK).map(load).collect();
            for (c, value) in transposed(e, &loaded).iter().take(group.columns).enumerate() {
                let value = scaled(e, value, scale, BLOCK);
                let line = e.at(group.place, (c * rows) as i64, Elem::F32);
                e.store(&value, &line, Elem::F32, BLOCK);
            }
        });
    }

    /// `rows[row][c] = block[c * rows + row] · factors[row]` for the first `count` rows. `rows` is a multiple of 8.
    pub fn unpack_transposed(self, e: &mut Emitter, count: &str, rows: usize, factors: &str, block: &str) {
        self.by_groups(e, count, rows, block, |e, group| {
            let (factor, nothing) = (e.load_at(factors, group.row, Elem::F32, BLOCK), e.float(0.0, BLOCK));
            let load = |c: usize| {
                let line = e.at(group.place, (c * rows) as i64, Elem::F32);
                let value = e.load(&line, Elem::F32, BLOCK);
                e.float2("mulf", &value, &factor, BLOCK)
            };
            let mut loaded: Vec<Value> = (0..group.columns).map(load).collect();
            loaded.resize(BLOCK, nothing);
            for (r, value) in transposed(e, &loaded).iter().enumerate() {
                let store = |e: &mut Emitter| {
                    let to = self.part(e, group.row, r, group.column);
                    e.within_first(group.columns, BLOCK, |e| e.store(value, &to, self.elem, BLOCK));
                };
                match group.has_row(e, r) {
                    Some(exists) => e.branch(&exists, store, |_| {}),
                    None => store(e),
                }
            }
        });
    }

    /// `body` for all groups of 8 rows and 8 columns, of which the last may have fewer.
    fn by_groups(self, e: &mut Emitter, count: &str, rows: usize, block: &str, body: impl Fn(&mut Emitter, &Group)) {
        let (zero, all) = (e.index(0), e.index(rows as i64));
        let whole = e.rounded_down(count, BLOCK);
        for (from, to, partial) in [(&zero, &whole, false), (&whole, &all, true)] {
            e.repeat(from, to, BLOCK as i64, |e, row| {
                let left = partial.then(|| e.int2("subi", count, row));
                let group = |e: &mut Emitter, column: &str, columns: usize| {
                    let line = e.row(block, column, rows, Elem::F32);
                    let place = e.offset(&line, row, Elem::F32);
                    body(e, &Group { row, column, place: &place, left: left.as_deref(), columns });
                };
                let rest = self.entries % BLOCK;
                let blocked = e.index((self.entries - rest) as i64);
                e.repeat(&zero, &blocked, BLOCK as i64, |e, column| group(e, column, BLOCK));
                if rest > 0 {
                    group(e, &blocked, rest);
                }
            });
        }
    }

    /// The address of element `column` of row `row + r`.
    fn part(self, e: &mut Emitter, row: &str, r: usize, column: &str) -> Value {
        let from = e.row(self.pointer, row, self.pitch, self.elem);
        let from = e.at(&from, (r * self.pitch) as i64, self.elem);
        e.offset(&from, column, self.elem)
    }
}

/// Eight rows by eight columns at most.
struct Group<'a> {
    row: &'a str,
    column: &'a str,
    /// Its first element in the transposed block.
    place: &'a str,
    /// How many rows there are, less than one possibly; all eight without it.
    left: Option<&'a str>,
    columns: usize,
}

impl Group<'_> {
    /// Whether row `r` exists, where it need not.
    fn has_row(&self, e: &mut Emitter, r: usize) -> Option<Value> {
        let r = self.left.map(|left| (e.index(r as i64), left));
        r.map(|(r, left)| e.less(&r, left))
    }
}

fn scaled(e: &mut Emitter, value: &str, scale: f32, lanes: usize) -> Value {
    if scale == 1.0 {
        return value.into();
    }
    let scale = e.float(scale, lanes);
    e.float2("mulf", value, &scale, lanes)
}
