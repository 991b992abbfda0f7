//! From kernel text to code: MLIR is parsed and verified, lowered, translated to LLVM IR, optimised, and emitted as x86-64
//! objects that a linker found on PATH joins, or as PTX.
//!
//! Invariants: the object of a kernel depends on its text and the target alone, and objects are linked in the order in
//! which the kernels were given, so the same kernels give the same bytes whatever the number of threads. The shared
//! object has no undefined symbol: kernels call nothing.
mod error;
mod link;
mod lower;
mod machine;
mod ptx;
mod target;

pub use error::Error;
pub use ptx::ptx;
pub use target::{host_target, named_gpu, named_target};

use amc_kernels::{Kernel, Target};
use machine::Compiler;
use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Compiles `kernels` into one shared object that exports their symbols.
///
/// # Errors
/// A kernel that MLIR refuses, two kernels with one symbol, a missing linker.
pub fn shared_object(kernels: &[Kernel], target: &Target) -> Result<Vec<u8>, Error> {
    shared_object_with_threads(kernels, target, processors())
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// [`shared_object`] on `threads` threads; the bytes do not depend on their number.
pub fn shared_object_with_threads(kernels: &[Kernel], target: &Target, threads: usize) -> Result<Vec<u8>, Error> {
    ensure_distinct(kernels)?;
    let linker = link::find()?;
    link::shared_object(
        &linker,
        &emitted(&kernels.iter().collect::<Vec<_>>(), threads, || Compiler::new(target), Compiler::object)?,
    )
}

fn ensure_distinct(kernels: &[Kernel]) -> Result<(), Error> {
    let mut seen = HashSet::new();
    match kernels.iter().find(|kernel| !seen.insert(&kernel.symbol)) {
        Some(twice) => Err(Error::Duplicate { symbol: twice.symbol.clone() }),
        None => Ok(()),
    }
}

/// What objects are linked with, for reports.
///
/// # Errors
/// There is no linker on PATH.
pub fn linker() -> Result<std::path::PathBuf, Error> {
    link::find().map(|linker| linker.path)
}

/// The optimised LLVM IR of one kernel.
pub fn llvm_ir(kernel: &Kernel, target: &Target) -> Result<String, Error> {
    Compiler::new(target)?.llvm_ir(kernel)
}

/// The x86-64 assembly of one kernel.
pub fn assembly(kernel: &Kernel, target: &Target) -> Result<String, Error> {
    Compiler::new(target)?.assembly(kernel)
}

/// What `emit` makes of every kernel, in order. Threads, each with a compiler of its own, take kernels from a common
/// counter; the first error in kernel order wins.
fn emitted(
    kernels: &[&Kernel],
    threads: usize,
    compiler: impl Fn() -> Result<Compiler, Error> + Sync,
    emit: impl Fn(&Compiler, &Kernel) -> Result<Vec<u8>, Error> + Sync,
) -> Result<Vec<Vec<u8>>, Error> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(kernels.len()));
    let work = || {
        let compiler = compiler()?;
        while let Some((i, kernel)) = take(&next, kernels) {
            let code = emit(&compiler, kernel);
            done.lock().expect("no thread panics while it holds the lock").push((i, code));
        }
        Ok::<(), Error>(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.clamp(1, kernels.len().max(1))).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a compiling thread panicked"))
    })?;
    let mut done = done.into_inner().expect("no thread panics while it holds the lock");
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, code)| code).collect()
}

fn take<'k>(next: &AtomicUsize, kernels: &[&'k Kernel]) -> Option<(usize, &'k Kernel)> {
    let i = next.fetch_add(1, Ordering::Relaxed);
    kernels.get(i).map(|kernel| (i, *kernel))
}
