//! Products in parts: few blocks with many steps of K leave most multiprocessors idle, so a task computes a block's sums of a part of
//! the steps ([`InParts`]), and another kernel adds the sums of all parts, in their order, and gives them to the epilogue.
use super::Template;
use crate::emit::{Elem, Emitter, Value};
use crate::gemm::{Gemm, Term};
use crate::gpu::Gpu;
use crate::gpu::block::{Block, ROW_THREADS};
use crate::region::{Place, Region};
use crate::steps::{Slot, Steps};
use crate::tuning::{PartsTuning, product_parts};
use crate::{Kernel, Work};

/// The product in parts, with the operands of [`Gemm::build`], if the tuning table wants it so.
pub fn steps(gemm: &Gemm, gpu: &Gpu) -> Option<Steps> {
    let in_parts = InParts::of(gemm, product_parts(gpu.arch))?;
    let operands = |list: std::ops::Range<usize>| list.map(Slot::Operand).collect::<Vec<_>>();
    let sums = Slot::Temporary(0);
    let added = Added { gemm, parts: in_parts.parts };
    Some(Steps {
        temporaries: vec![in_parts.parts * gemm.m * gemm.n * Elem::F32.bytes() as usize],
        launches: vec![
            (in_parts.build(gemm, gpu.tf32), [operands(0..2), vec![sums]].concat()),
            (added.build(), [vec![sums], operands(2..gemm.count_operand())].concat()),
        ],
    })
}

/// Parts of K, whose sums lie one behind the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InParts {
    pub parts: usize,
    /// Of a part, but for the last, which has what is left.
    steps: usize,
}

impl InParts {
    /// How a product of one term, without limits, is computed in parts, if the table wants it.
    fn of(gemm: &Gemm, table: PartsTuning) -> Option<InParts> {
        let [Term { k, .. }] = gemm.terms[..] else { return None };
        if gemm.row_limit.is_some() || gemm.inner_limit.is_some() {
            return None;
        }
        let cut = Template::new(gemm, false).cut;
        let parts = table.parts(cut.blocks(gemm.m, gemm.n), k);
        // Whole tiles, so that rows that are aligned stay so.
        let steps = k.div_ceil(parts).next_multiple_of(cut.depth);
        (steps < k).then(|| InParts { parts: k.div_ceil(steps), steps })
    }

    /// The kernel that computes the sums of all parts. Operands: A, B, and the sums, f32 `[parts, m, n]`.
    fn build(self, gemm: &Gemm, tf32: bool) -> Kernel {
        let sums = Gemm { epilogue: Region::identity(Elem::F32, Elem::F32), ..gemm.clone() };
        Template { in_parts: Some(self), ..Template::new(&sums, tf32) }.build()
    }
}

impl Template<'_> {
    /// Which part the task computes, if there are several, with the steps of each; and which block.
    pub(super) fn part_and_block(&self, e: &mut Emitter) -> (Option<(Value, usize)>, Value) {
        let Some(InParts { steps, .. }) = self.in_parts else { return (None, "%task".into()) };
        let blocks = e.index(self.cut.blocks(self.gemm.m, self.gemm.n) as i64);
        let (part, block) = (e.int2("divui", "%task", &blocks), e.int2("remui", "%task", &blocks));
        (Some((part, steps)), block)
    }

    /// Moves the only term's matrices to a part of so many steps; returns how many of them there are.
    pub(super) fn begin_part(
        &self,
        e: &mut Emitter,
        (a, b): &mut (Value, Value),
        (part, steps): (&str, usize),
    ) -> Value {
        let term = &self.gemm.terms[0];
        let first = e.times(part, steps);
        for (pointer, operand, along) in [(a, &term.a, !term.a.transposed), (b, &term.b, term.b.transposed)] {
            *pointer = if along {
                e.offset(pointer, &first, operand.elem)
            } else {
                e.row(pointer, &first, operand.stride, operand.elem)
            };
        }
        let (all, steps) = (e.index(term.k as i64), e.index(steps as i64));
        let left = e.int2("subi", &all, &first);
        e.int2("minsi", &left, &steps)
    }
}

/// The sums of parts, added. Operands: the sums, f32 `[parts, m, n]`, the epilogue's inputs from the second on, its outputs.
struct Added<'a> {
    gemm: &'a Gemm,
    parts: usize,
}

impl Added<'_> {
    /// A thread has one element, so that no load waits for another but within the sum.
    fn build(&self) -> Kernel {
        let Gemm { m, n, epilogue, .. } = self.gemm;
        let mut e = Emitter::of_block(Block::new(ROW_THREADS));
        let sums = e.arg(0);
        let operands = epilogue.operands(&mut e, 1, 1);
        let first = e.times("%task", ROW_THREADS);
        let full = e.int2("addi", &first, "%thread");
        let all = e.index((m * n) as i64);
        let inside = e.less(&full, &all);
        let body = |e: &mut Emitter| {
            let parts: Vec<Value> = (0..self.parts)
                .map(|part| {
                    let part = e.at(&sums, (part * m * n) as i64, Elem::F32);
                    e.load_at(&part, &full, Elem::F32, 1)
                })
                .collect();
            let sum = parts.into_iter().reduce(|sum, part| e.float2("addf", &sum, &part, 1)).expect("there are parts");
            let columns = e.index(*n as i64);
            let (row, column) = (e.int2("divui", &full, &columns), e.int2("remui", &full, &columns));
            let place = Place { full: &full, row: &row, column: &column };
            e.apart(|e| epilogue.element(e, &[sum], &operands, &place, 1));
        };
        e.branch(&inside, body, |_| {});
        let work = Work::new("pointwise", (self.parts - 1) * m * n).moving(self.parts * m * n, Elem::F32);
        let work = epilogue.work(work, 1, *m, *n);
        e.finish(&format!("gemm_added_{}", self.gemm.name()), (m * n).div_ceil(ROW_THREADS), 0, work)
    }
}
