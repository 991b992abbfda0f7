//! One row per op that is not elementwise: which kernels compute it.
mod experts;
mod loss;
mod state;

use super::{Operand, Selector, elem, rows};
use amc_ir::{DType, Function, Op, Type, Value};
use amc_kernels::emit::Elem;
use amc_kernels::heads::Heads;
use amc_kernels::norm::Kind;
use amc_kernels::region::Region;
use amc_kernels::{norm, reduce, rope};

/// Emits the launches of instruction `at`. Instructions that it computes along the way are marked in `done`.
pub(super) fn claim(s: &mut Selector, at: usize, done: &mut [bool]) {
    let function = s.function;
    let inst = &function.insts[at];
    let op = inst.op().expect("calls are steps of their own");
    let (args, results) = (&inst.args[..], &inst.results[..]);
    match op {
        Op::Matmul(_) | Op::MatmulSum(_) => {
            let out = elem(function.ty(results[0]).dtype);
            s.product(at, Region::identity(Elem::F32, out), vec![], vec![results[0].into()], op.name());
        }
        Op::Reshape(_) => s.place(results[0], args[0], 0),
        Op::Rows(rows) => {
            let ty = function.ty(results[0]);
            let row: usize = ty.shape[1..].iter().product();
            s.place(results[0], args[0], rows.start * row * ty.dtype.bytes());
        }
        Op::RmsNorm(op) => {
            let (rows, n) = rows(function.ty(args[0]));
            let (elem, weight) = (value_elem(function, args[0]), value_elem(function, args[1]));
            let kernel = norm::RmsNorm { rows, n, eps: op.eps, plus_one: op.plus_one, residual: false, elem, weight }
                .build(s.target);
            s.launch(kernel, operands(args, results), "rms_norm");
        }
        Op::LayerNorm(op) => {
            let (rows, n) = rows(function.ty(args[0]));
            let (elem, weight) = (value_elem(function, args[0]), value_elem(function, args[1]));
            let bias = args.get(2).map(|bias| value_elem(function, *bias));
            let kernel = norm::LayerNorm { rows, n, eps: op.eps, plus_one: op.plus_one, elem, weight, bias };
            s.launch(kernel.build(s.target), operands(args, results), "layer_norm");
        }
        Op::RmsNormGrad(op) => norm_grad(s, at, Kind::Rms, op.eps, op.plus_one, false),
        Op::RmsNormGradAdd(op) => norm_grad(s, at, Kind::Rms, op.eps, op.plus_one, true),
        Op::LayerNormGrad(op) => norm_grad(s, at, Kind::Layer, op.eps, op.plus_one, false),
        Op::LayerNormGradAdd(op) => norm_grad(s, at, Kind::Layer, op.eps, op.plus_one, true),
        Op::RmsNormGradWeight(op) => norm_grad_weight(s, at, Kind::Rms, op.eps, done),
        Op::LayerNormGradWeight(op) => norm_grad_weight(s, at, Kind::Layer, op.eps, done),
        Op::Rope(op) => {
            let (tokens, width) = rows(function.ty(args[0]));
            let (positions, half) = rows(function.ty(args[2]));
            let kernel = rope::Rope {
                tokens,
                heads: op.heads,
                head_dim: width / op.heads,
                first: op.first,
                rotary_dim: 2 * half,
                positions,
                neighbours: op.neighbours,
                inverse: op.inverse,
                elem: value_elem(function, args[0]),
            };
            s.launch(kernel.build(s.target), operands(args, results), "rope");
        }
        Op::SplitHeads(op) => {
            let (tokens, _) = rows(function.ty(args[0]));
            let elem = value_elem(function, args[0]);
            let heads = Heads { tokens, heads: op.heads, sizes: op.sizes.clone(), shared: op.shared, elem };
            s.launch(heads.split(s.target), operands(args, results), "split_heads");
        }
        Op::JoinHeads(op) => {
            let last = args.len() - 1;
            let width = |(i, part): (usize, &Value)| {
                rows(function.ty(*part)).1 / if op.shared && i == last { 1 } else { op.heads }
            };
            let sizes = args.iter().enumerate().map(width).collect();
            let (tokens, elem) = (rows(function.ty(args[0])).0, value_elem(function, args[0]));
            let heads = Heads { tokens, heads: op.heads, sizes, shared: op.shared, elem };
            s.launch(heads.join(s.target), operands(args, results), "join_heads");
        }
        Op::SumTo(_) => sum_to(s, at, done),
        op if !experts::claim(s, at, done) => state::claim(s, at, op, done),
        _ => {}
    }
}

fn value_elem(function: &Function, value: Value) -> Elem {
    elem(function.ty(value).dtype)
}

fn op_name(function: &Function, at: usize) -> &'static str {
    function.insts[at].op().map_or("call", |op| op.name())
}

/// Arguments, then results.
fn operands(args: &[Value], results: &[Value]) -> Vec<Operand> {
    args.iter().chain(results).map(|v| (*v).into()).collect()
}

fn norm_grad(s: &mut Selector, at: usize, kind: Kind, eps: f32, plus_one: bool, add: bool) {
    let inst = &s.function.insts[at];
    let (rows, n) = rows(s.function.ty(inst.args[0]));
    let (elem, weight) = (value_elem(s.function, inst.args[0]), value_elem(s.function, inst.args[1]));
    let kernel = norm::NormGrad { rows, n, kind, eps, plus_one, add, elem, weight }.build(s.target);
    s.launch(kernel, operands(&inst.args, &inst.results), op_name(s.function, at));
}

fn norm_grad_weight(s: &mut Selector, at: usize, kind: Kind, eps: f32, done: &mut [bool]) {
    let args = s.function.insts[at].args.clone();
    let (rows, n) = rows(s.function.ty(args[0]));
    let (to, accumulate) = accumulation(s, at, 0, done);
    let elem = value_elem(s.function, args[0]);
    let grad = norm::NormGradWeight { rows, n, kind, eps, accumulate, elem };
    let partials = s.temporary(grad.parts(s.target) * n * 4);
    let name = op_name(s.function, at);
    s.launch(grad.build(s.target), vec![args[0].into(), args[1].into(), partials], name);
    s.launch_steps(grad.finish(s.target), &[partials, to], name);
}

/// Sums down to one row are column sums; sums down to one number are the sum of column sums; sums down to one column are
/// row sums.
fn sum_to(s: &mut Selector, at: usize, done: &mut [bool]) {
    let function = s.function;
    let inst = &function.insts[at];
    let (from, to) = (function.ty(inst.args[0]), function.ty(inst.results[0]));
    let (m, n) = rows(from);
    let elem = elem(from.dtype);
    if to.dtype != DType::F32 {
        panic!("no kernel sums {from} down to {to}: sums are stored as f32");
    }
    if to.len() == n && to.shape.last() == Some(&n) {
        let (to, accumulate) = accumulation(s, at, 0, done);
        let steps = s.target.column_sum(&reduce::ColumnSum { rows: m, n, stride: n, elem, accumulate });
        s.launch_steps(steps, &[inst.args[0].into(), to], "sum_to");
    } else if to.len() == 1 {
        let columns = s.temporary(n * 4);
        let steps = s.target.column_sum(&reduce::ColumnSum { rows: m, n, stride: n, elem, accumulate: false });
        s.launch_steps(steps, &[inst.args[0].into(), columns], "sum_to");
        s.launch(reduce::Sum { n }.build(s.target), vec![columns, inst.results[0].into()], "sum_to");
    } else if sums_rows(from, to) {
        s.row_sum(at);
    } else {
        panic!("no kernel sums {from} down to {to}");
    }
}

/// Whether a sum has one number for each of several rows. It computes what it sums itself, where that is elementwise.
pub(super) fn sums_rows(from: &Type, to: &Type) -> bool {
    to.len() == rows(from).0 && to.shape.last() == Some(&1) && to.len() > 1
}

/// Result `k` of instruction `at` where it is only accumulated into a state that is known before: that `accumulate`.
/// `users` are the instructions that use each value.
fn accumulate_of(function: &Function, users: &[Vec<usize>], at: usize, k: usize) -> Option<usize> {
    let result = function.insts[at].results[k];
    let [found] = users[result.index()][..] else { return None };
    let inst = function.insts.get(found)?;
    let ready = || function.def(inst.args[0]).is_none_or(|(def, _)| def < at);
    (matches!(inst.op(), Some(Op::Accumulate(_))) && inst.args[1] == result && ready()).then_some(found)
}

/// Whether the `accumulate` at `at` is done by the kernel that makes its operand.
pub(super) fn accumulates_itself(function: &Function, users: &[Vec<usize>], at: usize) -> bool {
    let Some((def, k)) = function.def(function.insts[at].args[1]) else { return false };
    let able = match function.insts[def].op() {
        Some(Op::RmsNormGradWeight(_) | Op::LayerNormGradWeight(_) | Op::EmbeddingGrad(_)) => true,
        Some(Op::SumTo(op)) => op.shape.last() == function.ty(function.insts[def].args[0]).shape.last(),
        Some(Op::LinearCrossEntropyGrad(_)) => k >= 2,
        Some(Op::GroupedMatmulGrad(_)) => experts::all_accumulated(function, users, def),
        _ => false,
    };
    able && accumulate_of(function, users, def, k) == Some(at)
}

/// Where result `k` of instruction `at` goes, and whether it is added there: into the state that it is accumulated into,
/// or into memory of its own.
fn accumulation(s: &mut Selector, at: usize, k: usize, done: &mut [bool]) -> (Operand, bool) {
    let result = s.function.insts[at].results[k];
    match accumulate_of(s.function, &s.users, at, k) {
        None => (result.into(), false),
        Some(add) => {
            let inst = &s.function.insts[add];
            done[add] = true;
            s.out.places[result.index()] = super::Place::Nowhere;
            s.place(inst.results[0], inst.args[0], 0);
            (inst.args[0].into(), true)
        }
    }
}
