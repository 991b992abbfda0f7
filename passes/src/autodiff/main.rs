//! Differentiates the entry function: its own ops in place, its calls by split functions.
use super::layer::{self, Class, Differentiated, Split};
use super::partition::rate;
use super::{Cotangents, gradient_name, is_trainable};
use crate::pass::{Context, Recompute};
use amc_ir::ops::Constant;
use amc_ir::{Binding, Bindings, DType, FuncId, Function, InstKind, Module, Value};
use std::collections::HashMap;

/// The module with its entry replaced by forward and backward together. Binds the gradients it adds.
pub fn differentiate(module: &Module, context: &mut Context) -> Module {
    let bindings = &mut context.bindings;
    let entry = super::expanded(module.entry());
    let classes: Vec<Class> = entry
        .params
        .iter()
        .map(|p| if is_trainable(bindings, &p.name) { Class::Trained } else { Class::Fixed })
        .collect();
    let mut state = Differentiation::new(&entry, &classes);
    bind_gradients(&entry, &classes, bindings);
    state.choose_rungs(module, &entry, &mut context.recompute);
    state.forward(module, &entry);
    state.backward(&entry);
    state.finish(&entry, &classes)
}

fn bind_gradients(entry: &Function, classes: &[Class], bindings: &mut Bindings) {
    for (param, _) in entry.params.iter().zip(classes).filter(|(_, class)| **class == Class::Trained) {
        let Some(Binding::Trainable(view)) = bindings.params.get(&param.name).cloned() else { continue };
        bindings.params.insert(gradient_name(&param.name), Binding::Gradient(view));
    }
}

/// A call of the old entry and the split it became.
struct Called {
    split: usize,
    args: Vec<Value>,
    results: Vec<Value>,
    saved: Vec<Value>,
}

/// A function, and what its operands are.
type Pattern = (FuncId, Vec<Class>);

struct Differentiation {
    out: Module,
    main: Function,
    active: Vec<bool>,
    map: Vec<Option<Value>>,
    differentiated: HashMap<Pattern, Differentiated>,
    /// By instruction of the entry: how far up its ladder a call goes.
    rungs: Vec<usize>,
    splits: Vec<(Split, FuncId, FuncId)>,
    by_pattern: HashMap<(Pattern, usize), usize>,
    /// Functions that need no gradient, copied once.
    copied: HashMap<FuncId, FuncId>,
    calls: Vec<Option<Called>>,
    sums: Cotangents,
}

impl Differentiation {
    fn new(entry: &Function, classes: &[Class]) -> Differentiation {
        let mut main = entry.rebuild();
        let mut states = vec![];
        for (i, param) in entry.params.iter().enumerate().filter(|(i, _)| classes[*i] == Class::Trained) {
            states.push((i, main.param(gradient_name(&param.name), param.ty.with_dtype(DType::F32))));
        }
        let mut map = vec![None; entry.value_count()];
        (0..entry.params.len()).for_each(|i| map[i] = Some(Value::new(i)));
        let mut sums = Cotangents::new(0);
        sums.states = vec![None; main.params.len()];
        states.into_iter().for_each(|(i, state)| sums.states[i] = Some(state));
        let active = layer::activity(entry, classes, entry.insts.len());
        Differentiation {
            out: Module::default(),
            main,
            active,
            map,
            differentiated: HashMap::new(),
            rungs: vec![0; entry.insts.len()],
            splits: vec![],
            by_pattern: HashMap::new(),
            copied: HashMap::new(),
            calls: vec![],
            sums,
        }
    }

    fn mapped(&self, values: &[Value]) -> Vec<Value> {
        values.iter().map(|v| self.map[v.index()].expect("operands precede users")).collect()
    }

    /// What the operands of a call in the entry are.
    fn classes(&self, entry: &Function, args: &[Value]) -> Vec<Class> {
        let class = |v: &Value| match () {
            () if !self.active[v.index()] => Class::Fixed,
            () if v.index() < entry.params.len() => Class::Trained,
            () => Class::Active,
        };
        args.iter().map(class).collect()
    }

    /// Differentiates every called function, and decides for each call what is computed again.
    fn choose_rungs(&mut self, module: &Module, entry: &Function, recompute: &mut Recompute) {
        let mut steps: Vec<(f64, usize, usize, f64)> = vec![];
        for (at, inst) in entry.insts.iter().enumerate() {
            let InstKind::Call(callee) = inst.kind else { continue };
            let classes = self.classes(entry, &inst.args);
            if classes.iter().all(|class| *class == Class::Fixed) {
                continue;
            }
            let made = || Differentiated::new(module.function(callee), &classes);
            let ladder = &self.differentiated.entry((callee, classes.clone())).or_insert_with(made).ladder;
            for (rung, pair) in ladder.windows(2).enumerate() {
                let operations = pair[1].operations - pair[0].operations;
                steps.push((rate(&pair[0], &pair[1]), at, rung + 1, operations));
            }
        }
        // The first layers give up first: when the backward pass comes to them, the others' values are gone.
        steps.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        recompute.possible = steps.len();
        for (_, at, rung, operations) in steps.into_iter().take(recompute.wanted) {
            self.rungs[at] = self.rungs[at].max(rung);
            recompute.operations += operations;
        }
    }

    fn forward(&mut self, module: &Module, entry: &Function) {
        for (at, inst) in entry.insts.iter().enumerate() {
            let args = self.mapped(&inst.args);
            let (results, called) = match inst.kind {
                InstKind::Op(_) => (self.main.copy(entry, at, &args), None),
                InstKind::Call(callee) => {
                    let pattern = (callee, self.classes(entry, &inst.args));
                    self.forward_call(module.function(callee), pattern, self.rungs[at], &args)
                }
            };
            for (old, new) in inst.results.iter().zip(results) {
                self.map[old.index()] = Some(new);
            }
            self.calls.push(called);
        }
    }

    fn forward_call(
        &mut self,
        function: &Function,
        pattern: Pattern,
        rung: usize,
        args: &[Value],
    ) -> (Vec<Value>, Option<Called>) {
        if pattern.1.iter().all(|class| *class == Class::Fixed) {
            let out = &mut self.out;
            let copy = *self.copied.entry(pattern.0).or_insert_with(|| out.add(function.clone()));
            return (self.main.call(&self.out, copy, args), None);
        }
        let split = self.split(pattern, rung);
        let all = self.main.call(&self.out, self.splits[split].1, args);
        let (results, saved) = all.split_at(function.results.len());
        let called = Called { split, args: args.to_vec(), results: results.to_vec(), saved: saved.to_vec() };
        (results.to_vec(), Some(called))
    }

    fn split(&mut self, pattern: Pattern, rung: usize) -> usize {
        let key = (pattern, rung);
        if let Some(split) = self.by_pattern.get(&key) {
            return *split;
        }
        let variant = self.by_pattern.keys().filter(|((id, _), _)| *id == key.0.0).count();
        let suffix = if variant == 0 { String::new() } else { format!(".{variant}") };
        let split = self.differentiated[&key.0].split(rung, &suffix);
        let (forward, backward) = (self.out.add(split.forward.clone()), self.out.add(split.backward.clone()));
        self.splits.push((split, forward, backward));
        self.by_pattern.insert(key, self.splits.len() - 1);
        self.splits.len() - 1
    }

    fn backward(&mut self, entry: &Function) {
        let forward_insts = self.main.insts.len();
        let mut active = vec![false; self.main.value_count()];
        for (old, new) in self.map.iter().enumerate() {
            if let Some(new) = new {
                active[new.index()] |= self.active[old];
            }
        }
        self.sums.sums = vec![None; self.main.value_count()];
        self.sums.states.resize(self.main.value_count(), None);
        let loss = self.mapped(&entry.results)[0];
        let ty = self.main.ty(loss).clone();
        let one = self.main.op(Constant { value: 1.0, dtype: ty.dtype, shape: ty.shape }, &[]);
        self.sums.sums[loss.index()] = Some(one);
        for at in (0..forward_insts).rev() {
            match self.calls[at].take() {
                Some(called) => self.backward_call(&called, &active),
                None => layer::backward_op(&mut self.main, at, &active, &mut self.sums),
            }
        }
    }

    fn backward_call(&mut self, called: &Called, active: &[bool]) {
        let cotangents: Vec<Option<Value>> = called.results.iter().map(|r| self.sums.sums[r.index()]).collect();
        if cotangents.iter().all(Option::is_none) {
            return;
        }
        let (split, _, backward) = &self.splits[called.split];
        let mut args: Vec<Value> = split.kept.iter().map(|i| called.args[*i]).collect();
        args.extend(&called.saved);
        for (result, d) in called.results.iter().zip(cotangents) {
            let ty = self.main.ty(*result).clone();
            let zeros = |main: &mut Function| main.op(Constant { value: 0.0, dtype: ty.dtype, shape: ty.shape }, &[]);
            args.push(d.unwrap_or_else(|| zeros(&mut self.main)));
        }
        let is_state = |v: &Value| self.sums.states[v.index()].is_some();
        let (trained, others): (Vec<Value>, Vec<Value>) = called.args.iter().partition(|v| is_state(v));
        args.extend(trained.iter().map(|v| self.sums.states[v.index()].expect("a state")));
        let results = self.main.call(&self.out, *backward, &args);
        let wanted: Vec<Value> = others.into_iter().filter(|v| active[v.index()]).collect();
        let (gradients, states) = results.split_at(wanted.len());
        for (value, d) in wanted.iter().zip(gradients) {
            self.sums.add(&mut self.main, *value, *d);
        }
        for (value, state) in trained.iter().zip(states) {
            self.sums.states[value.index()] = Some(*state);
        }
    }

    fn finish(mut self, entry: &Function, classes: &[Class]) -> Module {
        let mut results = self.mapped(&entry.results);
        let trained = (0..entry.params.len()).filter(|i| classes[*i] == Class::Trained);
        results.extend(trained.map(|i| self.sums.states[i].expect("a trained parameter has a state")));
        self.main.results = results;
        self.out.add(self.main);
        self.out
    }
}
