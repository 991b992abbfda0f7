//! Products in parts: few blocks with many steps of K leave most multiprocessors idle, so tasks have a part of the steps each
//! ([`super::gemm::InParts`]), and here their sums are added, in the order of the parts, and given to the epilogue.
use super::Gpu;
use super::block::{Block, ROW_THREADS};
use super::gemm::{self, InParts};
use crate::emit::{Elem, Emitter, Value};
use crate::gemm::Gemm;
use crate::region::Place;
use crate::steps::{Slot, Steps};
use crate::tuning::product_parts;
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
            (gemm::build_parts(gemm, in_parts, gpu.tf32), [operands(0..2), vec![sums]].concat()),
            (added.build(), [vec![sums], operands(2..gemm.count_operand())].concat()),
        ],
    })
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
