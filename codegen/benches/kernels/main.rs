//! How near the kernels of a training step come to what bounds them on this machine.
//!
//! `./x bench kernels [--threads 1,2] [--seconds 1] [--plan ROWS,VECTORS,M_BLOCK,PANELS,M_CACHE,BLOCK_DEPTH]
//! [--packed] [--assembly] [FILTER…]` prints a row of a Markdown table for every kernel whose role, size and form of storage contain
//! every filter. `--plan` replaces numbers of the products' plans, where they are not zero; `--packed` gives products their frozen
//! weights packed, where that can be; `--assembly` prints what the processor executes instead.
//!
//! A kernel's bound is the larger of two times: that of its operations at the rate of multiply-adds on registers, and that
//! of its bytes at the rate of a kernel that goes over operands of the same sizes, read, written or updated as its own,
//! and computes nothing. Both rates are measured between its own runs, on as many threads, so that a machine whose speed
//! drifts slows all three. `median` is the median over rounds of a round's bound, from the best of the rates' runs in it,
//! by the median of its own; `best` is the bound at the best rates of all rounds by the best time.
mod attention;
mod case;
mod experts;
mod machine;
mod products;
mod rounds;
mod streams;

use amc_codegen::{assembly, host_target, shared_object};
use amc_kernels::{Kernel, Target, Work};
use case::Case;
use libloading::Library;
use rounds::{Job, Operand, Round};
use std::time::{Duration, Instant};

struct Options {
    threads: Vec<usize>,
    time: Duration,
    plan: [usize; 6],
    packed: bool,
    assembly: bool,
    filters: Vec<String>,
}

fn options() -> Options {
    let mut options = Options {
        threads: vec![1, 2],
        time: Duration::from_secs(1),
        plan: [0; 6],
        packed: false,
        assembly: false,
        filters: vec![],
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("`{arg}` wants a value"));
        match arg.as_str() {
            "--threads" => {
                options.threads = value().split(',').map(|t| t.parse().expect("a number of threads")).collect()
            }
            "--seconds" => options.time = Duration::from_secs_f64(value().parse().expect("seconds")),
            "--plan" => {
                let values = value();
                let parts = options.plan.iter_mut().zip(values.split(','));
                parts.for_each(|(part, text)| *part = text.parse().expect("a number of the plan"));
            }
            "--packed" => options.packed = true,
            "--assembly" => options.assembly = true,
            "--bench" => {}
            _ => options.filters.push(arg),
        }
    }
    options
}

fn main() {
    let options = options();
    let target = host_target().expect("a target");
    let mut cases = products::cases(&target, options.plan, options.packed);
    cases.extend(experts::cases(&target));
    cases.extend(attention::cases(&target));
    cases.extend(streams::cases(&target));
    cases.retain(|case| options.filters.iter().all(|filter| case.line().contains(filter.as_str())));
    if options.assembly {
        let text = |case: &Case| assembly(&case.kernel, &target).unwrap_or_else(|error| panic!("{error}"));
        return cases.iter().for_each(|case| println!("# {}\n{}", case.line(), text(case)));
    }
    let library = compiled(&cases, &target);
    head(&options, &target);
    for case in &cases {
        print!("| {} | {} | {} ", case.role, case.size, case.elems);
        let mut bound = None;
        for &threads in &options.threads {
            let figures = measured(case, &library, &target, threads, options.time);
            if bound.is_none() {
                bound = Some(figures.bound);
                print!("| {} ", figures.bound);
            }
            let Figures { best, of_best, median, of_median, .. } = figures;
            print!("| {:.3} | {of_best:.0} % | {:.3} | {of_median:.0} % ", best * 1e3, median * 1e3);
        }
        println!("|");
    }
}

fn head(options: &Options, target: &Target) {
    let cache = machine::cache_bytes().map_or("unknown".into(), |bytes| format!("{} MiB", bytes >> 20));
    println!("{}, last level of cache {cache}; ms and percent of the bound, best and median\n", target.cpu);
    print!("| kernel | size | stored as | bound by ");
    options.threads.iter().for_each(|t| print!("| best, {t} thr | | median, {t} thr | "));
    print!("|\n|---|---|---|---");
    options.threads.iter().for_each(|_| print!("|--:|--:|--:|--:"));
    println!("|");
}

/// All kernels of the cases, and those of the machine's rates, as a library.
fn compiled(cases: &[Case], target: &Target) -> Library {
    let rates = [machine::peak(target, false), machine::peak(target, target.has_bf16())];
    let streams = cases.iter().map(|case| machine::stream(target, &case.operands).0);
    let mut all: Vec<Kernel> = cases.iter().map(|case| case.kernel.clone()).chain(rates).chain(streams).collect();
    all.sort_by(|a, b| a.symbol.cmp(&b.symbol));
    all.dedup_by(|a, b| a.symbol == b.symbol);
    let start = Instant::now();
    let bytes = shared_object(&all, target).unwrap_or_else(|error| panic!("{error}"));
    eprintln!("{} kernels compiled in {:.2} s", all.len(), start.elapsed().as_secs_f64());
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), bytes).expect("writing the shared object");
    // SAFETY: the object was just built from kernels, which have no initialisers.
    unsafe { Library::new(file.path()) }.expect("loading the shared object")
}

/// A case on some threads.
struct Figures {
    /// Seconds, and percent of the bound.
    best: f64,
    of_best: f64,
    median: f64,
    of_median: f64,
    bound: &'static str,
}

fn measured(case: &Case, library: &Library, target: &Target, threads: usize, time: Duration) -> Figures {
    let peak = machine::peak(target, case.pairs && target.has_bf16());
    let (stream, streamed) = machine::stream(target, &case.operands);
    let of = |kernel: &Kernel, operands: &[Operand]| {
        // SAFETY: the cases name the operands that the templates' comments ask for.
        unsafe { Job::new(library, kernel, operands) }
    };
    let mut jobs = [of(&peak, &[]), of(&stream, &streamed), of(&case.kernel, &case.operands)];
    let rounds = rounds::measure(&mut jobs, threads, time);
    let bounds = |peak_time: f64, stream_time: f64| {
        let Work { operations, bytes, .. } = case.kernel.work;
        let arithmetic = operations as f64 / peak.work.operations as f64 * peak_time;
        (arithmetic, bytes as f64 / stream.work.bytes as f64 * stream_time)
    };
    let of_round = |((peak, stream), own): ((&Round, &Round), &Round)| {
        let (arithmetic, memory) = bounds(peak.best, stream.best);
        100.0 * arithmetic.max(memory) / own.median
    };
    let ratios = rounds[0].iter().zip(&rounds[1]).zip(&rounds[2]).map(of_round).collect();
    let best = |job: usize| rounds[job].iter().map(|round| round.best).fold(f64::INFINITY, f64::min);
    let (arithmetic, memory) = bounds(best(0), best(1));
    let in_cache = machine::cache_bytes().is_some_and(|bytes| case.footprint() <= bytes);
    Figures {
        best: best(2),
        of_best: 100.0 * arithmetic.max(memory) / best(2),
        median: middle(rounds[2].iter().map(|round| round.median).collect()),
        of_median: middle(ratios),
        bound: match (arithmetic > memory, in_cache) {
            (true, _) => "arithmetic",
            (false, true) => "cache",
            (false, false) => "memory",
        },
    }
}

/// The median of some figures.
fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
