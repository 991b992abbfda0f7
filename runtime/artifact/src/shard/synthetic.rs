//! Rows of random tokens that are computed, not stored: token `i` of row `r` depends on (seed, r, i) alone.
use super::{COLUMNS, IGNORED, ShardSummary};
use crate::philox;

/// The numbers of a synthetic shard; none where they do not fit.
pub(super) fn synthetic_summary(rows: u64, vocabulary: u64, length: u64) -> Option<ShardSummary> {
    let tokens = rows.checked_mul(length)?;
    Some(ShardSummary { rows, tokens, longest: length, supervised: tokens.checked_sub(rows)?, vocabulary })
}

/// Writes row `row`: uniform tokens, each the label of the one before it, one document.
pub(super) fn synthetic_row(seed: u64, vocabulary: u64, row: u32, columns: [&mut [i32]; COLUMNS]) {
    let [tokens, labels, positions, segments] = columns;
    let key = philox::words(seed);
    for (block, four) in tokens.chunks_mut(4).enumerate() {
        let random = philox::philox([block as u32, row, 0, 0], key);
        for (token, word) in four.iter_mut().zip(random) {
            *token = ((u64::from(word) * vocabulary) >> 32) as i32;
        }
    }
    labels.fill(IGNORED);
    if let Some((_, after_first)) = tokens.split_first() {
        labels[..after_first.len()].copy_from_slice(after_first);
    }
    for (i, position) in positions.iter_mut().enumerate() {
        *position = i as i32;
    }
    segments.fill(1);
}
