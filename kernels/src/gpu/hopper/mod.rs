//! The matrix product of [`Gemm`] on a Hopper GPU: bf16 matrices, copied by the tensor memory accelerator, multiplied by
//! warpgroups; and short terms that threads load ([`short`]), as LoRA's second product.
//!
//! The result is cut into blocks of 128 rows by up to 256 columns. For each, one thread of the last warpgroup, the *producer*,
//! copies tiles of A and B to the stages of a ring in shared memory ([`producer`], [`pipeline`]); the other two warpgroups, the
//! *consumers*, multiply 64 rows each by all columns of the block, and keep the sums in registers ([`consumer`]). In the
//! end the sums go, some columns at a time, through shared memory to the epilogue ([`epilogue`]).
//!
//! Blocks that lie one below the other make *clusters*, which copy B together ([`cluster`]).
//!
//! There are at most as many tasks as a large GPU has multiprocessors, each of which holds one at a time, and a task computes
//! every so-many-th block. While the consumers are at a block's epilogue, the producer fills the ring with tiles of the
//! next. The number of tasks is the tuning table's, as code is generated for an architecture, whose GPUs have from 78 to 132
//! multiprocessors: on a smaller one some tasks begin when others have ended.
//!
//! Invariants:
//! - Both sides walk through the same blocks, and in each through the same tiles: term by term, along K. Tile number `i`
//!   of a task goes to stage `i mod stages`. Where blocks are found at run time ([`grouped`]), both find them in the same
//!   memory.
//! - A stage belongs to the producer until its `full` barrier completes, and to the consumers until its `empty` one does.
//! - A sum is added in the order of its block's tiles, so it depends on the problem alone, not on how many tasks there are.
//! - What tiles have outside of a matrix are zeros, written by the copies; steps behind a limit are made zeros by the
//!   consumers ([`tail`]). Rows and columns outside of the result are left out by the epilogue.
mod cluster;
mod consumer;
pub(super) mod descriptor;
mod epilogue;
mod grouped;
mod operand;
pub(super) mod pipeline;
pub(super) mod producer;
mod short;
mod tail;
pub(super) mod wgmma;

use super::block::{Block, WARP};
use super::gemm::limited;
use super::tensor_map::{BOX_ROW_BYTES, TensorMap};
use super::warp::Part;
use crate::emit::{Elem, Emitter, Value};
use crate::gemm::{Gemm, Operand, Term};
use crate::grouped::{GroupedDepth, GroupedRows, most_blocks};
use crate::tuning::WarpgroupTuning;
use crate::{Kernel, Work};
use descriptor::PATTERN_ROWS;
pub use grouped::{depth, rows, suits_depth, suits_rows};
use operand::{BOX_LINES, Matrix};
use pipeline::Pipeline;
use wgmma::Sums;

/// Threads that run a `wgmma` together.
pub(super) const WARPGROUP: usize = 128;
pub(super) const CONSUMERS: usize = 2;
pub(super) const THREADS: usize = (CONSUMERS + 1) * WARPGROUP;
/// Rows of a `wgmma`, and so of a consumer.
const CONSUMER_ROWS: usize = wgmma::ROWS;
const ROWS: usize = CONSUMERS * CONSUMER_ROWS;
/// Steps of K in a tile: a box's row.
const DEPTH: usize = 64;
/// Where the pattern of the longest rows' swizzle begins anew (PTX ISA, "Tensor swizzling modes").
pub(super) const SWIZZLE_PERIOD: usize = PATTERN_ROWS * BOX_ROW_BYTES;

/// Whether a block's registers can be dealt out anew, so many to each thread of the consumers and of the producer's warpgroup
/// (PTX ISA, `setmaxnreg`: multiples of 8 from 24 on). A thread that waits for registers that nobody gives up waits for ever.
pub(super) const fn registers_fit(consumer: usize, producer: usize) -> bool {
    const AT_FIRST: usize = 168;
    let multiples = consumer.is_multiple_of(8) && producer.is_multiple_of(8) && producer >= 24;
    multiples && CONSUMERS * consumer + producer == (CONSUMERS + 1) * AT_FIRST
}

/// Whether the product can be computed so: of matrices that are copied, but for terms of at most `short_depth` steps, whose
/// A may be anything in rows, and whose B other bf16 along whose rows the steps run.
pub fn suits(gemm: &Gemm, short_depth: usize) -> bool {
    let loaded = |operand: &Operand| operand.elem == Elem::Bf16 && operand.transposed;
    let short = |term: &Term| term.k <= short_depth && !term.a.transposed && (copied(&term.b) || loaded(&term.b));
    gemm.terms.iter().all(|term| !loads_a(term) || short(term))
}

/// Whether there is a B that the blocks of a cluster can copy together.
pub fn suits_clusters(gemm: &Gemm) -> bool {
    gemm.terms.iter().any(|term| !loads_b(term))
}

/// Whether the tensor memory accelerator copies it.
fn copied(operand: &Operand) -> bool {
    operand.elem == Elem::Bf16 && TensorMap::suits(operand)
}

/// Whether threads load A, so that it does not pass through the ring.
fn loads_a(term: &Term) -> bool {
    !copied(&term.a) || loads_b(term)
}

/// Whether threads load B, too, and write it to the ring.
fn loads_b(term: &Term) -> bool {
    !copied(&term.b)
}

/// The kernel, with the operands of [`Gemm::build`].
pub fn build(gemm: &Gemm, cut: WarpgroupTuning) -> Kernel {
    let work: Work = gemm.work("product_bf16");
    template(gemm, Groups::None, cut).build(&format!("gemm_wg{}_{}", cut.columns, gemm.name()), work)
}

fn template<'a>(gemm: &'a Gemm, groups: Groups<'a>, cut: WarpgroupTuning) -> Template<'a> {
    let WarpgroupTuning { columns, band, stages, tasks, cluster, .. } = cut;
    let tile_bytes = |lines: usize| lines * DEPTH * Elem::Bf16.bytes() as usize;
    let (stage_bytes, b_at) = (tile_bytes(ROWS + columns), tile_bytes(ROWS));
    assert!([tasks, band, columns / BOX_LINES].iter().all(|count| count.is_multiple_of(cluster)), "{cut:?}");
    Template { gemm, groups, columns, band, tasks, cluster, stages, stage_bytes, b_at }
}

/// A problem and how it is cut.
struct Template<'a> {
    gemm: &'a Gemm,
    groups: Groups<'a>,
    /// Of a block.
    columns: usize,
    /// Blocks of a band of rows.
    band: usize,
    /// Most tasks.
    tasks: usize,
    /// Blocks of a cluster.
    cluster: usize,
    stages: usize,
    stage_bytes: usize,
    /// Where the tile of B begins in a stage.
    b_at: usize,
}

/// What the product is of.
#[derive(Clone, Copy)]
enum Groups<'a> {
    /// Whole matrices.
    None,
    Rows(&'a GroupedRows),
    Depth(&'a GroupedDepth),
}

/// The values that a task begins with.
struct Start {
    pipeline: Pipeline,
    /// What all blocks have in common.
    whole: Share,
    /// Where groups begin.
    offsets: Option<Value>,
    /// Where the sums pass through shared memory, in bytes.
    sums_at: usize,
    /// This block's number in its cluster, if there are clusters.
    rank: Option<Value>,
}

/// What a block computes.
#[derive(Clone)]
struct Share {
    /// Its first row and column.
    row: Value,
    column: Value,
    /// Behind the last row that is computed.
    rows: Value,
    /// A and B of every term: their maps, but the addresses of those that threads load.
    operands: Vec<(Value, Value)>,
    /// The epilogue's operands.
    epilogue: Vec<Value>,
    /// How many steps of each term are summed.
    depths: Vec<Value>,
    /// The first of them, where that is not the matrices' first.
    first_step: Option<Value>,
}

impl Template<'_> {
    fn a<'t>(&self, term: &'t Term) -> Matrix<'t> {
        let (lines, tile_lines) = (self.gemm.m, ROWS);
        Matrix { operand: &term.a, along: !term.a.transposed, lines, steps: term.k, tile_lines, parts: 1 }
    }

    fn b<'t>(&self, term: &'t Term) -> Matrix<'t> {
        let (lines, tile_lines) = (self.gemm.n, self.columns);
        let parts = self.cluster;
        Matrix { operand: &term.b, along: term.b.transposed, lines, steps: term.k, tile_lines, parts }
    }

    /// Those of a consumer.
    fn sums(&self) -> Sums {
        Sums { columns: self.columns }
    }

    /// A warp's part of the sums.
    fn part(&self) -> Part {
        self.sums().part()
    }

    fn build(&self, name: &str, work: Work) -> Kernel {
        let block = Block::aligned(THREADS, SWIZZLE_PERIOD).with_register_pool().in_clusters(self.cluster);
        let mut e = Emitter::of_block(block);
        let (whole, offsets) = match self.groups {
            Groups::None => (self.whole(&mut e), None),
            Groups::Rows(problem) => self.of_rows(&mut e, problem),
            Groups::Depth(problem) => self.of_depth(&mut e, problem),
        };
        debug_assert!(self.stage_bytes.is_multiple_of(SWIZZLE_PERIOD), "every stage begins a pattern of the swizzle");
        e.shared(self.stages * self.stage_bytes);
        let sums_at = e.shared(epilogue::BYTES);
        let pipeline = Pipeline::new(&mut e, self.stages).of_cluster(self.cluster);
        let rank = (self.cluster > 1).then(|| cluster::rank(&mut e));
        let start = Start { pipeline, whole, offsets, sums_at, rank };
        start.pipeline.init(&mut e);
        let first_producer = e.index((CONSUMERS * WARPGROUP / WARP) as i64);
        let consumes = e.less("%warp", &first_producer);
        e.branch(&consumes, |e| self.consume(e, &start), |e| self.produce(e, &start));
        start.pipeline.finish(&mut e);
        e.finish(name, self.tasks.min(self.places() * self.cluster), 0, work)
    }

    /// The operands of a product of whole matrices, and what of it is computed.
    fn whole(&self, e: &mut Emitter) -> Share {
        let gemm = self.gemm;
        let operands = (gemm.terms.iter().enumerate())
            .map(|(i, term)| {
                let (a, b) = (self.a(term).map(2 * i), self.b(term).map(2 * i + 1));
                let a = if loads_a(term) { e.arg(2 * i) } else { e.tensor_map(a) };
                (a, if loads_b(term) { e.arg(2 * i + 1) } else { e.tensor_map(b) })
            })
            .collect();
        let epilogue = gemm.epilogue.operands(e, gemm.first_epilogue_operand(), 1);
        let count = (gemm.row_limit.or(gemm.inner_limit)).map(|_| {
            let pointer = e.arg(gemm.count_operand());
            e.load_int_at(&pointer, "%zero")
        });
        let rows = limited(e, gemm.m, gemm.row_limit, count.as_deref());
        let depths = (gemm.terms.iter()).map(|term| limited(e, term.k, gemm.inner_limit, count.as_deref())).collect();
        let (row, column) = ("%zero".into(), "%zero".into());
        Share { row, column, rows, operands, epilogue, depths, first_step: None }
    }

    /// Where clusters lie, the last of which may reach below the result, or below that of each group; where groups have
    /// some of the rows, the most that there can be.
    fn places(&self) -> usize {
        let down = match self.groups {
            Groups::None => self.places_down(),
            Groups::Rows(problem) => most_blocks(self.gemm.m, problem.groups, ROWS * self.cluster),
            Groups::Depth(problem) => problem.groups * self.places_down(),
        };
        down * self.blocks_across()
    }

    fn places_down(&self) -> usize {
        self.gemm.m.div_ceil(ROWS * self.cluster)
    }

    fn blocks_across(&self) -> usize {
        self.gemm.n.div_ceil(self.columns)
    }

    /// `body(share, first)` for each of the task's blocks whose cluster has rows to compute: `first` is the number of
    /// the block's first tile, and what is returned that of the tile behind its last.
    fn walk(&self, e: &mut Emitter, start: &Start, body: impl FnOnce(&mut Emitter, &Share, &str) -> Value) {
        if let Groups::Rows(problem) = self.groups {
            return self.walk_rows(e, start, problem, body);
        }
        let number = "i64".to_string();
        let block = |e: &mut Emitter, place: &str, first: &str| {
            let share = if let Groups::Depth(problem) = self.groups {
                self.share_of_depth(e, start, problem, place)
            } else {
                let (row, column) = self.corner(e, place);
                Share { row, column, ..start.whole.clone() }
            };
            let own = |e: &mut Emitter| Share { row: self.own_row(e, start, &share.row), ..share.clone() };
            if self.gemm.row_limit.is_none() {
                let own = own(e);
                return body(e, &own, first);
            }
            let wanted = e.less(&share.row, &share.rows);
            let none = vec![first.to_string()];
            let some = |e: &mut Emitter| {
                let own = own(e);
                vec![body(e, &own, first)]
            };
            e.either(&wanted, std::slice::from_ref(&number), some, |_| none).concat()
        };
        let place = if self.cluster > 1 { e.divided("%task", self.cluster) } else { "%task".into() };
        let most = self.tasks / self.cluster;
        if self.places() <= most {
            block(e, &place, "%zero");
        } else {
            let places = e.index(self.places() as i64);
            let first = [("%zero".into(), number.clone())];
            e.for_loop(&place, &places, most as i64, &first, |e, i, first| vec![block(e, i, &first[0])]);
        }
    }

    /// The first row and column of a cluster's place in the result. Places go down a band of it, then on to the next column, so that
    /// those that run at a time have few rows of A and few columns of B between them, which the cache holds.
    fn corner(&self, e: &mut Emitter, place: &str) -> (Value, Value) {
        let places_down = self.places_down();
        let height = (self.band / self.cluster).min(places_down);
        let in_band = e.index((height * self.blocks_across()) as i64);
        let (band, within) = (e.int2("divui", place, &in_band), e.int2("remui", place, &in_band));
        let place = |e: &mut Emitter, height: usize| {
            let height = e.index(height as i64);
            (e.int2("divui", &within, &height), e.int2("remui", &within, &height))
        };
        let (mut j, mut i) = place(e, height);
        let rest = places_down % height;
        if rest > 0 {
            let whole = e.index((places_down / height) as i64);
            let (whole, (last_j, last_i)) = (e.less(&band, &whole), place(e, rest));
            (j, i) = (e.choose(&whole, &j, &last_j), e.choose(&whole, &i, &last_i));
        }
        let above = e.times(&band, height);
        let i = e.int2("addi", &above, &i);
        (e.times(&i, ROWS * self.cluster), e.times(&j, self.columns))
    }

    /// The first row of this block in its cluster's place, which begins with a row.
    fn own_row(&self, e: &mut Emitter, start: &Start, row: &str) -> Value {
        let Some(rank) = &start.rank else { return row.into() };
        let before = e.times(rank, ROWS);
        e.int2("addi", row, &before)
    }

    /// How many tiles a term of so many steps has.
    fn tiles(&self, e: &mut Emitter, depth: &str) -> Value {
        let above = e.plus(depth, DEPTH as i64 - 1);
        e.divided(&above, DEPTH)
    }
}
