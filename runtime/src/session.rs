//! A plan loaded on a device: run its programs, fill and read its ports, look at its parameters.
use crate::device::{CpuDevice, CudaDevice, Device, Library, NullDevice, Profile, Symbols, cuda, missing_features};
use crate::element::{self, Element};
use crate::params;
use crate::weights::{Frozen, ModelWeights};
use amc_artifact::memory::RunMemory;
use amc_artifact::{Artifact, Init, Param, Plan, Port, Program, ProgramKind, Storage, TargetKind, tensor_bytes};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};

/// How to open a session.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// Threads that share the work; all cores where not given.
    pub threads: Option<usize>,
    /// The model folder, where it is not the one that the recipe names.
    pub model: Option<PathBuf>,
}

/// A loaded plan.
pub struct Session {
    // Fields are dropped in this order: the device reads memory that the two below it own.
    device: Box<dyn Device>,
    _frozen: Frozen,
    model: ModelWeights,
    plan: Plan,
    planned: RunMemory,
}

/// A program of a session's plan, by index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProgramId(usize);

impl ProgramId {
    /// Its place among the plan's programs.
    pub(crate) fn index(self) -> usize {
        self.0
    }
}

/// What belongs to a parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    Value,
    Gradient,
    ExpAvg,
    ExpAvgSq,
}

impl Part {
    /// Where it is in the arena and how it is stored.
    pub fn of(self, param: &Param) -> (u64, Storage) {
        match self {
            Part::Value => (param.value_offset, param.storage),
            Part::Gradient => (param.grad_offset, Storage::F32),
            Part::ExpAvg => (param.exp_avg_offset, Storage::F32),
            Part::ExpAvgSq => (param.exp_avg_sq_offset, Storage::F32),
        }
    }
}

impl Session {
    /// Loads an artifact: checks this machine and the model's hashes, maps or copies the weights, loads the code. Parameters
    /// are zero until [`Session::initialise`] or a checkpoint fills them.
    pub fn open(artifact: &Artifact, options: &SessionOptions) -> Result<Session> {
        let plan = artifact.plan.clone();
        match artifact.header.target.kind {
            TargetKind::Cpu => {
                check_cpu(artifact)?;
                let model = open_model(artifact, options)?;
                // SAFETY: `Artifact::open` compared the file with its hash, and `check_cpu` its instructions with this CPU.
                let library = unsafe { Library::open(&code(artifact)?)? };
                Session::with_symbols(plan, Box::new(library), model, options.threads)
            }
            TargetKind::Cuda => Session::on_gpu(artifact, plan, options),
            TargetKind::Null => {
                plan.validate()?;
                let planned = RunMemory::of(&plan, options.threads.unwrap_or_else(default_threads))?;
                let device = Box::new(NullDevice::new(&plan));
                Ok(Session { device, _frozen: Frozen::default(), model: ModelWeights::none(), plan, planned })
            }
        }
    }

    fn on_gpu(artifact: &Artifact, plan: Plan, options: &SessionOptions) -> Result<Session> {
        // First, because hashing the model may take minutes.
        cuda::ensure_runs(&artifact.header.target.cpu)?;
        let model = open_model(artifact, options)?;
        let path = code(artifact)?;
        let ptx = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // SAFETY: `Artifact::open` compared the file with its hash; the compiler made it for this plan.
        let device = unsafe { CudaDevice::new(&plan, &ptx, &artifact.header.target.cpu, &model)? };
        let planned = device.planned_memory();
        Ok(Session { device: Box::new(device), _frozen: Frozen::default(), model, plan, planned })
    }

    /// Loads a plan whose kernels come from a table of functions.
    pub fn with_symbols(
        plan: Plan,
        symbols: Box<dyn Symbols>,
        model: ModelWeights,
        threads: Option<usize>,
    ) -> Result<Session> {
        plan.validate()?;
        let frozen = model.frozen(&plan)?;
        model.release();
        let threads = threads.unwrap_or_else(default_threads);
        let planned = RunMemory::of(&plan, threads)?;
        // SAFETY: `frozen` has a row for every frozen tensor, of the checked size, in memory that the session keeps.
        let device = unsafe { CpuDevice::new(&plan, symbols, &frozen.memory, threads)? };
        let mut session = Session { device: Box::new(device), _frozen: frozen, model, plan, planned };
        session.pack()?;
        Ok(session)
    }

    /// Makes the packed copies of frozen matrices, and gives back the memory of those that were read for it.
    fn pack(&mut self) -> Result<()> {
        let packs = |(index, program): (usize, &Program)| (program.kind == ProgramKind::Pack).then_some(index);
        let programs: Vec<usize> = self.plan.programs.iter().enumerate().filter_map(packs).collect();
        for program in programs {
            self.device.launch(program)?;
            self.model.release();
        }
        Ok(())
    }

    /// Gives every parameter its first value: from the checkpoint, zero, or random under the seed. Moments and gradients
    /// are zero already. A device that forgets what is written needs no checkpoint for it.
    pub fn initialise(&mut self, seed: u64) -> Result<()> {
        if !self.device.remembers() {
            return Ok(());
        }
        params::initialise(&self.plan, self.device.as_mut(), &self.model, seed)
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The checkpoint that frozen tensors are mapped from.
    pub fn model(&self) -> &ModelWeights {
        &self.model
    }

    /// The program of that name.
    pub fn program(&self, name: &str) -> Result<ProgramId> {
        let found = self.plan.program(name).map(|(index, _)| ProgramId(index));
        let names: Vec<_> = self.plan.programs.iter().map(|program| program.name.as_str()).collect();
        found.with_context(|| format!("there is no program `{name}`; the plan has {}", names.join(", ")))
    }

    /// All programs, in the plan's order.
    pub fn programs(&self) -> impl Iterator<Item = (ProgramId, &Program)> {
        self.plan.programs.iter().enumerate().map(|(index, program)| (ProgramId(index), program))
    }

    /// Runs a program from start to end.
    pub fn run(&mut self, program: ProgramId) -> Result<()> {
        self.device.launch(program.0)
    }

    /// What the plan runs on, in a line.
    pub fn device(&self) -> String {
        self.device.describe()
    }

    /// Memory that the run was planned to take.
    pub fn planned_memory(&self) -> RunMemory {
        self.planned
    }

    /// Most bytes that the run has had so far of that memory.
    pub fn peak_memory(&self) -> u64 {
        self.device.peak_memory()
    }

    /// Measures every launch from now on.
    pub fn start_profile(&mut self) -> Result<()> {
        self.device.start_profile()
    }

    /// What was measured; `None` where nothing is.
    pub fn profile(&self) -> Option<&Profile> {
        self.device.profile()
    }

    /// The input of that name.
    pub fn input(&self, program: ProgramId, name: &str) -> Result<&Port> {
        let program = &self.plan.programs[program.0];
        find_port(&program.inputs, name).with_context(|| format!("program `{}` has no input `{name}`", program.name))
    }

    /// The output of that name.
    pub fn output(&self, program: ProgramId, name: &str) -> Result<&Port> {
        let program = &self.plan.programs[program.0];
        find_port(&program.outputs, name).with_context(|| format!("program `{}` has no output `{name}`", program.name))
    }

    /// Fills an input; the number and type of the values must be the port's.
    pub fn write<T: Element>(&mut self, program: ProgramId, name: &str, values: &[T]) -> Result<()> {
        let offset = checked_port::<T>(self.input(program, name)?, values.len())?;
        self.device.write(offset, element::bytes(values))
    }

    /// Reads an output into `values`; their number and type must be the port's.
    pub fn read_into<T: Element>(&self, program: ProgramId, name: &str, values: &mut [T]) -> Result<()> {
        let offset = checked_port::<T>(self.output(program, name)?, values.len())?;
        self.device.read(offset, element::bytes_mut(values))
    }

    /// Reads an output as f32, whatever it is stored as.
    pub fn read(&self, program: ProgramId, name: &str) -> Result<Vec<f32>> {
        let port = self.output(program, name)?;
        let mut bytes = vec![0; tensor_bytes(port.storage, &port.shape)? as usize];
        self.device.read(port.offset, &mut bytes)?;
        Ok(element::widen(port.storage, &bytes))
    }

    /// The parameter of that name.
    pub fn param(&self, name: &str) -> Result<&Param> {
        let found = self.plan.params.iter().find(|param| param.name == name);
        found.with_context(|| format!("there is no parameter `{name}`"))
    }

    /// Reads a parameter's value, gradient or moment as f32.
    pub fn read_param(&self, name: &str, part: Part) -> Result<Vec<f32>> {
        let param = self.param(name)?;
        let (offset, storage) = part.of(param);
        let mut bytes = vec![0; tensor_bytes(storage, &param.shape)? as usize];
        self.device.read(offset, &mut bytes)?;
        Ok(element::widen(storage, &bytes))
    }

    /// Writes a parameter's value, gradient or moment, rounded to how it is stored.
    pub fn write_param(&mut self, name: &str, part: Part, values: &[f32]) -> Result<()> {
        let param = self.param(name)?;
        let wanted: u64 = param.shape.iter().product();
        ensure!(values.len() as u64 == wanted, "`{name}` has {wanted} elements, {} were given", values.len());
        let (offset, storage) = part.of(param);
        self.device.write(offset, &element::narrow(storage, values))
    }

    /// Fills a port whose offset and type were checked before.
    pub(crate) fn write_at<T: Element>(&mut self, offset: u64, values: &[T]) -> Result<()> {
        self.device.write(offset, element::bytes(values))
    }

    /// Reads a number whose offset and type were checked before.
    pub(crate) fn read_f32_at(&self, offset: u64) -> Result<f32> {
        let mut value = [0.0];
        self.device.read(offset, element::bytes_mut(&mut value))?;
        Ok(value[0])
    }

    /// Copies bytes out of the arena.
    pub(crate) fn read_bytes(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.device.read(offset, bytes)
    }

    /// Copies bytes into the arena.
    pub(crate) fn write_bytes(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.device.write(offset, bytes)
    }
}

/// Every core.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |threads| threads.get())
}

fn find_port<'a>(ports: &'a [Port], name: &str) -> Option<&'a Port> {
    ports.iter().find(|port| port.name == name)
}

fn checked_port<T: Element>(port: &Port, count: usize) -> Result<u64> {
    let wanted: u64 = port.shape.iter().product();
    ensure!(port.storage == T::STORAGE, "port `{}` holds {:?}, not {:?}", port.name, port.storage, T::STORAGE);
    ensure!(count as u64 == wanted, "port `{}` holds {wanted} elements, not {count}", port.name);
    Ok(port.offset)
}

/// The file with the artifact's code.
fn code(artifact: &Artifact) -> Result<PathBuf> {
    artifact.kernels_path().context("the artifact has no code")
}

fn check_cpu(artifact: &Artifact) -> Result<()> {
    let target = &artifact.header.target;
    let missing = missing_features(&target.features);
    ensure!(
        missing.is_empty(),
        "the artifact was compiled for {}, which has {}; this CPU has not: run `amc compile` on this machine, or with \
         `--target` for a CPU like it",
        target.cpu,
        missing.join(", ")
    );
    Ok(())
}

fn open_model(artifact: &Artifact, options: &SessionOptions) -> Result<ModelWeights> {
    let plan = &artifact.plan;
    let inits = plan.weights.iter().map(|weight| &weight.init).chain(plan.params.iter().map(|param| &param.init));
    if !inits.into_iter().any(|init| *init == Init::Checkpoint) {
        return Ok(ModelWeights::drawn(artifact.run.as_ref().map_or(0, |run| run.seed)));
    }
    let folder = model_folder(artifact, options)?;
    verify_files(artifact, &folder)?;
    ModelWeights::open(&folder)
}

/// The model folder: the one given, or the one that the recipe names.
pub(crate) fn model_folder(artifact: &Artifact, options: &SessionOptions) -> Result<PathBuf> {
    match (&options.model, &artifact.run) {
        (Some(folder), _) => Ok(folder.clone()),
        (None, Some(run)) => crate::locate::model_folder(&run.model.name, run.model.revision.as_deref()),
        (None, None) => bail!("the artifact does not name its model: give the model folder"),
    }
}

/// Compares the model's files with their hashes, a thread a file.
fn verify_files(artifact: &Artifact, folder: &Path) -> Result<()> {
    let check = |file: &amc_artifact::InputFile| file.verify(folder);
    std::thread::scope(|scope| {
        let files = &artifact.header.model_files;
        for group in files.chunks(default_threads().max(1)) {
            let workers: Vec<_> = group.iter().map(|file| scope.spawn(move || check(file))).collect();
            for worker in workers {
                worker.join().map_err(|_| anyhow::anyhow!("a thread that hashes weights failed"))??;
            }
        }
        Ok(())
    })
}
