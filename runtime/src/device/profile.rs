//! When every launch began and ended on every thread: sums over all runs of a program, and the last run in full.
use std::cell::UnsafeCell;
use std::time::Instant;

/// Measured times of a plan's programs; all times are nanoseconds since the profile began.
pub struct Profile {
    begin: Instant,
    threads: usize,
    programs: Vec<ProgramTimes>,
}

/// The times of one program.
#[derive(Clone, Default, Debug)]
pub struct ProgramTimes {
    pub runs: u64,
    /// Sum over all runs.
    pub wall: u64,
    /// One for each launch.
    pub launches: Vec<LaunchTimes>,
}

/// The times of one launch.
#[derive(Clone, Default, Debug)]
pub struct LaunchTimes {
    /// Sum over all runs, from the first thread's begin to the last one's end.
    pub wall: u64,
    /// Sum over all runs and threads of the time at work.
    pub busy: u64,
    /// Begin and end on every thread in the last run; equal where the thread had nothing to do.
    pub last: Vec<(u64, u64)>,
}

/// What the threads of one run of a program write down.
pub(super) struct Recorder {
    begin: Instant,
    /// By thread, then by launch. A thread only touches its own list.
    spans: Vec<UnsafeCell<Vec<(u64, u64)>>>,
}

// SAFETY: `record` is called by each thread with its own index only, and `spans` are read after all have ended.
unsafe impl Sync for Recorder {}

impl Recorder {
    /// Notes that `thread` worked on its next launch from `from` until now, or had nothing to do.
    ///
    /// # Safety
    /// No two threads give the same `thread`.
    pub unsafe fn record(&self, thread: usize, from: Instant, worked: bool) {
        let begin = (from - self.begin).as_nanos() as u64;
        let span = (begin, if worked { self.begin.elapsed().as_nanos() as u64 } else { begin });
        // SAFETY: the caller promises that nobody else uses this list.
        unsafe { (*self.spans[thread].get()).push(span) };
    }

    /// What all threads have written down.
    pub fn into_spans(self) -> Vec<Vec<(u64, u64)>> {
        self.spans.into_iter().map(UnsafeCell::into_inner).collect()
    }
}

impl Profile {
    pub fn new(threads: usize, launches: impl Iterator<Item = usize>) -> Profile {
        let times = |count| ProgramTimes { launches: vec![LaunchTimes::default(); count], ..ProgramTimes::default() };
        Profile { begin: Instant::now(), threads, programs: launches.map(times).collect() }
    }

    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The times of every program of the plan, in its order.
    pub fn programs(&self) -> &[ProgramTimes] {
        &self.programs
    }

    /// Nanoseconds since it began.
    pub(super) fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    pub(super) fn recorder(&self, program: usize) -> Recorder {
        let list = || UnsafeCell::new(Vec::with_capacity(self.programs[program].launches.len()));
        Recorder { begin: self.begin, spans: (0..self.threads).map(|_| list()).collect() }
    }

    /// Adds a run of the program: begin and end of every launch, by thread.
    pub(super) fn add(&mut self, program: usize, spans: Vec<Vec<(u64, u64)>>) {
        let times = &mut self.programs[program];
        times.runs += 1;
        let begin = spans.iter().filter_map(|list| list.first()).map(|span| span.0).min().unwrap_or(0);
        let end = spans.iter().filter_map(|list| list.last()).map(|span| span.1).max().unwrap_or(0);
        times.wall += end - begin;
        for (i, launch) in times.launches.iter_mut().enumerate() {
            launch.last = spans.iter().map(|list| list[i]).collect();
            let worked = launch.last.iter().filter(|(begin, end)| begin < end);
            let (first, last) = worked.clone().fold((u64::MAX, 0), |(a, b), (begin, end)| (a.min(*begin), b.max(*end)));
            launch.wall += last.saturating_sub(first);
            launch.busy += worked.map(|(begin, end)| end - begin).sum::<u64>();
        }
    }
}
