//! What `amc data` prints: the numbers of a dataset, its lengths, its shapes, and rows with the learnt tokens marked.
use std::io::Write;
use std::ops::Range;

use amc_artifact::{Batch, IGNORED};
use anyhow::Result;

use super::{Prepared, Report, SampleRow, ShapeSet};
use crate::tokenizer::Tokenizer;

const BINS: usize = 10;
const BAR: usize = 40;
const LEARNT: (&str, &str) = ("\u{1b}[1;32m", "\u{1b}[0m");
const LEARNT_PLAIN: (&str, &str) = ("«", "»");

/// A view of a prepared dataset for people.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    pub prepared: &'a Prepared,
    pub shapes: &'a ShapeSet,
    /// Turns tokens into text; without one, numbers are shown.
    pub tokenizer: Option<&'a Tokenizer>,
    /// How many rows to show, from the first on.
    pub rows: usize,
    /// Colour what is learnt; otherwise it stands between « and ».
    pub colour: bool,
}

/// Whether output is coloured: on a terminal, unless `NO_COLOR` is set.
pub fn use_colour(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

impl Description<'_> {
    /// Writes it.
    ///
    /// # Errors
    /// An output that fails, or tokens that the tokenizer cannot decode.
    pub fn write(&self, out: &mut dyn Write) -> Result<()> {
        self.numbers(out)?;
        self.lengths(out)?;
        let lengths = self.shapes.lengths.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let waste = self.shapes.waste * 100.0;
        writeln!(
            out,
            "shapes: {} rows of {lengths} tokens; {waste:.1} % of all positions are padding",
            self.shapes.batch
        )?;
        let shown = self.rows.min(self.prepared.shard.summary().rows as usize);
        for row in 0..shown as u32 {
            self.row(out, row)?;
        }
        Ok(())
    }

    fn numbers(&self, out: &mut dyn Write) -> Result<()> {
        let summary = self.prepared.shard.summary();
        let Report { examples, replaced, unsupervised, too_long } = self.prepared.report;
        let share = 100.0 * summary.supervised as f64 / summary.tokens.max(1) as f64;
        writeln!(
            out,
            "{examples} examples in {} rows, {} tokens, {} of them learnt ({share:.1} %)",
            summary.rows, summary.tokens, summary.supervised
        )?;
        for (count, what) in [
            (replaced, "without a token to learn, replaced by the next example"),
            (unsupervised, "without a token to learn, which teach nothing"),
            (too_long, "longer than a packed row, left out"),
        ] {
            if count > 0 {
                writeln!(out, "{count} examples {what}")?;
            }
        }
        Ok(())
    }

    fn lengths(&self, out: &mut dyn Write) -> Result<()> {
        let shard = &self.prepared.shard;
        let mut lengths: Vec<usize> = (0..shard.summary().rows as u32).map(|row| shard.length(row)).collect();
        lengths.sort_unstable();
        let (Some(least), Some(most)) = (lengths.first().copied(), lengths.last().copied()) else { return Ok(()) };
        let mean = shard.summary().tokens as f64 / lengths.len() as f64;
        writeln!(out, "lengths: {least} to {most} tokens, median {}, mean {mean:.1}", lengths[lengths.len() / 2])?;
        if least == most {
            return Ok(());
        }
        let width = (most - least + 1).div_ceil(BINS);
        let mut counts = vec![0usize; (most - least) / width + 1];
        lengths.iter().for_each(|length| counts[(length - least) / width] += 1);
        let highest = counts.iter().copied().max().unwrap_or(1).max(1);
        for (bin, count) in counts.into_iter().enumerate() {
            let from = least + bin * width;
            let bar = "#".repeat((count * BAR).div_ceil(highest));
            writeln!(out, "  {from:>6} to {:>6} {count:>8} {bar}", (from + width - 1).min(most))?;
        }
        Ok(())
    }

    fn row(&self, out: &mut dyn Write, row: u32) -> Result<()> {
        let length = self.prepared.shard.length(row);
        let mut read = SampleRow {
            tokens: vec![0; length],
            labels: vec![0; length],
            positions: vec![0; length],
            segments: vec![0; length],
        };
        let SampleRow { tokens, labels, positions, segments } = &mut read;
        self.prepared.shard.fill(&[row], length, &mut Batch { tokens, labels, positions, segments })?;
        writeln!(out, "\nrow {row}: {length} tokens, {} learnt", self.prepared.shard.supervised(row))?;
        for document in read.segments.chunk_by(|a, b| a == b).scan(0, |begin, part| {
            *begin += part.len();
            Some((part[0], *begin - part.len()..*begin))
        }) {
            if document.0 != 0 {
                self.document(out, &read, document.1)?;
            }
        }
        Ok(())
    }

    /// One document: its tokens, and its last target, each marked if it is the target of the token before it.
    fn document(&self, out: &mut dyn Write, row: &SampleRow, range: Range<usize>) -> Result<()> {
        let mut tokens: Vec<u32> = row.tokens[range.clone()].iter().map(|token| *token as u32).collect();
        let mut learnt = vec![false];
        learnt.extend(row.labels[range.clone()].iter().map(|label| *label != IGNORED));
        let last = row.labels[range.end - 1];
        if last != IGNORED {
            tokens.push(last as u32);
        }
        learnt.truncate(tokens.len());
        let (begin, end) = if self.colour { LEARNT } else { LEARNT_PLAIN };
        let mut at = 0;
        for run in learnt.chunk_by(|a, b| a == b) {
            let text = self.text(&tokens, at..at + run.len())?;
            if run[0] {
                write!(out, "{begin}{text}{end}")?;
            } else {
                write!(out, "{text}")?;
            }
            at += run.len();
        }
        writeln!(out)?;
        Ok(())
    }

    /// The text of some tokens as it reads behind those before them; control characters are written out.
    fn text(&self, tokens: &[u32], range: Range<usize>) -> Result<String> {
        let Some(tokenizer) = self.tokenizer else {
            return Ok(tokens[range].iter().map(|token| format!(" {token}")).collect());
        };
        let before = tokenizer.decode(&tokens[..range.start], false)?;
        let through = tokenizer.decode(&tokens[..range.end], false)?;
        let text = match through.strip_prefix(&before) {
            Some(text) => text.to_string(),
            None => tokenizer.decode(&tokens[range], false)?,
        };
        let visible =
            |c: char| if c.is_control() && c != '\n' { c.escape_default().to_string() } else { c.to_string() };
        Ok(text.chars().map(visible).collect())
    }
}
