//! Who does which tasks of a launch: every thread begins with a contiguous share, and takes from the others' ends when
//! its own is done.
//!
//! Tasks are independent, so who does one never shows in a result. A thread that the system holds up delays the launch by
//! the tasks that it has taken, at most a quarter of its share; the others do the rest.
use std::sync::atomic::{AtomicU64, Ordering};

/// The tasks that are left of one thread's share: the first in the high half, their end in the low half.
pub struct Share(AtomicU64);

impl Share {
    /// An empty share.
    pub fn new() -> Share {
        Share(AtomicU64::new(0))
    }

    /// Makes it the share of `thread`. Only that thread may call it, while no other can have the launch before it.
    pub fn fill(&self, tasks: u32, thread: usize, threads: usize) {
        let (begin, end) = share(tasks.into(), thread as u64, threads as u64);
        self.0.store(begin << 32 | end, Ordering::Release);
    }

    /// Takes tasks from the front: a part of what is left, so that others find some to take.
    fn take(&self) -> Option<(u64, u64)> {
        self.claim(|begin, end| {
            let next = begin + (end - begin).div_ceil(4);
            ((begin, next), (next, end))
        })
    }

    /// Takes tasks from the end of another thread's share.
    fn steal(&self) -> Option<(u64, u64)> {
        self.claim(|begin, end| {
            let middle = end - (end - begin).div_ceil(4);
            ((middle, end), (begin, middle))
        })
    }

    /// `cut` divides what is left into what is taken and what stays.
    fn claim(&self, cut: impl Fn(u64, u64) -> ((u64, u64), (u64, u64))) -> Option<(u64, u64)> {
        let mut left = self.0.load(Ordering::Acquire);
        loop {
            let (begin, end) = (left >> 32, left & 0xFFFF_FFFF);
            if begin >= end {
                return None;
            }
            let (taken, (begin, end)) = cut(begin, end);
            match self.0.compare_exchange_weak(left, begin << 32 | end, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(taken),
                Err(now) => left = now,
            }
        }
    }
}

/// Calls `work(begin, end)` until no task of the launch is left for `thread`.
pub fn work_off(shares: &[Share], thread: usize, mut work: impl FnMut(u64, u64)) {
    for victim in 0..shares.len() {
        let share = &shares[(thread + victim) % shares.len()];
        while let Some((begin, end)) = if victim == 0 { share.take() } else { share.steal() } {
            work(begin, end);
        }
    }
}

/// The tasks that one thread begins with: contiguous, in order of threads, sizes differing by at most one; a single task
/// is thread 0's.
fn share(tasks: u64, thread: u64, threads: u64) -> (u64, u64) {
    ((tasks * thread).div_ceil(threads), (tasks * (thread + 1)).div_ceil(threads))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn shares_cover_every_task_once() {
        for tasks in 0..40 {
            for threads in 1..9 {
                let shares: Vec<_> = (0..threads).map(|thread| share(tasks, thread, threads)).collect();
                let joined = shares.windows(2).all(|pair| pair[0].1 == pair[1].0);
                assert!(joined && shares[0].0 == 0 && shares[threads as usize - 1].1 == tasks, "{shares:?}");
                let sizes = shares.iter().map(|(begin, end)| end - begin);
                assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
            }
        }
        assert_eq!(share(1, 0, 4), (0, 1));
    }

    #[test]
    fn every_task_is_done_once_whoever_comes_first() {
        for threads in [1, 2, 5] {
            for round in 0..200 {
                let tasks = round % 37;
                let shares: Vec<Share> = (0..threads).map(|_| Share::new()).collect();
                shares.iter().enumerate().for_each(|(thread, share)| share.fill(tasks, thread, threads));
                let done: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
                std::thread::scope(|scope| {
                    for thread in 0..threads {
                        let (shares, done) = (&shares, &done);
                        scope.spawn(move || {
                            work_off(shares, thread, |begin, end| {
                                (begin..end).for_each(|task| {
                                    done[task as usize].fetch_add(1, Ordering::Relaxed);
                                });
                            });
                        });
                    }
                });
                assert!(
                    done.iter().all(|count| count.load(Ordering::Relaxed) == 1),
                    "{threads} threads, {tasks} tasks"
                );
            }
        }
    }
}
