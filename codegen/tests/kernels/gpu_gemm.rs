//! Products that go to the tensor cores, in every cut of the tuning table.
use super::gemm::{check, plain, steps_stop, term};
use amc_kernels::Machine;
use amc_kernels::emit::Elem::{Bf16, F32};
use amc_kernels::gemm::Gemm;

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

/// f32 by bf16, on either side and on both sides of a sum, in every cut.
#[test]
fn parts() {
    let mut cases = vec![];
    for form in ["nn", "nt", "tn", "tt"] {
        for (m, n, k) in [(72, 88, 80), (24, 136, 40), (136, 24, 104)] {
            let of = |k, elems| term(m, n, k, form, elems, 8);
            let terms = vec![of(k, [F32, Bf16]), of(24, [Bf16, F32]), of(40, [Bf16, Bf16])];
            let gemm = plain(m, n, terms, if k == 80 { F32 } else { Bf16 });
            let kernel = super::target().product(&gemm);
            assert_eq!(kernel.work.family, "product_bf16");
            cases.push((gemm, kernel));
        }
    }
    let (m, n) = (1200, 1160);
    let large = plain(m, n, vec![term(m, n, 40, "nt", [F32, Bf16], 0), term(m, n, 40, "tn", [Bf16, F32], 0)], F32);
    let kernel = super::target().product(&large);
    cases.push((large, kernel));
    check(cases);
}

/// f32 behind a limit is as little a number as bf16 is.
#[test]
fn parts_stop_at_the_count() {
    let (m, n) = (40, 24);
    for elems in [[F32, Bf16], [Bf16, F32]] {
        let gemm = Gemm { inner_limit: Some(10), ..plain(m, n, vec![term(m, n, 50, "tn", elems, 0)], F32) };
        steps_stop(&gemm, &[super::target().product(&gemm)]);
    }
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
