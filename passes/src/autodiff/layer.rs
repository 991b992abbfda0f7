//! The forward and backward function of a called function, for one pattern of what its operands are.
use super::Cotangents;
use super::partition::Partition;
use amc_ir::op::Vjp;
use amc_ir::ops::Constant;
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

/// A function whose parameters are of given classes, and the ways to divide it.
pub struct Differentiated {
    function: Function,
    joint: Function,
    /// From saving most to computing most again.
    pub ladder: Vec<Partition>,
}

impl Differentiated {
    pub fn new(function: &Function, classes: &[Class]) -> Differentiated {
        let function = super::expanded(function);
        let (joint, forward_insts) = joint(&function, classes);
        let ladder = Partition::ladder(&joint, forward_insts);
        Differentiated { function, joint, ladder }
    }

    /// The halves that a rung of the ladder gives; `suffix` tells them from others'.
    pub fn split(&self, rung: usize, suffix: &str) -> Split {
        let (function, partition) = (&self.function, &self.ladder[rung]);
        let mut forward = function.clone();
        forward.name = format!("{}.forward{suffix}", function.name);
        forward.results.extend(partition.saved(function, &self.joint));
        let (mut backward, kept) = partition.backward(function, &self.joint);
        backward.name = format!("{}.backward{suffix}", function.name);
        Split { forward, backward, kept }
    }
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
