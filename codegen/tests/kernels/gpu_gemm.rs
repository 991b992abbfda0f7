//! Products that go to the tensor cores, in every cut of the tuning table.
use super::gemm::{check, plain, term};
use amc_kernels::Machine;
use amc_kernels::emit::Elem::{Bf16, F32};

/// Aligned rows of bf16, several tiles each way, in all layouts; two terms.
#[test]
fn layouts() {
    let mut cases = vec![];
    for form in ["nn", "nt", "tn", "tt"] {
        for (m, n, k) in [(72, 88, 80), (24, 136, 40), (136, 24, 104)] {
            let terms = vec![term(m, n, k, form, [Bf16, Bf16], 8), term(m, n, 16, form, [Bf16, Bf16], 0)];
            let gemm = plain(m, n, terms, if k == 80 { F32 } else { Bf16 });
            let kernel = super::target().product(&gemm);
            cases.push((gemm, kernel));
        }
    }
    check(cases);
}

/// So large a result that it is cut into the largest blocks, and narrow ones beside it.
#[test]
fn cuts() {
    let case = |(m, n, form)| {
        let gemm = plain(m, n, vec![term(m, n, 72, form, [Bf16, Bf16], 0)], F32);
        let kernel = super::target().product(&gemm);
        (gemm, kernel)
    };
    check([(1200, 1160, "nt"), (12304, 16, "nt"), (16, 12296, "tn")].map(case).into());
}
