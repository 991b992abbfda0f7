//! Attention by warpgroups.
use super::attention::{Case, check};
use amc_kernels::attention::Attention;
use amc_kernels::emit::Elem::Bf16;
use amc_kernels::{Kernel, Machine};

/// Rows that divide nothing, of one document, of several, and of padding; shared keys; windows.
#[test]
fn heads_of_whole_boxes() {
    by_warpgroups(&[
        (1, 128, 1, 1, 64, None, Bf16, &[&[128]]),
        (1, 300, 2, 1, 64, None, Bf16, &[&[300]]),
        (2, 150, 2, 2, 128, None, Bf16, &[&[150], &[20, 70, 50]]),
        (2, 290, 1, 1, 64, Some(40), Bf16, &[&[290], &[160, 90]]),
        (2, 140, 1, 1, 128, None, Bf16, &[&[], &[140]]),
        (1, 700, 1, 1, 128, Some(395), Bf16, &[&[30, 600]]),
    ]);
}

/// Groups of query heads, whose tiles follow each other in a ring that is shorter than they are together.
#[test]
fn groups_of_heads() {
    by_warpgroups(&[
        (1, 230, 6, 2, 64, None, Bf16, &[&[230]]),
        (2, 140, 3, 1, 128, None, Bf16, &[&[100, 40], &[139]]),
        (1, 260, 4, 2, 128, Some(70), Bf16, &[&[60, 190]]),
        (2, 270, 4, 1, 64, Some(1), Bf16, &[&[65, 128, 64], &[]]),
    ]);
}

fn by_warpgroups(cases: &[Case]) {
    for case in cases {
        let (batch, seq, heads, kv_heads, head_dim, window, elem, _) = *case;
        let attention = Attention { batch, seq, heads, kv_heads, head_dim, scale: 1.0, window, elem };
        let symbol = super::target().attention(&attention).symbol;
        assert!(symbol.starts_with("attention_wg"), "{attention:?}: {symbol}");
        let gradients = super::target().attention_gradient(&attention).launches;
        let by_warpgroups = |(kernel, _): &&(Kernel, _)| kernel.symbol.starts_with("attention_wg_grad");
        assert_eq!(gradients.iter().filter(by_warpgroups).count(), 2, "{attention:?}");
        check(case);
    }
}
