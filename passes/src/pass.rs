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
    /// How often each rule fired in the running pass.
    fired: BTreeMap<&'static str, usize>,
}

impl Context {
    pub fn new(bindings: Bindings, train: bool) -> Context {
        Context { bindings, train, fired: BTreeMap::new() }
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
