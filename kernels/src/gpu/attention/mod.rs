//! Attention on a GPU, with the operands of [`Attention`].
//!
//! A block owns some rows (queries in the forward pass) of one head, a warp 16 of them, and walks over tiles of the other
//! side's tokens, of which it skips those that causality, the window and the documents hide. Scores stay in registers, laid out as
//! `super::warp` has it (Dao, "FlashAttention-2"). bf16 goes through the tensor cores, probabilities rounded to bf16 on the
//! way; f32 through the ordinary units and shared memory.
mod forward;
mod gradient;
mod hopper;
mod hopper_gradient;
mod order;
mod results;
mod scores;
mod seen;
mod sight;
mod statistics;
mod warpgroups;

use super::block::{Block, WARP};
use super::tile::{self, Source, Tile};
use super::warp::{Element, Factor, Part};
use super::{Arch, Gpu};
use crate::attention::{Attention, Heads};
use crate::emit::{Elem, Emitter, Value};
use crate::loops::Reduction;
use crate::steps::{Slot, Steps};
use crate::tuning::{hopper_attention, hopper_attention_gradient};
use crate::{Kernel, Work, math};
use gradient::Wanted;

/// Rows of a warp.
const WARP_ROWS: usize = 16;
/// Warps of a block, and tokens of the other side's tiles, best first; the first that fits into shared memory is taken.
const CUTS: [(usize, usize); 5] = [(4, 64), (4, 32), (2, 32), (2, 16), (1, 16)];

/// Sums that a thread keeps beside scores and addresses without spilling much (tests/golden/ptxas.md of codegen).
const MOST_SUMS: usize = 128;

/// The forward kernel; operands as [`Attention::forward`] has them. By warpgroups where the GPU has them, they can compute it
/// and the tuning table wants them to.
pub fn forward(attention: &Attention, gpu: &Gpu) -> Kernel {
    let cut = match gpu.arch {
        Arch::Sm80 => None,
        Arch::Sm90a => {
            hopper_attention(attention.seq, most_entries(attention)).filter(|_| warpgroups::suits(attention))
        }
    };
    match cut {
        Some(cut) => hopper::build(attention, cut),
        None => forward::build(&Walk::new(attention, gpu, 1)),
    }
}

/// The gradient, from operands `q`, `k`, `v`, `segments`, `o`, `lse`, `do`, `dq`, `dk`, `dv`.
///
/// Scores are computed twice, once along the keys of a query for `dq`, once along the queries of a key for `dk` and `dv`:
/// seven products instead of five, and no sum is shared between blocks. By warpgroups as [`forward`] is; elsewhere heads so
/// large that the sums of both do not fit into the registers of a warp walk once for `dk` and once for `dv`: eight products.
pub fn gradient(attention: &Attention, gpu: &Gpu) -> Steps {
    let cut = match gpu.arch {
        Arch::Sm80 => None,
        Arch::Sm90a => {
            let cut = hopper_attention_gradient(attention.seq, most_entries(attention));
            cut.filter(|_| warpgroups::suits(attention))
        }
    };
    if let Some(cut) = cut {
        return hopper_gradient::steps(attention, cut);
    }
    let walk = Walk::new(attention, gpu, 2);
    let delta = Slot::Temporary(0);
    let operands = |before: &[usize], after: &[usize]| {
        let [before, after] = [before, after].map(|list| list.iter().map(|i| Slot::Operand(*i)).collect::<Vec<_>>());
        [before, vec![delta], after].concat()
    };
    let kernel = |wanted, results: &[usize]| (gradient::build(&walk, wanted), operands(&[0, 1, 2, 3, 5, 6], results));
    let mut launches = vec![(gradient::delta(attention), operands(&[4, 6], &[])), kernel(Wanted::Queries, &[7])];
    if walk.results(0).registers() + walk.results(1).registers() <= MOST_SUMS {
        launches.push(kernel(Wanted::KeysAndValues, &[8, 9]));
    } else {
        launches.extend([kernel(Wanted::Keys, &[8]), kernel(Wanted::Values, &[9])]);
    }
    Steps { temporaries: vec![attention.batch * attention.seq * attention.heads * 4], launches }
}

/// Entries of the larger heads.
fn most_entries(attention: &Attention) -> usize {
    attention.head_dim.max(attention.value_dim)
}

/// A block's way through a problem. Each side has two arrays: of queries, and of results or their gradients; of keys, and of
/// values. So array 0 of either side has heads of `head_dim`, array 1 of `value_dim` entries.
struct Walk<'a> {
    attention: &'a Attention,
    warps: usize,
    /// Tokens of a tile of the other side.
    others: usize,
    /// How many arrays of the own side are in shared memory.
    arrays: usize,
}

/// Where a block is: its row of the batch, and the first of its own tokens in that row.
struct Place<'a> {
    batch: &'a str,
    first: &'a str,
}

impl Walk<'_> {
    fn new<'a>(attention: &'a Attention, gpu: &Gpu, arrays: usize) -> Walk<'a> {
        let walks = CUTS.map(|(warps, others)| Walk { attention, warps, others, arrays });
        let fits = |walk: &Walk| walk.shared_bytes() <= gpu.shared_bytes();
        walks.into_iter().find(fits).unwrap_or_else(|| panic!("no attention for heads of {}", most_entries(attention)))
    }

    fn elem(&self) -> Elem {
        self.attention.elem
    }

    /// Tokens of a block.
    fn own(&self) -> usize {
        WARP_ROWS * self.warps
    }

    /// Entries of a head of an array, rounded up to what the tensor cores take.
    fn width(&self, array: usize) -> usize {
        [self.attention.head_dim, self.attention.value_dim][array].next_multiple_of(16)
    }

    fn own_tile(&self, array: usize) -> Tile {
        Tile { rows: self.own(), columns: self.width(array), elem: self.elem() }
    }

    fn other_tile(&self, array: usize) -> Tile {
        Tile { rows: self.others, columns: self.width(array), elem: self.elem() }
    }

    /// What passes from registers to the next product where there are no tensor cores.
    fn passed_tile(&self) -> Tile {
        Tile { rows: self.own(), columns: self.others, elem: Elem::F32 }
    }

    fn scores(&self) -> Part {
        Part { rows: WARP_ROWS, columns: self.others }
    }

    /// Results like the tokens of an array.
    fn results(&self, array: usize) -> Part {
        Part { rows: WARP_ROWS, columns: self.width(array) }
    }

    fn shared_bytes(&self) -> usize {
        let aligned = |bytes: usize| bytes.next_multiple_of(128);
        let passed = if self.elem() == Elem::F32 { self.passed_tile().bytes() } else { 0 };
        let own: usize = (0..self.arrays).map(|array| aligned(self.own_tile(array).bytes())).sum();
        let others: usize = (0..2).map(|array| aligned(self.other_tile(array).bytes())).sum();
        own + others + aligned(passed) + sight::SHARED_BYTES
    }

    fn emitter(&self) -> Emitter {
        Emitter::of_block(Block::new(WARP * self.warps))
    }

    /// A tile's place in shared memory.
    fn place(&self, e: &mut Emitter, tile: &Tile) -> Value {
        let offset = e.shared(tile.bytes());
        e.shared_at(offset)
    }

    /// Copies the tokens from `first` on, of a row of the batch and a head, to a tile; whoever reads it calls
    /// [`Walk::arrived`] first.
    fn load(&self, e: &mut Emitter, tile: &Tile, to: &str, (array, heads): (&str, Heads), at: &Place, head: &str) {
        let Attention { seq, elem, .. } = *self.attention;
        let pitch = heads.width();
        let row = e.times(at.batch, seq);
        let row = e.row(array, &row, pitch, elem);
        let pointer = e.row(&row, head, heads.entries, elem);
        let (rows, columns) = (e.index(seq as i64), e.index(heads.entries as i64));
        let source = Source { pointer: &pointer, elem, pitch, rows: &rows, columns: &columns };
        if Source::is_aligned(elem, heads.entries) {
            tile.copy_async(e, to, &source, at.first, "%zero");
        } else {
            tile.copy(e, to, &source, (at.first, "%zero"), 1);
        }
    }

    /// Whether any array is copied asynchronously.
    fn copies_ahead(&self) -> bool {
        [self.attention.head_dim, self.attention.value_dim].iter().any(|n| Source::is_aligned(self.elem(), *n))
    }

    /// Waits until all that was loaded is there, and all threads have come here.
    fn arrived(&self, e: &mut Emitter) {
        self.end_copies(e);
        e.sync();
    }

    /// Waits for what this thread copies.
    fn end_copies(&self, e: &mut Emitter) {
        if self.copies_ahead() {
            tile::commit(e);
            tile::wait(e, 0);
        }
    }

    /// This warp's rows of an own tile, as the first factor.
    fn own_factor<'v>(&self, tile: &Tile, mine: &'v str) -> Factor<'v> {
        Factor { pointer: mine, pitch: tile.pitch(), elem: tile.elem, along: true }
    }

    /// Where this warp's rows of a tile begin.
    fn mine(&self, e: &mut Emitter, tile: &Tile, pointer: &str) -> Value {
        let row = e.times("%warp", WARP_ROWS);
        e.row(pointer, &row, tile.pitch(), tile.elem)
    }

    /// A tile of an array of the other side, as the second factor: summed over a head's entries, or over its tokens.
    fn other_factor<'v>(&self, (array, pointer): (usize, &'v str), over_entries: bool) -> Factor<'v> {
        let tile = self.other_tile(array);
        Factor { pointer, pitch: tile.pitch(), elem: tile.elem, along: over_entries }
    }

    /// `results + values · other`, summed over the other side's tokens, of an array; `values` are laid out as scores.
    fn pass_on(
        &self,
        e: &mut Emitter,
        results: Vec<Value>,
        values: &[Value],
        other: (usize, &str),
        passed: Option<&str>,
    ) -> Vec<Value> {
        let (b, part) = (self.other_factor(other, false), self.results(other.0));
        let Some(passed) = passed else { return part.multiply_registers(e, results, values, &b) };
        let tile = self.passed_tile();
        let mine = self.mine(e, &tile, passed);
        let (row, column) = Part::origin(e);
        let first = tile.place(e, &mine, &row, &column);
        // Before, whatever was passed on last has been read; behind, this has been written.
        e.sync();
        e.apart(|e| {
            for element in self.scores().elements() {
                let place = e.at(&first, (element.row * tile.pitch() + element.column) as i64, Elem::F32);
                e.store(&values[element.register], &place, Elem::F32, 1);
            }
        });
        e.sync();
        let a = Factor { pointer: &mine, pitch: tile.pitch(), elem: Elem::F32, along: true };
        part.multiply(e, results, &a, &b, self.others)
    }

    /// Where the tile is that scores pass through, if they do.
    fn passed(&self, e: &mut Emitter) -> Option<Value> {
        (self.elem() == Elem::F32).then(|| self.place(e, &self.passed_tile()))
    }

    /// `e^x` for x up to 0: with few bits where the result has few.
    fn exponential(&self, e: &mut Emitter, x: &str) -> Value {
        if self.elem() == Elem::F32 {
            return math::exp_of_small(e, x, 1);
        }
        let log2_e = e.float(std::f32::consts::LOG2_E, 1);
        let x = e.float2("mulf", x, &log2_e, 1);
        power_of_two(e, &x)
    }

    /// Number and segment of each of the tokens that lie `distances` behind `first`.
    fn tokens(
        &self,
        e: &mut Emitter,
        segments: &str,
        batch: &str,
        first: &str,
        distances: impl Iterator<Item = usize>,
    ) -> Vec<(Value, Value)> {
        let one = |distance: usize| {
            let token = e.plus(first, distance as i64);
            let segment = self.segment(e, segments, batch, &token);
            (token, segment)
        };
        distances.map(one).collect()
    }

    /// Stores results, a warp's rows of 16 own tokens, to an array with such heads; `first` is the thread's token.
    fn store(
        &self,
        e: &mut Emitter,
        results: &[Value],
        (array, heads, head): (&str, Heads, &str),
        batch: &str,
        (first, column): (&str, &str),
    ) {
        let elem = self.elem();
        let limit = e.index(heads.entries as i64);
        let part = Part { rows: WARP_ROWS, columns: heads.entries.next_multiple_of(16) };
        for row in [0, 8] {
            let token = e.plus(first, row as i64);
            let (number, inside) = self.token(e, batch, &token);
            let pointer = e.row(array, &number, heads.width(), elem);
            let pointer = e.row(&pointer, head, heads.entries, elem);
            for Element { register, column: c, .. } in part.elements().filter(|element| element.row == row) {
                let c = e.plus(column, c as i64);
                let fits = e.less(&c, &limit);
                let wanted = e.op(format!("arith.andi {inside}, {fits} : i1"));
                e.branch(&wanted, |e| e.apart(|e| e.store_at(&results[register], &pointer, &c, elem, 1)), |_| {});
            }
        }
    }
}

/// `2^x` with few bits.
fn power_of_two(e: &mut Emitter, x: &str) -> Value {
    e.op(format!("llvm.call_intrinsic \"llvm.nvvm.ex2.approx.ftz.f\"({x}) : (f32) -> f32"))
}

/// Two values of a thread's rows, for its elements by their rows.
fn by_row<'v>(rows: &'v [Value], element: &Element) -> &'v Value {
    &rows[element.row / 8]
}

/// Which of the columns that a thread has elements in.
fn column_number(element: &Element) -> usize {
    element.column / 8 * 2 + element.column % 8
}

/// The columns of a part that a thread has elements in, relative to its first.
fn column_distances(part: Part) -> impl Iterator<Item = usize> {
    (0..part.columns / 4).map(|number| 8 * (number / 2) + number % 2)
}
