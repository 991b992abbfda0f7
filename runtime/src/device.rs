//! What a device can do: a handful of verbs over one arena of memory.
//!
//! Invariants:
//! - The plan's memory is allocated once, when the plan is loaded.
//! - The arena starts as zeros.
//! - The bits that a program computes do not depend on how many threads a device has.
mod barrier;
pub mod cpu;
pub mod cuda;
mod features;
mod library;
mod memory;
pub mod null;
mod pool;
mod profile;
mod shares;

pub use cpu::CpuDevice;
pub use cuda::CudaDevice;
pub use features::missing_features;
pub use library::Library;
pub use null::NullDevice;
pub use profile::{LaunchTimes, Profile, ProgramTimes};

use anyhow::Result;

/// The calling convention of a kernel: operand pointers, first task, end of tasks, scratch of the calling thread.
pub type KernelFn = unsafe extern "C" fn(args: *const *mut u8, begin: i64, end: i64, scratch: *mut u8);

/// Where kernels come from.
///
/// # Safety
/// A function that `resolve` returns has the calling convention of [`KernelFn`], may run as long as the table lives, and,
/// given the operands that the plan names, touches only memory that the plan gives to it; its tasks may run at the same
/// time on several threads.
pub unsafe trait Symbols: Send + Sync {
    /// The kernel of that name; the error says where it was looked for.
    fn resolve(&self, name: &str) -> Result<KernelFn>;
}

/// The memory of a frozen tensor; it stays mapped as long as the device lives.
#[derive(Clone, Copy, Debug)]
pub struct WeightMemory {
    pub pointer: *const u8,
    pub bytes: usize,
}

/// A device that replays a plan. Errors are a GPU's: one that fails is of no use any more.
pub trait Device {
    /// Copies bytes into the arena.
    ///
    /// # Panics
    /// If the range is outside the arena; ports and parameters of a valid plan are inside.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Copies bytes out of the arena.
    ///
    /// # Panics
    /// If the range is outside the arena.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()>;

    /// Whether what is written can be read again.
    fn remembers(&self) -> bool {
        true
    }

    /// Runs the program of that index in the plan from start to end; returns when its results can be read.
    fn launch(&mut self, program: usize) -> Result<()>;

    /// Measures every launch from now on.
    fn start_profile(&mut self) -> Result<()>;

    /// What was measured; `None` where nothing is.
    fn profile(&self) -> Option<&Profile>;

    /// What it is, in a line.
    fn describe(&self) -> String;

    /// Most bytes that the run has had so far, of the memory that it computes in.
    fn peak_memory(&self) -> u64;
}
