//! The few static shapes of a run, solved from the lengths of its batches.
//!
//! A batch takes the smallest shape that holds its longest row. Among all ways to choose at most [`MOST_SHAPES`]
//! lengths, the one with the fewest padded tokens over the batches is found exactly, by dynamic programming over the
//! distinct lengths; then the fewest lengths that come within [`TOLERANCE`] of it are taken, since every shape is code
//! of its own, which takes time to compile.
use amc_artifact::{Sampler, Shard};
use anyhow::{Result, ensure};

/// Shapes of a run unless the caller asks for another number.
pub const MOST_SHAPES: usize = 4;
/// How much more padded tokens are taken for one shape less.
const TOLERANCE: f64 = 0.05;
/// Lengths are multiples of this.
pub const GRANULARITY: usize = 8;
/// Epochs whose batches are looked at; later ones are like them.
const EPOCHS_SAMPLED: u64 = 4;
/// Distinct lengths that are told apart; beyond that they are rounded more coarsely.
const MOST_DISTINCT: usize = 1024;

/// The batches of a run: `batch` rows of one of `lengths` tokens.
#[derive(Clone, PartialEq, Debug)]
pub struct ShapeSet {
    /// Rows of a batch.
    pub batch: usize,
    /// Tokens of a row, rising; the last one holds every row of the data.
    pub lengths: Vec<usize>,
    /// The share of positions that hold no text, over the batches looked at: 0 is none, 1 all.
    pub waste: f64,
}

/// A batch before it has a shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Load {
    /// Tokens of its longest row.
    longest: usize,
    /// Tokens of text in all its rows.
    content: u64,
}

impl ShapeSet {
    /// Solves the shapes for a shard in the order of a sampler. Lengths are multiples of 8, or of `multiple_of` where
    /// that is more.
    ///
    /// # Errors
    /// A sampler for another number of rows, or one that leaves no row.
    pub fn solve(shard: &Shard, sampler: &Sampler, epochs: u64, multiple_of: usize, most: usize) -> Result<Self> {
        let rows = shard.summary().rows;
        ensure!(u64::from(sampler.rows) == rows, "a sampler of {} rows over a shard of {rows}", sampler.rows);
        ensure!(sampler.rows_per_rank() > 0, "{rows} rows over {} ranks leave none for each", sampler.replicas);
        let content: Vec<u64> = (0..sampler.rows).map(|row| shard.content(row) as u64).collect();
        let epochs = if sampler.shuffle { epochs.clamp(1, EPOCHS_SAMPLED) } else { 1 };
        let mut loads = Vec::new();
        for epoch in 0..epochs {
            for batch in sampler.epoch(epoch).microbatches() {
                loads.push(Load {
                    longest: batch.iter().map(|row| shard.length(*row)).max().unwrap_or(0),
                    content: batch.iter().map(|row| content[*row as usize]).sum(),
                });
            }
        }
        let batch = sampler.local_batch_size as usize;
        Ok(solve(&loads, batch, shard.summary().longest as usize, GRANULARITY.max(multiple_of), most))
    }

    /// The length that a batch takes whose longest row has `longest` tokens.
    pub fn length_for(&self, longest: usize) -> Option<usize> {
        self.lengths.iter().copied().find(|length| *length >= longest)
    }
}

fn solve(loads: &[Load], batch: usize, longest: usize, granularity: usize, most: usize) -> ShapeSet {
    let counts = distinct(loads, longest, granularity);
    let solutions = cheapest(&counts, most.max(1));
    let best = solutions.last().map_or(0, |(cost, _)| *cost);
    let enough = solutions.iter().find(|(cost, _)| *cost as f64 <= best as f64 * (1.0 + TOLERANCE));
    let lengths = enough.map_or(vec![longest], |(_, lengths)| lengths.clone());
    let (mut positions, mut content) = (0u64, 0);
    for load in loads {
        let length = lengths.iter().find(|length| **length >= load.longest).copied().unwrap_or(longest);
        positions += (batch * length) as u64;
        content += load.content;
    }
    let waste = if positions == 0 { 0.0 } else { 1.0 - content as f64 / positions as f64 };
    ShapeSet { batch, lengths, waste }
}

/// (length, how many batches have it), rising; the last length holds the longest row even if no batch has it.
fn distinct(loads: &[Load], longest: usize, granularity: usize) -> Vec<(usize, u64)> {
    let mut step = granularity;
    loop {
        let mut counts = std::collections::BTreeMap::from([(longest.next_multiple_of(step), 0)]);
        for load in loads {
            *counts.entry(load.longest.max(1).next_multiple_of(step)).or_insert(0) += 1;
        }
        if counts.len() <= MOST_DISTINCT {
            return counts.into_iter().collect();
        }
        step *= 2;
    }
}

/// For 1, 2, … up to `most` lengths: the least sum over batches of the length that they take, and those lengths.
fn cheapest(counts: &[(usize, u64)], most: usize) -> Vec<(u64, Vec<usize>)> {
    let n = counts.len();
    let mut before = vec![0u64; n + 1];
    for (i, (_, count)) in counts.iter().enumerate() {
        before[i + 1] = before[i] + count;
    }
    let group = |from: usize, to: usize| (before[to] - before[from]) * counts[to - 1].0 as u64;
    // least[k][j]: the cost of the first j lengths in k + 1 groups, and where the last group begins.
    let mut least: Vec<Vec<(u64, usize)>> = vec![(0..=n).map(|j| (if j == 0 { 0 } else { group(0, j) }, 0)).collect()];
    for k in 1..most.min(n) {
        let row = (0..=n).map(|j| (k..j).map(|i| (least[k - 1][i].0 + group(i, j), i)).min().unwrap_or((u64::MAX, 0)));
        let row = row.collect();
        least.push(row);
    }
    let trace = |k: usize| {
        let (mut lengths, mut end) = (Vec::new(), n);
        for group in (0..=k).rev() {
            lengths.push(counts[end - 1].0);
            end = least[group][end].1;
        }
        lengths.reverse();
        (least[k][n].0, lengths)
    };
    (0..least.len()).map(trace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(lengths: &[usize]) -> Vec<Load> {
        lengths.iter().map(|length| Load { longest: *length, content: *length as u64 }).collect()
    }

    fn cost(lengths: &[usize], loads: &[Load]) -> Option<u64> {
        loads.iter().map(|load| lengths.iter().find(|l| **l >= load.longest).map(|l| *l as u64)).sum()
    }

    /// Every choice of at most four of the distinct lengths, tried one by one.
    fn brute(loads: &[Load], longest: usize) -> u64 {
        let all: Vec<usize> = distinct(loads, longest, 8).into_iter().map(|(length, _)| length).collect();
        (0u32..1 << all.len())
            .filter(|chosen| chosen.count_ones() <= 4)
            .filter_map(|chosen| {
                let lengths: Vec<usize> = (0..all.len()).filter(|i| chosen >> i & 1 == 1).map(|i| all[i]).collect();
                lengths.last().is_some_and(|last| *last >= longest).then(|| cost(&lengths, loads)).flatten()
            })
            .min()
            .unwrap_or(0)
    }

    #[test]
    fn the_solution_is_the_best_there_is() {
        let mut random = 1u64;
        for case in 0..40 {
            let mut next = |n: u64| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((random >> 33) % n) as usize
            };
            let loads = loads(&(0..30).map(|_| 1 + next(90)).collect::<Vec<_>>());
            let longest = loads.iter().map(|load| load.longest).max().unwrap_or(0) + next(20);
            let solutions = cheapest(&distinct(&loads, longest, 8), 4);
            let (best, lengths) = solutions.last().unwrap();
            assert_eq!(*best, brute(&loads, longest), "case {case}");
            assert_eq!(cost(lengths, &loads), Some(*best), "case {case}");
            let set = solve(&loads, 1, longest, 8, 4);
            assert!(set.lengths.is_sorted() && *set.lengths.last().unwrap() >= longest);
            assert!(cost(&set.lengths, &loads).unwrap() as f64 <= *best as f64 * (1.0 + TOLERANCE));
        }
    }

    #[test]
    fn data_of_one_length_has_one_shape() {
        let set = solve(&loads(&[512; 9]), 4, 512, 8, 4);
        assert_eq!((set.batch, &set.lengths[..]), (4, &[512][..]));
        assert_eq!(set.waste, 0.75);
        assert_eq!((set.length_for(512), set.length_for(513)), (Some(512), None));
    }

    #[test]
    fn a_shape_must_earn_its_code() {
        let set = solve(&loads(&[[992; 99].as_slice(), &[1000]].concat()), 1, 1000, 8, 4);
        assert_eq!(set.lengths, [1000]);
        let close = [[160; 3].as_slice(), &[168; 10]].concat();
        assert_eq!(solve(&loads(&close), 8, 168, 8, 4).lengths, [168]);
        assert_eq!(solve(&loads(&[10, 500]), 1, 500, 8, 4).lengths, [16, 504]);
        assert_eq!(solve(&loads(&[10, 500]), 1, 500, 64, 4).lengths, [64, 512]);
        assert_eq!(solve(&loads(&[10, 500]), 1, 500, 8, 1).lengths, [504]);
    }

    #[test]
    fn many_lengths_are_rounded_more_coarsely() {
        let set = solve(&loads(&(1..40_000).step_by(8).collect::<Vec<_>>()), 1, 40_000, 8, 4);
        assert_eq!(set.lengths.len(), 4);
        assert!(*set.lengths.last().unwrap() >= 40_000);
    }
}
