//! A fixed team of threads that run the same closure, each with its own index.
use super::barrier::Barrier;
use anyhow::{Context, Result};
use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Stack of a worker; kernels keep tiles on it.
const STACK_BYTES: usize = 16 << 20;

/// The caller is thread 0; the others sleep between runs.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    edge: Barrier,
    step: Barrier,
    job: UnsafeCell<Option<Job>>,
    stop: AtomicBool,
}

/// A borrowed closure whose lifetime was taken off; it is only called while [`Pool::run`] has not returned.
type Job = *const (dyn Fn(usize, &Barrier) + Sync);

// SAFETY: `job` is written by the caller alone while the workers wait at `edge`, and read by the workers only after.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is to a `Sync` closure that outlives every use.
unsafe impl Send for Shared {}

impl Pool {
    /// Starts `threads - 1` workers.
    pub fn new(threads: usize) -> Result<Pool> {
        let shared = Arc::new(Shared {
            edge: Barrier::new(threads),
            step: Barrier::new(threads),
            job: UnsafeCell::new(None),
            stop: AtomicBool::new(false),
        });
        let start = |index| {
            let shared = shared.clone();
            let builder = std::thread::Builder::new().name(format!("amc-{index}")).stack_size(STACK_BYTES);
            builder.spawn(move || shared.serve(index)).context("cannot start a worker thread")
        };
        let workers = (1..threads).map(start).collect::<Result<Vec<_>>>()?;
        Ok(Pool { shared, workers })
    }

    /// Threads, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `job(thread, barrier)` once on every thread and returns when all are done. The barrier is for the job to use
    /// between its parts; every thread must pass it equally often.
    pub fn run(&mut self, job: &(dyn Fn(usize, &Barrier) + Sync)) {
        let job: *const (dyn Fn(usize, &Barrier) + Sync + '_) = job;
        // SAFETY: only the lifetime changes; the pointer is used before this function returns and not after, because
        // the last barrier below is passed by every worker after its call.
        let job: Job = unsafe { std::mem::transmute(job) };
        // SAFETY: `&mut self` keeps other callers out and the workers are waiting at `edge`.
        unsafe { *self.shared.job.get() = Some(job) };
        self.shared.edge.wait();
        self.shared.work(0);
        self.shared.edge.wait();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.edge.wait();
        for worker in self.workers.drain(..) {
            // A worker ends by returning; kernels cannot unwind into it.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn serve(&self, index: usize) {
        loop {
            self.edge.wait();
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            self.work(index);
            self.edge.wait();
        }
    }

    fn work(&self, index: usize) {
        // SAFETY: between the two `edge` barriers of a run nobody writes `job`, and the closure is alive.
        let job = unsafe { (*self.job.get()).map(|job| &*job) };
        if let Some(job) = job {
            job(index, &self.step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn every_thread_runs_once_in_step() {
        for threads in [1, 2, 5] {
            let mut pool = Pool::new(threads).unwrap();
            assert_eq!(pool.threads(), threads);
            let (first, second) = (AtomicU64::new(0), AtomicU64::new(0));
            for run in 1..=50u64 {
                pool.run(&|index, barrier| {
                    first.fetch_add(1 << (8 * index), Ordering::Relaxed);
                    barrier.wait();
                    let all = (0..threads).map(|i| run << (8 * i)).sum::<u64>();
                    assert_eq!(first.load(Ordering::Relaxed), all);
                    barrier.wait();
                    second.fetch_add(1, Ordering::Relaxed);
                });
                assert_eq!(second.load(Ordering::Relaxed), run * threads as u64);
            }
        }
    }
}
