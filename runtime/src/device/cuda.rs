//! An NVIDIA GPU: every program of the plan is a graph that the driver replays.
//!
//! Invariants:
//! - Libraries and memory are checked before anything is loaded. Memory is allocated once: the arena, the constants, the frozen
//!   tensors.
//! - The first run of a program puts its launches into one stream, one by one, and marks each that is done, so that a kernel
//!   that fails is named; so does every run that is measured. All other runs replay the program's graph, in which launches wait
//!   for those that the plan says, and for no others ([`capture`]).
//! - All else is put into that stream, too: copies and graphs see what was put there before them.
//! - What launches are given is made when the plan is loaded: addresses, and tensor maps with the addresses in them.
//! - Products of the vendor's library go into the same streams and graphs, with a workspace that is a part of the arena.
//! - Once a kernel has failed, the driver answers nothing but that: the device is of no use any more.
mod callee;
mod capture;
mod cublaslt;
mod driver;
mod memory;
mod module;
mod nccl;
mod product;
mod stream;
mod tensor_map;
mod vendor_library;
mod watch;

use super::{Device, Profile};
use crate::weights::ModelWeights;
use amc_artifact::memory::RunMemory;
use amc_artifact::{Arg, Plan, tensor_bytes};
use anyhow::{Context as _, Result, anyhow, ensure};
use callee::{Argument, Callee};
use capture::Streams;
use driver::{Context, Gpu, Said};
use memory::{Buffer, Progress, Uploader, offsets};
use module::Module;
use std::fmt::Display;
use std::sync::atomic::Ordering;
use stream::{Event, Graph, Stream};
use watch::{PATIENCE, watched};

/// A plan loaded on a GPU.
pub struct CudaDevice {
    // Fields are dropped in this order: graphs before their kernels, all before the context.
    programs: Vec<Program>,
    timer: Option<Timer>,
    callees: Vec<Callee>,
    _module: Module,
    uploader: Uploader,
    progress: Progress,
    memory: Memory,
    streams: Streams,
    context: Context,
    gpu: Gpu,
}

/// Everything that kernels touch.
struct Memory {
    arena: Buffer,
    constants: Buffer,
    weights: Buffer,
    /// Where each frozen tensor begins in `weights`.
    tensors: Vec<u64>,
    planned: RunMemory,
}

struct Program {
    name: String,
    launches: Vec<Launch>,
    graph: Graph,
    /// Whether it has run before.
    proven: bool,
}

/// A launch with everything resolved.
struct Launch {
    callee: usize,
    tasks: u32,
    args: Box<[Argument]>,
    label: String,
}

/// What measures: events before and after every launch.
struct Timer {
    profile: Profile,
    begin: Event,
    launches: Vec<(Event, Event)>,
}

/// The GPU that a run would use, in a line.
///
/// # Errors
/// No driver, one that is too old or does not start, or no GPU.
pub fn summary() -> Result<String> {
    Ok(Gpu::find()?.summary())
}

/// The vendor's library of products that a run would open, in a line.
///
/// # Errors
/// Those of [`summary`], and no library.
pub fn products() -> Result<String> {
    Ok(cublaslt::Library::open(&Gpu::find()?)?.summary())
}

/// The vendor's library of collectives, in a line.
///
/// # Errors
/// Those of [`summary`], and no library.
pub fn collectives() -> Result<String> {
    nccl::summary(&Gpu::find()?)
}

/// Checks that this machine runs code for `arch`, such as `sm_80`.
///
/// # Errors
/// Those of [`summary`], and a GPU of another compute capability.
pub fn ensure_runs(arch: &str) -> Result<()> {
    Gpu::find()?.ensure_runs(arch)
}

impl CudaDevice {
    /// Loads the plan, whose kernels are in `ptx` and were compiled for `arch`, such as `sm_80`; frozen tensors are copied
    /// from `model`.
    ///
    /// # Safety
    /// The kernels of `ptx` take one address for each operand that the plan gives them, or a tensor map where it has one, and,
    /// given those, touch only memory that the plan gives to them.
    ///
    /// # Errors
    /// An invalid plan, a missing driver or GPU, another compute capability than `arch`, too little memory, PTX that the
    /// driver refuses, a kernel, tensor or library that is missing.
    pub unsafe fn new(plan: &Plan, ptx: &[u8], arch: &str, model: &ModelWeights) -> Result<CudaDevice> {
        plan.validate()?;
        ensure!(plan.scratch_bytes == 0, "the plan's kernels want scratch, which a GPU has not: it is a CPU's");
        let gpu = Gpu::find()?;
        gpu.ensure_runs(arch)?;
        let library = callee::library(plan, &gpu)?;
        let context = Context::new(&gpu)?;
        let streams = Streams::new(&context, &plan.programs)?;
        let mut memory = Memory::new(plan, &gpu, &context)?;
        let mut uploader = Uploader::new(&context)?;
        memory.fill(plan, model, &mut uploader, streams.first())?;
        let module = Module::load(&context, ptx)?;
        let callees = callee::find_all(plan, &module, library, &context)?;
        let load = |program| Program::new(program, &callees, &memory, (&streams, &context));
        let programs = plan.programs.iter().map(load);
        let programs = programs.collect::<Result<_>>()?;
        let progress = Progress::new(&context)?;
        streams.first().synchronize().said("cannot load the plan on the GPU")?;
        Ok(CudaDevice {
            programs,
            timer: None,
            callees,
            _module: module,
            uploader,
            progress,
            memory,
            streams,
            context,
            gpu,
        })
    }

    /// Bytes of the GPU's memory that the plan takes.
    pub fn planned_memory(&self) -> RunMemory {
        self.memory.planned
    }

    /// Puts the launches of a program into the stream one by one, measures them where that was asked for, and waits.
    fn walk(&mut self, index: usize) -> Result<()> {
        let (program, stream) = (&self.programs[index], self.streams.first());
        self.progress.restart();
        let begin = self.timer.as_ref().map_or(Ok(0), |timer| timer.begin(stream))?;
        let launches = program.launches.iter();
        let names: Vec<_> = launches.map(|launch| (self.callees[launch.callee].symbol(), &*launch.label)).collect();
        let (counter, gpu, name) = (self.progress.counter(), &*self.gpu.name, &*program.name);
        let tell = |number: usize| {
            if let Some((symbol, label)) = names.get(number) {
                let place = format_args!("kernel `{symbol}` on {gpu}, launch {number} of program `{name}`");
                eprintln!("{place}, which computes `{label}`, has not ended in {PATIENCE:?}: it may never do so");
            }
        };
        watched(PATIENCE, || counter.load(Ordering::Acquire) as usize, tell, || self.put_all(program, stream))?;
        if let Some(timer) = &mut self.timer {
            timer.read(index, begin)?;
        }
        self.programs[index].proven = true;
        Ok(())
    }

    /// Puts all launches of a program into the stream, and waits.
    fn put_all(&self, program: &Program, stream: &Stream) -> Result<()> {
        for number in 0..program.launches.len() {
            if let Err(error) = self.put(program, number, stream) {
                // Where an earlier launch has failed, the driver says so of this one.
                let failed = if stream.synchronize().is_err() { self.progress.done() } else { number };
                return Err(self.blame(program, failed, &format_args!("{error:#}")));
            }
        }
        let finished = stream.synchronize().said("it failed");
        finished.map_err(|error| self.blame(program, self.progress.done(), &error))
    }

    /// Puts a launch into the stream, between its events where it is measured, and counts it when it is done.
    fn put(&self, program: &Program, number: usize, stream: &Stream) -> Result<()> {
        let events = self.timer.as_ref().map(|timer| &timer.launches[number]);
        if let Some((before, _)) = events {
            before.record(stream)?;
        }
        program.launches[number].put(&self.callees, stream, "cannot launch it")?;
        if let Some((_, after)) = events {
            after.record(stream)?;
        }
        self.progress.mark(stream, number as u32 + 1)
    }

    /// What is wrong with the launch of that number.
    fn blame(&self, program: &Program, number: usize, error: &dyn Display) -> anyhow::Error {
        let name = &program.name;
        match program.launches.get(number) {
            None => anyhow!("program `{name}` on {}, after its last launch: {error}", self.gpu.name),
            Some(launch) => anyhow!(
                "kernel `{}` on {}, launch {number} of program `{name}`, which computes `{}`: {error}",
                self.callees[launch.callee].symbol(),
                self.gpu.name,
                launch.label
            ),
        }
    }

    fn replay(&mut self, index: usize) -> Result<()> {
        let (program, stream) = (&self.programs[index], self.streams.first());
        let launched = program.graph.launch(stream).and_then(|()| stream.synchronize());
        launched.said(format_args!(
            "program `{}` failed on {} (of the runs behind a program's first, only measured ones say which kernel did: run \
             with --profile)",
            program.name, self.gpu.name
        ))
    }
}

impl Device for CudaDevice {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.uploader.write(self.streams.first(), &mut self.memory.arena, offset, bytes)
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.memory.arena.read(self.streams.first(), offset, bytes)
    }

    fn launch(&mut self, program: usize) -> Result<()> {
        if self.timer.is_some() || !self.programs[program].proven { self.walk(program) } else { self.replay(program) }
    }

    fn start_profile(&mut self) -> Result<()> {
        let counts = || self.programs.iter().map(|program| program.launches.len());
        let event = || Event::new(&self.context);
        let launches = (0..counts().max().unwrap_or(0)).map(|_| Ok((event()?, event()?))).collect::<Result<_>>()?;
        self.timer = Some(Timer { profile: Profile::new(1, counts()), begin: event()?, launches });
        Ok(())
    }

    fn profile(&self) -> Option<&Profile> {
        self.timer.as_ref().map(|timer| &timer.profile)
    }

    fn describe(&self) -> String {
        format!("cuda, {}", self.gpu.summary())
    }

    fn peak_memory(&self) -> u64 {
        self.memory.planned.total()
    }
}

impl Memory {
    /// Allocates what the plan needs, if the GPU has so much.
    fn new(plan: &Plan, gpu: &Gpu, context: &Context) -> Result<Memory> {
        let sizes = plan.weights.iter().map(|weight| tensor_bytes(weight.storage, &weight.shape));
        let (tensors, weight_bytes) = offsets(sizes.collect::<Result<Vec<_>>>()?.into_iter());
        let (arena, constants) = (plan.arena_bytes, plan.constants.len() as u64);
        let planned =
            RunMemory { device: arena.saturating_add(constants), weights: weight_bytes, packing: 0, process: 0 };
        let bytes = planned.total();
        let (free, total) = context.free_and_total()?;
        ensure!(
            bytes <= free as u64,
            "the run needs {bytes} bytes of GPU memory ({arena} for the step, {weight_bytes} for frozen weights, {constants} \
             for constants); {} has {free} of {total} free: end what else uses it, or compile with a smaller \
             amc.memory_budget or step_scheduler.local_batch_size",
            gpu.name
        );
        let buffer = |bytes| Buffer::new(context, bytes);
        Ok(Memory {
            arena: buffer(arena)?,
            constants: buffer(constants)?,
            weights: buffer(weight_bytes)?,
            tensors,
            planned,
        })
    }

    /// Zeros into the arena, constants and frozen tensors to their places.
    fn fill(&mut self, plan: &Plan, model: &ModelWeights, uploader: &mut Uploader, stream: &Stream) -> Result<()> {
        self.arena.clear(stream)?;
        uploader.write(stream, &mut self.constants, 0, &plan.constants)?;
        for (weight, begin) in plan.weights.iter().zip(&self.tensors) {
            let mut at = *begin;
            model.for_each_piece(weight, |piece| {
                uploader.write(stream, &mut self.weights, at, piece)?;
                at += piece.len() as u64;
                Ok(())
            })?;
        }
        Ok(())
    }

    fn address(&self, arg: Arg) -> u64 {
        match arg {
            Arg::Arena(offset) => self.arena.at(offset),
            Arg::Constant(offset) => self.constants.at(offset),
            Arg::Weight { tensor, offset } => self.weights.at(self.tensors[tensor as usize] + offset),
        }
    }
}

impl Program {
    fn new(
        program: &amc_artifact::Program,
        callees: &[Callee],
        memory: &Memory,
        (streams, context): (&Streams, &Context),
    ) -> Result<Program> {
        let resolved = |launch: &amc_artifact::Launch| {
            let callee = launch.kernel as usize;
            let addresses: Vec<u64> = launch.args.iter().map(|&arg| memory.address(arg)).collect();
            let args = callees[callee].arguments(&addresses);
            let args = args.with_context(|| format!("kernel `{}` for `{}`", callees[callee].symbol(), launch.label))?;
            Ok(Launch { callee, tasks: launch.tasks, args, label: launch.label.clone() })
        };
        let launches = program.launches.iter().map(resolved).collect::<Result<Vec<Launch>>>();
        let launches = launches.with_context(|| format!("program `{}`", program.name))?;
        let put = |number: usize, stream: &Stream| {
            let launch: &Launch = &launches[number];
            let failed =
                format_args!("cannot launch kernel `{}` for `{}`", callees[launch.callee].symbol(), launch.label);
            launch.put(callees, stream, failed)
        };
        let graph = streams.capture(context, program, put);
        let graph = graph.with_context(|| format!("program `{}`", program.name))?;
        Ok(Program { name: program.name.clone(), launches, graph, proven: false })
    }
}

impl Launch {
    fn put(&self, callees: &[Callee], stream: &Stream, failed: impl Display) -> Result<()> {
        // SAFETY: the plan is valid, so every operand lies in memory that the device keeps until its graphs are gone; that
        // kernels take so many and keep to the plan is what the device's maker promised.
        unsafe { callees[self.callee].launch(stream, self.tasks, &self.args, failed) }
    }
}

impl Timer {
    /// A run begins: nanoseconds from the profile's beginning to now.
    fn begin(&self, stream: &Stream) -> Result<u64> {
        self.begin.record(stream)?;
        Ok(self.profile.now())
    }

    /// Adds the times of a run of the program that has ended; it began `begin` nanoseconds after the profile did.
    fn read(&mut self, program: usize, begin: u64) -> Result<()> {
        let count = self.profile.programs()[program].launches.len();
        let span = |(before, after): &(Event, Event)| {
            let from = begin + before.since(&self.begin)?;
            // From this launch's own begin, because the distance from the run's is rounded.
            Ok((from, from + after.since(before)?))
        };
        let spans = self.launches[..count].iter().map(span).collect::<Result<_>>()?;
        self.profile.add(program, vec![spans]);
        Ok(())
    }
}
