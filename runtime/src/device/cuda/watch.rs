//! Watches over launches. A kernel that never ends keeps whoever waits for it, and in time whoever launches something behind it, for
//! ever, and the driver says nothing. So a thread of its own looks at what the GPU has counted, and tells which launch it is.
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// How long a launch may take before that is told. Kernels take milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Does `work`. Meanwhile `tell` is called with the number of launches that are `done` where that has not changed for `patience`;
/// once for a number.
pub fn watched<T>(
    patience: Duration,
    done: impl Fn() -> usize + Send,
    tell: impl Fn(usize) + Send,
    work: impl FnOnce() -> T,
) -> T {
    let (working, ended) = channel::<()>();
    std::thread::scope(move |scope| {
        // Dropped when the work ends, in whatever way.
        let _working = working;
        scope.spawn(move || {
            let (mut last, mut told) = (None, None);
            while ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                let now = Some(done());
                if now == last && now != told {
                    now.into_iter().for_each(&tell);
                    told = now;
                }
                last = now;
            }
        });
        work()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const MOMENT: Duration = Duration::from_millis(2);

    #[test]
    fn a_launch_that_does_not_end_is_told_once() {
        let (tell, told) = channel();
        let tell = move |number| tell.send(number).unwrap();
        let first = watched(
            MOMENT,
            || 7,
            tell,
            || {
                let first = told.recv().unwrap();
                std::thread::sleep(10 * MOMENT);
                first
            },
        );
        assert_eq!((first, told.try_iter().count()), (7, 0));
    }

    #[test]
    fn launches_that_end_are_not_told() {
        let looks = AtomicUsize::new(0);
        let next = || looks.fetch_add(1, Ordering::Relaxed);
        let result = watched(
            MOMENT,
            next,
            |number| panic!("launch {number}"),
            || {
                while looks.load(Ordering::Relaxed) < 5 {
                    std::thread::sleep(MOMENT);
                }
                "done"
            },
        );
        assert_eq!(result, "done");
    }

    #[test]
    fn work_that_panics_ends() {
        let panics = || watched(PATIENCE, || 0, |_| (), || panic!("as it should"));
        assert!(std::panic::catch_unwind(panics).is_err());
    }
}
