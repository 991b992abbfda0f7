//! A barrier that spins for a while and then sleeps: launches are microseconds apart, steps may be far apart.
use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Spins before a thread sleeps: about as long as the longest tasks, some two milliseconds. In five pairs of runs of
/// SmolLM2 on both cores of a Zen 5, with nothing beside and beside a busy process of the lowest priority, which takes a
/// sleeper's core, that was 0 to 17 % faster than to sleep after some tens of microseconds.
const SPINS: u32 = 100_000;

/// Lets a fixed number of threads wait for each other, again and again.
pub struct Barrier {
    arrived: Padded<AtomicU32>,
    /// Counts how often the barrier opened.
    generation: Padded<AtomicU32>,
    sleepers: AtomicU32,
    lock: Mutex<()>,
    wake: Condvar,
    threads: u32,
    spins: u32,
}

/// Keeps counters that different threads write on different cache lines.
#[repr(align(128))]
struct Padded<T>(T);

impl Barrier {
    /// A barrier for that many threads, which only spin when each has a core of its own.
    pub fn new(threads: usize) -> Barrier {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        Barrier {
            arrived: Padded(AtomicU32::new(0)),
            generation: Padded(AtomicU32::new(0)),
            sleepers: AtomicU32::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
            threads: threads as u32,
            spins: if threads <= cores { SPINS } else { 0 },
        }
    }

    /// Returns when all threads have called it; everything they did before is visible to all after.
    pub fn wait(&self) {
        let generation = self.generation.0.load(Ordering::Acquire);
        if self.arrived.0.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.open(generation);
        } else if !self.spin(generation) {
            self.sleep(generation);
        }
    }

    fn open(&self, generation: u32) {
        // Nobody arrives again before seeing the new generation, so the plain reset cannot be lost.
        self.arrived.0.store(0, Ordering::Relaxed);
        // Sequentially consistent with `sleep`: either the sleeper sees the new generation or we see the sleeper.
        self.generation.0.store(generation.wrapping_add(1), Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.wake.notify_all();
        }
    }

    fn spin(&self, generation: u32) -> bool {
        for _ in 0..self.spins {
            if self.generation.0.load(Ordering::Acquire) != generation {
                return true;
            }
            spin_loop();
        }
        false
    }

    fn sleep(&self, generation: u32) {
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while self.generation.0.load(Ordering::SeqCst) == generation {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    /// Threads add up what all did before the barrier; a thread that slips through early reads a wrong sum.
    fn rounds(threads: usize, rounds: u64) {
        let barrier = Barrier::new(threads);
        let sum = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for round in 1..=rounds {
                        sum.fetch_add(1, Ordering::Relaxed);
                        barrier.wait();
                        assert_eq!(sum.load(Ordering::Relaxed), round * threads as u64);
                        barrier.wait();
                    }
                });
            }
        });
    }

    #[test]
    fn nobody_slips_through() {
        rounds(1, 10);
        rounds(2, 5_000);
        rounds(5, 500);
    }
}
