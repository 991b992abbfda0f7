//! Tiles of matrices in shared memory, and how they get there.
use crate::emit::{Elem, Emitter, Value, float_type};

/// Elements that one asynchronous copy moves: 16 bytes of bf16.
const CHUNK: usize = 8;
/// Most copies of a thread that are written one after the other; more become a loop.
const UNROLLED: usize = 16;

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
        self.deal(e, self.rows * across, |e, i| {
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

    /// Copies the part of `source` from (`row`, `column`) on into the tile at `to`, whatever its storage and alignment.
    pub fn copy(&self, e: &mut Emitter, to: &str, source: &Source, row: &str, column: &str) {
        self.deal_values(e, to, source, (row, column), |e, value, place| e.store(value, place, self.elem, 1));
    }

    /// The same of f32 into three tiles of bf16, one behind the other: the rounded values and twice the rounded rest, 24 bits
    /// together, all that an f32 has. An infinite value gives NaN.
    pub fn copy_split(&self, e: &mut Emitter, to: &str, source: &Source, row: &str, column: &str) {
        self.deal_values(e, to, source, (row, column), |e, value, place| {
            let mut rest = value.to_string();
            for part in 0..PARTS {
                let place = e.at(place, (part * self.rows * self.pitch()) as i64, self.elem);
                e.store(&rest, &place, self.elem, 1);
                let (bits, sixteen) = (e.rounded_bits(&rest, 1), e.int_constant(16, 1));
                let bits = e.int_lanes2("shli", &bits, &sixteen, 1);
                let rounded = e.bits_float(&bits, 1);
                rest = e.float2("subf", &rest, &rounded, 1);
            }
        });
    }

    /// `put(value, place)` for every element of the tile at `to`, each by one thread.
    fn deal_values(
        &self,
        e: &mut Emitter,
        to: &str,
        source: &Source,
        (row, column): (&str, &str),
        mut put: impl FnMut(&mut Emitter, &str, &str),
    ) {
        self.deal(e, self.rows * self.columns, |e, i| {
            let (r, c) = split(e, i, self.columns);
            let place = self.place(e, to, &r, &c);
            let (r, c) = (e.int2("addi", row, &r), e.int2("addi", column, &c));
            let (inside, fits) = (e.less(&r, source.rows), e.less(&c, source.columns));
            let inside = e.op(format!("arith.andi {inside}, {fits} : i1"));
            let load = |e: &mut Emitter| {
                let from = e.row(source.pointer, &r, source.pitch, source.elem);
                vec![e.load_at(&from, &c, source.elem, 1)]
            };
            let value = e.either(&inside, &[float_type(1)], load, |e| vec![e.float(0.0, 1)]);
            put(e, &value[0], &place);
        });
    }

    /// `body(i)` for `0..count`, dealt out to the threads.
    fn deal(&self, e: &mut Emitter, count: usize, mut body: impl FnMut(&mut Emitter, &str)) {
        let threads = e.threads().expect("tiles are a block's");
        e.apart(|e| {
            if count.is_multiple_of(threads) && count / threads <= UNROLLED {
                for turn in 0..count / threads {
                    let i = e.plus("%thread", (turn * threads) as i64);
                    body(e, &i);
                }
            } else {
                let count = e.index(count as i64);
                e.repeat("%thread", &count, threads as i64, |e, i| body(e, i));
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
