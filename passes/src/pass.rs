//! Passes as records, and the manager that verifies, times, counts and dumps around them.
use amc_ir::{Bindings, Module};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// One rewrite of a module.
pub struct Pass {
    pub name: &'static str,
    pub doc: &'static str,
    pub run: fn(&mut Module, &mut Context),
}

/// A named group of passes, run in order.
pub struct Phase {
    pub name: &'static str,
    pub doc: &'static str,
    pub passes: &'static [Pass],
}

/// What a pass may read besides the module, and where it counts.
#[derive(Default, Debug)]
pub struct Context {
    pub bindings: Bindings,
    /// Whether gradients are wanted.
    pub train: bool,
    pub recompute: Recompute,
    /// How often each rule fired in the running pass.
    fired: BTreeMap<&'static str, usize>,
}

/// How much of the forward pass the backward pass computes again instead of keeping it. A step gives up some saved
/// values of one layer, those first that free most memory for an operation, and of equal layers the first.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Recompute {
    /// Steps that are wanted; more than there are means all.
    pub wanted: usize,
    /// Whether values computed again wait for the gradients of their operands ([`crate::late`]).
    pub late: bool,
    /// Steps that there are, known once the module is differentiated.
    pub possible: usize,
    /// Operations that the wanted steps add, known then too.
    pub operations: f64,
}

impl Context {
    pub fn new(bindings: Bindings, train: bool) -> Context {
        Context { bindings, train, ..Context::default() }
    }
    /// Counts one application of the rule `name`.
    pub fn fired(&mut self, name: &'static str) {
        *self.fired.entry(name).or_default() += 1;
    }
}

/// What one pass did.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    pub phase: &'static str,
    pub pass: &'static str,
    pub time: Duration,
    pub fired: BTreeMap<&'static str, usize>,
}

/// Runs one pass and verifies what it left; a broken module is our mistake, so it panics with the pass's name.
pub fn run(phase: &'static str, pass: &Pass, module: &mut Module, context: &mut Context) -> Report {
    context.fired.clear();
    let start = Instant::now();
    (pass.run)(module, context);
    if let Err(error) = amc_ir::verify::verify(module) {
        panic!("after pass `{}`: {error}\n{}", pass.name, amc_ir::text::print(module));
    }
    Report { phase, pass: pass.name, time: start.elapsed(), fired: std::mem::take(&mut context.fired) }
}
