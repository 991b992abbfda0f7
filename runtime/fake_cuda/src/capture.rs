//! Captures: what streams are given becomes a graph, whose work has to wait only as the streams and events had it.
//!
//! A graph's replays do its work in another order each time, any that it allows. So work that does not wait for what it needs does
//! not find it, sooner or later.
use crate::stream::Work;
use cudarc::driver::sys::CUresult;
use std::collections::{BTreeMap, BTreeSet};

/// A capture under way.
pub struct Capture {
    /// The stream that it began with.
    origin: usize,
    work: Vec<(Work, BTreeSet<usize>)>,
    /// Of every stream that takes part, the work that the next has to wait for.
    streams: BTreeMap<usize, BTreeSet<usize>>,
    /// Of every event that was recorded, the work that it stands for.
    events: BTreeMap<usize, BTreeSet<usize>>,
}

impl Capture {
    pub fn new(origin: usize) -> Capture {
        let streams = [(origin, BTreeSet::new())].into();
        Capture { origin, work: Vec::new(), streams, events: BTreeMap::new() }
    }

    pub fn put(&mut self, stream: usize, work: Work) -> Result<(), CUresult> {
        match (self.streams.get_mut(&stream), work) {
            (Some(behind), Work::Event(event)) => {
                self.events.insert(event, behind.clone());
            }
            (Some(behind), work @ (Work::Launch(_) | Work::Product(_))) => {
                let behind = std::mem::replace(behind, [self.work.len()].into());
                self.work.push((work, behind));
            }
            // A driver takes work for a stream beside the capture. Nobody here wants that.
            _ => return Err(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED),
        }
        Ok(())
    }

    /// The stream, which takes part from now on, waits for an event of the capture.
    pub fn wait(&mut self, stream: usize, event: usize) -> Result<(), CUresult> {
        let behind = self.events.get(&event).ok_or(CUresult::CUDA_ERROR_STREAM_CAPTURE_ISOLATION)?;
        self.streams.entry(stream).or_default().extend(behind);
        Ok(())
    }

    /// The graph, if it ends where it began and all streams have ended by then.
    pub fn end(self, stream: usize) -> Result<Graph, CUresult> {
        if stream != self.origin {
            return Err(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
        }
        let mut complete = BTreeSet::new();
        let mut left: Vec<usize> = self.streams[&stream].iter().copied().collect();
        while let Some(work) = left.pop() {
            if complete.insert(work) {
                left.extend(&self.work[work].1);
            }
        }
        if complete.len() < self.work.len() {
            return Err(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
        }
        Ok(Graph { work: self.work, replays: 0 })
    }
}

/// Work, each with the numbers of what it waits for.
pub struct Graph {
    work: Vec<(Work, BTreeSet<usize>)>,
    replays: u64,
}

impl Graph {
    /// All of its work in an order of this replay's: at first the latest comes as early as it may.
    pub fn replay(&mut self) -> Vec<Work> {
        let replay = self.replays;
        self.replays += 1;
        let preference = |number: usize| match replay {
            0 => number as u64,
            _ => (number as u64 + 1).wrapping_mul(replay).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31),
        };
        let mut waits: Vec<usize> = self.work.iter().map(|(_, behind)| behind.len()).collect();
        let mut followers = vec![Vec::new(); self.work.len()];
        for (number, (_, behind)) in self.work.iter().enumerate() {
            behind.iter().for_each(|earlier| followers[*earlier].push(number));
        }
        let ready = |number: usize| (preference(number), number);
        let mut next: BTreeSet<_> = (0..waits.len()).filter(|number| waits[*number] == 0).map(ready).collect();
        let mut order = Vec::new();
        while let Some((_, number)) = next.pop_last() {
            order.push(self.work[number].0.clone());
            for follower in &followers[number] {
                waits[*follower] -= 1;
                if waits[*follower] == 0 {
                    next.insert(ready(*follower));
                }
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(number: u64) -> Work {
        Work::Fill { to: number, bytes: Vec::new() }
    }

    fn numbers(work: Vec<Work>) -> Vec<u64> {
        let number = |work| if let Work::Fill { to, .. } = work { to } else { panic!("work of the test's") };
        work.into_iter().map(number).collect()
    }

    #[test]
    fn replays_keep_to_what_work_waits_for_and_to_nothing_else() {
        let behind = [vec![], vec![0], vec![0], vec![1, 2], vec![]];
        let work = behind.iter().enumerate().map(|(i, b)| (product(i as u64), b.iter().copied().collect())).collect();
        let mut graph = Graph { work, replays: 0 };
        let orders: Vec<Vec<u64>> = (0..20).map(|_| numbers(graph.replay())).collect();
        assert_eq!(orders[0], [4, 0, 2, 1, 3]);
        for order in &orders {
            let at = |number: usize| order.iter().position(|n| *n == number as u64).unwrap();
            behind.iter().enumerate().for_each(|(i, b)| assert!(b.iter().all(|earlier| at(*earlier) < at(i))));
        }
        assert!(orders.iter().any(|order| order != &orders[0]));
    }

    #[test]
    fn streams_take_part_by_events_and_have_to_end() {
        let refused = |result: Result<(), CUresult>| result.expect_err("an error");
        let mut capture = Capture::new(0);
        assert_eq!(refused(capture.put(1, Work::Event(0))), CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        assert_eq!(refused(capture.wait(1, 0)), CUresult::CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
        capture.put(0, Work::Event(0)).unwrap();
        capture.wait(1, 0).unwrap();
        assert_eq!(refused(capture.put(0, product(0))), CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        // As if there had been a launch.
        capture.work.push((product(0), BTreeSet::new()));
        capture.streams.insert(1, [0].into());
        capture.put(1, Work::Event(1)).unwrap();
        let half = |capture: &Capture| Capture {
            origin: 0,
            work: capture.work.clone(),
            streams: capture.streams.clone(),
            events: capture.events.clone(),
        };
        assert_eq!(half(&capture).end(1).err(), Some(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNMATCHED));
        assert_eq!(half(&capture).end(0).err(), Some(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED));
        capture.wait(0, 1).unwrap();
        assert_eq!(numbers(capture.end(0).unwrap().replay()), [0]);
    }
}
