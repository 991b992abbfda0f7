//! `fuse`: values that one kernel computes together become one op.
use crate::pass::Context;
use crate::rewrite::{Map, rebuild};
use amc_ir::ops::{LayerNormGrad, LayerNormGradAdd, Matmul, MatmulSum, Op, RmsNormGrad, RmsNormGradAdd};
use amc_ir::{Function, Module, Value};

/// `linear_cross_entropy(x, …)` beside `linear_cross_entropy_grad(x, …)`: the gradient's first result is the loss.
/// The loss is only returned, never used by an instruction, so it may come later.
pub fn share_loss(module: &mut Module, context: &mut Context) {
    for function in &mut module.functions {
        let find = |wanted: &[Value]| {
            function.insts.iter().find(|i| matches!(i.op(), Some(Op::LinearCrossEntropyGrad(_))) && i.args == wanted)
        };
        let losses: Vec<(Value, Value)> = function
            .insts
            .iter()
            .filter(|i| matches!(i.op(), Some(Op::LinearCrossEntropy(_))))
            .filter_map(|i| find(&i.args).map(|grad| (i.results[0], grad.results[0])))
            .filter(|(loss, _)| function.insts.iter().all(|i| !i.args.contains(loss)))
            .collect();
        for (loss, shared) in losses {
            context.fired("share_loss");
            function.results.iter_mut().filter(|r| **r == loss).for_each(|r| *r = shared);
        }
    }
}

/// `add(rms_norm_grad(x, w, dy), d)` where the gradient has no other use becomes `rms_norm_grad_add`; so does a layer norm's.
pub fn norm_residual(module: &mut Module, context: &mut Context) {
    for function in &mut module.functions {
        let uses = function.use_counts();
        *function = rebuild(function, |to, at, _, map| {
            let inst = &function.insts[at];
            let Some(Op::Add(_)) = inst.op() else { return None };
            let sides = [(inst.args[0], inst.args[1]), (inst.args[1], inst.args[0])];
            sides.into_iter().find_map(|(norm, other)| {
                let (op, args) = function.op_of(norm)?;
                let joined = grad_add(op)?;
                if uses[norm.index()] != 1 || norm == other {
                    return None;
                }
                context.fired("norm_residual");
                let mut args = map.all(args);
                args.push(map.get(other));
                Some(to.push(joined, &args))
            })
        });
    }
}

/// The gradient of a norm that is added to something, for one that is not.
fn grad_add(op: &Op) -> Option<Op> {
    match *op {
        Op::RmsNormGrad(RmsNormGrad { eps, plus_one }) => Some(RmsNormGradAdd { eps, plus_one }.into()),
        Op::LayerNormGrad(LayerNormGrad { eps, plus_one }) => Some(LayerNormGradAdd { eps, plus_one }.into()),
        _ => None,
    }
}

/// A tree of `add` over products that have no other use becomes one `matmul_sum`. A product stored wider than the sum
/// keeps its own rounding out of it, which only makes the sum better.
pub fn matmul_sum(module: &mut Module, context: &mut Context) {
    for function in &mut module.functions {
        let uses = function.use_counts();
        let inner = inner_sums(function, &uses);
        *function = rebuild(function, |to, at, _, map| {
            let inst = &function.insts[at];
            let Some(Op::Add(_)) = inst.op() else { return None };
            if inner[at] {
                return None;
            }
            let terms = terms(function, &uses, inst.results[0], true)?;
            if terms.len() < 2 {
                return None;
            }
            context.fired("matmul_sum");
            let sum = MatmulSum {
                ta: terms.iter().map(|t| t.0.ta).collect(),
                tb: terms.iter().map(|t| t.0.tb).collect(),
                dtype: function.ty(inst.results[0]).dtype,
            };
            Some(to.push(sum, &operands(&terms, map)))
        });
    }
}

type Term<'a> = (&'a Matmul, &'a [Value]);

/// The products under a tree of adds, or `None` where a leaf is none or is used elsewhere too.
fn terms<'a>(function: &'a Function, uses: &[usize], value: Value, root: bool) -> Option<Vec<Term<'a>>> {
    if !root && uses[value.index()] != 1 {
        return None;
    }
    match function.op_of(value)? {
        (Op::Matmul(matmul), args) => Some(vec![(matmul, args)]),
        (Op::Add(_), args) => {
            let mut all = terms(function, uses, args[0], false)?;
            all.extend(terms(function, uses, args[1], false)?);
            Some(all)
        }
        _ => None,
    }
}

/// Adds whose only user is an add that becomes a sum itself.
fn inner_sums(function: &Function, uses: &[usize]) -> Vec<bool> {
    let mut inner = vec![false; function.insts.len()];
    for inst in function.insts.iter().rev() {
        if !matches!(inst.op(), Some(Op::Add(_))) || terms(function, uses, inst.results[0], true).is_none() {
            continue;
        }
        for arg in &inst.args {
            if let Some((at, _)) = function.def(*arg) {
                inner[at] = matches!(function.insts[at].op(), Some(Op::Add(_)));
            }
        }
    }
    inner
}

fn operands(terms: &[Term], map: &Map) -> Vec<Value> {
    terms.iter().flat_map(|(_, args)| map.all(args)).collect()
}
