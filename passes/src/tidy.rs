//! `tidy`: algebra, common values, dead instructions. Nothing here makes a graph worse: every rule drops an instruction.
use crate::pass::Context;
use crate::rewrite::{rebuild, retain};
use amc_ir::ops::{Broadcast, Cast, Constant, Mul, Offset, Op, Reshape, Scale};
use amc_ir::{Function, InstKind, Module, Value};
use std::collections::HashMap;

/// A named rewrite of one op: from its new operands to the values that replace its results.
struct Rule {
    name: &'static str,
    apply: fn(&mut Function, &Op, &[Value]) -> Option<Value>,
}

/// Each rule on one line: what it matches, what takes its place.
const RULES: &[Rule] = &[
    Rule { name: "scale_by_one", apply: |_, op, x| matches!(op, Op::Scale(Scale { value: 1.0 })).then(|| x[0]) },
    Rule { name: "offset_by_zero", apply: |_, op, x| matches!(op, Op::Offset(Offset { value: 0.0 })).then(|| x[0]) },
    Rule { name: "mul_by_ones", apply: mul_by_ones },
    Rule { name: "cast_to_itself", apply: cast_to_itself },
    Rule { name: "reshape_to_itself", apply: reshape_to_itself },
    Rule { name: "broadcast_to_itself", apply: broadcast_to_itself },
    Rule { name: "scale_of_scale", apply: scale_of_scale },
];

fn mul_by_ones(g: &mut Function, op: &Op, x: &[Value]) -> Option<Value> {
    let Op::Mul(Mul {}) = op else { return None };
    [(x[0], x[1]), (x[1], x[0])].into_iter().find(|(_, one)| constant(g, *one) == Some(1.0)).map(|(x, _)| x)
}

/// The number in every element of `value`, seen through broadcasts and casts.
pub fn constant(g: &Function, value: Value) -> Option<f32> {
    match g.op_of(value)? {
        (Op::Constant(Constant { value, .. }), _) => Some(*value),
        (Op::Broadcast(_) | Op::Cast(_) | Op::Reshape(_), x) => constant(g, x[0]),
        _ => None,
    }
}

fn cast_to_itself(g: &mut Function, op: &Op, x: &[Value]) -> Option<Value> {
    matches!(op, Op::Cast(Cast { dtype }) if *dtype == g.ty(x[0]).dtype).then(|| x[0])
}

fn reshape_to_itself(g: &mut Function, op: &Op, x: &[Value]) -> Option<Value> {
    matches!(op, Op::Reshape(Reshape { shape }) if *shape == g.ty(x[0]).shape).then(|| x[0])
}

fn broadcast_to_itself(g: &mut Function, op: &Op, x: &[Value]) -> Option<Value> {
    matches!(op, Op::Broadcast(Broadcast { shape }) if *shape == g.ty(x[0]).shape).then(|| x[0])
}

fn scale_of_scale(g: &mut Function, op: &Op, x: &[Value]) -> Option<Value> {
    let Op::Scale(Scale { value: outer }) = op else { return None };
    let (Op::Scale(Scale { value: inner }), below) = g.op_of(x[0])? else { return None };
    let (value, below) = (inner * outer, below[0]);
    Some(g.op(Scale { value }, &[below]))
}

/// Applies [`RULES`] from the first instruction to the last.
pub fn canonicalize(module: &mut Module, context: &mut Context) {
    for function in &mut module.functions {
        *function = rebuild(function, |to, at, args, _| {
            let InstKind::Op(op) = &function.insts[at].kind else { return None };
            RULES
                .iter()
                .find_map(|rule| (rule.apply)(to, op, args).inspect(|_| context.fired(rule.name)))
                .map(|v| vec![v])
        });
    }
}

/// Computes equal instructions once. Updates in place and calls are never merged.
pub fn common_values(module: &mut Module, context: &mut Context) {
    for function in &mut module.functions {
        let mut seen: HashMap<String, Vec<Value>> = HashMap::new();
        *function = rebuild(function, |to, at, args, _| {
            let InstKind::Op(op) = &function.insts[at].kind else { return None };
            if !op.def().in_place().is_empty() {
                return None;
            }
            let key = format!("{op:?} {args:?}");
            if let Some(values) = seen.get(&key) {
                context.fired("common_value");
                return Some(values.clone());
            }
            let values = to.copy(function, at, args);
            seen.insert(key, values.clone());
            Some(values)
        });
    }
}

/// Drops instructions whose results nothing needs.
pub fn dead_values(module: &mut Module, context: &mut Context) {
    for function in &mut module.functions {
        let mut live = vec![false; function.value_count()];
        function.results.iter().for_each(|r| live[r.index()] = true);
        let mut keep = vec![false; function.insts.len()];
        for (at, inst) in function.insts.iter().enumerate().rev() {
            keep[at] = inst.results.iter().any(|r| live[r.index()]);
            if keep[at] {
                inst.args.iter().for_each(|a| live[a.index()] = true);
            } else {
                context.fired("dead_value");
            }
        }
        *function = retain(function, |at| keep[at]);
    }
}
