//! The matrix product of [`Gemm`] on a GPU.
//!
//! A task is a block of the result. Tiles of A and B pass through shared memory; every warp keeps its part of the sums in
//! registers. Where elements are bf16 in aligned rows, tiles are copied asynchronously, several stages ahead, and multiplied
//! by the tensor cores. So are those of an f32 matrix with one of bf16, as a LoRA has them, each as three of bf16. Otherwise
//! tiles are copied as f32 and multiplied by the ordinary units. In the end the sums go through shared memory to the
//! epilogue, so that neighbouring threads store neighbouring elements.
use super::block::{Block, WARP};
use super::tile::{self, PARTS, Source, Tile};
use super::warp::{Factor, Part};
use crate::emit::{Elem, Emitter, Value};
use crate::gemm::{Gemm, Operand, Term};
use crate::region::Place;
use crate::tuning::{GpuGemmTuning, gpu_gemm};
use crate::{Kernel, Work};

/// The kernel, with the operands of [`Gemm::build`].
pub fn build(gemm: &Gemm) -> Kernel {
    Template::new(gemm).build()
}

/// Whether the tensor cores can compute it: every term has an aligned matrix of bf16, and another or one of f32.
fn suits_tensor_cores(gemm: &Gemm) -> bool {
    let aligned = |operand: &Operand| Source::is_aligned(operand.elem, operand.stride);
    let suits = |operand: &Operand| aligned(operand) || operand.elem == Elem::F32;
    let term = |term: &Term| suits(&term.a) && suits(&term.b) && (aligned(&term.a) || aligned(&term.b));
    gemm.terms.iter().all(term)
}

/// A problem and how it is cut.
struct Template<'a> {
    gemm: &'a Gemm,
    cut: GpuGemmTuning,
    /// How tiles are stored in shared memory.
    elem: Elem,
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

/// A term on its way through shared memory.
struct Flow<'a> {
    term: &'a Term,
    a: &'a str,
    b: &'a str,
    /// How many steps are summed.
    depth: &'a str,
    /// How many rows are computed.
    rows: &'a str,
    /// First row and column of the block.
    row: &'a str,
    column: &'a str,
}

impl Template<'_> {
    fn new(gemm: &Gemm) -> Template<'_> {
        let elem = if suits_tensor_cores(gemm) { Elem::Bf16 } else { Elem::F32 };
        let cut = gpu_gemm(gemm.m, gemm.n, elem);
        Template { gemm, cut, elem }
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

    fn a_tile(&self, term: &Term) -> Tile {
        let (rows, columns) =
            if term.a.transposed { (self.cut.depth, self.cut.rows) } else { (self.cut.rows, self.cut.depth) };
        Tile { rows, columns, elem: self.elem }
    }

    fn b_tile(&self, term: &Term) -> Tile {
        let (rows, columns) =
            if term.b.transposed { (self.cut.columns, self.cut.depth) } else { (self.cut.depth, self.cut.columns) };
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
        let (down, across) = self.warps();
        let mut e = Emitter::of_block(Block::new(WARP * down * across));
        let blocks_down = gemm.m.div_ceil(cut.rows);
        let pointers: Vec<(Value, Value)> = (0..gemm.terms.len()).map(|i| (e.arg(2 * i), e.arg(2 * i + 1))).collect();
        let epilogue = gemm.epilogue.operands(&mut e, gemm.first_epilogue_operand(), 1);
        let count = (gemm.row_limit.or(gemm.inner_limit)).map(|_| {
            let pointer = e.arg(gemm.count_operand());
            e.load_int_at(&pointer, "%zero")
        });
        let rings = gemm.terms.iter().map(|term| self.ring(term));
        let ring_bytes = rings.map(|ring| ring.stage * ring.stages).max().unwrap_or(0);
        e.shared(ring_bytes.max(self.sums_tile().bytes()));
        // Neighbouring blocks share a tile of B.
        let tall = e.index(blocks_down as i64);
        let (j, i) = (e.int2("divui", "%task", &tall), e.int2("remui", "%task", &tall));
        let (row, column) = (e.times(&i, cut.rows), e.times(&j, cut.columns));
        let rows = limited(&mut e, gemm.m, gemm.row_limit, count.as_deref());
        let body = |e: &mut Emitter| {
            let mut sums: Vec<Value> = self.part().zeros(e).into_iter().map(|(value, _)| value).collect();
            for (term, (a, b)) in gemm.terms.iter().zip(&pointers) {
                let depth = limited(e, term.k, gemm.inner_limit, count.as_deref());
                sums = self.term(e, sums, &Flow { term, a, b, depth: &depth, rows: &rows, row: &row, column: &column });
            }
            self.finish(e, &sums, &epilogue, &rows, (&row, &column));
        };
        let wanted = e.less(&row, &rows);
        e.branch(&wanted, body, |_| {});
        let family = if self.elem == Elem::Bf16 { "product_bf16" } else { "product" };
        let work: Work = gemm.work(family);
        e.finish(&format!("gemm_{}", gemm.name()), blocks_down * gemm.n.div_ceil(cut.columns), 0, work)
    }

    /// The sums with a term added.
    fn term(&self, e: &mut Emitter, sums: Vec<Value>, flow: &Flow) -> Vec<Value> {
        let tiles = e.plus(flow.depth, self.cut.depth as i64 - 1);
        let tiles = e.divided(&tiles, self.cut.depth);
        let types = vec!["f32".to_string(); sums.len()];
        let carried: Vec<_> = sums.into_iter().zip(types).collect();
        if self.elem == Elem::F32 {
            return e.for_loop("%zero", &tiles, 1, &carried, |e, tile, sums| {
                e.sync();
                self.load(e, flow, tile, "%zero");
                e.sync();
                self.multiply(e, sums.to_vec(), flow.term, "%zero")
            });
        }
        let ahead = self.ring(flow.term).stages - 1;
        for stage in 0..ahead {
            let stage = e.index(stage as i64);
            self.load_if_any(e, flow, &stage, &tiles);
        }
        let sums = e.for_loop("%zero", &tiles, 1, &carried, |e, number, sums| {
            tile::wait(e, ahead - 1);
            e.sync();
            let next = e.plus(number, ahead as i64);
            self.load_if_any(e, flow, &next, &tiles);
            let stage = self.stage_of(e, flow.term, number);
            self.multiply(e, sums.to_vec(), flow.term, &stage)
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

    fn load_if_any(&self, e: &mut Emitter, flow: &Flow, tile: &str, tiles: &str) {
        let any = e.less(tile, tiles);
        let stage = self.stage_of(e, flow.term, tile);
        e.branch(&any, |e| self.load(e, flow, tile, &stage), |_| {});
        tile::commit(e);
    }

    /// Copies tile number `tile` of A and of B to a stage.
    fn load(&self, e: &mut Emitter, flow: &Flow, tile: &str, stage: &str) {
        let step = e.times(tile, self.cut.depth);
        let n = e.index(self.gemm.n as i64);
        let (term, steps) = (flow.term, (flow.depth, step.as_str()));
        let (a_to, b_to) = self.stage_at(e, term, stage);
        self.copy(e, &self.a_tile(term), &a_to, (flow.a, &term.a, !term.a.transposed), (flow.rows, flow.row), steps);
        self.copy(e, &self.b_tile(term), &b_to, (flow.b, &term.b, term.b.transposed), (&n, flow.column), steps);
    }

    /// Copies a tile: `lines` and `steps` are how many there are, and the first of the tile.
    fn copy(
        &self,
        e: &mut Emitter,
        tile: &Tile,
        to: &str,
        (pointer, operand, along): (&str, &Operand, bool),
        lines: (&str, &str),
        steps: (&str, &str),
    ) {
        let (rows, columns) = if along { (lines, steps) } else { (steps, lines) };
        let source = Source { pointer, elem: operand.elem, pitch: operand.stride, rows: rows.0, columns: columns.0 };
        match (self.elem, operand.elem) {
            (Elem::Bf16, Elem::Bf16) => tile.copy_async(e, to, &source, rows.1, columns.1),
            (Elem::Bf16, _) => tile.copy_split(e, to, &source, rows.1, columns.1),
            _ => tile.copy(e, to, &source, rows.1, columns.1),
        }
    }

    /// Pointers to a stage's tiles.
    fn stage_at(&self, e: &mut Emitter, term: &Term, stage: &str) -> (Value, Value) {
        let ring = self.ring(term);
        let words = Elem::F32.bytes() as usize;
        let a = e.row("%block_memory", stage, ring.stage / words, Elem::F32);
        let b = e.at(&a, (ring.b_at / words) as i64, Elem::F32);
        (a, b)
    }

    /// The sums with a stage's tiles multiplied.
    fn multiply(&self, e: &mut Emitter, sums: Vec<Value>, term: &Term, stage: &str) -> Vec<Value> {
        let (a, b) = self.stage_at(e, term, stage);
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
            self.part().multiply(e, sums, &a, &b, self.cut.depth)
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

/// How many of `all` rows or steps are wanted: those `i` with `i + start < count`, if there is a limit.
pub(super) fn limited(e: &mut Emitter, all: usize, start: Option<usize>, count: Option<&str>) -> Value {
    let all = e.index(all as i64);
    let (Some(start), Some(count)) = (start, count) else { return all };
    let left = e.plus(count, -(start as i64));
    let left = e.int2("maxsi", &left, "%zero");
    e.int2("minsi", &left, &all)
}
