//! What a backward function is handed by the forward one, and what it computes again.
//!
//! A partition begins with cheap values computed again where their operands are at hand anyway. From there every step up
//! the ladder gives up one saved value more, the one that frees most bytes for an operation; steps that a later one beats
//! are left out, so that bytes for an operation only fall along the ladder.
use amc_ir::ops::Op;
use amc_ir::{Function, Value};

/// One division of the joint function.
#[derive(Clone)]
pub struct Partition {
    /// By instruction of the joint function: whether the backward function holds it.
    inside: Vec<bool>,
    /// Values of the joint function that the forward function hands over, in order.
    saved: Vec<Value>,
    /// Bytes of them.
    pub bytes: u64,
    /// Operations that the forward and the backward function both do, beyond those of the cheap values.
    pub operations: f64,
}

impl Partition {
    /// From saving most to saving least.
    pub fn ladder(joint: &Function, forward_insts: usize) -> Vec<Partition> {
        let mut ladder: Vec<Partition> = vec![];
        let mut next = Some(Partition::first(joint, forward_insts));
        while let Some(partition) = next {
            next = partition.step(joint);
            while let [.., a, b] = &ladder[..]
                && rate(a, b) <= rate(b, &partition)
            {
                ladder.pop();
            }
            ladder.push(partition);
        }
        ladder
    }

    /// Cheap values are computed again, all others saved.
    fn first(joint: &Function, forward_insts: usize) -> Partition {
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
            if wanted && is_cheap(joint, at, &needed) {
                inside[at] = true;
                mark(&inst.args, &mut needed);
            }
        }
        let made_outside = |v: &Value| joint.def(*v).is_some_and(|(at, _)| !inside[at]);
        let saved: Vec<Value> =
            (0..joint.value_count()).map(Value::new).filter(|v| needed[v.index()] && made_outside(v)).collect();
        let bytes = bytes(joint, &saved);
        Partition { inside, saved, bytes, operations: 0.0 }
    }

    /// The partition that saves one value less; `None` where nothing is saved.
    fn step(&self, joint: &Function) -> Option<Partition> {
        let steps = self.saved.iter().map(|v| self.without(joint, *v));
        steps.max_by(|a, b| rate(self, a).total_cmp(&rate(self, b)))
    }

    /// This partition with `value` computed again, from parameters and other saved values.
    fn without(&self, joint: &Function, value: Value) -> Partition {
        let mut next = self.clone();
        let mut wanted = vec![value];
        while let Some(value) = wanted.pop() {
            let Some((at, _)) = joint.def(value) else { continue };
            if next.inside[at] {
                continue;
            }
            next.inside[at] = true;
            next.operations += joint.operations(at);
            let at_hand = |v: &&Value| !self.saved.contains(v);
            wanted.extend(joint.insts[at].args.iter().filter(at_hand));
        }
        next.saved.retain(|v| joint.def(*v).is_some_and(|(at, _)| !next.inside[at]));
        next.bytes = bytes(joint, &next.saved);
        next
    }

    /// What is saved, as values of the original function, whose parameters are the first of the joint one's.
    pub fn saved(&self, function: &Function, joint: &Function) -> Vec<Value> {
        let shift = joint.params.len() - function.params.len();
        self.saved.iter().map(|v| Value::new(v.index() - shift)).collect()
    }

    /// The backward function, and which parameters of the original it takes.
    pub fn backward(&self, function: &Function, joint: &Function) -> (Function, Vec<usize>) {
        let mut used = vec![false; joint.value_count()];
        let inside = || joint.insts.iter().enumerate().filter(|(at, _)| self.inside[*at]);
        inside().flat_map(|(_, inst)| &inst.args).chain(&joint.results).for_each(|a| used[a.index()] = true);
        let kept: Vec<usize> = (0..function.params.len()).filter(|i| used[*i]).collect();
        let mut g = Function::new("backward");
        let mut map: Vec<Option<Value>> = vec![None; joint.value_count()];
        for &i in &kept {
            map[i] = Some(g.param(function.params[i].name.clone(), function.params[i].ty.clone()));
        }
        for (i, v) in self.saved.iter().enumerate() {
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

/// Bytes freed for each operation on the way from one partition to another.
pub fn rate(from: &Partition, to: &Partition) -> f64 {
    (from.bytes as f64 - to.bytes as f64) / (to.operations - from.operations).max(1.0)
}

fn bytes(joint: &Function, values: &[Value]) -> u64 {
    values.iter().map(|v| joint.ty(*v).bytes() as u64).sum()
}

/// Whether instruction `at` and those that it needs beyond values at hand cost no more than reading saved values back.
fn is_cheap(joint: &Function, at: usize, needed: &[bool]) -> bool {
    let at_hand = |a: &Value| {
        let made_cheaply = || joint.def(*a).is_some_and(|(at, _)| is_cheap(joint, at, needed));
        a.index() < joint.params.len() || needed[a.index()] || made_cheaply()
    };
    let inst = &joint.insts[at];
    inst.op().is_some_and(cheap) && inst.args.iter().all(at_hand)
}

fn cheap(op: &Op) -> bool {
    let row_by_row = matches!(op, Op::RmsNorm(_) | Op::LayerNorm(_));
    let moved = matches!(op, Op::Reshape(_) | Op::Rows(_) | Op::GatherRows(_) | Op::DeriveSeed(_));
    crate::is_elementwise(op) || row_by_row || moved
}
