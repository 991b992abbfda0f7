//! Which tokens of which head a task has: the longest walks of some heads begin first, then the shorter ones, so that few
//! multiprocessors are left with a long one in the end.
//!
//! Causality makes the walks of late queries long, and of early keys. All heads' longest walks would come first, but what blocks walk
//! over is to come from the GPU's cache: so heads take turns in *bands*, whose other side fits into it together.
use super::*;
use crate::attention::digits;

/// What a band may walk over: of the 40 MB of an A100's L2 cache, or the 50 of an H100's. No figures yet: they wait for a GPU.
const BAND_BYTES: usize = 32 << 20;

impl Walk<'_> {
    /// Row of the batch, head and block of the task's own tokens: of queries, or of keys.
    pub fn block_of_task(&self, e: &mut Emitter, of_queries: bool) -> [Value; 3] {
        let Attention { batch, seq, heads, kv_heads, .. } = *self.attention;
        let (own_heads, blocks) = (if of_queries { heads } else { kv_heads }, seq.div_ceil(self.own()));
        let band_heads = self.band(of_queries) * own_heads / kv_heads;
        let [band, turn, head] = digits(e, "%task", [batch * own_heads / band_heads, blocks, band_heads]);
        let first = e.times(&band, band_heads);
        let head = e.int2("addi", &first, &head);
        let [row, head] = digits(e, &head, [batch, own_heads]);
        let last = e.index(blocks as i64 - 1);
        let block = if of_queries { e.int2("subi", &last, &turn) } else { turn };
        [row, head, block]
    }

    /// Heads of keys, those of all rows of the batch counted, of a band: as many as divide their number and whose other side is not
    /// too much, or one.
    fn band(&self, of_queries: bool) -> usize {
        let Attention { batch, seq, heads, kv_heads, head_dim, value_dim, elem, .. } = *self.attention;
        let others = if of_queries { 1 } else { heads / kv_heads };
        let bytes = others * seq * (head_dim + value_dim) * elem.bytes() as usize;
        let suits = |count: &usize| (batch * kv_heads).is_multiple_of(*count) && count * bytes <= BAND_BYTES;
        (1..=batch * kv_heads).rev().find(suits).unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_divide_the_heads_and_fit_into_the_cache() {
        // Keys and values of 2 MiB a head; queries and gradients of four times as much.
        for (batch, seq, kv_heads, of_queries, wanted) in [
            (1, 4096, 8, true, 8),
            (3, 4096, 8, true, 12),
            (1, 4096, 8, false, 4),
            (1, 4096, 7, false, 1),
            (1, 1 << 20, 2, true, 1),
        ] {
            let heads = 4 * kv_heads;
            let attention = Attention {
                batch,
                seq,
                heads,
                kv_heads,
                head_dim: 128,
                value_dim: 128,
                scale: 1.0,
                window: None,
                softcap: None,
                alibi: None,
                elem: Elem::Bf16,
            };
            let walk = Walk { attention: &attention, warps: 4, others: 64, arrays: 2 };
            assert_eq!(walk.band(of_queries), wanted, "{attention:?}, of queries: {of_queries}");
        }
    }
}
