//! Assembles programs into one artifact plan: trainable state first in the arena, then what the programs share.
mod kernels;
mod modules;
mod packed;
mod place;
mod update;

use crate::memory::{self, align};
use crate::packing::{Frozen, Packings};
use crate::pass::Recompute;
use crate::schedule::{Location, Schedule};
use crate::select::{self, Kernels};
use amc_artifact::{self as artifact, Arg, Plan, Program, ProgramKind, Storage};
use amc_ir::{Binding, Bindings, DType, Module, Type, View};
use amc_kernels::Machine;
use kernels::listed;
use modules::Owners;
use place::place;
use std::collections::BTreeMap;
use update::update_module;

/// Tensors of a flat region start at multiples of this many elements, whatever their storage.
const FLAT_ALIGNMENT: usize = 32;

/// A program before its memory is laid out: the output of the pipeline for one shape.
pub struct Unit {
    pub name: String,
    pub kind: ProgramKind,
    pub batch: usize,
    pub seq: usize,
    pub module: Module,
    pub bindings: Bindings,
    /// Names of the entry's results that are read after a run; states are left out.
    pub outputs: Vec<String>,
    pub recompute: Recompute,
}

/// What the optimizer is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Optimizer {
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    /// AdamW rather than Adam.
    pub decoupled: bool,
}

/// A plan, the kernels it launches, and how well each program's memory is packed.
pub struct Assembled {
    pub plan: Plan,
    pub kernels: Vec<amc_kernels::Kernel>,
    pub memory: Vec<ProgramMemory>,
    /// Bytes of the arena that every program shares: parameters, gradients, moments, caches.
    pub state_bytes: u64,
    /// The update's module, for dumps.
    pub update: Option<Module>,
}

/// Bytes that a program needs beside the trainable state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProgramMemory {
    pub program: String,
    pub bytes: u64,
    /// The largest sum of bytes alive at once.
    pub lower_bound: u64,
}

/// Lays out and schedules the programs; `optimizer` adds the program `update`, `packed_bytes` the program `pack`, which makes
/// copies of frozen matrices that take at most so many bytes more.
pub fn assemble(units: &[Unit], optimizer: Option<Optimizer>, target: &dyn Machine, packed_bytes: u64) -> Assembled {
    let scheduled = |packings| {
        let mut assembler = Assembler::new(units, target, optimizer.is_some(), packings);
        units.iter().for_each(|unit| assembler.unit(unit));
        assembler
    };
    let packings = if packed_bytes == 0 { Packings::none() } else { scheduled(Packings::All).chosen(packed_bytes) };
    let mut assembler = scheduled(packings);
    let update = optimizer.and_then(|optimizer| assembler.update(optimizer));
    assembler.finish(update)
}

/// Where a stored trainable tensor's value, gradient and moments are, in elements of the flat region.
#[derive(Clone, Copy)]
struct Flat {
    /// Byte offset of the value.
    value: u64,
    /// Element offset in the f32 regions.
    element: u64,
}

struct Assembler<'a> {
    target: &'a dyn Machine,
    packings: Packings,
    kernels: Kernels,
    plan: Plan,
    flat: BTreeMap<String, Flat>,
    /// (storage, byte offset of the values, first element, elements) of each storage in use.
    groups: Vec<(Storage, u64, u64, u64)>,
    grads: u64,
    exp_avg: u64,
    exp_avg_sq: u64,
    elements: u64,
    weights: BTreeMap<String, u32>,
    states: BTreeMap<String, u64>,
    persistent: u64,
    /// Schedules whose buffers wait for the end of the persistent region.
    pending: Vec<Pending>,
}

struct Pending {
    program: Program,
    schedule: Schedule,
    inputs: Vec<(String, Type, Location)>,
    outputs: Vec<(String, Type, Location)>,
}

/// How elements are stored in an artifact.
pub fn storage(dtype: DType) -> Storage {
    match dtype {
        DType::F32 | DType::LossScale => Storage::F32,
        DType::Bf16 => Storage::Bf16,
        _ => Storage::I32,
    }
}

fn shape(ty: &Type) -> Vec<u64> {
    ty.shape.iter().map(|s| *s as u64).collect()
}

fn init(init: amc_ir::Init) -> artifact::Init {
    match init {
        amc_ir::Init::Checkpoint => artifact::Init::Checkpoint,
        amc_ir::Init::Zeros => artifact::Init::Zeros,
        amc_ir::Init::XavierNormal => artifact::Init::XavierNormal,
        amc_ir::Init::KaimingUniform => artifact::Init::KaimingUniform,
    }
}

impl<'a> Assembler<'a> {
    fn new(units: &[Unit], target: &'a dyn Machine, trains: bool, packings: Packings) -> Assembler<'a> {
        let mut assembler = Assembler {
            target,
            packings,
            kernels: Kernels::default(),
            plan: Plan::default(),
            flat: BTreeMap::new(),
            groups: vec![],
            grads: 0,
            exp_avg: 0,
            exp_avg_sq: 0,
            elements: 0,
            weights: BTreeMap::new(),
            states: BTreeMap::new(),
            persistent: 0,
            pending: vec![],
        };
        let tensors: BTreeMap<String, amc_ir::BoundTensor> =
            units.iter().flat_map(|u| u.bindings.tensors.clone()).collect();
        assembler.lay_out_trainable(&tensors, trains);
        assembler.list_weights(&tensors);
        assembler
    }

    /// Values by storage, then gradients, then both moments; each a flat region.
    fn lay_out_trainable(&mut self, tensors: &BTreeMap<String, amc_ir::BoundTensor>, trains: bool) {
        let mut order = vec![];
        for wanted in [Storage::F32, Storage::Bf16] {
            let first = self.elements;
            let base = self.persistent;
            let trainable = |t: &amc_ir::BoundTensor| t.trainable && storage(t.ty.dtype) == wanted;
            for (name, tensor) in tensors.iter().filter(|(_, t)| trainable(t)) {
                let value = base + (self.elements - first) * wanted.bytes();
                self.flat.insert(name.clone(), Flat { value, element: self.elements });
                self.elements += tensor.ty.len().next_multiple_of(FLAT_ALIGNMENT) as u64;
                order.push(name.clone());
            }
            if self.elements > first {
                self.groups.push((wanted, base, first, self.elements - first));
            }
            self.persistent = align(base + (self.elements - first) * wanted.bytes());
        }
        let mut region = || {
            let start = self.persistent;
            self.persistent = align(start + if trains { self.elements * 4 } else { 0 });
            start
        };
        (self.grads, self.exp_avg, self.exp_avg_sq) = (region(), region(), region());
        for name in order {
            let (tensor, flat) = (&tensors[&name], self.flat[&name]);
            self.plan.params.push(artifact::Param {
                storage: storage(tensor.ty.dtype),
                shape: shape(&tensor.ty),
                init: init(tensor.init),
                value_offset: flat.value,
                grad_offset: self.grads + flat.element * 4,
                exp_avg_offset: self.exp_avg + flat.element * 4,
                exp_avg_sq_offset: self.exp_avg_sq + flat.element * 4,
                name,
            });
        }
    }

    fn list_weights(&mut self, tensors: &BTreeMap<String, amc_ir::BoundTensor>) {
        for (name, tensor) in tensors.iter().filter(|(_, t)| !t.trainable) {
            self.weights.insert(name.clone(), self.plan.weights.len() as u32);
            let (storage, shape) = (storage(tensor.ty.dtype), shape(&tensor.ty));
            self.plan.weights.push(artifact::WeightTensor {
                name: name.clone(),
                storage,
                shape,
                init: init(tensor.init),
            });
        }
    }

    fn unit(&mut self, unit: &Unit) {
        let mut schedule = Schedule::default();
        let entry = unit.module.entry();
        let mut inputs = vec![];
        let args: Vec<Location> = entry
            .params
            .iter()
            .map(|param| {
                let location = self.param(&mut schedule, &param.name, &param.ty, &unit.bindings);
                if let Some(Binding::Input) = unit.bindings.params.get(&param.name) {
                    inputs.push((param.name.clone(), param.ty.clone(), location));
                }
                location
            })
            .collect();
        let frozen = Frozen::of(&unit.module, &unit.bindings);
        let selected = select::select(&unit.module, &frozen, &self.packings, self.target, &mut self.kernels);
        let results = schedule.add(&unit.module, &selected, &args);
        let types = entry.results.iter().map(|r| entry.ty(*r).clone());
        let outputs = unit.outputs.iter().zip(types).zip(&results).map(|((n, t), l)| (n.clone(), t, *l)).collect();
        let program = Program {
            name: unit.name.clone(),
            kind: unit.kind,
            batch: unit.batch as u64,
            seq: unit.seq as u64,
            inputs: vec![],
            outputs: vec![],
            launches: vec![],
            buffers: vec![],
        };
        self.pending.push(Pending { program, schedule, inputs, outputs });
    }

    fn param(&mut self, schedule: &mut Schedule, name: &str, ty: &Type, bindings: &Bindings) -> Location {
        let binding = bindings.params.get(name).unwrap_or_else(|| panic!("parameter `{name}` is bound to nothing"));
        match binding {
            Binding::Input => schedule.buffer(ty.bytes() as u64, name.into()),
            Binding::Frozen(view) => {
                let tensor = self.weights[&view.tensor];
                Location::Fixed(Arg::Weight {
                    tensor,
                    offset: elements_before(view, bindings) * ty.dtype.bytes() as u64,
                })
            }
            Binding::Trainable(view) => {
                let before = elements_before(view, bindings) * ty.dtype.bytes() as u64;
                Location::Fixed(Arg::Arena(self.flat[&view.tensor].value + before))
            }
            Binding::Gradient(view) => {
                let element = self.flat[&view.tensor].element + elements_before(view, bindings);
                Location::Fixed(Arg::Arena(self.grads + element * 4))
            }
            Binding::State => Location::Fixed(Arg::Arena(self.state(name, ty.bytes() as u64))),
            Binding::Constant(bytes) => Location::Fixed(Arg::Constant(self.constant(bytes))),
        }
    }

    fn state(&mut self, name: &str, bytes: u64) -> u64 {
        if let Some(offset) = self.states.get(name) {
            return *offset;
        }
        let offset = self.persistent;
        self.persistent = align(offset + bytes);
        self.states.insert(name.into(), offset);
        offset
    }

    /// The offset of `bytes` in the constant pool, where equal ones are kept once.
    fn constant(&mut self, bytes: &[u8]) -> u64 {
        let pool = &mut self.plan.constants;
        let step = memory::ALIGNMENT as usize;
        let found = (0..pool.len()).step_by(step).find(|at| pool[*at..].starts_with(bytes));
        found.unwrap_or_else(|| {
            let at = pool.len();
            pool.extend_from_slice(bytes);
            pool.resize(pool.len().next_multiple_of(step), 0);
            at
        }) as u64
    }

    /// The program that clips, steps and clears the gradient, a launch for all parameters of one storage.
    fn update(&mut self, optimizer: Optimizer) -> Option<Module> {
        if self.elements == 0 {
            return None;
        }
        let (module, names) = update_module(&self.groups, self.elements as usize, optimizer);
        let mut schedule = Schedule::default();
        let entry = module.entry();
        let mut inputs = vec![];
        let mut args = vec![];
        for (param, name) in entry.params.iter().zip(&names) {
            let location = match name.split_once('.') {
                Some((region, group)) => {
                    let (_, value, first, _) = self.groups[group.parse::<usize>().expect("a group number")];
                    Location::Fixed(Arg::Arena(match region {
                        "param" => value,
                        "grad" => self.grads + first * 4,
                        "exp_avg" => self.exp_avg + first * 4,
                        _ => self.exp_avg_sq + first * 4,
                    }))
                }
                None if name == "grads" => Location::Fixed(Arg::Arena(self.grads)),
                None => {
                    let location = schedule.buffer(4, name.clone());
                    inputs.push((name.clone(), param.ty.clone(), location));
                    location
                }
            };
            args.push(location);
        }
        let frozen = Frozen::none(&module);
        let selected = select::select(&module, &frozen, &self.packings, self.target, &mut self.kernels);
        let results = schedule.add(&module, &selected, &args);
        let outputs = vec![("grad_norm".to_string(), Type::new(DType::F32, [1]), results[0])];
        let program = Program {
            name: "update".into(),
            kind: ProgramKind::Update,
            batch: 0,
            seq: 0,
            inputs: vec![],
            outputs: vec![],
            launches: vec![],
            buffers: vec![],
        };
        self.pending.push(Pending { program, schedule, inputs, outputs });
        Some(module)
    }

    fn finish(mut self, update: Option<Module>) -> Assembled {
        let owners = Owners::new(&self.plan);
        let copies = self.pack(&owners);
        let base = align(self.persistent);
        let values = self.plan.params.iter().flat_map(|param| [param.value_offset, param.grad_offset]);
        let mut stored: Vec<u64> = values.chain(self.states.values().copied()).collect();
        stored.sort();
        let mut memory = vec![];
        self.plan.arena_bytes = base;
        for pending in std::mem::take(&mut self.pending) {
            let order = (&stored[..], self.target.order());
            let (program, layout) = place(pending, base, order, &owners, (&self.kernels, &copies));
            memory.push(ProgramMemory {
                program: program.name.clone(),
                bytes: layout.bytes,
                lower_bound: layout.lower_bound,
            });
            self.plan.arena_bytes = self.plan.arena_bytes.max(base + layout.bytes);
            self.plan.programs.push(program);
        }
        self.plan.kernels = self.kernels.list.iter().map(listed).collect();
        self.plan.scratch_bytes = align(self.kernels.list.iter().map(|k| k.scratch_bytes).max().unwrap_or(0));
        Assembled { plan: self.plan, kernels: self.kernels.list, memory, state_bytes: base, update }
    }
}

/// Elements of the stored tensor before a view of it.
fn elements_before(view: &View, bindings: &Bindings) -> u64 {
    let ty = &bindings.tensors[&view.tensor].ty;
    let row: usize = ty.shape[1..].iter().product();
    (view.start * row) as u64
}
