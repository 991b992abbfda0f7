//! What the templates of rows and elements ask of a machine, so that one template serves CPUs and GPUs.
//!
//! Such a template says what a *task* does: scalar code, loops over elements ([`Emitter::each`]) and reductions over them
//! ([`Emitter::reduce`]). On a CPU one thread does a task, and elements are lanes of its vectors. On a GPU a block of
//! threads shares a task, or a warp: all of them run the scalar code, which gives all of them the same values, and elements are
//! dealt out ([`crate::gpu::deal`]). What the scalar code stores, the first thread stores. Where one thread of
//! a task reads what another has written, the template says [`Emitter::sync`].
//!
//! Products and attention are different templates on different machines; here is where one is chosen.
use crate::Kernel;
use crate::attention::Attention;
use crate::attention_cached::AttentionCached;
use crate::emit::{Elem, Emitter};
use crate::gemm::{Gemm, Packing};
use crate::gpu::block::{Block, ROW_THREADS};
use crate::gpu::deal::Deal;
use crate::gpu::{self, Gpu};
use crate::grouped::{GroupedDepth, GroupedRows};
use crate::reduce::ColumnSum;
use crate::steps::{Slot, Steps};
use crate::target::Target;
use crate::tuning::{GPU_ROWS, GPU_STREAMS};

/// The most logits that are computed at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogitsBlock {
    /// Of f32.
    pub bytes: usize,
    pub rows: usize,
}

/// How a machine does launches that need not wait for each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// All threads share those between two meetings.
    Stages,
    /// At once where they are in different streams, of which there are at most so many.
    Streams(usize),
}

/// A machine that kernels are written for.
pub trait Machine {
    /// Elements that the smallest step over a row takes side by side.
    fn lanes(&self) -> usize;

    /// A kernel body to write into.
    fn emitter(&self) -> Emitter;

    /// The same for tasks that are rows of `n` elements: what their loops go over begins and ends at multiples of `unit` elements,
    /// of which none is stored wider than `widest`.
    fn rows(&self, _n: usize, _unit: usize, _widest: Elem) -> Emitter {
        self.emitter()
    }

    /// The same for `rows` rows, each a whole, in which nothing depends on what they hold: neither branches nor turns of loops.
    fn equal_rows(&self, _rows: usize, _n: usize, _widest: Elem) -> Emitter {
        self.emitter()
    }

    /// The same for tasks that are parts of an array, which begin and end at multiples of `unit` elements or at multiples of
    /// what [`Emitter::chunk`] says, and none of which is stored wider than `widest`.
    fn flat(&self, _unit: usize, _widest: Elem) -> Emitter {
        self.emitter()
    }

    /// The matrix product; operands as [`Gemm`] has them.
    fn product(&self, problem: &Gemm) -> Kernel;

    /// The same in several launches, if that is better: parts of K, which are then added in order.
    fn product_in_parts(&self, _problem: &Gemm) -> Option<Steps> {
        None
    }

    /// In what order it does what a plan launches.
    fn order(&self) -> Order;

    /// The column sums; operands as [`ColumnSum`] has them.
    fn column_sum(&self, problem: &ColumnSum) -> Steps;

    /// How many of `rows` rows of `n` elements a task adds up, where every one is much work.
    fn rows_of_part(&self, rows: usize, n: usize) -> usize;

    /// Whether a value that a backward pass computes again is better made in the epilogue of a product that reads its operands
    /// too, a matrix more to store there, than by a launch of its own.
    fn recomputes_late(&self) -> bool;

    /// The product of groups of rows; operands as [`GroupedRows`] has them.
    fn grouped_rows(&self, problem: &GroupedRows) -> Kernel;

    /// Products over groups of rows; operands as [`GroupedDepth`] has them.
    fn grouped_depth(&self, problem: &GroupedDepth) -> Kernel;

    /// How many logits are worth computing at a time.
    fn logits_block(&self) -> LogitsBlock;

    /// How B of a term of the product may be packed once for many launches, and how often each of them packs it otherwise, if
    /// the machine packs at all.
    fn packing(&self, _problem: &Gemm, _term: usize) -> Option<(Packing, usize)> {
        None
    }

    /// Attention; operands as [`Attention::forward`] has them.
    fn attention(&self, problem: &Attention) -> Kernel;

    /// The gradient of attention, from operands `q`, `k`, `v`, `segments`, `o`, `lse`, `do`, `dq`, `dk`, `dv`.
    fn attention_gradient(&self, problem: &Attention) -> Steps;

    /// Attention behind a cache, if the machine has it.
    fn attention_cached(&self, problem: &AttentionCached) -> Option<Kernel>;
}

impl Machine for Target {
    fn lanes(&self) -> usize {
        self.lanes
    }

    fn emitter(&self) -> Emitter {
        Emitter::for_cpu(self.lanes, self.pairs)
    }

    fn product(&self, problem: &Gemm) -> Kernel {
        problem.build(self)
    }

    fn order(&self) -> Order {
        Order::Stages
    }

    /// Its operands are in the cache anyhow, and epilogues are what products lose most with: a step of SmolLM2's LoRA, bf16, 8 x 168
    /// tokens, took 0.730, 0.730 and 0.745 s without and 0.745, 0.770 and 0.775 s with it, in turns on Zen 5; full
    /// fine-tuning the same.
    fn recomputes_late(&self) -> bool {
        false
    }

    fn column_sum(&self, problem: &ColumnSum) -> Steps {
        let launch = (problem.build(self), vec![Slot::Operand(0), Slot::Operand(1)]);
        Steps { temporaries: vec![], launches: vec![launch] }
    }

    /// At most 32 parts.
    fn rows_of_part(&self, rows: usize, _n: usize) -> usize {
        rows.div_ceil(32).max(8)
    }

    fn grouped_rows(&self, problem: &GroupedRows) -> Kernel {
        problem.build(self)
    }

    fn grouped_depth(&self, problem: &GroupedDepth) -> Kernel {
        problem.build(self)
    }

    /// A block that stays in the outer cache, or near it; more rows gain nothing (measured from 64 to 1,024).
    fn logits_block(&self) -> LogitsBlock {
        LogitsBlock { bytes: 64 << 20, rows: 256 }
    }

    fn packing(&self, problem: &Gemm, term: usize) -> Option<(Packing, usize)> {
        problem.packing(term, self)
    }

    fn attention(&self, problem: &Attention) -> Kernel {
        problem.forward(self)
    }

    fn attention_gradient(&self, problem: &Attention) -> Steps {
        problem.gradient_steps(self)
    }

    fn attention_cached(&self, problem: &AttentionCached) -> Option<Kernel> {
        Some(problem.build(self))
    }
}

impl Machine for Gpu {
    /// Templates step by up to four times the lanes: then by one element a thread.
    fn lanes(&self) -> usize {
        ROW_THREADS / 4
    }

    fn emitter(&self) -> Emitter {
        Emitter::of_block(Block::new(ROW_THREADS))
    }

    fn rows(&self, n: usize, unit: usize, widest: Elem) -> Emitter {
        Emitter::of_block(Block::dealing(Deal::of_rows(n, unit, widest)))
    }

    fn equal_rows(&self, rows: usize, n: usize, widest: Elem) -> Emitter {
        Emitter::of_block(Block::dealing(Deal::of_equal_rows(rows, n, widest)))
    }

    fn flat(&self, unit: usize, widest: Elem) -> Emitter {
        Emitter::of_block(Block::dealing(Deal::flat(unit, widest)))
    }

    fn product(&self, problem: &Gemm) -> Kernel {
        gpu::product(problem, self)
    }

    fn order(&self) -> Order {
        Order::Streams(GPU_STREAMS)
    }

    /// It saves the launch's reading: 2 of 3 times the matrix. No figures yet: they wait for a GPU.
    fn recomputes_late(&self) -> bool {
        true
    }

    fn column_sum(&self, problem: &ColumnSum) -> Steps {
        gpu::column_sum(problem)
    }

    /// Short rows, which are a warp's, are added up by twice as many tasks.
    fn rows_of_part(&self, rows: usize, n: usize) -> usize {
        let parts = if n <= GPU_ROWS.short_row { 2 * GPU_ROWS.parts } else { GPU_ROWS.parts };
        rows.div_ceil(parts).max(GPU_ROWS.least_rows)
    }

    fn product_in_parts(&self, problem: &Gemm) -> Option<Steps> {
        gpu::product_in_parts(problem, self)
    }

    fn grouped_rows(&self, problem: &GroupedRows) -> Kernel {
        gpu::grouped::rows(problem, self)
    }

    fn grouped_depth(&self, problem: &GroupedDepth) -> Kernel {
        gpu::grouped::depth(problem, self)
    }

    /// So many rows that their input gradient, of a few thousand columns, has blocks for all multiprocessors. No figures yet:
    /// they wait for a GPU.
    fn logits_block(&self) -> LogitsBlock {
        LogitsBlock { bytes: 1 << 30, rows: 2048 }
    }

    fn attention(&self, problem: &Attention) -> Kernel {
        gpu::attention::forward(problem, self)
    }

    fn attention_gradient(&self, problem: &Attention) -> Steps {
        gpu::attention::gradient(problem, self)
    }

    /// Text is generated on CPUs only.
    fn attention_cached(&self, _problem: &AttentionCached) -> Option<Kernel> {
        None
    }
}
