//! The matrix product: `C[m, n] = epilogue(Σ over terms, Σ over k of A(m, k) · B(k, n))`, summed in f32.
//!
//! A task is a block of rows by a block of columns. Its panels of B are packed as `[k][width]` f32, or words of two bf16, one
//! after the other; while a panel is in cache all strips of rows pass by, each one register tile that walks along K, whole or
//! in blocks. Where one strip passes by, B is read where it lies; frozen weights may be packed before ([`packing`]). What tiles
//! need next they ask the memory for along K ([`ask`]). Few columns are computed turned over ([`way`]).
//! The sums go to a tile in scratch, from which the epilogue computes what is stored. Scratch should begin at a line of
//! the cache: a depth of 1536 ran at 87 GFLOP/s from elsewhere, at 99 from there. The order of the additions of an
//! element depends on the problem alone.
mod ask;
mod choose;
mod grouped;
mod pack;
pub mod packing;
mod pairs;
pub mod plan;
mod rest;
pub(crate) mod store;
mod task;
mod tile;
pub(crate) mod way;

use crate::emit::{Elem, Emitter, Value};
use crate::loops::digest;
use crate::region::Region;
use crate::{Code, Kernel, Target, Varies, Work, gemv};
pub use packing::Packing;
use plan::{FeedB, Plan};
use way::Way;

/// Rows or columns of a product that are too few to use a packed element often.
const THIN: usize = 16;

/// Operands of the kernel, in order: A and B of every term, the epilogue's inputs from the second on (the first is the
/// sum and has no operand), its outputs (each `[m, n]` without gaps), and an i32 count where there is a limit.
///
/// An output may be the same buffer as a `Full` input of the same elem.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Gemm {
    pub m: usize,
    pub n: usize,
    pub terms: Vec<Term>,
    pub epilogue: Region,
    /// Row `i` is computed only if `i + start < count`; others may or may not be. Rows not computed keep what they
    /// hold.
    pub row_limit: Option<usize>,
    /// Step `k` of every term is summed only if `k + start < count`.
    pub inner_limit: Option<usize>,
}

/// One product of the sum, over `k` steps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Term {
    pub k: usize,
    /// Stored `[m, k]`, or `[k, m]` if transposed.
    pub a: Operand,
    /// Stored `[k, n]`, or `[n, k]` if transposed (`x Wᵀ` with W stored `[out, in]`).
    pub b: Operand,
    /// Whether B is given as [`Packing`] lays it out, which was made from what is stored like that.
    pub packed: bool,
}

/// How a matrix lies in memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Operand {
    pub elem: Elem,
    pub transposed: bool,
    /// Elements from one stored row to the next.
    pub stride: usize,
}

impl Gemm {
    /// The kernel: with the plan that the tuning table suggests, or without packing where there are few rows or columns.
    pub fn build(&self, target: &Target) -> Kernel {
        if gemv::suits(self) {
            return gemv::build(&Way::plain(self), target);
        }
        if let Some(way) = Way::turned(self).filter(|way| gemv::suits(&way.computed)) {
            return gemv::build(&way, target);
        }
        let (way, plan) = self.way(target);
        way.build(&plan)
    }

    /// The way that suits it, and its plan.
    fn way(&self, target: &Target) -> (Way<'_>, Plan) {
        if let Some(way) = Way::turned(self) {
            let plan = Plan::choose(&way.computed, target);
            if way.computed.terms.iter().all(|term| plan.feed_b(&way.computed, term) == FeedB::InPlace) {
                return (way, plan);
            }
        }
        (Way::plain(self), Plan::choose(self, target))
    }

    /// The kernel with a plan of the caller's.
    pub fn build_with(&self, plan: &Plan) -> Kernel {
        Way::plain(self).build(plan)
    }

    /// What bounds it: little reuse, pairs of bf16, bf16 that is widened first, or multiply-adds of f32.
    fn family(&self, plan: &Plan) -> &'static str {
        let widened = |term: &Term| term.a.elem == Elem::Bf16;
        match () {
            _ if self.m.min(self.n) <= THIN => "product_thin",
            _ if self.terms.iter().any(|term| plan.paired(term)) => "product_bf16",
            _ if self.terms.iter().any(widened) => "product_widened",
            _ => "product",
        }
    }

    pub(crate) fn work(&self, family: &'static str) -> Work {
        let limited = self.row_limit.is_some() || self.inner_limit.is_some();
        let varies = if limited { Varies::Labels } else { Varies::Never };
        let work = Work::new(family, 2 * self.m * self.n * self.depth()).varying(varies);
        let operands = self
            .terms
            .iter()
            .fold(work, |work, term| work.moving(self.m * term.k, term.a.elem).moving(term.k * self.n, term.b.elem));
        self.epilogue.work(operands, 1, self.m, self.n)
    }

    /// Sum of the depths of all terms.
    pub fn depth(&self) -> usize {
        self.terms.iter().map(|term| term.k).sum()
    }

    /// Position of the first of the epilogue's operands.
    pub(crate) fn first_epilogue_operand(&self) -> usize {
        2 * self.terms.len()
    }

    /// Position of the count operand.
    pub(crate) fn count_operand(&self) -> usize {
        self.first_epilogue_operand() + self.epilogue.inputs.len() - 1 + self.epilogue.outputs.len()
    }

    /// Such as `1024x576x1536_8_nt`, with the depths of all terms, and `n` or `t` for A and B of the first.
    pub(crate) fn name(&self) -> String {
        let depths: Vec<String> = self.terms.iter().map(|term| term.k.to_string()).collect();
        let letter = |operand: &Operand| if operand.transposed { 't' } else { 'n' };
        let first = &self.terms[0];
        format!("{}x{}x{}_{}{}", self.m, self.n, depths.join("_"), letter(&first.a), letter(&first.b))
    }
}

/// A product's code: its functions, the body that runs tasks, their number, and words of scratch.
struct Parts {
    functions: String,
    body: Emitter,
    tasks: usize,
    scratch: usize,
}

impl Way<'_> {
    fn build(&self, plan: &Plan) -> Kernel {
        let Parts { functions, body, tasks, scratch } = self.parts(plan, false);
        finish(self.stored, ("gemm", self.computed.family(plan)), &functions, body, tasks, scratch)
    }

    /// With `varying`, others operands may be given in the same memory from call to call.
    fn parts(&self, plan: &Plan, varying: bool) -> Parts {
        let gemm = &self.computed;
        let of = |e: Emitter| if varying { e.with_varying_operands() } else { e };
        let store = of(Emitter::for_cpu(plan.lanes, plan.pairs));
        let mut functions = pack::functions(gemm, plan);
        functions += &tile::functions(gemm, plan, &self.asked_result(plan));
        functions += &self.functions(store, plan.lanes, plan.width(), plan.vectors);
        let mut body = of(Emitter::new());
        task::body(&mut body, self, plan);
        let scratch = plan.scratch(gemm).total + self.scratch(plan.width());
        Parts { functions, body, tasks: plan.tasks(gemm), scratch }
    }
}

/// The kernel of a product, as [`finish_text`] makes it.
pub(crate) fn finish(
    gemm: &Gemm,
    (template, family): (&str, &'static str),
    functions: &str,
    body: Emitter,
    tasks: usize,
    scratch: usize,
) -> Kernel {
    finish_text(&format!("{template}_{}", gemm.name()), functions, body, tasks, scratch, gemm.work(family))
}

/// The kernel of `body` and the functions that it calls, with so many words of scratch; its symbol is `name` and a digest of
/// its text.
fn finish_text(name: &str, functions: &str, body: Emitter, tasks: usize, scratch: usize, work: Work) -> Kernel {
    let body = body.into_text();
    let symbol = format!("{name}_{:08x}", digest(&format!("{functions}{body}")) as u32);
    let text = format!(
        "{functions}func.func @{symbol}(%args: !llvm.ptr, %begin: i64, %end: i64, %scratch: !llvm.ptr) {{\n{body}  return\n}}\n"
    );
    let tasks = u32::try_from(tasks).expect("a kernel has less than 2^32 tasks");
    Kernel { symbol, code: Code::Cpu(text), tasks, scratch_bytes: 4 * scratch as u64, work }
}

/// The address of the element at `(row, column)` of the matrix, however it is stored.
fn element(e: &mut Emitter, pointer: &str, (row, column): (&str, &str), operand: Operand) -> Value {
    let (major, minor) = if operand.transposed { (column, row) } else { (row, column) };
    let major = e.times(major, operand.stride);
    let at = e.int2("addi", &major, minor);
    e.offset(pointer, &at, operand.elem)
}

/// A function for use inside one kernel, never inlined, so that each is allocated registers on its own.
pub(crate) fn private_function(name: &str, params: &str, body: Emitter) -> String {
    let text = body.into_text();
    format!("func.func private @{name}({params}) attributes {{passthrough = [\"noinline\"]}} {{\n{text}  return\n}}\n")
}

/// Calls a function of the kernel with values and their types.
pub(crate) fn call(e: &mut Emitter, function: &str, args: &[(&str, &str)]) {
    let (values, types): (Vec<&str>, Vec<&str>) = args.iter().copied().unzip();
    e.line(format!("func.call @{function}({}) : ({}) -> ()", values.join(", "), types.join(", ")));
}

/// Asks for the line of an element that need not exist.
pub(crate) fn prefetch(e: &mut Emitter, pointer: &str, at: usize, elem: Elem) {
    ask_for_line(e, pointer, at, elem, 0);
}

/// Asks for the line of an element, which need not exist, to write it.
pub(crate) fn prefetch_to_write(e: &mut Emitter, pointer: &str, at: usize, elem: Elem) {
    ask_for_line(e, pointer, at, elem, 1);
}

fn ask_for_line(e: &mut Emitter, pointer: &str, at: usize, elem: Elem, write: usize) {
    let place = e.at(pointer, at as i64, elem);
    e.line(format!(
        "\"llvm.intr.prefetch\"({place}) <{{cache = 1 : i32, hint = 3 : i32, rw = {write} : i32}}> : (!llvm.ptr) -> ()"
    ));
}
