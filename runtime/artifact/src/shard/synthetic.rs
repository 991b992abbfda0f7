//! Rows of random tokens that are computed, not stored: token `i` of row `r` depends on (seed, r, i) alone.
use super::{COLUMNS, IGNORED, ShardSummary};

/// The numbers of a synthetic shard; none where they do not fit.
pub(super) fn synthetic_summary(rows: u64, vocabulary: u64, length: u64) -> Option<ShardSummary> {
    let tokens = rows.checked_mul(length)?;
    Some(ShardSummary { rows, tokens, longest: length, supervised: tokens.checked_sub(rows)?, vocabulary })
}

/// Writes row `row`: uniform tokens, each the label of the one before it, one document.
pub(super) fn synthetic_row(seed: u64, vocabulary: u64, row: u32, columns: [&mut [i32]; COLUMNS]) {
    let [tokens, labels, positions, segments] = columns;
    let key = [seed as u32, (seed >> 32) as u32];
    for (block, four) in tokens.chunks_mut(4).enumerate() {
        let random = philox([block as u32, row, 0, 0], key);
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

/// Philox 4x32 with ten rounds: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let (a, b) = (u64::from(counter[0]) * 0xD251_1F53, u64::from(counter[2]) * 0xCD9E_8D57);
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of the Random123 distribution (`kat_vectors`, philox4x32 10).
    #[test]
    fn philox_is_random123s() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(philox(counter, [0xa409_3822, 0x299f_31d0]), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }
}
