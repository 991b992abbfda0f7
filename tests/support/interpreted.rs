//! A device that interprets PTX: plans for a GPU, run launch by launch on a machine without one.
use amc_artifact::{Arg, Artifact, Plan};
use amc_ptx::{Argument, Kernel, Launch};
use amc_runtime::ModelWeights;
use amc_runtime::device::{Device, Profile, WeightMemory};
use amc_runtime::session::Session;
use anyhow::{Context, Result};
use std::cell::RefCell;

/// A plan's memory and code.
struct Interpreted {
    device: RefCell<amc_ptx::Device>,
    plan: Plan,
    kernels: Vec<Kernel>,
    /// Which of them is each of the plan's.
    entries: Vec<usize>,
    arena: u64,
    constants: u64,
    weights: Vec<u64>,
}

/// A session that interprets the kernels of an artifact for a GPU.
pub fn session(artifact: &Artifact, model: ModelWeights) -> Result<Session> {
    let path = artifact.kernels_path().context("the artifact has no code")?;
    let kernels = amc_ptx::load(&std::fs::read_to_string(path)?)?;
    Session::on_device(artifact.plan.clone(), model, |plan, weights| {
        Ok(Box::new(Interpreted::new(plan, kernels, weights)?))
    })
}

impl Interpreted {
    fn new(plan: &Plan, kernels: Vec<Kernel>, weights: &[WeightMemory]) -> Result<Interpreted> {
        let mut device = amc_ptx::Device::new();
        let find = |symbol: &str| kernels.iter().position(|kernel| kernel.name == symbol);
        let entries = plan.kernels.iter().map(|kernel| find(&kernel.symbol).context("a kernel is not in the PTX"));
        let entries = entries.collect::<Result<_>>()?;
        let arena = device.upload("arena", &vec![0; plan.arena_bytes as usize]);
        let constants = device.upload("constants", &plan.constants);
        let weights = weights.iter().zip(&plan.weights).map(|(memory, weight)| {
            // SAFETY: the session promises so many readable bytes while it lives.
            let bytes = unsafe { std::slice::from_raw_parts(memory.pointer, memory.bytes) };
            device.upload(&weight.name, bytes)
        });
        let weights = weights.collect();
        Ok(Interpreted {
            device: RefCell::new(device),
            plan: plan.clone(),
            kernels,
            entries,
            arena,
            constants,
            weights,
        })
    }

    fn address(&self, arg: Arg) -> Argument {
        Argument::U64(match arg {
            Arg::Arena(offset) => self.arena + offset,
            Arg::Constant(offset) => self.constants + offset,
            Arg::Weight { tensor, offset } => self.weights[tensor as usize] + offset,
        })
    }
}

impl Device for Interpreted {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.device.get_mut().write(self.arena + offset, bytes).expect("inside the arena");
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) {
        let found = self.device.borrow_mut().read(self.arena + offset, bytes.len() as u64);
        bytes.copy_from_slice(&found.expect("inside the arena, which was written as a whole"));
    }

    fn launch(&mut self, program: usize) {
        for launch in &self.plan.programs[program].launches {
            let block = self.plan.kernels[launch.kernel as usize].block.expect("a GPU's kernel has a block");
            let shape = Launch {
                dynamic_shared: block.shared_bytes.into(),
                ..Launch::new([launch.tasks, 1, 1], [block.threads, 1, 1])
            };
            let arguments: Vec<Argument> = launch.args.iter().map(|arg| self.address(*arg)).collect();
            let kernel = &self.kernels[self.entries[launch.kernel as usize]];
            let done = self.device.borrow_mut().launch(kernel, &shape, &arguments);
            done.unwrap_or_else(|error| panic!("{}: {error}", launch.label));
        }
    }

    fn start_profile(&mut self) {}

    fn profile(&self) -> Option<&Profile> {
        None
    }
}
