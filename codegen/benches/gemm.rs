//! GFLOP/s of generated matrix products, and their share of the peak of as many cores.
//!
//! `cargo bench -p amc-codegen --bench gemm -- [--threads 1,2] [--seconds 0.5] [--plan
//! ROWS,VECTORS,M_BLOCK,PANELS,M_CACHE,BLOCK_DEPTH] [FILTER…]`; a shape is run if its line contains every filter. A
//! plan with zeros keeps what would be chosen there. Operands are hot in the last-level cache where they fit. The best
//! run of every task counts, because others may share the machine. The peak is that of multiply-adds on registers
//! alone.
use amc_codegen::{host_target, shared_object};
use amc_kernels::emit::Elem::{self, Bf16, F32};
use amc_kernels::emit::{Emitter, float_type};
use amc_kernels::gemm::plan::Plan;
use amc_kernels::gemm::{Gemm, Operand, Term};
use amc_kernels::region::Region;
use amc_kernels::{Kernel, Target, Work};
use libloading::Library;
use std::sync::Barrier;
use std::time::{Duration, Instant};

type Entry = unsafe extern "C" fn(*const *mut u8, i64, i64, *mut u8);

/// What a line measures: what it is for, its sizes, how A and B are stored (`n` or `t`), their elems.
struct Shape {
    role: &'static str,
    size: (usize, usize, usize),
    form: &'static str,
    elems: (Elem, Elem),
}

fn shapes() -> Vec<Shape> {
    let sizes: [(&str, (usize, usize, usize), &str); 18] = [
        ("up, gate", (1024, 1536, 576), "nt"),
        ("down", (1024, 576, 1536), "nt"),
        ("query, output", (1024, 576, 576), "nt"),
        ("key, value", (1024, 192, 576), "nt"),
        ("head", (256, 49152, 576), "nt"),
        ("up, gate: dx", (1024, 576, 1536), "nn"),
        ("down: dx", (1024, 1536, 576), "nn"),
        ("query, output: dx", (1024, 576, 576), "nn"),
        ("key, value: dx", (1024, 576, 192), "nn"),
        ("head: dx", (256, 576, 49152), "nn"),
        ("up, gate: dw", (1536, 576, 1024), "tn"),
        ("down: dw", (576, 1536, 1024), "tn"),
        ("lora a", (1024, 8, 576), "nt"),
        ("lora b", (1024, 576, 8), "nt"),
        ("lora a: dw", (8, 576, 1024), "tn"),
        ("lora b: dw", (576, 8, 1024), "tn"),
        ("decode: up, gate", (1, 1536, 576), "nt"),
        ("decode: head", (1, 49152, 576), "nt"),
    ];
    let elems = [(F32, F32), (F32, Bf16), (Bf16, Bf16)];
    elems.iter().flat_map(|&elems| sizes.map(|(role, size, form)| Shape { role, size, form, elems })).collect()
}

impl Shape {
    fn gemm(&self) -> Gemm {
        let (m, n, k) = self.size;
        let operand = |elem, letter, rows, columns| {
            let transposed = letter == b't';
            Operand { elem, transposed, stride: if transposed { rows } else { columns } }
        };
        let form = self.form.as_bytes();
        let term = Term { k, a: operand(self.elems.0, form[0], m, k), b: operand(self.elems.1, form[1], k, n) };
        Gemm {
            m,
            n,
            terms: vec![term],
            epilogue: Region::identity(F32, self.elems.0),
            row_limit: None,
            inner_limit: None,
        }
    }

    fn line(&self) -> String {
        let (m, n, k) = self.size;
        let elems = format!("{}·{}", self.elems.0.name(), self.elems.1.name());
        format!("{m:>5} x {n:>5} x {k:>5} {} {elems:<10} {:<18}", self.form, self.role)
    }

    /// Numbers in [1, 2) whatever their form, so that nothing is denormal.
    fn operands(&self) -> Vec<Vec<u8>> {
        let (m, n, k) = self.size;
        let fill = |elem: Elem, count: usize| match elem {
            Bf16 => (0..count).flat_map(|i| (0x3F80u16 + (i % 97) as u16).to_le_bytes()).collect(),
            _ => (0..count).flat_map(|i| (1.0 + (i % 97) as f32 / 97.0).to_le_bytes()).collect::<Vec<u8>>(),
        };
        vec![fill(self.elems.0, m * k), fill(self.elems.1, k * n), fill(self.elems.0, m * n)]
    }
}

/// Twelve independent chains of 1000 multiply-adds per task, on registers. No chain starts where it would stay, so that
/// the compiler cannot fold it.
fn peak_kernel(target: &Target) -> Kernel {
    let mut e = Emitter::new();
    let (zero, thousand) = (e.index(0), e.index(1000));
    let factor = e.float(0.5, target.lanes);
    let chains: Vec<_> = (0..12).map(|i| (e.float(i as f32 + 2.0, target.lanes), float_type(target.lanes))).collect();
    e.repeat("%begin", "%end", 1, |e, _| {
        let sums = e.for_loop(&zero, &thousand, 1, &chains, |e, _, x| {
            x.iter().map(|x| e.fma(x, &factor, &factor, target.lanes)).collect()
        });
        let total = sums[1..].iter().fold(sums[0].clone(), |a, b| e.float2("addf", &a, b, target.lanes));
        e.store(&total, "%scratch", F32, target.lanes);
    });
    e.finish("peak", 64, 64, Work::new("peak", 2 * 12 * 1000 * target.lanes * 64))
}

/// A line of the cache, on whose boundary scratch begins.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code)] [u8; 64]);

/// Seconds of all tasks, split statically over `threads`: of each task the best run, of the threads the slowest.
fn best_time(
    entry: Entry,
    tasks: u32,
    pointers: &[*mut u8],
    scratch_bytes: u64,
    threads: usize,
    budget: Duration,
) -> f64 {
    let pointers: Vec<usize> = pointers.iter().map(|p| *p as usize).collect();
    let barrier = Barrier::new(threads);
    let begin = Instant::now();
    let work = |t: usize| {
        let share = |t: usize| (tasks as usize * t / threads) as i64;
        let mut scratch = vec![Line([0; 64]); scratch_bytes as usize / 64 + 1];
        let mut best = vec![f64::INFINITY; (share(t + 1) - share(t)) as usize];
        let mut runs = 0;
        while runs < 5 || begin.elapsed() < budget {
            runs += 1;
            for (task, best) in (share(t)..).zip(&mut best) {
                let start = Instant::now();
                // SAFETY: the operands are as large as the kernel's problem says, and tasks write disjoint parts of the
                // output.
                unsafe { entry(pointers.as_ptr().cast(), task, task + 1, scratch.as_mut_ptr().cast()) };
                *best = best.min(start.elapsed().as_secs_f64());
            }
        }
        best.iter().sum::<f64>()
    };
    std::thread::scope(|scope| {
        let (work, barrier) = (&work, &barrier);
        let start = move |t| {
            barrier.wait();
            work(t)
        };
        let others: Vec<_> = (1..threads).map(|t| scope.spawn(move || start(t))).collect();
        let first = start(0);
        others.into_iter().map(|thread| thread.join().expect("no thread panics")).fold(first, f64::max)
    })
}

fn measure(library: &Library, kernel: &Kernel, operands: &mut [Vec<u8>], threads: usize, budget: Duration) -> f64 {
    let pointers: Vec<*mut u8> = operands.iter_mut().map(|o| o.as_mut_ptr()).collect();
    // SAFETY: the symbol is a kernel's, with the kernels' calling convention.
    let entry = unsafe { library.get::<Entry>(kernel.symbol.as_bytes()) }.expect("the kernel's symbol");
    best_time(*entry, kernel.tasks, &pointers, kernel.scratch_bytes, threads, budget)
}

struct Options {
    threads: Vec<usize>,
    budget: Duration,
    /// Replaces what the tuning table suggests, where not zero.
    plan: [usize; 6],
    filters: Vec<String>,
}

fn options() -> Options {
    let mut options =
        Options { threads: vec![1, 2], budget: Duration::from_millis(500), plan: [0; 6], filters: vec![] };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("`{arg}` wants a value"));
        match arg.as_str() {
            "--threads" => {
                options.threads = value().split(',').map(|t| t.parse().expect("a number of threads")).collect()
            }
            "--seconds" => options.budget = Duration::from_secs_f64(value().parse().expect("seconds")),
            "--plan" => {
                let values = value();
                let parts = options.plan.iter_mut().zip(values.split(','));
                parts.for_each(|(part, text)| *part = text.parse().expect("a number of the plan"));
            }
            "--bench" => {}
            _ => options.filters.push(arg),
        }
    }
    options
}

/// The plan that the table suggests, with what the command line sets.
fn plan(gemm: &Gemm, target: &Target, set: [usize; 6]) -> Plan {
    let mut plan = Plan::choose(gemm, target);
    let [rows, vectors, m_block, panels, m_cache, block_depth] = set;
    let parts = [
        (&mut plan.rows, rows),
        (&mut plan.vectors, vectors),
        (&mut plan.m_block, m_block),
        (&mut plan.panels, panels),
    ];
    for (part, value) in parts.into_iter().filter(|(_, value)| *value > 0) {
        *part = value;
    }
    plan.m_cache = if m_cache > 0 { m_cache } else { plan.m_cache.min(plan.m_block) };
    plan.block_depth = if block_depth > 0 { Some(block_depth) } else { plan.block_depth };
    plan
}

fn main() {
    let options = options();
    let target = host_target().expect("a target");
    let mut shapes = shapes();
    shapes.retain(|shape| options.filters.iter().all(|filter| shape.line().contains(filter.as_str())));
    let peak = peak_kernel(&target);
    let kernels: Vec<Kernel> = shapes
        .iter()
        .map(|shape| {
            let gemm = shape.gemm();
            let chosen = options.plan == [0; 6];
            if chosen { gemm.build(&target) } else { gemm.build_with(&plan(&gemm, &target, options.plan)) }
        })
        .collect();
    let mut all = vec![peak.clone()];
    all.extend(kernels.iter().cloned());
    all.sort_by(|a, b| a.symbol.cmp(&b.symbol));
    all.dedup();
    let start = Instant::now();
    let bytes = shared_object(&all, &target).unwrap_or_else(|error| panic!("{error}"));
    println!("{} kernels compiled in {:.2} s for {}", all.len(), start.elapsed().as_secs_f64(), target.cpu);
    let path = std::env::temp_dir().join(format!("amc-bench-gemm-{}.so", std::process::id()));
    std::fs::write(&path, bytes).expect("writing the shared object");
    // SAFETY: the object was just built from kernels, which have no initialisers.
    let library = unsafe { Library::new(&path) }.expect("loading the shared object");
    std::fs::remove_file(&path).expect("removing the shared object");
    let flops = 2.0 * 12.0 * 1000.0 * target.lanes as f64 * f64::from(peak.tasks);
    let peaks: Vec<f64> =
        options.threads.iter().map(|t| flops / measure(&library, &peak, &mut [], *t, options.budget) / 1e9).collect();
    println!("peak: {peaks:.1?} GFLOP/s on {:?} threads", options.threads);
    for (shape, kernel) in shapes.iter().zip(&kernels) {
        let (m, n, k) = shape.size;
        let mut operands = shape.operands();
        print!("{} {:>3} tasks", shape.line(), kernel.tasks);
        for (threads, peak) in options.threads.iter().zip(&peaks) {
            let seconds = measure(&library, kernel, &mut operands, *threads, options.budget);
            let rate = 2.0 * (m * n * k) as f64 / seconds / 1e9;
            print!("  {threads}T {:8.3} ms {rate:6.1} ({:3.0} %)", seconds * 1e3, rate / peak * 100.0);
            if m == 1 {
                print!(" B at {:.1} GB/s", (n * k) as f64 * shape.elems.1.bytes() as f64 / seconds / 1e9);
            }
        }
        println!();
    }
}
