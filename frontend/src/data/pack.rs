//! Packed rows: several samples in one row of fixed length, which cannot see each other (NeMo Automodel's `thd`
//! strategy).
use amc_artifact::IGNORED;
use anyhow::{Result, bail, ensure};

use super::sample::{Sample, SampleRow};
use crate::recipe::Dialect;

/// What packing made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Packs {
    pub rows: Vec<SampleRow>,
    /// Samples longer than a row, which were left out.
    pub too_long: usize,
}

/// Fills rows of `size` tokens with samples in order. A sample that does not fit begins the next row, so a row that is
/// just full is given out when the next sample comes. At most `most` rows are made.
///
/// Positions restart with every sample; in the padding at the end of a row they count on, up to `size - 1`.
///
/// # Errors
/// No rows; and, in the form of September 2025, a sample longer than a row.
pub fn pack(samples: &[&Sample], size: usize, most: Option<usize>, pad_id: i32, dialect: Dialect) -> Result<Packs> {
    let most = most.unwrap_or(usize::MAX);
    let mut packs = Packs::default();
    let mut row = SampleRow::default();
    for sample in samples {
        let length = sample.tokens.len();
        if length > size {
            ensure!(
                dialect == Dialect::Head,
                "a sample of {length} tokens is longer than packed_sequence_size {size}; raise it, or shorten the data"
            );
            packs.too_long += 1;
            continue;
        }
        if row.tokens.len() + length > size {
            packs.rows.push(padded(std::mem::take(&mut row), size, pad_id));
            if packs.rows.len() == most {
                break;
            }
        }
        append(&mut row, sample);
    }
    if !row.tokens.is_empty() && packs.rows.len() < most {
        packs.rows.push(padded(row, size, pad_id));
    }
    if packs.rows.is_empty() {
        bail!("no packed rows: every sample is longer than packed_sequence_size {size}; raise it");
    }
    Ok(packs)
}

fn append(row: &mut SampleRow, sample: &Sample) {
    let document = row.segments.last().copied().unwrap_or(0) + 1;
    row.tokens.extend(&sample.tokens);
    row.labels.extend(&sample.labels);
    row.positions.extend(0..sample.tokens.len() as i32);
    row.segments.extend(std::iter::repeat_n(document, sample.tokens.len()));
}

fn padded(mut row: SampleRow, size: usize, pad_id: i32) -> SampleRow {
    let last = row.positions.last().copied().unwrap_or(-1);
    let padding = size - row.tokens.len();
    row.positions.extend((1..=padding as i32).map(|i| (last + i).min(size as i32 - 1)));
    row.tokens.resize(size, pad_id);
    row.labels.resize(size, IGNORED);
    row.segments.resize(size, 0);
    row
}
