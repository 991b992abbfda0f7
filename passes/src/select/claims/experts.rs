//! Mixtures of experts.
use super::{accumulate_of, accumulation, op_name, operands, value_elem};
use crate::select::{Operand, Selector, rows};
use amc_ir::{Function, Op};
use amc_kernels::emit::Elem;
use amc_kernels::experts::{Gather, GroupRows, Route, RouteGrad, SumRows};
use amc_kernels::grouped::GroupedDepth;
use amc_kernels::region::Region;

/// Emits the launches of instruction `at`, if it is such an op.
pub(super) fn claim(s: &mut Selector, at: usize, done: &mut [bool]) -> bool {
    let function = s.function;
    let inst = &function.insts[at];
    let (args, results) = (&inst.args[..], &inst.results[..]);
    let Some(op) = inst.op() else { return false };
    match op {
        Op::Route(op) => {
            let (tokens, experts) = rows(function.ty(args[0]));
            let kernel = Route { tokens, experts, k: op.k, normalize: op.normalize }.build(s.target);
            s.launch(kernel, operands(args, results), "route");
        }
        Op::RouteGrad(op) => {
            let ((tokens, experts), (_, k)) = (rows(function.ty(args[0])), rows(function.ty(args[1])));
            let kernel = RouteGrad { tokens, experts, k, normalize: op.normalize }.build(s.target);
            s.launch(kernel, operands(args, results), "route_grad");
        }
        Op::GroupRows(op) => {
            let problem = GroupRows { slots: function.ty(args[0]).len(), groups: op.groups };
            s.launch_steps(problem.steps(s.target), &operands(args, results), "group_rows");
        }
        Op::GatherRows(op) => {
            let ((tokens, width), elem) = (rows(function.ty(args[0])), value_elem(function, args[0]));
            let kernel = Gather { tokens, k: op.k, width, elem }.build(s.target);
            s.launch(kernel, vec![args[0].into(), args[1].into(), results[0].into()], "gather_rows");
        }
        Op::SumRows(op) => {
            let ((tokens, width), elem) = (rows(function.ty(results[0])), value_elem(function, args[0]));
            let kernel = SumRows { tokens, k: op.k, width, elem }.build(s.target);
            s.launch(kernel, vec![args[0].into(), args[2].into(), results[0].into()], "sum_rows");
        }
        Op::GroupedMatmul(_) => {
            let out = value_elem(function, results[0]);
            s.product(at, Region::identity(Elem::F32, out), vec![], vec![results[0].into()], op.name());
        }
        Op::GroupedMatmulGrad(_) => by_matrices(s, at, done),
        _ => return false,
    }
    true
}

/// The gradients of all groups' matrices: added to their states if all of them have one, else in memory of their own.
fn by_matrices(s: &mut Selector, at: usize, done: &mut [bool]) {
    let function = s.function;
    let inst = &function.insts[at];
    let [a, b, offsets] = inst.args[..] else { unreachable!("checked by infer") };
    let accumulate = all_accumulated(function, &s.users, at);
    let results: Vec<Operand> = (0..inst.results.len())
        .map(|k| if accumulate { accumulation(s, at, k, done).0 } else { inst.results[k].into() })
        .collect();
    let ((rows, m), (_, n)) = (rows(function.ty(a)), rows(function.ty(b)));
    let elems = [a, b].map(|value| value_elem(function, value));
    let problem = GroupedDepth { groups: results.len(), rows, m, n, elems, accumulate };
    let kernel = s.target.grouped_depth(&problem);
    s.launch(kernel, [vec![a.into(), b.into(), offsets.into()], results].concat(), op_name(function, at));
}

/// Whether every result of instruction `at` is only accumulated into a state.
pub(super) fn all_accumulated(function: &Function, users: &[Vec<usize>], at: usize) -> bool {
    (0..function.insts[at].results.len()).all(|k| accumulate_of(function, users, at, k).is_some())
}
