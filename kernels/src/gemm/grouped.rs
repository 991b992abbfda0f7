//! Products of groups of rows ([`crate::grouped`]) on a CPU: the tiles and tasks of [`Gemm`], with rows, matrices and
//! depths that are found at run time.
use super::plan::Plan;
use super::way::Way;
use super::{Gemm, call, finish_text, pack, private_function, task, tile};
use crate::emit::{Elem, Emitter, Value};
use crate::grouped::{FIRST_RESULT, GroupedDepth, GroupedRows, block_of, most_blocks, span};
use crate::{Kernel, Target};

/// Words of scratch that hold the operands and the count of one group's product.
const HEAD: usize = 16;

impl GroupedRows {
    /// The kernel. A strip of rows that a group begins or ends in the middle of has its whole tile computed, and stored
    /// as far as the group goes.
    pub fn build(&self, target: &Target) -> Kernel {
        let plan = self.plan(target);
        // A multiple of the tile's rows: there is no other height.
        let gemm = Gemm { m: self.gemm.m.next_multiple_of(plan.rows), ..self.gemm.clone() };
        let way = Way::plain(&gemm);
        let mut functions = pack::functions(&gemm, &plan);
        functions += &tile::functions(&gemm, &plan, &way.asked_result(&plan));
        functions += &way.functions(Emitter::for_cpu(plan.lanes, plan.pairs), plan.lanes, plan.width(), plan.vectors);
        let blocks = most_blocks(self.gemm.m, self.groups, plan.m_block);
        let mut e = Emitter::new();
        let (a, offsets) = (e.arg(0), e.arg(1));
        let depth = e.index(self.term().k as i64);
        e.tasks(|e, number| {
            let down = e.index(blocks as i64);
            let (block, panel) = (e.int2("remui", number, &down), e.int2("divui", number, &down));
            let panel = e.times(&panel, plan.panels);
            let rows = block_of(e, &offsets, (self.groups, self.gemm.m, plan.m_block), &block);
            let wanted = e.less(&rows.first, &rows.end);
            let compute = |e: &mut Emitter| {
                let operands = [(a, e.operand_of(self.first_matrix(), self.groups, &rows.group))];
                let group = task::Group { rows: (rows.first, rows.end), all: self.gemm.m };
                task::of_group(e, &way, &plan, (&operands, &[depth]), group, &panel);
            };
            e.branch(&wanted, compute, |_| {});
        });
        let tasks = blocks * plan.all_panels(&gemm).div_ceil(plan.panels);
        let work = self.work(self.gemm.family(&plan));
        finish_text(&self.name(), &functions, e, tasks, plan.scratch(&gemm).total, work)
    }

    /// The plan for as many rows as a group has on average. No tile has more rows than there are.
    fn plan(&self, target: &Target) -> Plan {
        let share = Gemm { m: self.share(), ..self.gemm.clone() };
        let plan = Plan::choose(&share, target);
        let rows = plan.rows.min(self.gemm.m);
        let of = |count: usize| count / plan.rows * rows;
        Plan { rows, m_block: of(plan.m_block), m_cache: of(plan.m_cache), ..plan }
    }
}

impl GroupedDepth {
    /// The kernel: a task is one of the product of a group, which finds its operands in scratch.
    pub fn build(&self, target: &Target) -> Kernel {
        let gemm = self.gemm();
        let (way, plan) = gemm.way(target);
        let parts = way.parts(&plan, true);
        let product = "%args: !llvm.ptr, %begin: i64, %end: i64, %scratch: !llvm.ptr";
        let functions = parts.functions + &private_function("product", product, parts.body);
        let mut e = Emitter::new();
        let (matrices, offsets) = ([0, 1].map(|i| e.arg(i)), e.arg(2));
        let scratch = e.at("%scratch", HEAD as i64, Elem::F32);
        e.tasks(|e, number| {
            let tasks = e.index(parts.tasks as i64);
            let (group, task) = (e.int2("divui", number, &tasks), e.int2("remui", number, &tasks));
            let rows = span(e, &offsets, &group, self.rows);
            let mut operands: Vec<Value> = vec![];
            for ((pointer, elem), columns) in matrices.iter().zip(self.elems).zip([self.m, self.n]) {
                operands.push(e.row(pointer, &rows.first, columns, elem));
            }
            let result = e.operand_of(FIRST_RESULT, self.groups, &group);
            operands.extend(vec![result; gemm.epilogue.inputs.len()]);
            let count = e.at("%scratch", HEAD as i64 - 1, Elem::I32);
            let (depth, zero) = (e.int2("subi", &rows.end, &rows.first), e.index(0));
            e.store_int_at(&depth, &count, &zero);
            operands.push(count);
            for (i, operand) in operands.iter().enumerate() {
                let slot =
                    e.op(format!("llvm.getelementptr inbounds %scratch[{i}] : (!llvm.ptr) -> !llvm.ptr, !llvm.ptr"));
                e.line(format!("llvm.store {operand}, {slot} : !llvm.ptr, !llvm.ptr"));
            }
            let end = e.plus(&task, 1);
            let (pointer, int) = ("!llvm.ptr", "i64");
            call(e, "product", &[("%scratch", pointer), (&task, int), (&end, int), (&scratch, pointer)]);
        });
        let work = self.work(way.computed.family(&plan));
        finish_text(&self.name(), &functions, e, self.groups * parts.tasks, HEAD + parts.scratch, work)
    }
}
