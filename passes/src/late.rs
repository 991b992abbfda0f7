//! `late_recompute`: a value that is computed again goes where its operands are read anyway.
//!
//! A backward function begins with cheap values computed again. One that gradients of weights alone read, as a gated activation
//! is by those of the linear behind it, can wait for the elementwise gradients of its own operands. These read the same matrices,
//! most often in the epilogue of the product that makes the gradient which they begin with. There it is one matrix more to store,
//! by itself it would be a launch that reads its operands again. What is better depends on the machine
//! ([`amc_kernels::Machine::recomputes_late`]).
use crate::pass::Context;
use crate::rewrite::reorder;
use crate::select::groups::users;
use crate::{is_elementwise, is_product};
use amc_ir::ops::Op;
use amc_ir::{Function, Module, Value};

/// Moves such values, and the gradients that read them, behind the elementwise gradients of their operands, where that is wanted.
pub fn late_recompute(module: &mut Module, context: &mut Context) {
    if !context.recompute.late {
        return;
    }
    for function in &mut module.functions {
        let users = users(function);
        let moves: Vec<Move> = (0..function.insts.len()).filter_map(|at| Move::of(function, &users, at)).collect();
        moves.iter().for_each(|_| context.fired("late_recompute"));
        let moved = |at: &usize| moves.iter().any(|m| m.insts.contains(at));
        let order = (0..=function.insts.len()).flat_map(|at| {
            let here = moves.iter().filter(move |m| m.before == at).flat_map(|m| m.insts.iter().copied());
            here.chain((at < function.insts.len()).then_some(at).filter(|at| !moved(at)))
        });
        *function = reorder(function, order);
    }
}

/// Instructions that can wait, in order, and the one that they then stand before.
struct Move {
    insts: Vec<usize>,
    before: usize,
}

impl Move {
    /// Of the value that instruction `at` makes.
    fn of(function: &Function, users: &[Vec<usize>], at: usize) -> Option<Move> {
        let inst = &function.insts[at];
        inst.op().filter(|op| is_elementwise(op))?;
        let mut insts = vec![at];
        for user in &users[inst.results[0].index()] {
            insts.push(*user);
            insts.extend(accumulated(function, users, *user)?);
        }
        let gradient = (at + 1..function.insts.len()).find(|later| shares(function, at, *later))?;
        let elementwise = |at: &usize| function.insts[*at].op().is_some_and(is_elementwise);
        let before = (gradient..function.insts.len()).find(|at| !elementwise(at)).unwrap_or(function.insts.len());
        let early = insts[1..].iter().any(|inst| *inst < gradient);
        let results = || insts[1..].iter().flat_map(|inst| &function.insts[*inst].results);
        let used = |value: &Value| users[value.index()].iter().all(|user| *user >= before || insts.contains(user));
        if !early || !results().all(used) {
            return None;
        }
        insts.retain(|inst| *inst < before);
        insts.sort_unstable();
        insts.dedup();
        Some(Move { insts, before })
    }
}

/// The instructions that add the results of instruction `at` to states, if it is the gradient of weights and these are all that use it.
fn accumulated(function: &Function, users: &[Vec<usize>], at: usize) -> Option<Vec<usize>> {
    let inst = function.insts.get(at)?;
    if !matches!(inst.op(), Some(Op::Matmul(_) | Op::GroupedMatmulGrad(_))) {
        return None;
    }
    let adds =
        |user: &usize| function.insts.get(*user).is_some_and(|inst| matches!(inst.op(), Some(Op::Accumulate(_))));
    let all: Vec<usize> = inst.results.iter().flat_map(|result| users[result.index()].iter().copied()).collect();
    all.iter().all(adds).then_some(all)
}

/// Whether instruction `later` makes an elementwise gradient of what a product gives, like the value of `at` in shape, from an operand
/// that this is made from too.
fn shares(function: &Function, at: usize, later: usize) -> bool {
    let like = |value: &Value| function.ty(*value).shape == function.ty(function.insts[at].results[0]).shape;
    let gradient = &function.insts[later];
    if !gradient.op().is_some_and(is_elementwise) || !like(&gradient.results[0]) {
        return false;
    }
    let (ours, theirs) = (operands(function, at), operands(function, later));
    let of_product = |value: &Value| function.op_of(*value).is_some_and(|(op, _)| is_product(op));
    theirs.iter().filter(|v| like(v)).any(of_product) && theirs.iter().any(|v| like(v) && ours.contains(v))
}

/// What an elementwise value is made from that is not elementwise itself.
fn operands(function: &Function, at: usize) -> Vec<Value> {
    let (mut operands, mut seen, mut left) = (vec![], vec![], vec![at]);
    while let Some(at) = left.pop() {
        for arg in &function.insts[at].args {
            match function.def(*arg) {
                _ if seen.contains(arg) => {}
                Some((def, _)) if function.insts[def].op().is_some_and(is_elementwise) => left.push(def),
                _ => operands.push(*arg),
            }
            seen.push(*arg);
        }
    }
    operands
}
