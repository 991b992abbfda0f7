//! Attention in every head size that models have, as a GPU cuts it.
use super::attention::{check, check_problem, problem, results, segments};
use crate::harness::{Buffer, random};
use amc_kernels::attention::Attention;
use amc_kernels::emit::Elem::{Bf16, F32};

#[test]
fn heads_of_bf16() {
    for head_dim in [64, 80, 96, 128, 192, 256] {
        check(&(1, 80, 2, 1, head_dim, None, Bf16, &[&[50, 30]]));
    }
    check(&(2, 70, 1, 1, 64, Some(20), Bf16, &[&[70], &[33, 30]]));
}

/// Gemma 2 caps the scores of heads of 256 and of 128, Baichuan lowers those of heads of 128, and DeepSeek's values are smaller.
#[test]
fn variants_of_bf16() {
    let check = |head_dim, change: &dyn Fn(&mut Attention)| {
        let mut attention = problem(&(1, 80, 2, 1, head_dim, None, Bf16, &[]));
        change(&mut attention);
        check_problem(&attention, segments(80, &[&[50, 30]]));
    };
    check(256, &|a| a.softcap = Some(0.7));
    check(128, &|a| (a.softcap, a.window) = (Some(0.7), Some(40)));
    check(128, &|a| a.alibi = Some(1.0));
    check(192, &|a| a.value_dim = 128);
    check(64, &|a| a.value_dim = 200);
}

#[test]
fn heads_of_f32() {
    for head_dim in [64, 256] {
        check(&(1, 70, 1, 1, head_dim, None, F32, &[&[70]]));
    }
}

/// Two documents that begin where tiles do, one of them full of NaN: nothing of it is touched for the other, or a
/// probability of zero times NaN would show.
#[test]
fn tiles_of_other_documents_are_skipped() {
    for (elem, window, head_dim) in [(Bf16, None, 16), (Bf16, Some(150), 64), (F32, None, 16)] {
        let seq = 256;
        let a = problem(&(1, seq, 1, 1, head_dim, window, elem, &[]));
        let documents = segments(seq, &[&[128, 128]]);
        for poisoned in [1, 2] {
            let array = |seed| {
                let mut values = random(seed, seq * head_dim);
                let lost = (0..values.len()).filter(|i| documents[i / head_dim] == poisoned);
                lost.collect::<Vec<_>>().into_iter().for_each(|i| values[i] = f64::NAN);
                Buffer::floats(elem, &values)
            };
            let found = results(&a, [array(1), array(2), array(3)], Buffer::ints(&documents), array(4));
            for (what, result) in ["o", "lse", "dq", "dk", "dv"].into_iter().zip(found) {
                let values = result.values();
                let width = values.len() / seq;
                let lost = (0..values.len()).find(|i| documents[i / width] != poisoned && values[*i].is_nan());
                assert!(lost.is_none(), "{what} of {a:?}: element {lost:?} has seen document {poisoned}");
            }
        }
    }
}
