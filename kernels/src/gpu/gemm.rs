//! The matrix product of [`Gemm`] on a GPU.
//!
//! A task is a block of the result. Tiles of A and B pass through shared memory; every warp keeps its part of the sums in
//! registers. Matrices of bf16 are multiplied by the tensor cores. So is one of f32 with one of bf16, as a LoRA has them, as
//! three of bf16. Tiles get into shared memory several stages ahead: where elements are bf16 in aligned rows by asynchronous
//! copies, otherwise, as for a LoRA's rank that is no multiple of 8, through the threads' registers, where they wait while
//! another tile is multiplied. Where both matrices are f32, tiles are copied as f32 and multiplied by the ordinary units, or, where
//! that is asked for, by the tensor cores, rounded to TF32: to 10 bits behind the point instead of 23. In the end the sums go through
//! shared memory to the epilogue, so that neighbouring threads store neighbouring elements.
//!
//! Where there are few blocks for many steps of K, as for LoRA's products, a task has a part of the steps; another
//! kernel (`gemm/parts.rs`) adds the sums of all parts in order.
mod parts;

use super::block::{Block, WARP};
use super::tile::{self, PARTS, Source, Tile};
use super::warp::{Factor, Part, STEPS};
use crate::emit::{Elem, Emitter, Value};
use crate::gemm::{Gemm, Operand, Term};
use crate::region::Place;
use crate::tuning::{GpuGemmTuning, gpu_gemm};
use crate::{Kernel, Work};
pub use parts::steps as in_parts;

/// The kernel, with the operands of [`Gemm::build`]; `tf32` says whether f32 may be rounded to TF32.
pub fn build(gemm: &Gemm, tf32: bool) -> Kernel {
    Template::new(gemm, tf32).build()
}

/// Whether the tensor cores can compute it: every term has a matrix of bf16, and another or one of f32.
fn suits_tensor_cores(gemm: &Gemm) -> bool {
    gemm.terms.iter().all(|term| term.a.elem == Elem::Bf16 || term.b.elem == Elem::Bf16)
}

/// A problem and how it is cut.
pub(super) struct Template<'a> {
    gemm: &'a Gemm,
    pub cut: GpuGemmTuning,
    /// How tiles are stored in shared memory.
    elem: Elem,
    in_parts: Option<parts::InParts>,
    /// Whether tiles of f32 are rounded to TF32 when they are multiplied.
    tf32: bool,
}

/// What a block computes.
pub(super) struct Share<'v> {
    /// A and B of every term.
    pub pointers: &'v [(Value, Value)],
    /// Of the epilogue.
    pub operands: &'v [Value],
    /// Behind the last row, and the first.
    pub rows: (&'v str, &'v str),
    pub column: &'v str,
}

/// How the tiles of a term pass through shared memory.
struct Ring {
    /// Bytes of a stage, and where the tile of B is in it.
    stage: usize,
    b_at: usize,
    stages: usize,
}

/// Bytes of a ring, if its stages can be so small: two blocks then share a multiprocessor of any GPU.
const RING_BYTES: usize = 80 << 10;

/// Registers of a thread for sums, and for elements on their way to shared memory while a tile is multiplied.
const REGISTERS: usize = 96;

/// A term on its way through shared memory.
struct Flow<'a> {
    term: &'a Term,
    /// How many steps are summed.
    depth: &'a str,
    sides: [Side<'a>; 2],
}

/// A or B of a term.
struct Side<'a> {
    operand: &'a Operand,
    pointer: &'a str,
    tile: Tile,
    /// How many tiles hold one of the operand's.
    parts: usize,
    /// Whether steps run along the rows in memory.
    along: bool,
    /// How many lines are computed, rows of A or columns of B, and the first of the block.
    lines: (&'a str, &'a str),
    /// Where its tiles are in a stage, in bytes.
    at: usize,
}

/// How a tile gets into shared memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passage {
    /// By asynchronous copies.
    Alone,
    /// Loaded before another tile is multiplied, stored behind it.
    Held,
    /// Loaded and stored at once.
    Through,
}

impl Template<'_> {
    fn new(gemm: &Gemm, tf32: bool) -> Template<'_> {
        Template::of(gemm, gemm.m, tf32)
    }

    /// A problem whose tasks have about so many rows to do together.
    pub fn of(gemm: &Gemm, rows: usize, tf32: bool) -> Template<'_> {
        let elem = if suits_tensor_cores(gemm) { Elem::Bf16 } else { Elem::F32 };
        let cut = gpu_gemm(rows, gemm.n, elem);
        Template { gemm, cut, elem, tf32: tf32 && elem == Elem::F32, in_parts: None }
    }

    /// Its family, and what its name has of that.
    pub fn family(&self) -> (&'static str, &'static str) {
        match self.elem {
            Elem::Bf16 => ("product_bf16", ""),
            _ if self.tf32 => ("product_tf32", "_tf32"),
            _ => ("product", ""),
        }
    }

    /// A body for the threads of a block.
    pub fn emitter(&self) -> Emitter {
        let (down, across) = self.warps();
        Emitter::of_block(Block::new(WARP * down * across))
    }

    /// Shared memory of a block.
    pub fn share_memory(&self, e: &mut Emitter) {
        let rings = self.gemm.terms.iter().map(|term| self.ring(term));
        let ring_bytes = rings.map(|ring| ring.stage * ring.stages).max().unwrap_or(0);
        e.shared(ring_bytes.max(self.sums_tile().bytes()));
    }

    fn ring(&self, term: &Term) -> Ring {
        let a = (self.a_tile(term).bytes() * self.parts(&term.a)).next_multiple_of(128);
        let b = (self.b_tile(term).bytes() * self.parts(&term.b)).next_multiple_of(128);
        let fitting = (RING_BYTES / (a + b)).max(2);
        Ring { stage: a + b, b_at: a, stages: self.cut.stages.min(fitting) }
    }

    /// How many tiles hold one of an operand's.
    fn parts(&self, operand: &Operand) -> usize {
        if self.elem == Elem::Bf16 && operand.elem == Elem::F32 { PARTS } else { 1 }
    }

    /// Steps of a tile: no more than a short term fills.
    fn steps(&self, term: &Term) -> usize {
        self.cut.depth.min(term.k.next_multiple_of(STEPS))
    }

    fn a_tile(&self, term: &Term) -> Tile {
        let steps = self.steps(term);
        let (rows, columns) = if term.a.transposed { (steps, self.cut.rows) } else { (self.cut.rows, steps) };
        Tile { rows, columns, elem: self.elem }
    }

    fn b_tile(&self, term: &Term) -> Tile {
        let steps = self.steps(term);
        let (rows, columns) = if term.b.transposed { (self.cut.columns, steps) } else { (steps, self.cut.columns) };
        Tile { rows, columns, elem: self.elem }
    }

    /// Warps down and across a block.
    fn warps(&self) -> (usize, usize) {
        (self.cut.rows / self.cut.warp_rows, self.cut.columns / self.cut.warp_columns)
    }

    fn part(&self) -> Part {
        Part { rows: self.cut.warp_rows, columns: self.cut.warp_columns }
    }

    fn sums_tile(&self) -> Tile {
        Tile { rows: self.cut.rows, columns: self.cut.columns, elem: Elem::F32 }
    }

    fn build(&self) -> Kernel {
        let (gemm, cut) = (self.gemm, &self.cut);
        let mut e = self.emitter();
        let blocks_down = gemm.m.div_ceil(cut.rows);
        let mut pointers: Vec<(Value, Value)> =
            (0..gemm.terms.len()).map(|i| (e.arg(2 * i), e.arg(2 * i + 1))).collect();
        let mut operands = gemm.epilogue.operands(&mut e, gemm.first_epilogue_operand(), 1);
        let count = (gemm.row_limit.or(gemm.inner_limit)).map(|_| {
            let pointer = e.arg(gemm.count_operand());
            e.load_int_at(&pointer, "%zero")
        });
        self.share_memory(&mut e);
        let (part, block) = self.part_and_block(&mut e);
        // Neighbouring blocks share a tile of B.
        let tall = e.index(blocks_down as i64);
        let (j, i) = (e.int2("divui", &block, &tall), e.int2("remui", &block, &tall));
        let (row, column) = (e.times(&i, cut.rows), e.times(&j, cut.columns));
        let rows = limited(&mut e, gemm.m, gemm.row_limit, count.as_deref());
        let part_depth = part.map(|(part, steps)| {
            operands[0] = e.row(&operands[0], &part, gemm.m * gemm.n, Elem::F32);
            self.begin_part(&mut e, &mut pointers[0], (&part, steps))
        });
        let body = |e: &mut Emitter| {
            let share = Share { pointers: &pointers, operands: &operands, rows: (&rows, &row), column: &column };
            self.compute(e, &share, |e, term| {
                let depth = limited(e, term.k, gemm.inner_limit, count.as_deref());
                part_depth.clone().unwrap_or(depth)
            });
        };
        let wanted = e.less(&row, &rows);
        e.branch(&wanted, body, |_| {});
        let (family, rounded) = self.family();
        let work: Work = gemm.work(family);
        let parts = self.in_parts.map_or(1, |in_parts| in_parts.parts);
        let work = work.moving((parts - 1) * gemm.m * gemm.n, Elem::F32);
        let name = if parts == 1 { "gemm" } else { "gemm_parts" };
        e.finish(&format!("{name}{rounded}_{}", gemm.name()), parts * cut.blocks(gemm.m, gemm.n), 0, work)
    }

    /// Computes and stores a block of the result; `depth` says how many steps of a term are summed.
    pub fn compute(&self, e: &mut Emitter, share: &Share, depth: impl Fn(&mut Emitter, &Term) -> Value) {
        let mut sums: Vec<Value> = self.part().zeros(e).into_iter().map(|(value, _)| value).collect();
        let n = e.index(self.gemm.n as i64);
        for (term, (a, b)) in self.gemm.terms.iter().zip(share.pointers) {
            let depth = depth(e, term);
            let sides = self.sides(term, (a, b), share.rows, (&n, share.column));
            sums = self.term(e, sums, &Flow { term, depth: &depth, sides });
        }
        let (rows, row) = share.rows;
        self.finish(e, &sums, share.operands, rows, (row, share.column));
    }

    /// A and B of a term, in a block of so many rows and columns from these first ones on.
    fn sides<'s>(
        &self,
        term: &'s Term,
        (a, b): (&'s str, &'s str),
        rows: (&'s str, &'s str),
        columns: (&'s str, &'s str),
    ) -> [Side<'s>; 2] {
        let side = |operand: &'s Operand, pointer, tile, along, lines, at| {
            let parts = self.parts(operand);
            Side { operand, pointer, tile, parts, along, lines, at }
        };
        [
            side(&term.a, a, self.a_tile(term), !term.a.transposed, rows, 0),
            side(&term.b, b, self.b_tile(term), term.b.transposed, columns, self.ring(term).b_at),
        ]
    }

    fn passage(&self, side: &Side) -> Passage {
        let (down, across) = self.warps();
        let fits = |share| self.part().registers() + share <= REGISTERS;
        match () {
            _ if self.elem == Elem::F32 => Passage::Through,
            _ if Source::is_aligned(side.operand.elem, side.operand.stride) => Passage::Alone,
            _ if side.tile.share(WARP * down * across).is_some_and(fits) => Passage::Held,
            _ => Passage::Through,
        }
    }

    /// The sums with a term added.
    fn term(&self, e: &mut Emitter, sums: Vec<Value>, flow: &Flow) -> Vec<Value> {
        let steps = self.steps(flow.term);
        let tiles = e.plus(flow.depth, steps as i64 - 1);
        let tiles = e.divided(&tiles, steps);
        let types = vec!["f32".to_string(); sums.len()];
        let carried: Vec<_> = sums.into_iter().zip(types).collect();
        if self.elem == Elem::F32 {
            return e.for_loop("%zero", &tiles, 1, &carried, |e, tile, sums| {
                e.sync();
                self.load(e, flow, (tile, "%zero"), |_| true);
                e.sync();
                self.multiply(e, sums.to_vec(), flow.term, "%zero")
            });
        }
        let ahead = self.ring(flow.term).stages - 1;
        for stage in 0..ahead {
            let stage = e.index(stage as i64);
            self.load_if_any(e, flow, (&stage, &tiles), |_| true);
        }
        let sums = e.for_loop("%zero", &tiles, 1, &carried, |e, number, sums| {
            tile::wait(e, ahead - 1);
            e.sync();
            let next = e.plus(number, ahead as i64);
            self.load_if_any(e, flow, (&next, &tiles), |passage| passage != Passage::Held);
            let held = self.fetch(e, flow, &next);
            let stage = self.stage_of(e, flow.term, number);
            let sums = self.multiply(e, sums.to_vec(), flow.term, &stage);
            self.put_if_any(e, flow, (&next, &tiles), &held);
            sums
        });
        // The next term, or the epilogue, writes to the same memory.
        tile::wait(e, 0);
        e.sync();
        sums
    }

    fn stage_of(&self, e: &mut Emitter, term: &Term, tile: &str) -> Value {
        let stages = e.index(self.ring(term).stages as i64);
        e.int2("remui", tile, &stages)
    }

    /// Copies those parts of tile number `tile` that get to its stage in such a way, if there is such a tile.
    fn load_if_any(&self, e: &mut Emitter, flow: &Flow, (tile, tiles): (&str, &str), wanted: impl Fn(Passage) -> bool) {
        let any = e.less(tile, tiles);
        let stage = self.stage_of(e, flow.term, tile);
        e.branch(&any, |e| self.load(e, flow, (tile, &stage), wanted), |_| {});
        tile::commit(e);
    }

    /// Copies those parts of tile number `tile` to a stage.
    fn load(&self, e: &mut Emitter, flow: &Flow, (tile, stage): (&str, &str), wanted: impl Fn(Passage) -> bool) {
        let step = e.times(tile, self.steps(flow.term));
        for side in flow.sides.iter().filter(|side| wanted(self.passage(side))) {
            let to = self.stage_at(e, flow.term, (stage, side.at));
            let (source, (row, column)) = side.source(flow.depth, &step);
            match self.passage(side) {
                Passage::Alone => side.tile.copy_async(e, &to, &source, row, column),
                _ => side.tile.copy(e, &to, &source, (row, column), side.parts),
            }
        }
    }

    /// This thread's elements of tile number `tile`, of the matrices that threads hold; zeros where there is no such tile.
    fn fetch(&self, e: &mut Emitter, flow: &Flow, tile: &str) -> Vec<Vec<Value>> {
        let step = e.times(tile, self.steps(flow.term));
        let fetch = |side: &Side| {
            let (source, from) = side.source(flow.depth, &step);
            side.tile.fetch(e, &source, from)
        };
        self.held(flow).map(fetch).collect()
    }

    /// Stores them to the tile's stage, which nobody reads any more, if there is such a tile.
    fn put_if_any(&self, e: &mut Emitter, flow: &Flow, (tile, tiles): (&str, &str), held: &[Vec<Value>]) {
        if held.is_empty() {
            return;
        }
        let any = e.less(tile, tiles);
        let stage = self.stage_of(e, flow.term, tile);
        let put = |e: &mut Emitter| {
            for (side, values) in self.held(flow).zip(held) {
                let to = self.stage_at(e, flow.term, (&stage, side.at));
                side.tile.put(e, &to, values, side.parts);
            }
        };
        e.branch(&any, put, |_| {});
    }

    fn held<'s>(&self, flow: &'s Flow) -> impl Iterator<Item = &'s Side<'s>> {
        flow.sides.iter().filter(|side| self.passage(side) == Passage::Held)
    }

    /// A pointer so many bytes into a stage.
    fn stage_at(&self, e: &mut Emitter, term: &Term, (stage, byte): (&str, usize)) -> Value {
        let words = Elem::F32.bytes() as usize;
        let first = e.row("%block_memory", stage, self.ring(term).stage / words, Elem::F32);
        e.at(&first, (byte / words) as i64, Elem::F32)
    }

    /// The sums with a stage's tiles multiplied.
    fn multiply(&self, e: &mut Emitter, sums: Vec<Value>, term: &Term, stage: &str) -> Vec<Value> {
        let [a, b] = [0, self.ring(term).b_at].map(|byte| self.stage_at(e, term, (stage, byte)));
        let (row, column) = self.warp_origin(e);
        let (a_along, b_along) = (!term.a.transposed, term.b.transposed);
        let (a_pitch, b_pitch) = (self.a_tile(term).pitch(), self.b_tile(term).pitch());
        let a = if a_along { e.row(&a, &row, a_pitch, self.elem) } else { e.offset(&a, &row, self.elem) };
        let b = if b_along { e.row(&b, &column, b_pitch, self.elem) } else { e.offset(&b, &column, self.elem) };
        let (parts_a, parts_b) = (self.parts(&term.a), self.parts(&term.b));
        let pairs = (0..parts_a).flat_map(|i| (0..parts_b).map(move |j| (i, j)));
        pairs.fold(sums, |sums, (i, j)| {
            let a = e.at(&a, (i * self.a_tile(term).rows * a_pitch) as i64, self.elem);
            let b = e.at(&b, (j * self.b_tile(term).rows * b_pitch) as i64, self.elem);
            let a = Factor { pointer: &a, pitch: a_pitch, elem: self.elem, along: a_along };
            let b = Factor { pointer: &b, pitch: b_pitch, elem: self.elem, along: b_along };
            let (part, steps) = (self.part(), self.steps(term));
            if self.tf32 { part.multiply_tf32(e, sums, &a, &b, steps) } else { part.multiply(e, sums, &a, &b, steps) }
        })
    }

    /// First row and column of a warp's part of the block.
    fn warp_origin(&self, e: &mut Emitter) -> (Value, Value) {
        let down = e.index(self.warps().0 as i64);
        let (j, i) = (e.int2("divui", "%warp", &down), e.int2("remui", "%warp", &down));
        (e.times(&i, self.cut.warp_rows), e.times(&j, self.cut.warp_columns))
    }

    /// The epilogue on the block's sums.
    fn finish(&self, e: &mut Emitter, sums: &[Value], operands: &[Value], rows: &str, (row, column): (&str, &str)) {
        let tile = self.sums_tile();
        e.sync();
        let (first_row, first_column) = self.warp_origin(e);
        let (r, c) = Part::origin(e);
        let (r, c) = (e.int2("addi", &first_row, &r), e.int2("addi", &first_column, &c));
        let mine = tile.place(e, "%block_memory", &r, &c);
        e.apart(|e| {
            for element in self.part().elements() {
                let place = e.at(&mine, (element.row * tile.pitch() + element.column) as i64, Elem::F32);
                e.store(&sums[element.register], &place, Elem::F32, 1);
            }
        });
        e.sync();
        let (n, all) = (e.index(self.gemm.n as i64), e.index((self.cut.rows * self.cut.columns) as i64));
        e.each(&all, 1, |e, i, lanes| {
            let width = e.index(self.cut.columns as i64);
            let (r, c) = (e.int2("divui", i, &width), e.int2("remui", i, &width));
            let sum = tile.place(e, "%block_memory", &r, &c);
            let (r, c) = (e.int2("addi", row, &r), e.int2("addi", column, &c));
            let (fits, inside) = (e.less(&r, rows), e.less(&c, &n));
            let inside = e.op(format!("arith.andi {fits}, {inside} : i1"));
            let store = |e: &mut Emitter| {
                let sum = e.load(&sum, Elem::F32, lanes);
                let start = e.times(&r, self.gemm.n);
                let full = e.int2("addi", &start, &c);
                self.gemm.epilogue.element(e, &[sum], operands, &Place { full: &full, row: &r, column: &c }, lanes);
            };
            e.branch(&inside, store, |_| {});
        });
    }
}

impl Side<'_> {
    /// The matrix in memory, of which `depth` steps are summed, and where the block's tile from a step on begins in it.
    fn source<'s>(&'s self, depth: &'s str, step: &'s str) -> (Source<'s>, (&'s str, &'s str)) {
        let (lines, steps) = (self.lines, (depth, step));
        let (rows, columns) = if self.along { (lines, steps) } else { (steps, lines) };
        let (elem, pitch) = (self.operand.elem, self.operand.stride);
        (Source { pointer: self.pointer, elem, pitch, rows: rows.0, columns: columns.0 }, (rows.1, columns.1))
    }
}

/// How many of `all` rows or steps are wanted: those `i` with `i + start < count`, if there is a limit.
pub(super) fn limited(e: &mut Emitter, all: usize, start: Option<usize>, count: Option<&str>) -> Value {
    let all = e.index(all as i64);
    let (Some(start), Some(count)) = (start, count) else { return all };
    let left = e.plus(count, -(start as i64));
    let left = e.int2("maxsi", &left, "%zero");
    e.int2("minsi", &left, &all)
}
