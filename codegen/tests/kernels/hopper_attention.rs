//! Attention by warpgroups.
use super::attention::{Case, check};
use amc_kernels::Machine;
use amc_kernels::attention::Attention;
use amc_kernels::emit::Elem::Bf16;

/// Rows that divide nothing, of one document, of several, and of padding; shared keys; windows.
#[test]
fn heads_of_whole_boxes() {
    let cases: [Case; 6] = [
        (1, 128, 1, 1, 64, None, Bf16, &[&[128]]),
        (1, 300, 2, 1, 64, None, Bf16, &[&[300]]),
        (2, 150, 2, 2, 128, None, Bf16, &[&[150], &[20, 70, 50]]),
        (2, 290, 1, 1, 64, Some(40), Bf16, &[&[290], &[160, 90]]),
        (2, 140, 1, 1, 128, None, Bf16, &[&[], &[140]]),
        (1, 700, 1, 1, 128, Some(395), Bf16, &[&[30, 600]]),
    ];
    for case in cases {
        let (batch, seq, heads, kv_heads, head_dim, window, elem, _) = case;
        let attention = Attention { batch, seq, heads, kv_heads, head_dim, scale: 1.0, window, elem };
        let symbol = super::target().attention(&attention).symbol;
        assert!(symbol.starts_with("attention_wg"), "{attention:?}: {symbol}");
        check(&case);
    }
}
