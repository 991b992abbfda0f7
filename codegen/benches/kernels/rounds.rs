//! Timed runs of kernels on several threads, in rounds: every round runs each kernel some times, so that what the machine
//! does meanwhile meets all of them.
use amc_kernels::Kernel;
use amc_kernels::emit::Elem;
use libloading::Library;
use memmap2::{Advice, MmapMut};
use std::hint::spin_loop;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

type Entry = unsafe extern "C" fn(*const *mut u8, i64, i64, *mut u8);

/// Seconds that the runs of a kernel in one round should take together, and how many they are at most.
const BURST: f64 = 5e-3;
const MOST_RUNS: usize = 32;
/// Fewest rounds, whatever the time allowed.
const FEWEST_ROUNDS: usize = 3;

/// What a kernel does with an operand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    Read,
    Write,
    Update,
}

/// An operand, how it is used, and what it holds at first.
#[derive(Clone, Copy)]
pub struct Operand {
    pub usage: Use,
    count: usize,
    /// Elements that a run uses.
    touched: usize,
    content: Content,
    /// Whether it lies in a mapped file, and so in small pages, as frozen weights do.
    in_file: bool,
}

#[derive(Clone, Copy)]
enum Content {
    /// Numbers in [1, 2), so that nothing is denormal, whatever is computed.
    Floats(Elem),
    /// Integers, by their index.
    Ints(fn(usize) -> i32),
}

impl Operand {
    pub fn floats(usage: Use, elem: Elem, count: usize) -> Operand {
        Operand { usage, count, touched: count, content: Content::Floats(elem), in_file: false }
    }

    pub fn ints(usage: Use, count: usize, value: fn(usize) -> i32) -> Operand {
        Operand { usage, count, touched: count, content: Content::Ints(value), in_file: false }
    }

    /// Of which a run uses no more than `touched` elements.
    pub fn touching(self, touched: usize) -> Operand {
        Operand { touched, ..self }
    }

    pub fn in_file(self) -> Operand {
        Operand { in_file: true, ..self }
    }

    pub fn touched_bytes(&self) -> u64 {
        (self.bytes() * self.touched) as u64
    }

    /// Memory as a run has it.
    fn memory(self) -> MmapMut {
        let bytes = self.count * self.bytes();
        let mut memory = if self.in_file { small_pages(bytes) } else { large_pages(bytes) };
        for (i, place) in memory.chunks_exact_mut(self.bytes()).enumerate() {
            match self.content {
                Content::Floats(Elem::Bf16) => place.copy_from_slice(&(0x3F80 + (i % 97) as u16).to_le_bytes()),
                Content::Floats(_) => place.copy_from_slice(&(1.0 + (i % 97) as f32 / 97.0).to_le_bytes()),
                Content::Ints(value) => place.copy_from_slice(&value(i).to_le_bytes()),
            }
        }
        memory
    }

    /// Bytes of an element.
    fn bytes(self) -> usize {
        if let Content::Floats(elem) = self.content { elem.bytes() as usize } else { size_of::<i32>() }
    }
}

/// Between the scratch of two threads, as in the runtime.
const SCRATCH_GAP: usize = 256 << 10;

fn small_pages(bytes: usize) -> MmapMut {
    MmapMut::map_anon(bytes.max(1)).expect("memory for a kernel")
}

/// As the runtime's arena.
fn large_pages(bytes: usize) -> MmapMut {
    let memory = small_pages(bytes);
    let _ = memory.advise(Advice::HugePage);
    memory
}

/// A kernel and memory for its operands.
pub struct Job {
    entry: Entry,
    tasks: usize,
    scratch_bytes: usize,
    memory: Vec<MmapMut>,
}

impl Job {
    /// The kernel as it is in `library`.
    ///
    /// # Safety
    /// `operands` are as large as the kernel's problem says, and their integers within what it allows.
    pub unsafe fn new(library: &Library, kernel: &Kernel, operands: &[Operand]) -> Job {
        // SAFETY: the symbol is a kernel's, with the kernels' calling convention.
        let entry = unsafe { library.get::<Entry>(kernel.symbol.as_bytes()) }.expect("the kernel's symbol");
        let memory = operands.iter().map(|operand| operand.memory()).collect();
        Job { entry: *entry, tasks: kernel.tasks as usize, scratch_bytes: kernel.scratch_bytes as usize, memory }
    }
}

/// Seconds of the runs of a kernel in one round.
#[derive(Clone, Copy)]
pub struct Round {
    pub best: f64,
    pub median: f64,
}

// SAFETY: the declarations match glibc on Linux x86-64.
unsafe extern "C" {
    fn sched_getaffinity(thread: i32, bytes: usize, mask: *mut u64) -> i32;
    fn sched_setaffinity(thread: i32, bytes: usize, mask: *const u64) -> i32;
}

/// Words of a set of cores.
const CORE_WORDS: usize = 16;

/// The cores that this process may use, as it was started.
static CORES: LazyLock<Vec<usize>> = LazyLock::new(|| {
    let mut mask = [0u64; CORE_WORDS];
    // SAFETY: the mask has the bytes that are named.
    unsafe { sched_getaffinity(0, size_of_val(&mask), mask.as_mut_ptr()) };
    (0..64 * CORE_WORDS).filter(|core| mask[core / 64] >> (core % 64) & 1 == 1).collect()
});

/// Keeps the calling thread to a core of its own, since fresh threads may share one for seconds.
fn keep_to_core(thread: usize) {
    let core = CORES[thread];
    let mut mask = [0u64; CORE_WORDS];
    mask[core / 64] = 1 << (core % 64);
    // SAFETY: the mask has the bytes that are named. Where the system refuses, the thread stays where it is.
    unsafe { sched_setaffinity(0, size_of_val(&mask), mask.as_ptr()) };
}

/// Of every job, in the order given, a figure for each of as many rounds as fit into `time`.
pub fn measure(jobs: &mut [Job], threads: usize, time: Duration) -> Vec<Vec<Round>> {
    let shared: Vec<Shared> = jobs.iter_mut().map(Shared::new).collect();
    assert!(threads <= CORES.len(), "{threads} threads on {} cores: they would wait for each other", CORES.len());
    let team = Team { threads, jobs: &shared, ..Team::default() };
    std::thread::scope(|scope| {
        let team = &team;
        for thread in 1..threads {
            scope.spawn(move || team.follow(thread));
        }
        team.lead(time)
    })
}

/// What the threads know of a job.
struct Shared {
    entry: Entry,
    tasks: usize,
    scratch_bytes: usize,
    /// Addresses of the operands, which threads share.
    operands: Vec<usize>,
}

impl Shared {
    fn new(job: &mut Job) -> Shared {
        let operands = job.memory.iter_mut().map(|memory| memory.as_mut_ptr() as usize).collect();
        Shared { entry: job.entry, tasks: job.tasks, scratch_bytes: job.scratch_bytes, operands }
    }

    /// The share of one of so many threads.
    fn work(&self, thread: usize, threads: usize, scratch: &mut MmapMut) {
        let [begin, end] = [thread, thread + 1].map(|t| (self.tasks * t / threads) as i64);
        // SAFETY: `Job::new` was promised operands as large as the problem says; they outlive the team, and tasks write
        // disjoint parts of them. Scratch is the thread's own and as large as the largest job wants.
        unsafe { (self.entry)(self.operands.as_ptr().cast(), begin, end, scratch.as_mut_ptr().cast()) };
    }
}

/// Threads that begin every run together, within less than a microsecond.
#[derive(Default)]
struct Team<'a> {
    threads: usize,
    jobs: &'a [Shared],
    /// The job to run next; none of that number ends the threads.
    next: AtomicUsize,
    arrived: AtomicUsize,
    turn: AtomicUsize,
}

impl Team<'_> {
    fn lead(&self, time: Duration) -> Vec<Vec<Round>> {
        keep_to_core(0);
        let (mut scratch, begin) = (self.scratch(), Instant::now());
        // The first run touches memory and code.
        let mut least: Vec<f64> = (0..self.jobs.len()).map(|job| self.run(job, &mut scratch)).collect();
        let mut rounds = vec![vec![]; self.jobs.len()];
        while rounds[0].len() < FEWEST_ROUNDS || begin.elapsed() < time {
            for (job, rounds) in rounds.iter_mut().enumerate() {
                let runs = ((BURST / least[job]) as usize).clamp(1, MOST_RUNS);
                let mut seconds: Vec<f64> = (0..runs).map(|_| self.run(job, &mut scratch)).collect();
                seconds.sort_by(f64::total_cmp);
                least[job] = least[job].min(seconds[0]);
                rounds.push(Round { best: seconds[0], median: seconds[runs / 2] });
            }
        }
        self.next.store(usize::MAX, Ordering::Relaxed);
        self.wait();
        rounds
    }

    /// Seconds from the start of the threads to the end of the last.
    fn run(&self, job: usize, scratch: &mut MmapMut) -> f64 {
        self.next.store(job, Ordering::Relaxed);
        self.wait();
        let start = Instant::now();
        self.jobs[job].work(0, self.threads, scratch);
        self.wait();
        start.elapsed().as_secs_f64()
    }

    fn follow(&self, thread: usize) {
        keep_to_core(thread);
        let mut scratch = self.scratch();
        loop {
            self.wait();
            let Some(job) = self.jobs.get(self.next.load(Ordering::Relaxed)) else { return };
            job.work(thread, self.threads, &mut scratch);
            self.wait();
        }
    }

    fn scratch(&self) -> MmapMut {
        let most = self.jobs.iter().map(|job| job.scratch_bytes).max().unwrap_or(0);
        large_pages(most + SCRATCH_GAP)
    }

    /// Returns once all threads are here.
    fn wait(&self) {
        let turn = self.turn.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.store(0, Ordering::Relaxed);
            self.turn.store(turn + 1, Ordering::Release);
            return;
        }
        while self.turn.load(Ordering::Acquire) == turn {
            spin_loop();
        }
    }
}
