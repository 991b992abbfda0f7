//! Attention by warpgroups.
use super::attention::{Case, check_problem, check_segments, problem, segments};
use amc_kernels::attention::Attention;
use amc_kernels::emit::Elem::Bf16;
use amc_kernels::{Kernel, Machine};

/// Rows that divide nothing, of one document, of several, and of padding; shared keys; windows.
#[test]
fn boxes_of_128_bytes() {
    by_warpgroups(&[
        (1, 128, 1, 1, 64, None, Bf16, &[&[128]]),
        (1, 300, 2, 1, 64, None, Bf16, &[&[300]]),
        (2, 150, 2, 2, 128, None, Bf16, &[&[150], &[20, 70, 50]]),
        (2, 290, 1, 1, 64, Some(40), Bf16, &[&[290], &[160, 90]]),
        (2, 140, 1, 1, 128, None, Bf16, &[&[], &[140]]),
        (1, 700, 1, 1, 128, Some(395), Bf16, &[&[30, 600]]),
    ]);
}

/// Sizes as models have them, which tiles fill.
#[test]
fn powers_of_two() {
    by_warpgroups(&[
        (2, 512, 2, 1, 128, None, Bf16, &[&[512], &[256, 256]]),
        (1, 512, 2, 2, 64, Some(128), Bf16, &[&[512]]),
        (1, 256, 2, 1, 256, None, Bf16, &[&[256]]),
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
        (1, 230, 4, 2, 112, None, Bf16, &[&[180, 50]]),
        (1, 230, 2, 1, 192, None, Bf16, &[&[230]]),
        (1, 230, 3, 1, 256, None, Bf16, &[&[100, 130]]),
    ]);
}

/// Heads whose boxes have shorter rows: several boxes, and one.
#[test]
fn boxes_of_64_and_32_bytes() {
    by_warpgroups(&[
        (1, 131, 2, 1, 80, None, Bf16, &[&[131]]),
        (2, 150, 2, 2, 80, None, Bf16, &[&[20, 70, 50], &[]]),
        (1, 290, 3, 1, 80, Some(40), Bf16, &[&[170, 90]]),
        (2, 131, 4, 2, 96, None, Bf16, &[&[131], &[60, 50]]),
        (1, 400, 1, 1, 96, Some(145), Bf16, &[&[30, 350]]),
        (1, 250, 1, 1, 112, None, Bf16, &[&[250]]),
        (1, 150, 2, 1, 32, None, Bf16, &[&[150]]),
        (1, 150, 2, 1, 16, Some(70), Bf16, &[&[20, 120]]),
    ]);
}

/// Heads whose tiles have fewer keys, a number that warps do not divide.
#[test]
fn large_heads() {
    by_warpgroups(&[
        (1, 131, 2, 1, 192, None, Bf16, &[&[131]]),
        (2, 150, 1, 1, 192, Some(40), Bf16, &[&[20, 70, 50], &[]]),
        (1, 131, 2, 1, 256, None, Bf16, &[&[131]]),
        (2, 150, 2, 2, 256, None, Bf16, &[&[150], &[20, 70, 50]]),
        (1, 290, 1, 1, 256, Some(83), Bf16, &[&[170, 90]]),
        (1, 140, 1, 1, 144, None, Bf16, &[&[140]]),
        (1, 140, 2, 1, 224, None, Bf16, &[&[60, 75]]),
    ]);
}

/// Scores that are capped, lowered by distances, or both, with a walk for keys and values together and with one for each.
#[test]
fn capped_and_lowered_scores() {
    let cases: &[Case] = &[
        (1, 290, 2, 1, 64, Some(150), Bf16, &[&[200, 80]]),
        (1, 140, 6, 3, 128, None, Bf16, &[&[140]]),
        (2, 131, 2, 2, 80, None, Bf16, &[&[131], &[60, 50]]),
        (1, 150, 2, 1, 256, None, Bf16, &[&[150]]),
    ];
    for (softcap, alibi) in [(Some(0.6), None), (None, Some(1.0)), (Some(1.5), Some(0.5))] {
        for case in cases {
            by_warpgroups_of(&Attention { softcap, alibi, ..problem(case) }, segments(case.1, case.7));
        }
    }
}

/// The largest score is that of the smallest product.
#[test]
fn a_negative_scale() {
    let case: Case = (1, 290, 2, 1, 64, None, Bf16, &[&[200, 80]]);
    by_warpgroups_of(&Attention { scale: -0.2, ..problem(&case) }, segments(case.1, case.7));
}

/// Values that are smaller or larger than keys, in boxes of rows as long as theirs or others.
#[test]
fn values_of_another_size() {
    for (head_dim, value_dim) in [(192, 128), (128, 192), (96, 64), (80, 64), (64, 112), (16, 256)] {
        let case: Case = (1, 150, 4, 2, head_dim, None, Bf16, &[&[90, 50]]);
        by_warpgroups_of(&Attention { value_dim, ..problem(&case) }, segments(case.1, case.7));
    }
    let case: Case = (2, 290, 1, 1, 192, Some(100), Bf16, &[&[290], &[]]);
    let (value_dim, softcap, alibi) = (128, Some(1.5), Some(1.0));
    by_warpgroups_of(&Attention { value_dim, softcap, alibi, ..problem(&case) }, segments(case.1, case.7));
}

fn by_warpgroups(cases: &[Case]) {
    for case in cases {
        by_warpgroups_of(&problem(case), segments(case.1, case.7));
    }
}

/// Both ways: all kernels of the gradient but the first, which lays out what belongs to a query.
fn by_warpgroups_of(attention: &Attention, segments: Vec<i32>) {
    let forward = super::target().attention(attention);
    let gradient = super::target().attention_gradient(attention).launches;
    let kernels = [&forward].into_iter().chain(gradient[1..].iter().map(|(kernel, _)| kernel));
    for Kernel { symbol, .. } in kernels {
        assert!(symbol.starts_with("attention_wg"), "{attention:?}: {symbol}");
    }
    check_problem(attention, segments);
}

/// The last tile of queries ends behind the blocks of 128: what belongs to its queries is there nevertheless.
#[test]
fn tiles_that_end_behind_all_blocks() {
    by_warpgroups(&[(1, 250, 1, 1, 96, None, Bf16, &[&[250]]), (2, 250, 1, 1, 192, None, Bf16, &[&[250], &[20, 230]])]);
}

/// The last keys of a tile belong to another document than the keys before and behind them.
#[test]
fn the_last_keys_of_a_tile_are_looked_at() {
    for (head_dim, keys) in
        [(64, 128), (80, 80), (96, 96), (192, 96), (192, 112), (192, 80), (256, 80), (256, 64), (256, 48)]
    {
        let case: Case = (1, 290, 1, 1, head_dim, None, Bf16, &[&[290]]);
        let mut segments = segments(case.1, case.7);
        segments[keys - 1] = 2;
        check_segments(&case, segments);
    }
}

/// One token of another document is the first or the last of a tile, before or behind blocks of one document.
#[test]
fn other_documents_at_the_ends_of_tiles() {
    for (head_dim, tile) in [(64, 128), (128, 64), (192, 96), (256, 48)] {
        let first = tile * 128_usize.div_ceil(tile);
        for other in [first, first + tile - 1] {
            let case: Case = (1, 390, 1, 1, head_dim, None, Bf16, &[&[390]]);
            let mut segments = segments(case.1, case.7);
            segments[other] = 2;
            check_segments(&case, segments);
        }
    }
}

/// A tile of padding, and a warp's queries of padding behind it, in the midst of a document: they see nothing.
#[test]
fn padding_within_a_document() {
    let case: Case = (1, 290, 1, 1, 64, None, Bf16, &[&[290]]);
    let mut segments = segments(case.1, case.7);
    segments[128..272].fill(0);
    check_segments(&case, segments);
}
