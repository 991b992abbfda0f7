//! Products that go to the tensor cores, in every cut of the tuning table.
use super::gemm::{check, check_epilogue_run, check_rounded, check_run, plain, steps_stop, term, with_epilogue};
use crate::harness::run_steps;
use amc_kernels::emit::Elem::{Bf16, F32};
use amc_kernels::gemm::Gemm;
use amc_kernels::{Gpu, Kernel, Machine};

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

/// Few blocks with many steps, of which several tasks have parts: aligned and not, in bf16, beside f32, and in f32 alone.
#[test]
fn parts_of_steps() {
    for form in ["nn", "nt", "tn", "tt"] {
        for (m, n, k, elems, gap) in [
            (70, 12, 1100, [Bf16, Bf16], 4),
            (12, 70, 1600, [F32, Bf16], 0),
            (70, 30, 1031, [Bf16, F32], 1),
            (20, 20, 1290, [F32, F32], 0),
        ] {
            let gemm = plain(m, n, vec![term(m, n, k, form, elems, gap)], if k == 1600 { F32 } else { Bf16 });
            let steps = super::target().product_in_parts(&gemm).expect("few blocks with many steps");
            check_run(&gemm, |x| x, |operands| run_steps(&steps, operands, &[]));
        }
    }
}

#[test]
fn parts_of_steps_with_epilogues() {
    for (m, n, elem) in [(72, 12, F32), (21, 43, Bf16)] {
        let gemm = with_epilogue(m, n, vec![term(m, n, 1540, "nt", [Bf16, Bf16], 0)], elem);
        let steps = super::target().product_in_parts(&gemm).expect("few blocks with many steps");
        check_epilogue_run(&gemm, |operands, aliases| run_steps(&steps, operands, aliases));
    }
}

/// Not in parts: many blocks, few steps, several terms, limits.
#[test]
fn products_as_a_whole() {
    let in_parts = |gemm: &Gemm| super::target().product_in_parts(gemm).is_some();
    let of = |m, n, k| plain(m, n, vec![term(m, n, k, "nt", [Bf16, Bf16], 0)], F32);
    assert!(in_parts(&of(64, 16, 1024)));
    assert!(!in_parts(&of(64, 16, 1023)) && !in_parts(&of(64 * 60, 16, 1024)));
    let twice = |gemm: Gemm| Gemm { terms: vec![gemm.terms[0]; 2], ..gemm };
    assert!(!in_parts(&twice(of(64, 16, 1024))));
    assert!(!in_parts(&Gemm { row_limit: Some(0), ..of(64, 16, 1024) }));
    assert!(!in_parts(&Gemm { inner_limit: Some(0), ..of(64, 16, 1024) }));
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

/// f32 rounded to TF32 where that is asked for, in all layouts and in every cut; LoRA's f32 beside bf16 stays whole.
#[test]
fn rounded_to_tf32() {
    let gpu = Gpu { tf32: true, ..super::target() };
    let mut cases = vec![];
    let mut case = |(m, n, k), form, elems, gap, family| {
        let gemm = plain(m, n, vec![term(m, n, k, form, elems, gap), term(m, n, 9, form, elems, 0)], F32);
        let kernel = gpu.product(&gemm);
        assert_eq!(kernel.work.family, family, "{gemm:?}");
        cases.push((gemm, kernel));
    };
    for form in ["nn", "nt", "tn", "tt"] {
        for size in [(72, 88, 80), (21, 133, 41), (131, 23, 100)] {
            case(size, form, [F32, F32], 3, "product_tf32");
        }
    }
    case((1200, 1160, 40), "nt", [F32, F32], 0, "product_tf32");
    check_rounded(std::mem::take(&mut cases), tf32);
    let mut mixed = plain(72, 88, vec![term(72, 88, 80, "nt", [F32, Bf16], 0)], F32);
    mixed.terms.push(term(72, 88, 8, "nt", [Bf16, F32], 0));
    check(vec![(mixed.clone(), gpu.product(&mixed))]);
}

/// To 10 bits behind the point, ties away from zero.
fn tf32(x: f64) -> f64 {
    f64::from(f32::from_bits(((x as f32).to_bits() + 0x1000) & !0x1FFF))
}
