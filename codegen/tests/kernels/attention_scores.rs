//! Attention whose scores are capped or lowered by the distance, and values whose heads have another size than keys'.
use super::attention::{Case, check_problem, problem, segments};
use amc_kernels::attention::Attention;
use amc_kernels::emit::Elem::{Bf16, F32};

/// One document, sizes that divide nothing, windows, padding, an odd number of heads; and whole blocks hidden.
const CASES: &[Case] = &[
    (2, 75, 3, 3, 20, None, F32, &[&[75], &[40, 35]]),
    (2, 70, 4, 2, 7, Some(9), F32, &[&[70], &[11, 30, 20]]),
    (1, 190, 6, 2, 16, None, F32, &[&[150, 30]]),
    (1, 97, 6, 3, 24, None, Bf16, &[&[50, 47]]),
    (1, 75, 3, 3, 7, None, Bf16, &[&[75]]),
    (3, 201, 3, 1, 8, Some(70), Bf16, &[&[201], &[150, 51], &[]]),
];

fn check(cases: &[Case], change: impl Fn(&mut Attention)) {
    for case in cases {
        let mut attention = problem(case);
        change(&mut attention);
        check_problem(&attention, segments(case.1, case.7));
    }
}

#[test]
fn scores_are_capped() {
    check(CASES, |a| a.softcap = Some(0.6));
}

#[test]
fn distances_lower_scores() {
    check(CASES, |a| a.alibi = Some(1.0));
    check(&CASES[1..4], |a| a.alibi = Some(0.3));
}

#[test]
fn both() {
    check(&CASES[1..4], |a| (a.softcap, a.alibi) = (Some(1.5), Some(0.5)));
}

#[test]
fn values_of_another_size() {
    check(CASES, |a| a.value_dim = a.head_dim / 2 + 1);
    check(&CASES[1..4], |a| a.value_dim = 2 * a.head_dim + 4);
    check(&CASES[2..4], |a| (a.value_dim, a.softcap, a.alibi) = (10, Some(1.5), Some(0.5)));
}
