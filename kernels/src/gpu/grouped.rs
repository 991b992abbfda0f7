//! Products of groups of rows ([`crate::grouped`]) on a GPU: those of warpgroups are [`hopper`]'s, others blocks of the product
//! [`super::gemm`], of rows, matrices and depths that are found at run time. A block that has no rows returns at once.
use super::gemm::{Share, Template};
use super::{Arch, Gpu, hopper};
use crate::Kernel;
use crate::emit::Emitter;
use crate::grouped::{FIRST_RESULT, GroupedDepth, GroupedRows, block_of, most_blocks, span};
use crate::tuning::{HOPPER_SHORT_DEPTH, WarpgroupTuning, hopper_grouped_depth, hopper_grouped_rows};

/// Rows of every group by its matrix: by warpgroups where the GPU has them, if they can compute it and the tuning table wants
/// them to.
pub fn rows(problem: &GroupedRows, gpu: &Gpu) -> Kernel {
    let cut = match gpu.arch {
        Arch::Sm80 => None,
        Arch::Sm90a => hopper_grouped_rows(problem.groups, problem.share(), problem.gemm.n)
            .filter(|_| hopper::suits_rows(problem, HOPPER_SHORT_DEPTH)),
    };
    let suiting = |cut: WarpgroupTuning| if hopper::suits_clusters(&problem.gemm) { cut } else { cut.alone() };
    cut.map_or_else(|| rows_of_any_gpu(problem, gpu), |cut| hopper::rows(problem, suiting(cut)))
}

/// A product over the rows of every group, likewise.
pub fn depth(problem: &GroupedDepth, gpu: &Gpu) -> Kernel {
    let cut = match gpu.arch {
        Arch::Sm80 => None,
        Arch::Sm90a => hopper_grouped_depth(problem.groups, problem.share(), (problem.m, problem.n))
            .filter(|_| hopper::suits_depth(&problem.gemm())),
    };
    cut.map_or_else(|| depth_of_any_gpu(problem, gpu), |cut| hopper::depth(problem, cut))
}

fn rows_of_any_gpu(problem: &GroupedRows, gpu: &Gpu) -> Kernel {
    let (gemm, groups) = (&problem.gemm, problem.groups);
    // Where a group has few rows, tall blocks would be mostly empty.
    let whole = Template::of(gemm, gemm.m, gpu.tf32);
    let template =
        if problem.share() >= whole.cut.rows { whole } else { Template::of(gemm, problem.share(), gpu.tf32) };
    let (term, cut) = (problem.term(), &template.cut);
    let mut e = template.emitter();
    let (a, offsets) = (e.arg(0), e.arg(1));
    let operands = gemm.epilogue.operands(&mut e, gemm.first_epilogue_operand(), 1);
    template.share_memory(&mut e);
    let blocks = most_blocks(gemm.m, groups, cut.rows);
    // Neighbouring blocks share a tile of B where they are one group's.
    let tall = e.index(blocks as i64);
    let (j, i) = (e.int2("divui", "%task", &tall), e.int2("remui", "%task", &tall));
    let column = e.times(&j, cut.columns);
    let found = block_of(&mut e, &offsets, (groups, gemm.m, cut.rows), &i);
    let wanted = e.less(&found.first, &found.end);
    let body = |e: &mut Emitter| {
        let pointers = [(a, e.operand_of(problem.first_matrix(), groups, &found.group))];
        let rows = (found.end.as_str(), found.first.as_str());
        let share = Share { pointers: &pointers, operands: &operands, rows, column: &column };
        template.compute(e, &share, |e, _| e.index(term.k as i64));
    };
    e.branch(&wanted, body, |_| {});
    let (family, rounded) = template.family();
    let name = format!("{}{rounded}", problem.name());
    e.finish(&name, blocks * gemm.n.div_ceil(cut.columns), 0, problem.work(family))
}

fn depth_of_any_gpu(problem: &GroupedDepth, gpu: &Gpu) -> Kernel {
    let gemm = problem.gemm();
    let template = Template::of(&gemm, gemm.m, gpu.tf32);
    let cut = &template.cut;
    let (down, across) = (gemm.m.div_ceil(cut.rows), gemm.n.div_ceil(cut.columns));
    let mut e = template.emitter();
    let (matrices, offsets) = ([0, 1].map(|i| e.arg(i)), e.arg(2));
    template.share_memory(&mut e);
    let (all, tall) = (e.index((down * across) as i64), e.index(down as i64));
    let (group, block) = (e.int2("divui", "%task", &all), e.int2("remui", "%task", &all));
    let (j, i) = (e.int2("divui", &block, &tall), e.int2("remui", &block, &tall));
    let (row, column) = (e.times(&i, cut.rows), e.times(&j, cut.columns));
    let found = span(&mut e, &offsets, &group, problem.rows);
    let [a, b] = [(0, problem.m), (1, problem.n)]
        .map(|(i, columns)| e.row(&matrices[i], &found.first, columns, problem.elems[i]));
    let result = e.operand_of(FIRST_RESULT, problem.groups, &group);
    let operands = vec![result; gemm.epilogue.inputs.len()];
    let (m, depth) = (e.index(gemm.m as i64), e.int2("subi", &found.end, &found.first));
    let share = Share { pointers: &[(a, b)], operands: &operands, rows: (&m, &row), column: &column };
    template.compute(&mut e, &share, |_, _| depth.clone());
    let (family, rounded) = template.family();
    let name = format!("{}{rounded}", problem.name());
    e.finish(&name, problem.groups * down * across, 0, problem.work(family))
}
