//! Gathers elementwise ops into groups: what one launch computes.
//!
//! An elementwise value is *material* where something reads it from memory: an op that is not elementwise (but for a
//! sum along rows, which computes it), a call, a broadcast, the function's result. Material values are the roots of
//! regions; the others are computed wherever a root needs them. A root joins the product (`matmul`, `matmul_sum`,
//! `grouped_matmul`) that makes one of its operands, unless something needs that product, or what the root's group
//! already made, before the root.
use super::rows;
use crate::{is_elementwise, is_product};
use amc_ir::{Function, Op, Value};
use std::collections::{HashMap, HashSet};

/// Most operands that one launch takes; more would only spill registers.
const MOST_OPERANDS: usize = 16;

/// Roots computed together.
#[derive(Debug)]
pub struct Group {
    /// The instruction of the product whose epilogue this is.
    pub product: Option<usize>,
    /// Instructions of the roots, in order; the group is launched at the last one.
    pub roots: Vec<usize>,
}

/// All groups of a function.
pub struct Groups {
    groups: Vec<Group>,
    by_position: HashMap<usize, usize>,
    covered: HashSet<usize>,
    /// Values that need no memory.
    pub inlined: Vec<Value>,
}

impl Groups {
    /// The group that is launched at instruction `at`.
    pub fn at(&self, at: usize) -> Option<&Group> {
        self.by_position.get(&at).map(|i| &self.groups[*i])
    }
    /// Whether instruction `at` is computed by some group, elsewhere or not at all.
    pub fn covers(&self, at: usize) -> bool {
        self.covered.contains(&at)
    }
}

struct Finder<'a> {
    function: &'a Function,
    /// Instructions that use each value; the function's result counts as one behind the last.
    users: Vec<Vec<usize>>,
    material: Vec<bool>,
    consumed: HashSet<Value>,
    groups: Vec<Group>,
}

/// Finds the groups of a function.
pub fn find(function: &Function) -> Groups {
    let mut finder = Finder::new(function);
    for at in 0..function.insts.len() {
        if finder.is_root(at) {
            finder.place_root(at);
        }
    }
    finder.finish()
}

fn fusible(op: Option<&Op>) -> bool {
    op.is_some_and(|op| is_elementwise(op) || matches!(op, Op::Accumulate(_)))
}

impl<'a> Finder<'a> {
    fn new(function: &'a Function) -> Finder<'a> {
        let users = users(function);
        let material = (0..users.len()).map(|v| users[v].iter().any(|at| reads_memory(function, *at, v))).collect();
        let states = |inst: &amc_ir::Inst| {
            let consumed = inst.op().map_or(&[][..], |op| op.def().in_place());
            consumed.iter().map(|(_, i)| inst.args[*i]).collect::<Vec<_>>()
        };
        let consumed = function.insts.iter().flat_map(states).collect();
        Finder { function, users, material, consumed, groups: vec![] }
    }

    fn is_root(&self, at: usize) -> bool {
        let inst = &self.function.insts[at];
        match inst.op() {
            Some(Op::Accumulate(_)) => !self.claimed_by_producer(at),
            op => fusible(op) && self.material[inst.results[0].index()],
        }
    }

    /// Whether the op that makes the accumulated value adds into the state itself.
    fn claimed_by_producer(&self, at: usize) -> bool {
        super::claims::accumulates_itself(self.function, &self.users, at)
    }

    /// Values read by the region of root `at`: everything that is not computed inside.
    fn leaves(&self, at: usize) -> Vec<Value> {
        let mut leaves = vec![];
        self.gather(at, &mut leaves);
        leaves.sort();
        leaves.dedup();
        leaves
    }

    fn gather(&self, at: usize, leaves: &mut Vec<Value>) {
        let inst = &self.function.insts[at];
        let broadcast = matches!(inst.op(), Some(Op::Broadcast(_)));
        for arg in &inst.args {
            match self.function.def(*arg) {
                Some((def, _)) if self.inline(*arg, broadcast) => self.gather(def, leaves),
                _ => leaves.push(*arg),
            }
        }
    }

    /// Whether the region of root `at` reads one of these values behind a broadcast, so from memory, where it has to be by then.
    fn broadcasts(&self, at: usize, values: &[Value]) -> bool {
        let inst = &self.function.insts[at];
        let broadcast = matches!(inst.op(), Some(Op::Broadcast(_)));
        inst.args.iter().any(|arg| match self.function.def(*arg) {
            Some((def, _)) if self.inline(*arg, broadcast) => self.broadcasts(def, values),
            _ => broadcast && values.contains(arg),
        })
    }

    /// Whether a region computes `value` itself. Behind a broadcast only a constant is computed.
    fn inline(&self, value: Value, broadcast: bool) -> bool {
        if broadcast {
            return crate::tidy::constant(self.function, value).is_some();
        }
        self.function.op_of(value).is_some_and(|(op, _)| is_elementwise(op)) && !self.material[value.index()]
    }

    fn shape(&self, at: usize) -> (usize, usize) {
        rows(self.function.ty(self.function.insts[at].results[0]))
    }

    fn place_root(&mut self, at: usize) {
        let leaves = self.leaves(at);
        if let Some(group) = (0..self.groups.len()).rev().take(4).find(|g| self.joins(*g, at, &leaves)) {
            self.groups[group].roots.push(at);
            return;
        }
        let product = leaves.iter().rev().find_map(|leaf| self.product_for(at, *leaf));
        self.groups.push(Group { product, roots: vec![at] });
    }

    /// The product that makes `leaf`, if root `at` can be its epilogue.
    fn product_for(&self, at: usize, leaf: Value) -> Option<usize> {
        let (def, _) = self.function.def(leaf)?;
        let inst = &self.function.insts[def];
        let free = !self.groups.iter().any(|g| g.product == Some(def));
        let late = self.users[leaf.index()].iter().all(|user| self.waits(*user, &[], at));
        let stable = inst.args.iter().all(|a| !self.consumed.contains(a));
        let fits = inst.op().is_some_and(is_product) && self.shape(def) == self.shape(at);
        (fits && free && late && stable).then_some(def)
    }

    /// Whether instruction `user` can wait until instruction `at`, when `roots` are computed.
    fn waits(&self, user: usize, roots: &[usize], at: usize) -> bool {
        user >= at || roots.contains(&user) || self.passed_on(user, |next| self.waits(next, roots, at))
    }

    /// Whether instruction `user` is computed inside the regions of these roots and nowhere else.
    fn inside(&self, user: usize, roots: &[usize]) -> bool {
        roots.contains(&user) || self.passed_on(user, |next| self.inside(next, roots))
    }

    /// Whether `user` needs no memory for its result, and `holds` is true of all that use it.
    fn passed_on(&self, user: usize, holds: impl Fn(usize) -> bool) -> bool {
        let Some(inst) = self.function.insts.get(user) else { return false };
        let elementwise = inst.op().is_some_and(is_elementwise) && !self.material[inst.results[0].index()];
        elementwise && self.users[inst.results[0].index()].iter().all(|next| holds(*next))
    }

    /// Whether root `at` can be launched with group `g`: same shape, a shared operand, and nothing in between needs
    /// what the group makes.
    fn joins(&self, g: usize, at: usize, leaves: &[Value]) -> bool {
        let group = &self.groups[g];
        if self.shape(group.roots[0]) != self.shape(at)
            || matches!(self.function.insts[at].op(), Some(Op::Accumulate(_)))
        {
            return false;
        }
        let made: Vec<Value> = group
            .roots
            .iter()
            .chain(&group.product)
            .flat_map(|root| self.function.insts[*root].results.iter().copied())
            .collect();
        if self.broadcasts(at, &made) {
            return false;
        }
        let theirs: Vec<Value> = group.roots.iter().flat_map(|root| self.leaves(*root)).collect();
        let shares = leaves.iter().any(|l| (theirs.contains(l) || made.contains(l)) && self.function.ty(*l).len() > 1);
        let waits = made.iter().flat_map(|v| &self.users[v.index()]).all(|user| self.waits(*user, &group.roots, at));
        let accumulates =
            group.roots.iter().any(|root| matches!(self.function.insts[*root].op(), Some(Op::Accumulate(_))));
        shares && waits && !accumulates && theirs.len() + leaves.len() + made.len() < MOST_OPERANDS
    }

    fn finish(self) -> Groups {
        let mut covered: HashSet<usize> = HashSet::new();
        let mut inlined = vec![];
        for (at, inst) in self.function.insts.iter().enumerate() {
            if fusible(inst.op()) && !self.is_root(at) && !matches!(inst.op(), Some(Op::Accumulate(_))) {
                covered.insert(at);
                inlined.push(inst.results[0]);
            }
        }
        let by_position = self.groups.iter().enumerate().map(|(i, g)| (*g.roots.last().expect("a root"), i)).collect();
        for group in &self.groups {
            covered.extend(&group.roots);
            if let Some(product) = group.product {
                covered.insert(product);
                let value = self.function.insts[product].results[0];
                if self.users[value.index()].iter().all(|user| self.inside(*user, &group.roots)) {
                    inlined.push(value);
                }
            }
        }
        Groups { groups: self.groups, by_position, covered, inlined }
    }
}

/// Instructions that use each value; the function's result counts as one behind the last.
pub fn users(function: &Function) -> Vec<Vec<usize>> {
    let mut users = vec![vec![]; function.value_count()];
    for (at, inst) in function.insts.iter().enumerate() {
        inst.args.iter().for_each(|a| users[a.index()].push(at));
    }
    function.results.iter().for_each(|r| users[r.index()].push(function.insts.len()));
    users
}

/// Whether user `at` of value `v` needs it in memory.
fn reads_memory(function: &Function, at: usize, v: usize) -> bool {
    let Some(inst) = function.insts.get(at) else { return true };
    match inst.op() {
        Some(Op::Broadcast(_)) => crate::tidy::constant(function, Value::new(v)).is_none(),
        Some(Op::Accumulate(_)) => inst.args[0].index() == v,
        Some(Op::SumTo(_)) => !super::claims::sums_rows(function.ty(inst.args[0]), function.ty(inst.results[0])),
        op => !fusible(op),
    }
}
