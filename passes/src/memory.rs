//! `memory`: lifetimes become offsets in one arena.
//!
//! Invariant: two buffers whose lifetimes meet never share a byte; lifetimes are counted in stages, whose launches may run
//! at once. Buffers are placed from the largest to the smallest,
//! each at the lowest offset that is free for its whole life (greedy by size, Pisarchyk and Lee, 2020).
use crate::schedule::{Location, Schedule};

/// Every buffer starts at a multiple of a cache line.
pub const ALIGNMENT: u64 = 64;

/// Rounds up to [`ALIGNMENT`].
pub fn align(bytes: u64) -> u64 {
    bytes.div_ceil(ALIGNMENT) * ALIGNMENT
}

/// First and last stage that touch a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifetime {
    pub first: usize,
    pub last: usize,
}

/// Offsets of the buffers and the bytes they take together.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Layout {
    pub offsets: Vec<u64>,
    pub bytes: u64,
    /// The largest sum of bytes alive at once: no layout can be smaller.
    pub lower_bound: u64,
}

/// Lifetimes of a schedule's buffers, in stages. `inputs` live from before the first launch, `outputs` to behind the last.
pub fn lifetimes(
    schedule: &Schedule,
    stages: &[usize],
    inputs: &[Location],
    outputs: &[Location],
) -> Vec<Option<Lifetime>> {
    let mut lives: Vec<Option<Lifetime>> = vec![None; schedule.buffers.len()];
    let mut touch = |location: &Location, at: usize| {
        if let Location::Buffer { buffer, .. } = location {
            let life = lives[*buffer].get_or_insert(Lifetime { first: at, last: at });
            life.first = life.first.min(at);
            life.last = life.last.max(at);
        }
    };
    inputs.iter().for_each(|i| touch(i, 0));
    for (launch, stage) in schedule.launches.iter().zip(stages) {
        launch.operands.iter().for_each(|o| touch(o, *stage));
    }
    let end = stages.last().map_or(0, |last| last + 1);
    outputs.iter().for_each(|o| touch(o, end));
    lives
}

/// Places buffers of the given sizes; one without a lifetime is never touched and gets no memory.
pub fn plan(sizes: &[u64], lives: &[Option<Lifetime>]) -> Layout {
    let mut order: Vec<usize> = (0..sizes.len()).filter(|i| lives[*i].is_some()).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(sizes[*i]), *i));
    let mut layout = Layout { offsets: vec![0; sizes.len()], bytes: 0, lower_bound: lower_bound(sizes, lives) };
    let mut placed: Vec<(u64, u64, Lifetime)> = vec![];
    for i in order {
        let (size, life) = (align(sizes[i]), lives[i].expect("filtered"));
        let offset = lowest_gap(&placed, size, life);
        let at = placed.partition_point(|p| p.0 < offset);
        placed.insert(at, (offset, offset + size, life));
        layout.offsets[i] = offset;
        layout.bytes = layout.bytes.max(offset + size);
    }
    layout
}

/// The lowest offset where `size` bytes are free for the whole of `life`; `placed` is sorted by offset.
fn lowest_gap(placed: &[(u64, u64, Lifetime)], size: u64, life: Lifetime) -> u64 {
    let mut offset = 0;
    for (start, end, other) in placed {
        let meets = other.first <= life.last && life.first <= other.last;
        if meets && *start >= offset + size {
            break;
        }
        if meets {
            offset = offset.max(*end);
        }
    }
    offset
}

fn lower_bound(sizes: &[u64], lives: &[Option<Lifetime>]) -> u64 {
    let mut changes: Vec<(usize, i64)> = vec![];
    for (size, life) in sizes.iter().zip(lives) {
        if let Some(life) = life {
            changes.push((life.first, align(*size) as i64));
            changes.push((life.last + 1, -(align(*size) as i64)));
        }
    }
    changes.sort();
    let (mut live, mut most) = (0, 0);
    for (_, change) in changes {
        live += change;
        most = most.max(live);
    }
    most as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random lifetimes: no two that meet overlap, and the layout is never below the bound.
    #[test]
    fn buffers_alive_together_never_overlap() {
        let mut state = 7u64;
        let mut next = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        for _ in 0..50 {
            let sizes: Vec<u64> = (0..60).map(|_| 1 + next(5000)).collect();
            let lives: Vec<Option<Lifetime>> = sizes
                .iter()
                .map(|_| {
                    let first = next(40) as usize;
                    (next(10) > 0).then(|| Lifetime { first, last: first + next(20) as usize })
                })
                .collect();
            let layout = plan(&sizes, &lives);
            assert!(layout.bytes >= layout.lower_bound);
            for i in 0..sizes.len() {
                for j in 0..i {
                    let (Some(a), Some(b)) = (lives[i], lives[j]) else { continue };
                    let meet = a.first <= b.last && b.first <= a.last;
                    let (x, y) = (layout.offsets[i], layout.offsets[j]);
                    assert!(!meet || x + sizes[i] <= y || y + sizes[j] <= x, "buffers {i} and {j}");
                }
            }
        }
    }

    #[test]
    fn buffers_that_never_meet_share() {
        let lives = [Some(Lifetime { first: 0, last: 1 }), Some(Lifetime { first: 2, last: 3 })];
        assert_eq!(plan(&[100, 100], &lives).bytes, align(100));
    }
}
