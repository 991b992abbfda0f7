//! The CPU: a team of threads walks the launches of a program together.
//!
//! The threads share the tasks of each launch and wait for each other where the plan says that the next one needs it. Tasks
//! are independent, so results do not depend on the number of threads, nor on which does what. Operand pointers are computed once, here.
use super::barrier::Barrier;
use super::memory;
use super::pool::Pool;
use super::profile::{Profile, Recorder};
use super::shares::{Share, work_off};
use super::{Device, KernelFn, Symbols, WeightMemory};
use crate::host::peak_memory;
use amc_artifact::memory::Layout;
use amc_artifact::{Arg, Begins, Plan};
use anyhow::{Result, ensure};
use memmap2::MmapRaw;
use std::time::Instant;

/// A plan loaded for this CPU.
pub struct CpuDevice {
    pool: Pool,
    arena_bytes: usize,
    layout: Layout,
    memory: MmapRaw,
    programs: Vec<Vec<Ready>>,
    profile: Option<Profile>,
    /// Keeps the kernels' code loaded.
    _symbols: Box<dyn Symbols>,
}

/// A launch with everything resolved.
struct Ready {
    kernel: KernelFn,
    tasks: u32,
    args: Box<[*mut u8]>,
    /// What is left of every thread's share; none where thread 0 does the only task, or there is one thread.
    shares: Box<[Share]>,
    /// Whether the threads must wait for each other before the next launch.
    barrier: bool,
}

// SAFETY: the pointers are into memory that the device owns or that outlives it; kernels may run on any thread.
unsafe impl Sync for Ready {}

impl CpuDevice {
    /// Allocates the memory of the plan and resolves its kernels.
    ///
    /// # Safety
    /// `weights` has a row for each of the plan's frozen tensors, with at least its bytes, which stay readable and
    /// unchanged while the device lives.
    ///
    /// # Errors
    /// An invalid plan, too little memory, a kernel that `symbols` does not have.
    pub unsafe fn new(
        plan: &Plan,
        symbols: Box<dyn Symbols>,
        weights: &[WeightMemory],
        threads: usize,
    ) -> Result<CpuDevice> {
        plan.validate()?;
        ensure!(threads > 0, "a CPU device needs at least one thread");
        ensure!(weights.len() == plan.weights.len(), "{} weights for {}", weights.len(), plan.weights.len());
        let layout = Layout::of(plan, threads)?;
        let memory = memory::allocate(&layout, &plan.constants)?;
        let kernels = plan.kernels.iter().map(|kernel| symbols.resolve(&kernel.symbol)).collect::<Result<Vec<_>>>()?;
        let bases = Bases { memory: memory.as_mut_ptr(), layout, weights };
        let programs =
            plan.programs.iter().map(|program| ready(&program.launches, &kernels, &bases, threads)).collect();
        let arena_bytes = plan.arena_bytes as usize;
        let pool = Pool::new(threads)?;
        Ok(CpuDevice { pool, arena_bytes, layout, memory, programs, profile: None, _symbols: symbols })
    }

    /// Threads that share the work.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The address of a range of the arena.
    fn address(&self, offset: u64, bytes: usize) -> *mut u8 {
        let end = offset.checked_add(bytes as u64);
        let inside = end.is_some_and(|end| end <= self.arena_bytes as u64);
        assert!(inside, "{bytes} bytes at {offset} are outside an arena of {} bytes", self.arena_bytes);
        self.memory.as_mut_ptr().wrapping_add(self.layout.arena + offset as usize)
    }
}

impl Device for CpuDevice {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let target = self.address(offset, bytes.len());
        // SAFETY: the range is in the arena, `bytes` is not, and no launch runs during `&mut self`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
        Ok(())
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let source = self.address(offset, bytes.len());
        // SAFETY: as for `write`; a launch needs `&mut self`, so none runs.
        unsafe { std::ptr::copy_nonoverlapping(source, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn launch(&mut self, program: usize) -> Result<()> {
        let launches = &self.programs[program];
        let threads = self.pool.threads();
        // As a number, because a raw pointer may not cross threads; the mutable borrow says that nobody else uses it.
        let scratch = self.memory.as_mut_ptr() as usize + self.layout.scratch;
        let stride = self.layout.scratch_stride;
        let recorder = self.profile.as_ref().map(|profile| profile.recorder(program));
        self.pool.run(&|thread, barrier| {
            let scratch = (scratch + thread * stride) as *mut u8;
            run(launches, (thread, threads), scratch, barrier, recorder.as_ref());
        });
        if let (Some(profile), Some(recorder)) = (&mut self.profile, recorder) {
            profile.add(program, recorder.into_spans());
        }
        Ok(())
    }

    fn start_profile(&mut self) -> Result<()> {
        self.profile = Some(Profile::new(self.pool.threads(), self.programs.iter().map(Vec::len)));
        Ok(())
    }

    fn profile(&self) -> Option<&Profile> {
        self.profile.as_ref()
    }

    fn describe(&self) -> String {
        format!("cpu, {} threads", self.threads())
    }

    fn peak_memory(&self) -> u64 {
        peak_memory()
    }
}

/// What one thread does of a program.
fn run(
    launches: &[Ready],
    (thread, threads): (usize, usize),
    scratch: *mut u8,
    barrier: &Barrier,
    recorder: Option<&Recorder>,
) {
    // A thread that gets to a launch before this one has filled its share finds what the last run left: nothing.
    for launch in launches.iter().filter(|launch| !launch.shares.is_empty()) {
        launch.shares[thread].fill(launch.tasks, thread, threads);
    }
    for launch in launches {
        let (start, mut worked) = (recorder.map(|_| Instant::now()), false);
        let mut work = |begin: u64, end: u64| {
            worked = true;
            // SAFETY: the plan is valid, so every operand lies in the arena, the constants or a mapped tensor; `Symbols`
            // and the constructor promise the rest. `scratch` belongs to this thread.
            unsafe { (launch.kernel)(launch.args.as_ptr(), begin as i64, end as i64, scratch) };
        };
        match (&launch.shares[..], thread) {
            ([], 0) if launch.tasks > 0 => work(0, launch.tasks.into()),
            ([], _) => {}
            (shares, _) => work_off(shares, thread, work),
        }
        if let (Some(recorder), Some(start)) = (recorder, start) {
            // SAFETY: the pool gives every thread an index of its own.
            unsafe { recorder.record(thread, start, worked) };
        }
        if launch.barrier {
            barrier.wait();
        }
    }
}

/// What operands are relative to.
struct Bases<'a> {
    memory: *mut u8,
    layout: Layout,
    weights: &'a [WeightMemory],
}

impl Bases<'_> {
    fn resolve(&self, arg: Arg) -> *mut u8 {
        match arg {
            Arg::Arena(offset) => self.memory.wrapping_add(self.layout.arena + offset as usize),
            Arg::Constant(offset) => self.memory.wrapping_add(self.layout.constants + offset as usize),
            Arg::Weight { tensor, offset } => {
                self.weights[tensor as usize].pointer.cast_mut().wrapping_add(offset as usize)
            }
        }
    }
}

fn ready(launches: &[amc_artifact::Launch], kernels: &[KernelFn], bases: &Bases, threads: usize) -> Vec<Ready> {
    let shares = |tasks: u32| if tasks > 1 && threads > 1 { threads } else { 0 };
    let follows = launches.iter().skip(1).map(Some).chain([None]);
    let pairs = launches.iter().zip(follows);
    pairs
        .map(|(launch, next)| Ready {
            kernel: kernels[launch.kernel as usize],
            tasks: launch.tasks,
            args: launch.args.iter().map(|&arg| bases.resolve(arg)).collect(),
            shares: (0..shares(launch.tasks)).map(|_| Share::new()).collect(),
            barrier: next.is_some_and(|next| next.begins == Begins::BehindAll),
        })
        .collect()
}
