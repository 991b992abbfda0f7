//! `stages`: which launches need not wait for each other.
//!
//! Invariant: launches of one stage touch no memory in common but what all of them only read, so they may run in any order
//! or at once. A stage is as long as the order of the launches allows.
use crate::schedule::{Launch, Location, Schedule};
use amc_artifact::Arg;
use std::collections::HashMap;

/// Memory as a whole: a buffer, or a stored tensor by its number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Memory {
    Buffer(usize),
    Stored(usize),
}

/// The stage of every launch: numbers from 0 on that only rise. `tensors` are the offsets in the arena where tensors begin
/// that outlive the program, sorted.
pub fn stages(schedule: &Schedule, tensors: &[u64]) -> Vec<usize> {
    let mut stage = 0;
    // What the current stage touches, and whether it is written.
    let mut touched: HashMap<Memory, bool> = HashMap::new();
    let mut stages = vec![];
    for launch in &schedule.launches {
        let accesses = accesses(launch, tensors);
        let meets = |(memory, writes): &(Memory, bool)| touched.get(memory).is_some_and(|written| *written || *writes);
        if accesses.iter().any(meets) {
            touched.clear();
            stage += 1;
        }
        for (memory, writes) in accesses {
            *touched.entry(memory).or_default() |= writes;
        }
        stages.push(stage);
    }
    stages
}

/// The memory that a launch touches, and whether it writes there; what nobody writes is left out.
pub fn accesses(launch: &Launch, tensors: &[u64]) -> Vec<(Memory, bool)> {
    let operands = launch.operands.iter().zip(&launch.writes);
    operands
        .filter_map(|(location, writes)| {
            let memory = match location {
                Location::Buffer { buffer, .. } => Memory::Buffer(*buffer),
                Location::Fixed(Arg::Arena(at)) => Memory::Stored(tensors.partition_point(|start| start <= at)),
                Location::Fixed(Arg::Constant(_) | Arg::Weight { .. }) => return None,
            };
            Some((memory, *writes))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(operands: &[(Location, bool)]) -> Launch {
        let (operands, writes) = operands.iter().copied().unzip();
        Launch { kernel: 0, operands, writes, packed: vec![], label: String::new(), call: 0 }
    }

    #[test]
    fn launches_wait_for_what_they_read_and_for_readers_of_what_they_write() {
        let buffer = |buffer| Location::Buffer { buffer, offset: 0 };
        let arena = |at| Location::Fixed(Arg::Arena(at));
        let weight = Location::Fixed(Arg::Weight { tensor: 0, offset: 0 });
        let launches = vec![
            launch(&[(buffer(0), false), (weight, false), (buffer(1), true)]),
            // Reads the same, writes something else.
            launch(&[(buffer(0), false), (weight, false), (buffer(2), true)]),
            // Reads what was written.
            launch(&[(buffer(1), false), (arena(0), true)]),
            // Another tensor.
            launch(&[(buffer(2), false), (arena(64), true)]),
            // Writes what was read, and a part of the first tensor.
            launch(&[(buffer(1), true)]),
            launch(&[(arena(32), true)]),
        ];
        let schedule = Schedule { launches, ..Schedule::default() };
        assert_eq!(stages(&schedule, &[0, 64]), [0, 0, 1, 1, 2, 2]);
        assert_eq!(stages(&schedule, &[0, 16, 64]), [0, 0, 1, 1, 2, 2]);
    }
}
