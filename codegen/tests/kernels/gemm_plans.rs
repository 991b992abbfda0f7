//! The plans of the matrix product on CPUs.
use super::gemm::{check, limited, plain, steps_stop, term};
use amc_kernels::emit::Elem::{Bf16, F32};
use amc_kernels::gemm::Gemm;
use amc_kernels::gemm::plan::Plan;
use amc_kernels::{Kernel, Machine, Pairs};

/// Plans that real sizes reach: long K in blocks, rows in several goes.
#[test]
fn every_way_through_the_loops() {
    let lanes = super::target().lanes;
    let mut cases = vec![];
    for form in ["nt", "tn", "nn"] {
        let terms = |m, n| vec![term(m, n, 70, form, [Bf16, F32], 0), term(m, n, 21, form, [F32, F32], 2)];
        for (block_depth, m_cache, panels) in WAYS {
            cases.push(planned(plain(61, 90, terms(61, 90), F32), block_depth, m_cache, panels, lanes, None));
        }
    }
    check(cases);
}

/// Steps of K in pairs, as where the processor has an instruction for them; an odd number of them among others.
#[test]
fn pairs_of_steps() {
    let lanes = super::target().lanes;
    let mut cases = vec![];
    for form in ["nt", "tn", "nn"] {
        let terms = |m, n, k| vec![term(m, n, k, form, [Bf16, Bf16], 1), term(m, n, 9, form, [F32, F32], 2)];
        for (m, n, k) in [(61, 90, 71), (24, 2 * lanes, 64), (5, 3 * lanes, 1)] {
            for (block_depth, m_cache, panels) in WAYS {
                let gemm = plain(m, n, terms(m, n, k), F32);
                cases.push(planned(gemm, block_depth, m_cache, panels, lanes, Some(Pairs::Widened)));
            }
        }
    }
    check(cases);
}

/// LoRA's gradients over many tokens: turned over, B where it lies, K in blocks.
#[test]
fn few_columns_of_long_sums() {
    let mut cases = vec![];
    for elem in [F32, Bf16] {
        for (m, n, k) in [(144, 8, 2100), (96, 8, 2101), (144, 5, 2100)] {
            let gemm = plain(m, n, vec![term(m, n, k, "tn", [elem; 2], 0)], F32);
            let kernel = super::target().product(&gemm);
            cases.push((gemm, kernel));
        }
    }
    check(cases);
}

/// Depth of a block, strips whose A is packed at a time, panels of a task.
const WAYS: [(Option<usize>, usize, usize); 4] = [(None, 1, 2), (Some(16), 1, 1), (Some(32), 2, 3), (None, 4, 1)];

fn planned(
    gemm: Gemm,
    block_depth: Option<usize>,
    m_cache: usize,
    panels: usize,
    lanes: usize,
    pairs: Option<Pairs>,
) -> (Gemm, Kernel) {
    let (rows, vectors) = if panels == 3 { (6, 2) } else { (4, 3) };
    let (m_block, m_cache) = (4 * rows, m_cache * rows);
    let kernel = gemm.build_with(&Plan { lanes, rows, vectors, m_block, panels, m_cache, block_depth, unroll: 4, pairs });
    (gemm, kernel)
}

/// Steps of K from the limit on hold what must not be read as numbers.
#[test]
fn steps_stop_at_the_count() {
    for gemm in limited() {
        let chosen = Plan::choose(&gemm, &super::target());
        let (blocks, pairs) = (Some(16), Some(Pairs::Widened));
        let plans = [Plan { block_depth: blocks, ..chosen.clone() }, Plan { pairs, ..chosen.clone() }, chosen];
        let mut kernels = Vec::from(plans.map(|plan| gemm.build_with(&plan)));
        kernels.dedup_by(|a, b| a.symbol == b.symbol);
        steps_stop(&gemm, &kernels);
    }
}
