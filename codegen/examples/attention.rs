//! Times attention and its gradient: `cargo run --release -p amc-codegen --example attention [threads]`.
//!
//! Prints for every problem the best of several runs on so many threads in milliseconds, the sum over the tasks of the
//! best times that each took alone (which others on the machine disturb less), and GFLOP/s of one thread by that sum, where
//! a score that a query sees counts two products forward and five backward.
use amc_codegen::{host_target, shared_object};
use amc_kernels::Kernel;
use amc_kernels::attention::Attention;
use amc_kernels::emit::Elem;
use libloading::{Library, Symbol};
use std::time::Instant;

type Entry = unsafe extern "C" fn(*const *mut u8, i64, i64, *mut u8);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let threads: usize = std::env::args().nth(1).map_or(Ok(2), |n| n.parse())?;
    for elem in [Elem::F32, Elem::Bf16] {
        for (batch, seq) in [(2, 512), (1, 1024)] {
            let problem =
                Attention { batch, seq, heads: 9, kv_heads: 3, head_dim: 64, scale: 0.125, window: None, elem };
            measure(&problem, threads)?;
        }
    }
    Ok(())
}

fn measure(a: &Attention, threads: usize) -> Result<(), Box<dyn std::error::Error>> {
    let target = host_target()?;
    let kernels = [a.forward(&target), a.gradient(&target), a.gradient_finish(&target)];
    let file = tempfile::NamedTempFile::new()?;
    let started = Instant::now();
    std::fs::write(file.path(), shared_object(&kernels, &target)?)?;
    let compiled = started.elapsed();
    // SAFETY: the object was just built and has no initialisers.
    let library = unsafe { Library::new(file.path()) }?;

    let tokens = a.batch * a.seq;
    let (queries, keys) = (tokens * a.heads * a.head_dim, tokens * a.kv_heads * a.head_dim);
    let size = a.elem.bytes() as usize;
    let counts = [queries, keys, keys, 0, queries, 0, queries, queries, 0, keys, keys];
    let mut arrays: Vec<Vec<u8>> = counts.iter().map(|n| numbers(a.elem, *n)).collect();
    arrays[3] = [1u8, 0, 0, 0].repeat(tokens);
    arrays[5] = vec![0; tokens * a.heads * 4];
    arrays[8] = vec![0; a.workspace_len(&target) * 4];
    let pointers: Vec<*mut u8> = arrays.iter_mut().map(|a| a.as_mut_ptr()).collect();
    let seen = a.batch * a.heads * (a.seq * (a.seq + 1) / 2) * a.head_dim * 2;
    let operands = [pointers[..6].to_vec(), pointers[..9].to_vec(), pointers[8..].to_vec()];
    for ((kernel, operands), products) in kernels.iter().zip(&operands).zip([2, 5, 0]) {
        // SAFETY: the symbol has the kernels' calling convention and its operands have the stated sizes.
        let entry: Symbol<Entry> = unsafe { library.get(kernel.symbol.as_bytes()) }?;
        let best = (0..20).map(|_| run(kernel, *entry, operands, threads)).fold(f64::MAX, f64::min);
        let alone = alone(kernel, *entry, operands);
        let speed = (seen * products) as f64 / alone / 1e6;
        println!("{:<64} {best:>8.3} ms, alone {alone:>8.3} ms, {speed:>6.1} GFLOP/s", kernel.symbol);
    }
    println!("compiled in {:.2} s; elements of {size} bytes", compiled.as_secs_f64());
    Ok(())
}

/// Numbers between -1 and 1.
fn numbers(elem: Elem, count: usize) -> Vec<u8> {
    let value = |i: usize| ((i * 7919) % 2003) as f32 / 1001.5 - 1.0;
    let bytes = |i: usize| value(i).to_le_bytes();
    match elem {
        Elem::Bf16 => (0..count).flat_map(|i| [bytes(i)[2], bytes(i)[3]]).collect(),
        _ => (0..count).flat_map(bytes).collect(),
    }
}

/// Milliseconds of all tasks on one thread, the best of several runs of each.
fn alone(kernel: &Kernel, entry: Entry, operands: &[*mut u8]) -> f64 {
    let mut scratch = vec![0u8; kernel.scratch_bytes as usize + 64];
    let scratch = scratch.as_mut_ptr();
    // SAFETY: the offset stays within the 64 bytes allocated beyond the kernel's need.
    let scratch = unsafe { scratch.add(scratch.align_offset(64)) };
    let task = |t: i64| {
        let started = Instant::now();
        // SAFETY: the operands have the sizes that the template states.
        unsafe { entry(operands.as_ptr(), t, t + 1, scratch) };
        started.elapsed().as_secs_f64() * 1e3
    };
    (0..i64::from(kernel.tasks)).map(|t| (0..20).map(|_| task(t)).fold(f64::MAX, f64::min)).sum()
}

/// Milliseconds of one run, its tasks in equal parts on so many threads.
fn run(kernel: &Kernel, entry: Entry, operands: &[*mut u8], threads: usize) -> f64 {
    let tasks = kernel.tasks as usize;
    let operands = operands.as_ptr() as usize;
    let started = Instant::now();
    std::thread::scope(|scope| {
        for t in 0..threads {
            scope.spawn(move || {
                let mut scratch = vec![0u8; kernel.scratch_bytes as usize + 64];
                let scratch = scratch.as_mut_ptr();
                // SAFETY: the offset stays within the 64 bytes allocated beyond the kernel's need.
                let scratch = unsafe { scratch.add(scratch.align_offset(64)) };
                let (begin, end) = (tasks * t / threads, tasks * (t + 1) / threads);
                // SAFETY: threads write to different rows of the operands, which outlive them.
                unsafe { entry(operands as *const *mut u8, begin as i64, end as i64, scratch) };
            });
        }
    });
    started.elapsed().as_secs_f64() * 1e3
}
