//! What batches hold that decides how much kernels have to do.
use crate::{Batch, IGNORED, Plan, Program, ProgramKind, Sampler, Shard, Varies};
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// Microbatches that are looked at to know an epoch.
const SAMPLE: usize = 512;

/// Batches of one shape; of none, all that a batch can hold is taken for granted.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Load {
    batches: u64,
    /// Tokens with a label.
    labels: u64,
    /// How many documents there are of each length.
    documents: BTreeMap<u64, u64>,
}

impl Load {
    /// Adds a batch of rows of `sequence` tokens: labels and segments as a [`Shard`] has them.
    pub fn add(&mut self, labels: &[i32], segments: &[i32], sequence: usize) {
        self.batches += 1;
        self.labels += labels.iter().filter(|label| **label != IGNORED).count() as u64;
        for row in segments.chunks(sequence.max(1)) {
            for document in row.chunk_by(|a, b| a == b).filter(|document| document[0] != 0) {
                *self.documents.entry(document.len() as u64).or_default() += 1;
            }
        }
    }

    /// The part of its most work that a launch of a program of `rows` by `sequence` has to do on average.
    pub fn share(&self, varies: Varies, rows: u64, sequence: u64) -> f64 {
        if self.batches == 0 {
            return 1.0;
        }
        let (done, most) = match varies {
            Varies::Never => return 1.0,
            Varies::Labels => (self.labels as f64, (rows * sequence) as f64),
            Varies::Pairs { window } => {
                let seen = |(length, count): (&u64, &u64)| *count as f64 * pairs(*length, window);
                (self.documents.iter().map(seen).sum(), rows as f64 * pairs(sequence, window))
            }
        };
        done / (self.batches as f64 * most)
    }
}

/// Pairs of a query and a key that it sees in a document of so many tokens.
fn pairs(length: u64, window: Option<u64>) -> f64 {
    let window = window.map_or(length, |window| window.min(length)) as f64;
    window * (window + 1.0) / 2.0 + (length as f64 - window) * window
}

/// What an optimizer step does, averaged over an epoch.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Step {
    /// Microbatches by program.
    pub runs: BTreeMap<String, f64>,
    /// What they hold, by program.
    pub loads: BTreeMap<String, Load>,
    /// Tokens up to the last one with a label of every row, as throughput counts them.
    pub tokens: f64,
}

impl Step {
    /// Of the first epoch of a plan's training, as far as microbatches spread evenly over it tell.
    ///
    /// # Errors
    /// A row that the shard lacks, or rows that no program takes.
    pub fn of(plan: &Plan, shard: &Shard, sampler: &Sampler) -> Result<Step> {
        let epoch = sampler.epoch(0);
        let count = epoch.microbatches().len();
        let every = count.div_ceil(SAMPLE).max(1);
        let looked_at = count.div_ceil(every);
        let each = count as f64 / (looked_at * epoch.steps().len()).max(1) as f64;
        let mut step = Step::default();
        for rows in epoch.microbatches().step_by(every) {
            let longest = rows.iter().map(|row| shard.length(*row)).max().unwrap_or(0);
            let program = taking(plan, rows.len(), longest)?;
            let (places, sequence) = ((program.batch * program.seq) as usize, program.seq as usize);
            let [mut tokens, mut labels, mut positions, mut segments] = [(); 4].map(|()| vec![0; places]);
            let mut batch =
                Batch { tokens: &mut tokens, labels: &mut labels, positions: &mut positions, segments: &mut segments };
            shard.fill(rows, sequence, &mut batch)?;
            step.tokens += each * counted_tokens(&labels, sequence) as f64;
            *step.runs.entry(program.name.clone()).or_default() += each;
            step.loads.entry(program.name.clone()).or_default().add(&labels, &segments, sequence);
        }
        Ok(step)
    }
}

/// The smallest training program that takes so many rows of so many tokens.
fn taking(plan: &Plan, rows: usize, longest: usize) -> Result<&Program> {
    let fits = |program: &&Program| {
        program.kind == ProgramKind::Train && program.batch >= rows as u64 && program.seq >= longest as u64
    };
    let smallest = plan.programs.iter().filter(fits).min_by_key(|program| (program.batch * program.seq, program.seq));
    smallest.with_context(|| format!("no program takes {rows} rows of {longest} tokens: run `amc compile` again"))
}

/// Tokens of rows of `sequence` up to the last one with a label of each.
pub fn counted_tokens(labels: &[i32], sequence: usize) -> u64 {
    let rows = labels.chunks(sequence.max(1));
    rows.map(|row| row.iter().rposition(|&label| label != IGNORED).map_or(0, |last| last as u64 + 1)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_follows_labels_and_documents() {
        let mut load = Load::default();
        assert_eq!(load.share(Varies::Labels, 2, 4), 1.0);
        // Two documents and padding; one document that fills its row.
        load.add(&[1, IGNORED, IGNORED, IGNORED, 1, 1, 1, IGNORED], &[1, 1, 2, 0, 1, 1, 1, 1], 4);
        let share = |varies| load.share(varies, 2, 4);
        assert_eq!(share(Varies::Never), 1.0);
        assert_eq!(share(Varies::Labels), 0.5);
        // 3 + 1 + 10 of 20 pairs; with a window of two 3 + 1 + 7 of 14.
        assert_eq!(share(Varies::Pairs { window: None }), 0.7);
        assert_eq!(share(Varies::Pairs { window: Some(2) }), 11.0 / 14.0);
        let twice = {
            let mut it = load.clone();
            it.add(&[IGNORED; 8], &[0; 8], 4);
            it
        };
        assert_eq!(twice.share(Varies::Labels, 2, 4), 0.25);
    }
}
