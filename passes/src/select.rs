//! `select`: which kernel computes which values.
//!
//! Elementwise ops are gathered into regions: the epilogue of the product that makes one of their operands, or a pointwise
//! kernel. Every other op is claimed by one row of [`claims`]. A value that only lives inside a region has no memory.
mod claims;
pub(crate) mod groups;
mod region;

use crate::packing::{Frozen, Packed, Packings};
use amc_ir::{Function, InstKind, Module, Value};
use amc_kernels::gemm::Gemm;
use amc_kernels::steps::{Slot, Steps};
use amc_kernels::{Code, Kernel, Machine};
use std::collections::HashMap;
use std::ops::Range;

/// Kernels by symbol, each once.
#[derive(Default, Debug)]
pub struct Kernels {
    pub list: Vec<Kernel>,
    by_symbol: HashMap<String, usize>,
}

impl Kernels {
    /// The index of a kernel, which is added if it is new.
    pub fn add(&mut self, kernel: Kernel) -> usize {
        if let Some(index) = self.by_symbol.get(&kernel.symbol) {
            debug_assert_eq!(self.list[*index], kernel, "two kernels have one symbol");
            return *index;
        }
        self.by_symbol.insert(kernel.symbol.clone(), self.list.len());
        self.list.push(kernel);
        self.list.len() - 1
    }
}

/// Memory that a launch reads or writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operand {
    /// `offset` bytes into the memory of a value.
    Value { value: Value, offset: usize },
    /// `offset` bytes into a buffer of this function that no value of the IR stands for.
    Temporary { index: usize, offset: usize },
}

impl Operand {
    /// The operand `bytes` further on.
    pub fn at(self, bytes: usize) -> Operand {
        match self {
            Operand::Value { value, offset } => Operand::Value { value, offset: offset + bytes },
            Operand::Temporary { index, offset } => Operand::Temporary { index, offset: offset + bytes },
        }
    }
}

impl From<Value> for Operand {
    fn from(value: Value) -> Operand {
        Operand::Value { value, offset: 0 }
    }
}

/// Where a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In memory of its own.
    Own,
    /// In the memory of another value, `offset` bytes in: a view, or a state updated in place.
    In { value: Value, offset: usize },
    /// Nowhere: it is computed inside a region.
    Nowhere,
}

/// One step of a selected function.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// `writes` says of every operand whether the kernel writes it.
    Launch {
        kernel: usize,
        operands: Vec<Operand>,
        writes: Vec<bool>,
        /// Operands that the kernel wants packed.
        packed: Vec<Packed>,
        label: String,
    },
    Call {
        callee: usize,
        args: Vec<Value>,
        results: Vec<Value>,
    },
}

/// A function as launches.
#[derive(Clone, PartialEq, Debug)]
pub struct Selected {
    pub steps: Vec<Step>,
    pub places: Vec<Place>,
    /// Bytes of each temporary.
    pub temporaries: Vec<usize>,
}

/// Selects kernels for every function of the module. Products have their `frozen` matrices packed as `packings` allow.
pub fn select(
    module: &Module,
    frozen: &Frozen,
    packings: &Packings,
    target: &dyn Machine,
    kernels: &mut Kernels,
) -> Vec<Selected> {
    let select = |(id, function)| {
        let matrices = Matrices { frozen: frozen.params(id), packings };
        Selector::new(function, matrices, target, kernels).run()
    };
    module.functions.iter().enumerate().map(select).collect()
}

/// What is known of a function's matrices.
struct Matrices<'a> {
    /// Of every parameter, whether it is a frozen tensor in every call.
    frozen: &'a [bool],
    packings: &'a Packings,
}

/// A function on its way to steps.
struct Selector<'a> {
    function: &'a Function,
    matrices: Matrices<'a>,
    target: &'a dyn Machine,
    kernels: &'a mut Kernels,
    /// Instructions that use each value; the function's result counts as one behind the last.
    users: Vec<Vec<usize>>,
    /// The instruction that is being claimed; none while a region is.
    claimed: Option<usize>,
    /// The temporary that products of the vendor's library compute in, one after the other.
    workspace: Option<usize>,
    out: Selected,
}

impl<'a> Selector<'a> {
    fn new(
        function: &'a Function,
        matrices: Matrices<'a>,
        target: &'a dyn Machine,
        kernels: &'a mut Kernels,
    ) -> Selector<'a> {
        let places = vec![Place::Own; function.value_count()];
        let out = Selected { steps: vec![], places, temporaries: vec![] };
        let users = groups::users(function);
        Selector { function, matrices, target, kernels, users, claimed: None, workspace: None, out }
    }

    fn run(mut self) -> Selected {
        let groups = groups::find(self.function);
        for value in &groups.inlined {
            self.out.places[value.index()] = Place::Nowhere;
        }
        let mut done = vec![false; self.function.insts.len()];
        // Which steps compute which instructions.
        let mut computed = vec![];
        for (at, inst) in self.function.insts.iter().enumerate() {
            let (first, done_before) = (self.out.steps.len(), done.clone());
            if let Some(group) = groups.at(at) {
                self.group(group);
            } else if let InstKind::Call(callee) = inst.kind {
                let (args, results) = (inst.args.clone(), inst.results.clone());
                self.out.steps.push(Step::Call { callee: callee.index(), args, results });
            } else if !groups.covers(at) && !done[at] {
                self.claimed = Some(at);
                claims::claim(&mut self, at, &mut done);
                self.claimed = None;
            }
            let along = (at..done.len()).filter(|i| done[*i] && !done_before[*i]);
            let group =
                groups.at(at).map_or(vec![at], |group| group.roots.iter().copied().chain(group.product).collect());
            computed.push((first..self.out.steps.len(), group.into_iter().chain(along).collect()));
        }
        computed.into_iter().for_each(|(steps, insts)| self.note_writes(steps, insts));
        self.out
    }

    /// Notes which operands of `steps` are written: the memory of what the instructions `insts` make, and temporaries.
    fn note_writes(&mut self, steps: Range<usize>, insts: Vec<usize>) {
        let results = insts.iter().flat_map(|at| &self.function.insts[*at].results);
        let made: Vec<Value> = results.map(|result| self.memory_of(*result)).collect();
        for step in steps {
            let Step::Launch { operands, .. } = &self.out.steps[step] else { continue };
            let written = |operand: &Operand| match operand {
                Operand::Value { value, .. } => made.contains(&self.memory_of(*value)),
                Operand::Temporary { .. } => true,
            };
            let found = operands.iter().map(written).collect();
            if let Step::Launch { writes, .. } = &mut self.out.steps[step] {
                *writes = found;
            }
        }
    }

    /// The value in whose memory `value` is.
    fn memory_of(&self, value: Value) -> Value {
        match self.out.places[value.index()] {
            Place::In { value, .. } => self.memory_of(value),
            Place::Own | Place::Nowhere => value,
        }
    }

    /// A new temporary of `bytes`.
    fn temporary(&mut self, bytes: usize) -> Operand {
        self.out.temporaries.push(bytes);
        Operand::Temporary { index: self.out.temporaries.len() - 1, offset: 0 }
    }

    /// At least so many bytes for a product of the vendor's library; the next one of the function has the same.
    fn workspace(&mut self, bytes: usize) -> Operand {
        let temporaries = &mut self.out.temporaries;
        let index = *self.workspace.get_or_insert_with(|| {
            temporaries.push(bytes);
            temporaries.len() - 1
        });
        temporaries[index] = temporaries[index].max(bytes);
        Operand::Temporary { index, offset: 0 }
    }

    /// Launches a kernel on operands in its order.
    fn launch(&mut self, kernel: Kernel, operands: Vec<Operand>, label: &str) {
        self.launch_packed(kernel, operands, vec![], label);
    }

    /// Launches a product, on frozen matrices packed where that is wanted.
    fn launch_product(&mut self, mut product: Gemm, mut operands: Vec<Operand>, label: &str) {
        let mut packed = vec![];
        for term in 0..product.terms.len() {
            let operand = 2 * term + 1;
            if !self.is_frozen(operands[operand]) {
                continue;
            }
            let found =
                self.target.packing(&product, term).filter(|(packing, _)| self.matrices.packings.allow(packing));
            packed.extend(found.map(|(packing, times)| Packed { operand, packing, times }));
        }
        if let Some(steps) = self.target.product_in_parts(&product) {
            return self.launch_steps(steps, &operands, label);
        }
        packed.iter().for_each(|Packed { operand, .. }| product.terms[operand / 2].packed = true);
        let kernel = self.target.product(&product);
        if let Code::Vendor(product) = &kernel.code {
            operands.push(self.workspace(product.workspace_bytes));
        }
        self.launch_packed(kernel, operands, packed, label);
    }

    /// Whether an operand is a frozen tensor from its first byte on.
    fn is_frozen(&self, operand: Operand) -> bool {
        let Operand::Value { value, offset: 0 } = operand else { return false };
        self.matrices.frozen.get(value.index()) == Some(&true)
    }

    fn launch_packed(&mut self, kernel: Kernel, operands: Vec<Operand>, packed: Vec<Packed>, label: &str) {
        let label = self.labelled(&operands, label);
        self.push(kernel, operands, packed, label);
    }

    /// The label of a launch on `operands`.
    fn labelled(&self, operands: &[Operand], label: &str) -> String {
        match self.computed(operands) {
            Some(value) => format!("{}: %{} {label}", self.function.name, value.0),
            None => format!("{}: {label}", self.function.name),
        }
    }

    fn push(&mut self, kernel: Kernel, operands: Vec<Operand>, packed: Vec<Packed>, label: String) {
        let kernel = self.kernels.add(kernel);
        self.out.steps.push(Step::Launch { kernel, operands, writes: vec![], packed, label });
    }

    /// Launches several kernels, between them temporaries of their own.
    fn launch_steps(&mut self, steps: Steps, operands: &[Operand], label: &str) {
        let temporaries: Vec<Operand> = steps.temporaries.iter().map(|bytes| self.temporary(*bytes)).collect();
        let whole = self.labelled(operands, label);
        for (kernel, slots) in steps.launches {
            let operand = |slot: &Slot| match slot {
                Slot::Operand(i) => operands[*i],
                Slot::Temporary(i) => temporaries[*i],
            };
            let operands: Vec<Operand> = slots.iter().map(operand).collect();
            let label = if self.claimed.is_some() { self.labelled(&operands, label) } else { whole.clone() };
            self.push(kernel, operands, vec![], label);
        }
    }

    /// The value that a launch on `operands` works on: its last result; a step on the way to one counts as the claimed
    /// instruction's first.
    fn computed(&self, operands: &[Operand]) -> Option<Value> {
        let mut values = operands.iter().rev().filter_map(|operand| match operand {
            Operand::Value { value, .. } => Some(*value),
            Operand::Temporary { .. } => None,
        });
        let made = |value: &Value| self.function.def(*value).is_some();
        let Some(at) = self.claimed else { return values.find(made) };
        let results = &self.function.insts[at].results;
        values.find(|value| results.contains(value)).or(results.first().copied())
    }

    /// Says that `value` is in the memory of `of`.
    fn place(&mut self, value: Value, of: Value, offset: usize) {
        self.out.places[value.index()] = Place::In { value: of, offset };
    }
}

/// How elements of this type are stored, for a kernel.
pub fn elem(dtype: amc_ir::DType) -> amc_kernels::emit::Elem {
    use amc_ir::DType;
    use amc_kernels::emit::Elem;
    match dtype {
        DType::F32 | DType::LossScale => Elem::F32,
        DType::Bf16 => Elem::Bf16,
        _ => Elem::I32,
    }
}

/// The shape as a matrix: everything but the last axis is rows.
pub fn rows(ty: &amc_ir::Type) -> (usize, usize) {
    let columns = ty.shape.last().copied().unwrap_or(1);
    (ty.len() / columns, columns)
}
