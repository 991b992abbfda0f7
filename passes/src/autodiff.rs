//! `train`: reverse-mode differentiation of the entry function, with a forward and a backward function per kind of layer.
//!
//! Invariants:
//! - Nothing is computed for a value that no trained parameter reaches, and no gradient is made for a frozen weight.
//! - A trained parameter `p` gets a parameter `grad:p` (f32); each contribution is accumulated into it as soon as it is
//!   known, and the last state is a result of the entry function, after the loss, in the order of the parameters.
//! - A backward function recomputes cheap values whose operands it has anyway, and as many others as the context asks
//!   for; the rest is saved by the forward one.
mod layer;
mod main;
mod partition;

use crate::pass::Context;
use amc_ir::ops::{Accumulate, Add, Cast};
use amc_ir::{Binding, DType, Function, Module, Value};

/// Differentiates the module's entry where gradients are wanted.
pub fn run(module: &mut Module, context: &mut Context) {
    if context.train {
        *module = main::differentiate(module, context);
    }
}

/// The name of the gradient of parameter `name`.
pub fn gradient_name(name: &str) -> String {
    format!("grad:{name}")
}

/// Whether the entry's parameter `name` is trained.
fn is_trainable(context: &amc_ir::Bindings, name: &str) -> bool {
    matches!(context.params.get(name), Some(Binding::Trainable(_)))
}

/// Where the cotangents of a function under construction are gathered.
struct Cotangents {
    /// By value: the sum so far.
    sums: Vec<Option<Value>>,
    /// By value: the state of a trained parameter.
    states: Vec<Option<Value>>,
}

impl Cotangents {
    fn new(values: usize) -> Cotangents {
        Cotangents { sums: vec![None; values], states: vec![None; values] }
    }

    /// Adds `d` to the cotangent of `value`: into its state if it is a trained parameter.
    fn add(&mut self, g: &mut Function, value: Value, d: Value) {
        let at = value.index();
        if let Some(state) = self.states[at] {
            self.states[at] = Some(g.op(Accumulate {}, &[state, d]));
            return;
        }
        let d = to_dtype(g, d, g.ty(value).dtype);
        self.sums[at] = Some(match self.sums[at] {
            None => d,
            Some(sum) => g.op(Add {}, &[sum, d]),
        });
    }
}

fn to_dtype(g: &mut Function, value: Value, dtype: DType) -> Value {
    if g.ty(value).dtype == dtype { value } else { g.op(Cast { dtype }, &[value]) }
}

/// The function with every composite that has no gradient of its own replaced by its expansion.
fn expanded(function: &Function) -> Function {
    crate::rewrite::rebuild(function, |to, at, args, _| {
        let op = function.insts[at].op()?;
        if has_gradient(op, function, at) { None } else { op.def().expand(to, args) }
    })
}

/// Whether the op gives cotangents itself. Asked on a scratch copy, since the answer is graph-building code.
fn has_gradient(op: &amc_ir::Op, function: &Function, at: usize) -> bool {
    let mut scratch = function.clone();
    let inst = &function.insts[at];
    let cotangents: Vec<Option<Value>> = inst.results.iter().map(|r| Some(*r)).collect();
    let needs = vec![false; inst.args.len()];
    let at = amc_ir::op::Vjp { args: &inst.args, results: &inst.results, cotangents: &cotangents, needs: &needs };
    op.def().vjp(&mut scratch, &at).is_some()
}
