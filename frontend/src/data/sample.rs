//! A tokenised example, and a row of a shard.
use amc_artifact::IGNORED;
use anyhow::{Result, ensure};

/// One example: `labels[i]` is the target of `tokens[i]`, or [`IGNORED`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sample {
    pub tokens: Vec<i32>,
    pub labels: Vec<i32>,
    /// How many of the tokens are text; padding follows.
    pub content: usize,
}

impl Sample {
    /// Shifts encoded text into inputs and targets. `supervised[i]` says whether token `i` is one to learn; where it is
    /// too short, the rest is not. With `pad_to`, a shorter sample is padded to that length.
    ///
    /// This is NeMo Automodel's `_package_tokenized_example`. The attention mask that it derives by looking for padding
    /// ids from the end is not needed here, where segments say what is padding.
    pub fn shifted(mut tokens: Vec<i32>, supervised: &[bool], pad_to: Option<usize>, pad_id: i32) -> Self {
        let label = |i: usize| if supervised.get(i).copied().unwrap_or(false) { tokens[i] } else { IGNORED };
        let mut labels: Vec<i32> = (1..tokens.len()).map(label).collect();
        tokens.pop();
        let content = tokens.len();
        let length = content.max(pad_to.unwrap_or(0));
        tokens.resize(length, pad_id);
        labels.resize(length, IGNORED);
        Sample { tokens, labels, content }
    }

    /// Positions with a target.
    pub fn supervised(&self) -> usize {
        self.labels.iter().filter(|label| **label != IGNORED).count()
    }

    /// The row that holds this sample alone.
    ///
    /// # Errors
    /// A sample without content.
    pub fn into_row(self) -> Result<SampleRow> {
        ensure!(self.content > 0, "an example of fewer than two tokens, from which nothing can be learnt");
        let length = self.tokens.len();
        let positions = (0..length as i32).collect();
        let segments = (0..length).map(|i| i32::from(i < self.content)).collect();
        Ok(SampleRow { tokens: self.tokens, labels: self.labels, positions, segments })
    }
}

/// A row as a shard stores it; all columns have one length.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SampleRow {
    pub tokens: Vec<i32>,
    pub labels: Vec<i32>,
    pub positions: Vec<i32>,
    pub segments: Vec<i32>,
}

impl SampleRow {
    /// The row for a shard's writer.
    pub fn view(&self) -> amc_artifact::Row<'_> {
        let SampleRow { tokens, labels, positions, segments } = self;
        amc_artifact::Row { tokens, labels, positions, segments }
    }

    /// Tokens that are text.
    pub fn content(&self) -> usize {
        self.segments.iter().filter(|segment| **segment != 0).count()
    }
}
