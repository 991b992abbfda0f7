//! Products that go to the tensor cores, in every cut of the tuning table.
use super::gemm::{check, plain, steps_stop, term};
use amc_kernels::emit::Elem::{Bf16, F32};
use amc_kernels::gemm::Gemm;
use amc_kernels::{Kernel, Machine};

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
            cases.push(tensor_cores(gemm));
        }
    }
    let (m, n) = (1200, 1160);
    let large = plain(m, n, vec![term(m, n, 40, "nt", [F32, Bf16], 0), term(m, n, 40, "tn", [Bf16, F32], 0)], F32);
    cases.push(tensor_cores(large));
    check(cases);
}

/// What lies behind a limit is no number, in f32, in bf16 and in rows that nothing aligns.
#[test]
fn parts_stop_at_the_count() {
    let (m, n) = (40, 24);
    for (elems, gap) in [([F32, Bf16], 0), ([Bf16, F32], 0), ([Bf16, Bf16], 1)] {
        let gemm = Gemm { inner_limit: Some(10), ..plain(m, n, vec![term(m, n, 50, "tn", elems, gap)], F32) };
        steps_stop(&gemm, &[super::target().product(&gemm)]);
    }
}

/// Rows of bf16 that are no multiple of 16 bytes apart, of one matrix or of both, in every cut.
#[test]
fn unaligned_rows() {
    let mut cases = vec![];
    for form in ["nn", "nt", "tn", "tt"] {
        for (m, n, k) in [(70, 85, 77), (21, 133, 40), (131, 23, 100)] {
            let (one, other, both) = ([Bf16, Bf16], [F32, Bf16], [Bf16, F32]);
            let terms = [(k, one, 0), (20, other, 1), (9, both, 3)].map(|(k, elems, gap)| term(m, n, k, form, elems, gap));
            cases.push(tensor_cores(plain(m, n, terms.into(), if k == 40 { F32 } else { Bf16 })));
        }
    }
    let (m, n) = (1203, 1161);
    let large = vec![term(m, n, 70, "nt", [Bf16, Bf16], 0), term(m, n, 34, "tn", [Bf16, F32], 0)];
    cases.push(tensor_cores(plain(m, n, large, F32)));
    check(cases);
}

/// A LoRA whose rank is no multiple of 8: a layer with it, and what its gradient needs.
#[test]
fn ranks() {
    let (tokens, width, out) = (200, 104, 136);
    let cases = |rank: usize| {
        let layer = |m, n, k, forms: [&str; 2]| {
            vec![term(m, n, k, forms[0], [Bf16, Bf16], 0), term(m, n, rank, forms[1], [F32, Bf16], 0)]
        };
        let alone = |m, n, k, form, elems| plain(m, n, vec![term(m, n, k, form, elems, 0)], F32);
        [
            plain(tokens, out, layer(tokens, out, width, ["nt", "nt"]), Bf16),
            plain(tokens, width, layer(tokens, width, out, ["nn", "nn"]), Bf16),
            alone(tokens, rank, width, "nt", [Bf16, Bf16]),
            alone(tokens, rank, out, "nn", [Bf16, Bf16]),
            alone(rank, width, tokens, "tn", [F32, Bf16]),
            alone(out, rank, tokens, "tn", [Bf16, F32]),
        ]
        .map(tensor_cores)
    };
    check([4, 6, 12].into_iter().flat_map(cases).collect());
}

fn tensor_cores(gemm: Gemm) -> (Gemm, Kernel) {
    let kernel = super::target().product(&gemm);
    assert_eq!(kernel.work.family, "product_bf16", "{gemm:?}");
    (gemm, kernel)
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
