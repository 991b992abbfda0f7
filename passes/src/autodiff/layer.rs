//! The forward and backward function of a called function, for one pattern of what its operands are.
use super::Cotangents;
use amc_ir::op::Vjp;
use amc_ir::ops::{Constant, Op};
use amc_ir::{Function, InstKind, Value};

/// What an operand is to differentiation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// No trained parameter reaches it.
    Fixed,
    /// Its cotangent is wanted.
    Active,
    /// A trained parameter: contributions go to its state.
    Trained,
}

/// A function split in two.
pub struct Split {
    /// Same parameters; results are those of the original, then what is saved.
    pub forward: Function,
    /// Parameters: `kept` parameters of the original, what was saved, a cotangent per result, a state per trained
    /// parameter. Results: cotangents of the active parameters, then the new states.
    pub backward: Function,
    /// Which parameters of the original the backward function takes.
    pub kept: Vec<usize>,
}

/// Differentiates `function`, whose parameters are of the given classes; `suffix` tells its halves from others'.
pub fn split(function: &Function, classes: &[Class], suffix: &str) -> Split {
    let function = super::expanded(function);
    let (joint, forward_insts) = joint(&function, classes);
    let plan = Partition::new(&function, &joint, forward_insts);
    let mut forward = function.clone();
    forward.name = format!("{}.forward{suffix}", function.name);
    forward.results.extend(&plan.saved);
    let (mut backward, kept) = plan.backward(&function, &joint);
    backward.name = format!("{}.backward{suffix}", function.name);
    Split { forward, backward, kept }
}

/// Forward and backward in one function, and how many instructions are forward ones. Its parameters are those of
/// `function`, a cotangent per result, a state per trained parameter.
fn joint(function: &Function, classes: &[Class]) -> (Function, usize) {
    let mut g = Function::new("joint");
    for param in &function.params {
        g.param(param.name.clone(), param.ty.clone());
    }
    let cotangents: Vec<Value> =
        function.results.iter().enumerate().map(|(i, r)| g.param(format!("d{i}"), function.ty(*r).clone())).collect();
    let trained = || (0..classes.len()).filter(|i| classes[*i] == Class::Trained);
    let states: Vec<Value> = trained()
        .map(|i| {
            let param = &function.params[i];
            g.param(super::gradient_name(&param.name), param.ty.with_dtype(amc_ir::DType::F32))
        })
        .collect();
    let shift = g.params.len() - function.params.len();
    let moved = |v: Value| if v.index() < function.params.len() { v } else { Value::new(v.index() + shift) };
    for (at, inst) in function.insts.iter().enumerate() {
        let args: Vec<Value> = inst.args.iter().map(|a| moved(*a)).collect();
        g.copy(function, at, &args);
    }
    let forward_insts = g.insts.len();
    let mut sums = Cotangents::new(g.value_count());
    trained().zip(&states).for_each(|(i, state)| sums.states[i] = Some(*state));
    for (result, d) in function.results.iter().zip(&cotangents) {
        sums.add(&mut g, moved(*result), *d);
    }
    let active = activity(&g, classes, forward_insts);
    for at in (0..forward_insts).rev() {
        backward_op(&mut g, at, &active, &mut sums);
    }
    let wanted = (0..classes.len()).filter(|i| classes[*i] == Class::Active);
    let mut results: Vec<Value> = vec![];
    for i in wanted {
        results.push(sums.sums[i].unwrap_or_else(|| zeros(&mut g, Value::new(i))));
    }
    results.extend(trained().map(|i| sums.states[i].expect("a trained parameter has a state")));
    g.results = results;
    (g, forward_insts)
}

fn zeros(g: &mut Function, like: Value) -> Value {
    let ty = g.ty(like).clone();
    g.op(Constant { value: 0.0, dtype: ty.dtype, shape: ty.shape }, &[])
}

/// Which values a trained parameter or an active operand reaches.
pub fn activity(g: &Function, classes: &[Class], insts: usize) -> Vec<bool> {
    let mut active = vec![false; g.value_count()];
    classes.iter().enumerate().for_each(|(i, class)| active[i] = *class != Class::Fixed);
    for inst in &g.insts[..insts] {
        if inst.args.iter().any(|a| active[a.index()]) {
            inst.results.iter().for_each(|r| active[r.index()] = g.ty(*r).dtype.is_float());
        }
    }
    active
}

/// Appends the cotangents of the operands of instruction `at`.
pub fn backward_op(g: &mut Function, at: usize, active: &[bool], sums: &mut Cotangents) {
    let inst = g.insts[at].clone();
    let InstKind::Op(op) = &inst.kind else { return };
    let cotangents: Vec<Option<Value>> = inst.results.iter().map(|r| sums.sums[r.index()]).collect();
    let needs: Vec<bool> = inst.args.iter().map(|a| active[a.index()]).collect();
    if cotangents.iter().all(Option::is_none) || !needs.contains(&true) {
        return;
    }
    let place = Vjp { args: &inst.args, results: &inst.results, cotangents: &cotangents, needs: &needs };
    let gradients = op.def().vjp(g, &place).unwrap_or_else(|| panic!("`{}` has no gradient", op.name()));
    for ((arg, gradient), needed) in inst.args.iter().zip(gradients).zip(&needs) {
        if let (Some(d), true) = (gradient, needed) {
            sums.add(g, *arg, d);
        }
    }
}

/// What the backward function saves and what it computes again.
struct Partition {
    /// Values of the original function, in order.
    saved: Vec<Value>,
    /// By instruction of the joint function: whether the backward function holds it.
    inside: Vec<bool>,
    saved_joint: Vec<Value>,
}

impl Partition {
    fn new(function: &Function, joint: &Function, forward_insts: usize) -> Partition {
        let shift = joint.params.len() - function.params.len();
        let mut inside: Vec<bool> = (0..joint.insts.len()).map(|at| at >= forward_insts).collect();
        let mut needed = vec![false; joint.value_count()];
        let mark = |args: &[Value], needed: &mut Vec<bool>| args.iter().for_each(|a| needed[a.index()] = true);
        for inst in &joint.insts[forward_insts..] {
            mark(&inst.args, &mut needed);
        }
        mark(&joint.results, &mut needed);
        for at in (0..forward_insts).rev() {
            let inst = &joint.insts[at];
            let wanted = inst.results.iter().any(|r| needed[r.index()]);
            let at_hand =
                |a: &Value| a.index() < joint.params.len() || needed[a.index()] || is_cheap(joint, *a, &needed);
            if wanted && cheap(inst.op()) && inst.args.iter().all(at_hand) {
                inside[at] = true;
                mark(&inst.args, &mut needed);
            }
        }
        let made_outside = |v: &Value| joint.def(*v).is_some_and(|(at, _)| !inside[at]);
        let saved_joint: Vec<Value> =
            (0..joint.value_count()).map(Value::new).filter(|v| needed[v.index()] && made_outside(v)).collect();
        let saved = saved_joint.iter().map(|v| Value::new(v.index() - shift)).collect();
        Partition { saved, inside, saved_joint }
    }

    fn backward(&self, function: &Function, joint: &Function) -> (Function, Vec<usize>) {
        let mut used = vec![false; joint.value_count()];
        let inside = || joint.insts.iter().enumerate().filter(|(at, _)| self.inside[*at]);
        inside().flat_map(|(_, inst)| &inst.args).chain(&joint.results).for_each(|a| used[a.index()] = true);
        let kept: Vec<usize> = (0..function.params.len()).filter(|i| used[*i]).collect();
        let mut g = Function::new("backward");
        let mut map: Vec<Option<Value>> = vec![None; joint.value_count()];
        for &i in &kept {
            map[i] = Some(g.param(function.params[i].name.clone(), function.params[i].ty.clone()));
        }
        for (i, v) in self.saved_joint.iter().enumerate() {
            map[v.index()] = Some(g.param(format!("saved{i}"), joint.ty(*v).clone()));
        }
        for (slot, param) in map.iter_mut().zip(&joint.params).skip(function.params.len()) {
            *slot = Some(g.param(param.name.clone(), param.ty.clone()));
        }
        let at = |map: &[Option<Value>], v: &Value| map[v.index()].expect("operands precede users");
        for (i, inst) in inside() {
            let args: Vec<Value> = inst.args.iter().map(|a| at(&map, a)).collect();
            for (old, new) in inst.results.iter().zip(g.copy(joint, i, &args)) {
                map[old.index()] = Some(new);
            }
        }
        g.results = joint.results.iter().map(|r| at(&map, r)).collect();
        (g, kept)
    }
}

/// Whether `value` can be had from values at hand by cheap ops alone.
fn is_cheap(joint: &Function, value: Value, needed: &[bool]) -> bool {
    joint.def(value).is_some_and(|(at, _)| {
        let inst = &joint.insts[at];
        let at_hand = |a: &Value| a.index() < joint.params.len() || needed[a.index()] || is_cheap(joint, *a, needed);
        cheap(inst.op()) && inst.args.iter().all(at_hand)
    })
}

/// Ops that cost no more than reading a saved value back.
fn cheap(op: Option<&Op>) -> bool {
    let Some(op) = op else { return false };
    crate::is_elementwise(op) || matches!(op, Op::RmsNorm(_) | Op::Reshape(_) | Op::Rows(_) | Op::DeriveSeed(_))
}
