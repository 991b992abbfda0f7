//! Tiles of matrices in shared memory, and how they get there.
use crate::emit::{Elem, Emitter, Value};

/// Elements that one asynchronous copy moves: 16 bytes of bf16.
const CHUNK: usize = 8;
/// Most copies of a thread that are written one after the other; more become a loop.
const UNROLLED: usize = 16;

/// Most elements that a thread loads before it stores them.
const TOGETHER: usize = 4;

/// Tiles of bf16 that hold a tile of f32.
pub const PARTS: usize = 3;

/// A matrix in shared memory, row after row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tile {
    pub rows: usize,
    pub columns: usize,
    /// F32, or Bf16 for the tensor cores.
    pub elem: Elem,
}

/// A matrix in memory that tiles are cut from; what lies outside of it counts as zeros.
pub struct Source<'a> {
    pub pointer: &'a str,
    pub elem: Elem,
    /// Elements from one row to the next.
    pub pitch: usize,
    /// How many rows and columns there are.
    pub rows: &'a str,
    pub columns: &'a str,
}

impl Source<'_> {
    /// Whether rows can be copied 16 bytes at a time: all of them then begin where such a copy may.
    pub fn is_aligned(elem: Elem, pitch: usize) -> bool {
        elem == Elem::Bf16 && pitch.is_multiple_of(CHUNK)
    }
}

impl Tile {
    /// Elements from one row to the next. Eight rows, read at the same column by the threads of a warp, lie in different banks:
    /// 16 bytes further on each.
    pub fn pitch(&self) -> usize {
        let step = 16 / self.elem.bytes() as usize;
        let steps = self.columns.div_ceil(step);
        (steps | 1) * step
    }

    pub fn bytes(&self) -> usize {
        self.rows * self.pitch() * self.elem.bytes() as usize
    }

    /// Starts copying the part of `source` from (`row`, `column`) on into the tile at `to`; `column` is a multiple of 8, and
    /// the rows of the source are aligned. Whoever reads it waits first.
    pub fn copy_async(&self, e: &mut Emitter, to: &str, source: &Source, row: &str, column: &str) {
        let across = self.columns / CHUNK;
        self.deal(e, self.rows * across, 1, |e, i| {
            let (r, c) = split(e, i, across);
            let c = e.times(&c, CHUNK);
            let place = self.place(e, to, &r, &c);
            let (r, c) = (e.int2("addi", row, &r), e.int2("addi", column, &c));
            let chunk = e.index(CHUNK as i64);
            let left = e.int2("subi", source.columns, &c);
            let left = e.int2("minsi", &left, &chunk);
            let left = e.int2("maxsi", &left, "%zero");
            let inside = e.less(&r, source.rows);
            let left = e.choose(&inside, &left, "%zero");
            let bytes = e.times(&left, Elem::Bf16.bytes() as usize);
            let bytes = e.op(format!("arith.trunci {bytes} : i64 to i32"));
            // An address that exists, also where nothing is read.
            let some = e.op(format!("arith.cmpi sgt, {left}, %zero : i64"));
            let (r, c) = (e.choose(&some, &r, "%zero"), e.choose(&some, &c, "%zero"));
            let from = e.row(source.pointer, &r, source.pitch, source.elem);
            let from = e.offset(&from, &c, source.elem);
            let from = e.op(format!("llvm.addrspacecast {from} : !llvm.ptr to !llvm.ptr<1>"));
            let place = e.op(format!("llvm.addrspacecast {place} : !llvm.ptr to !llvm.ptr<3>"));
            e.line(format!(
                "nvvm.cp.async.shared.global {place}, {from}, 16, cache = cg, {bytes} : !llvm.ptr<3>, !llvm.ptr<1>, i32"
            ));
        });
    }

    /// Copies the part of `source` from (`row`, `column`) on into the tile at `to`, whatever its storage and alignment; at
    /// least one row and one column of the source exist. In several parts, see [`Tile::put`].
    pub fn copy(&self, e: &mut Emitter, to: &str, source: &Source, (row, column): (&str, &str), parts: usize) {
        let threads = e.threads().expect("tiles are a block's");
        let group = (1..=TOGETHER).rev().find(|group| self.elements().is_multiple_of(group * threads)).unwrap_or(1);
        self.deal(e, self.elements(), group, |e, i| {
            let values = self.fetch_from(e, source, (row, column), (i, group));
            self.put_from(e, to, (i, &values), parts);
        });
    }

    /// How many elements a thread copies, if it is as many for all.
    pub fn share(&self, threads: usize) -> Option<usize> {
        self.elements().is_multiple_of(threads).then_some(self.elements() / threads)
    }

    /// The elements that [`Tile::copy`] has this thread copy, for [`Tile::put`]; all threads have as many.
    pub fn fetch(&self, e: &mut Emitter, source: &Source, from: (&str, &str)) -> Vec<Value> {
        let share = e.threads().and_then(|threads| self.share(threads));
        self.fetch_from(e, source, from, ("%thread", share.expect("all threads have as many elements")))
    }

    /// Stores what was fetched into the tile at `to`. In three parts, values of f32 go into as many tiles of bf16, one behind
    /// the other: the rounded values and twice the rounded rest, 24 bits together, all that an f32 has. An infinite value gives
    /// NaN.
    pub fn put(&self, e: &mut Emitter, to: &str, values: &[Value], parts: usize) {
        e.apart(|e| self.put_from(e, to, ("%thread", values), parts));
    }

    fn elements(&self) -> usize {
        self.rows * self.columns
    }

    /// The values of element `first`, and of `count` in all that are as many elements apart as there are threads. None waits
    /// for another: those outside of the source are zeros that were read elsewhere.
    fn fetch_from(
        &self,
        e: &mut Emitter,
        source: &Source,
        (row, column): (&str, &str),
        (first, count): (&str, usize),
    ) -> Vec<Value> {
        let (last_row, last_column) = (e.plus(source.rows, -1), e.plus(source.columns, -1));
        let zero = e.float(0.0, 1);
        let one = |turn| {
            let (r, c) = self.element(e, first, turn);
            let (r, c) = (e.int2("addi", row, &r), e.int2("addi", column, &c));
            let (inside, fits) = (e.less(&r, source.rows), e.less(&c, source.columns));
            let inside = e.op(format!("arith.andi {inside}, {fits} : i1"));
            let (r, c) = (e.int2("minsi", &r, &last_row), e.int2("minsi", &c, &last_column));
            let from = e.row(source.pointer, &r, source.pitch, source.elem);
            let value = e.load_at(&from, &c, source.elem, 1);
            e.select(&inside, &value, &zero, 1)
        };
        (0..count).map(one).collect()
    }

    /// Stores such values.
    fn put_from(&self, e: &mut Emitter, to: &str, (first, values): (&str, &[Value]), parts: usize) {
        for (turn, value) in values.iter().enumerate() {
            let (r, c) = self.element(e, first, turn);
            let place = self.place(e, to, &r, &c);
            let mut rest = value.clone();
            for part in 0..parts {
                let place = e.at(&place, (part * self.rows * self.pitch()) as i64, self.elem);
                e.store(&rest, &place, self.elem, 1);
                if part + 1 < parts {
                    let (bits, sixteen) = (e.rounded_bits(&rest, 1), e.int_constant(16, 1));
                    let bits = e.int_lanes2("shli", &bits, &sixteen, 1);
                    let rounded = e.bits_float(&bits, 1);
                    rest = e.float2("subf", &rest, &rounded, 1);
                }
            }
        }
    }

    /// Row and column of the `turn`-th element from `first` on that is this thread's.
    fn element(&self, e: &mut Emitter, first: &str, turn: usize) -> (Value, Value) {
        let threads = e.threads().expect("tiles are a block's");
        let i = e.plus(first, (turn * threads) as i64);
        split(e, &i, self.columns)
    }

    /// `body(i)` for `0..count`, dealt out to the threads; with `group`, which divides the count of each, for every so many
    /// of a thread, the first of which is `i`.
    fn deal(&self, e: &mut Emitter, count: usize, group: usize, mut body: impl FnMut(&mut Emitter, &str)) {
        let threads = e.threads().expect("tiles are a block's");
        e.apart(|e| {
            if count.is_multiple_of(threads) && count / threads <= UNROLLED {
                for turn in (0..count / threads).step_by(group) {
                    let i = e.plus("%thread", (turn * threads) as i64);
                    body(e, &i);
                }
            } else {
                let count = e.index(count as i64);
                e.repeat("%thread", &count, (threads * group) as i64, |e, i| body(e, i));
            }
        });
    }

    /// The address of an element.
    pub fn place(&self, e: &mut Emitter, tile: &str, row: &str, column: &str) -> Value {
        let row = e.row(tile, row, self.pitch(), self.elem);
        e.offset(&row, column, self.elem)
    }
}

/// Quotient and remainder by a constant.
fn split(e: &mut Emitter, value: &str, by: usize) -> (Value, Value) {
    let by = e.index(by as i64);
    (e.int2("divui", value, &by), e.int2("remui", value, &by))
}

/// Ends the group of asynchronous copies that this thread has started.
pub fn commit(e: &mut Emitter) {
    e.line("nvvm.cp.async.commit.group");
}

/// Waits until all but the newest `pending` groups of copies that this thread has started have arrived.
pub fn wait(e: &mut Emitter, pending: usize) {
    e.line(format!("nvvm.cp.async.wait.group {pending}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_rows_lie_in_different_banks() {
        for (elem, columns) in [(Elem::Bf16, 32), (Elem::Bf16, 64), (Elem::Bf16, 80), (Elem::F32, 32), (Elem::F32, 18)]
        {
            let tile = Tile { rows: 16, columns, elem };
            let bytes = tile.pitch() * elem.bytes() as usize;
            assert!(tile.pitch() >= columns && bytes.is_multiple_of(16), "{tile:?}");
            let mut banks: Vec<usize> = (0..8).map(|row| row * bytes / 16 % 8).collect();
            banks.sort_unstable();
            assert_eq!(banks, [0, 1, 2, 3, 4, 5, 6, 7], "{tile:?}");
        }
    }
}
