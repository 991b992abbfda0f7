//! `streams`: which stream of a GPU each launch goes into, and which launches of other streams it waits for.
//!
//! Invariant: of two launches that touch the same bytes, of which one writes them, the later one of the plan's order waits
//! for the earlier: it follows it in a stream, or waits for it, or for one that does. So whatever the GPU runs at a time, every
//! launch reads and leaves what it would in the plan's order, and memory is that of the plan's order. Waits that others
//! imply are left out.
use crate::memory::Layout;
use crate::schedule::Schedule;
use crate::stages::{Memory, accesses};
use amc_artifact::{Begins, MOST_STREAMS};
use std::cmp::Reverse;
use std::ops::Range;

/// What every launch of a schedule waits for, in at most so many streams. Buffers lie as in `layout`, those that are `used`;
/// `tensors` are the offsets in the arena where tensors begin that outlive the program, sorted.
pub fn streams(schedule: &Schedule, layout: &Layout, used: &[bool], tensors: &[u64], count: usize) -> Vec<Begins> {
    assert!((1..=MOST_STREAMS as usize).contains(&count), "{count} streams, of 1 to {MOST_STREAMS}");
    let pieces = Pieces::new(schedule, layout, used);
    // Before the first tensor is one more place.
    let mut streams = Streams::new(count, pieces.borders.len() + tensors.len() + 1);
    let launches = schedule.launches.iter();
    launches
        .map(|launch| {
            let accesses = accesses(launch, tensors).into_iter();
            streams.next(accesses.map(|(memory, writes)| (pieces.of(memory), writes)).collect())
        })
        .collect()
}

/// Memory in pieces, so that every buffer is a run of them: those of the arena between the borders of buffers, then a piece for
/// each tensor that outlives the program.
struct Pieces<'a> {
    schedule: &'a Schedule,
    layout: &'a Layout,
    /// Of buffers, from the layout's beginning, sorted.
    borders: Vec<u64>,
}

impl<'a> Pieces<'a> {
    fn new(schedule: &'a Schedule, layout: &'a Layout, used: &[bool]) -> Pieces<'a> {
        let buffers = schedule.buffers.iter().zip(&layout.offsets).zip(used).filter(|(_, used)| **used);
        let mut borders: Vec<u64> =
            buffers.flat_map(|((buffer, offset), _)| [*offset, offset + buffer.bytes]).collect();
        borders.sort_unstable();
        borders.dedup();
        Pieces { schedule, layout, borders }
    }

    /// The pieces of a buffer, or that of a tensor.
    fn of(&self, memory: Memory) -> Range<usize> {
        match memory {
            Memory::Buffer(buffer) => {
                let begin = self.layout.offsets[buffer];
                let end = begin + self.schedule.buffers[buffer].bytes;
                self.borders.partition_point(|b| *b < begin)..self.borders.partition_point(|b| *b < end)
            }
            Memory::Stored(tensor) => self.borders.len() + tensor..self.borders.len() + tensor + 1,
        }
    }
}

/// Of every stream, the last launch that is complete, if one is.
type Clock = Vec<Option<usize>>;

/// The streams so far.
struct Streams {
    /// Of every launch, its stream, and what is complete when it is.
    launches: Vec<(usize, Clock)>,
    /// The last launch of every stream.
    last: Clock,
    /// Of every piece of memory, the last launch that wrote it, and the last of every stream that read it since.
    pieces: Vec<(Option<usize>, Clock)>,
}

impl Streams {
    fn new(count: usize, pieces: usize) -> Streams {
        let nothing = vec![None; count];
        Streams { launches: vec![], last: nothing.clone(), pieces: vec![(None, nothing); pieces] }
    }

    /// The next launch, which touches these pieces, and writes them or not.
    fn next(&mut self, accesses: Vec<(Range<usize>, bool)>) -> Begins {
        let needs = self.needs(&accesses);
        let stream = self.stream_behind(&needs);
        let mut complete = match self.last[stream] {
            None => vec![None; self.last.len()],
            Some(last) => self.launches[last].1.clone(),
        };
        let mut behind = vec![];
        for need in needs {
            let (of, before) = &self.launches[need];
            if complete[*of] < Some(need) {
                behind.push(need as u32);
                join(&mut complete, before);
            }
        }
        let number = self.launches.len();
        complete[stream] = Some(number);
        self.launches.push((stream, complete));
        self.last[stream] = Some(number);
        self.note(number, stream, &accesses);
        Begins::InStream { stream: stream as u32, behind }
    }

    /// The launches that have to be complete before one with such accesses begins, the latest first.
    fn needs(&self, accesses: &[(Range<usize>, bool)]) -> Vec<usize> {
        let mut needs = vec![];
        for (pieces, writes) in accesses {
            for (writer, readers) in &self.pieces[pieces.clone()] {
                needs.extend(writer);
                if *writes {
                    needs.extend(readers.iter().flatten());
                }
            }
        }
        needs.sort_unstable_by_key(|need| Reverse(*need));
        needs.dedup();
        needs
    }

    /// A stream whose launches are all complete when those that are needed are, the one that ended last of them; or else that whose
    /// last launch is longest ago.
    fn stream_behind(&self, needs: &[usize]) -> usize {
        let mut complete = vec![None; self.last.len()];
        needs.iter().for_each(|need| join(&mut complete, &self.launches[*need].1));
        let streams = 0..self.last.len();
        let free = streams.clone().filter(|stream| self.last[*stream] <= complete[*stream]);
        let latest = free.max_by_key(|stream| (self.last[*stream], Reverse(*stream)));
        latest.or_else(|| streams.min_by_key(|stream| self.last[*stream])).expect("there is a stream")
    }

    fn note(&mut self, number: usize, stream: usize, accesses: &[(Range<usize>, bool)]) {
        for (pieces, writes) in accesses {
            for (writer, readers) in &mut self.pieces[pieces.clone()] {
                if *writes {
                    *writer = Some(number);
                    readers.fill(None);
                } else if *writer != Some(number) {
                    readers[stream] = Some(number);
                }
            }
        }
    }
}

/// What is complete when two launches are.
fn join(complete: &mut Clock, other: &Clock) {
    complete.iter_mut().zip(other).for_each(|(a, b)| *a = (*a).max(*b));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{lifetimes, plan};
    use crate::schedule::{Buffer, Launch, Location};
    use amc_artifact::Arg;

    fn schedule(buffers: &[u64], launches: &[Vec<(Location, bool)>]) -> Schedule {
        let launch = |operands: &Vec<(Location, bool)>| {
            let (operands, writes) = operands.iter().copied().unzip();
            Launch { kernel: 0, operands, writes, packed: vec![], label: String::new(), call: 0 }
        };
        let buffer = |bytes: &u64| Buffer { bytes: *bytes, label: String::new(), call: 0 };
        let (launches, buffers) = (launches.iter().map(launch).collect(), buffers.iter().map(buffer).collect());
        Schedule { launches, buffers, calls: 1 }
    }

    /// The schedule's buffers laid out for the order of its launches, and its launches in streams.
    fn placed(schedule: &Schedule, tensors: &[u64], count: usize) -> (Layout, Vec<Begins>) {
        let order: Vec<usize> = (0..schedule.launches.len()).collect();
        let lives = lifetimes(schedule, &order, &[], &[]);
        let sizes: Vec<u64> = schedule.buffers.iter().map(|buffer| buffer.bytes).collect();
        let layout = plan(&sizes, &lives);
        let used: Vec<bool> = lives.iter().map(Option::is_some).collect();
        let begins = streams(schedule, &layout, &used, tensors, count);
        (layout, begins)
    }

    fn in_stream(begins: &Begins) -> (u32, &[u32]) {
        let Begins::InStream { stream, behind } = begins else { panic!("{begins:?} is in no stream") };
        (*stream, behind)
    }

    fn buffer(buffer: usize) -> Location {
        Location::Buffer { buffer, offset: 0 }
    }

    #[test]
    fn branches_part_and_meet() {
        let (reads, writes) = (false, true);
        let schedule = schedule(
            &[64; 5],
            &[
                vec![(buffer(0), writes)],
                vec![(buffer(0), reads), (buffer(1), writes)],
                vec![(buffer(0), reads), (buffer(2), writes)],
                vec![(buffer(2), reads), (buffer(3), writes)],
                vec![(buffer(1), reads), (buffer(3), reads), (buffer(4), writes)],
            ],
        );
        let (_, begins) = placed(&schedule, &[], 4);
        // The fourth writes where the first did, which the second reads.
        let expected: [(u32, &[u32]); 5] = [(0, &[]), (0, &[]), (1, &[0]), (1, &[1]), (1, &[])];
        assert_eq!(begins.iter().map(in_stream).collect::<Vec<_>>(), expected);
        let (_, alone) = placed(&schedule, &[], 1);
        assert!(alone.iter().all(|begins| in_stream(begins) == (0, &[])));
    }

    #[test]
    fn tensors_that_stay_are_told_apart() {
        let arena = |at| Location::Fixed(Arg::Arena(at));
        let weight = Location::Fixed(Arg::Weight { tensor: 0, offset: 0 });
        let launches = [
            vec![(weight, false), (arena(0), true)],
            vec![(weight, false), (arena(64), true)],
            vec![(arena(32), false)],
        ];
        let (_, begins) = placed(&schedule(&[], &launches), &[0, 64], 4);
        let expected: [(u32, &[u32]); 3] = [(0, &[]), (1, &[]), (0, &[])];
        assert_eq!(begins.iter().map(in_stream).collect::<Vec<_>>(), expected);
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % n
        }

        /// Launches that write what no other has written yet, or again, and read what was written.
        fn schedule(&mut self) -> Schedule {
            let mut sizes = vec![];
            let launches: Vec<_> = (0..60)
                .map(|_| {
                    let old = |random: &mut Random, sizes: &[u64]| buffer(random.below(sizes.len()));
                    let mut operands = vec![];
                    if sizes.is_empty() || self.below(4) > 0 {
                        sizes.push(1 + self.below(2000) as u64);
                        operands.push((buffer(sizes.len() - 1), true));
                    } else {
                        operands.push((old(self, &sizes), true));
                    }
                    (0..self.below(3)).for_each(|_| {
                        // Recent ones, so that others end and give their bytes to later ones.
                        let first = sizes.len().saturating_sub(8);
                        operands.push((buffer(first + self.below(sizes.len() - first)), false));
                    });
                    operands
                })
                .collect();
            schedule(&sizes, &launches)
        }
    }

    /// Of every launch, those that are complete before it begins, if it waits only as `begins` has it.
    fn before(begins: &[(u32, Vec<u32>)]) -> Vec<Vec<bool>> {
        let mut all: Vec<Vec<bool>> = vec![];
        for (number, (stream, behind)) in begins.iter().enumerate() {
            let previous = begins[..number].iter().rposition(|(other, _)| other == stream);
            let mut complete = vec![false; begins.len()];
            for direct in behind.iter().map(|b| *b as usize).chain(previous) {
                complete[direct] = true;
                complete.iter_mut().zip(&all[direct]).for_each(|(a, b)| *a |= b);
            }
            all.push(complete);
        }
        all
    }

    fn bytes(schedule: &Schedule, layout: &Layout, location: &Location) -> Range<u64> {
        let Location::Buffer { buffer, .. } = location else { panic!("a buffer") };
        layout.offsets[*buffer]..layout.offsets[*buffer] + schedule.buffers[*buffer].bytes
    }

    fn conflict(schedule: &Schedule, layout: &Layout, a: &Launch, b: &Launch) -> bool {
        let operands = |launch: &Launch| -> Vec<_> {
            let pairs = launch.operands.iter().zip(&launch.writes);
            pairs.map(|(location, writes)| (bytes(schedule, layout, location), *writes)).collect()
        };
        let meet = |x: &Range<u64>, y: &Range<u64>| x.start < y.end && y.start < x.end;
        let of_b = operands(b);
        operands(a).iter().any(|(x, writes)| of_b.iter().any(|(y, also)| (*writes || *also) && meet(x, y)))
    }

    #[test]
    fn launches_wait_for_all_they_meet_in_memory_and_for_nothing_twice() {
        let mut random = Random(3);
        let (mut apart, mut waits) = (0, 0);
        for round in 0..40 {
            let schedule = random.schedule();
            let (layout, begins) = placed(&schedule, &[], 1 + round % 5);
            let begins: Vec<(u32, Vec<u32>)> =
                begins.iter().map(in_stream).map(|(stream, behind)| (stream, behind.to_vec())).collect();
            let complete = before(&begins);
            for (i, later) in schedule.launches.iter().enumerate() {
                for (j, earlier) in schedule.launches[..i].iter().enumerate() {
                    let meet = conflict(&schedule, &layout, earlier, later);
                    assert!(!meet || complete[i][j], "launch {i} does not wait for {j}: {begins:?}");
                    apart += usize::from(!complete[i][j]);
                }
                for wait in 0..begins[i].1.len() {
                    let mut fewer = begins.clone();
                    let left_out = fewer[i].1.remove(wait) as usize;
                    assert!(!before(&fewer)[i][left_out], "launch {i} waits for {left_out} twice: {begins:?}");
                    waits += 1;
                }
            }
        }
        assert!(apart > 1000 && waits > 500, "{apart} pairs need not wait, {waits} waits");
    }
}
