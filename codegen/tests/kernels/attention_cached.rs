//! The key/value cache and attention against it.
use super::attention::penalty;
use crate::harness::*;
use amc_kernels::attention_cached::{AttentionCached, CacheAppend};
use amc_kernels::emit::Elem;

#[test]
fn rows_are_appended_within_the_cache() {
    for (chunk, width, capacity, start, elem) in [
        (3, 40, 8, 2, Elem::F32),
        (3, 5, 8, 5, Elem::Bf16),
        (1, 1, 1, 0, Elem::F32),
        (4, 9, 6, 4, Elem::F32),
        (4, 9, 6, -2, Elem::Bf16),
        (2, 3, 2, i32::MAX, Elem::F32),
    ] {
        let kernel = CacheAppend { chunk, width, capacity, elem }.build(&super::target());
        let (mut new, news) = random_buffer(1, elem, chunk * width);
        let (mut cache, mut want) = random_buffer(2, elem, capacity * width);
        load(&[&kernel]).run(&kernel, &mut [&mut new, &mut cache, &mut Buffer::ints(&[start])]);
        for (i, row) in news.chunks(width).enumerate() {
            if let Some(to) = usize::try_from(i64::from(start) + i as i64).ok().filter(|&to| to < capacity) {
                want[to * width..][..width].copy_from_slice(row);
            }
        }
        assert_close("cache", &cache, &want, 0.0, 0.0);
    }
}

fn attention(problem: &AttentionCached, start: usize, q: &[f64], k: &[f64], v: &[f64]) -> Vec<f64> {
    let AttentionCached { chunk, capacity, heads, kv_heads, head_dim: d, value_dim, .. } = *problem;
    let mut o = vec![0.0; chunk * heads * value_dim];
    for (i, h) in (0..chunk).flat_map(|i| (0..heads).map(move |h| (i, h))) {
        let row = i * heads + h;
        let place = |j: usize| j * kv_heads + h / (heads / kv_heads);
        let sees = |j: &usize| *j <= start + i && problem.window.is_none_or(|w| j + w > start + i);
        let weight = |j: usize| {
            let dot = (0..d).map(|e| q[row * d + e] * k[place(j) * d + e]).sum::<f64>();
            let score = f64::from(problem.scale) * dot;
            let score = problem.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh());
            (score - penalty(problem.alibi, heads, h) * (start + i - j) as f64).exp()
        };
        let weights: Vec<(usize, f64)> = (0..capacity).filter(sees).map(|j| (j, weight(j))).collect();
        let sum: f64 = weights.iter().map(|w| w.1).sum();
        for (j, weight) in weights {
            (0..value_dim).for_each(|e| o[row * value_dim + e] += weight / sum * v[place(j) * value_dim + e]);
        }
    }
    o
}

/// The kernel of a chunk that begins at `start`, against the reference.
fn check(problem: &AttentionCached, start: usize) {
    let AttentionCached { chunk, capacity, heads, kv_heads, head_dim, value_dim, elem, .. } = *problem;
    let kernel = problem.build(&super::target());
    let (mut q, qs) = random_buffer(1, elem, chunk * heads * head_dim);
    let [(mut k, mut ks), (mut v, mut vs)] =
        [(2, head_dim), (3, value_dim)].map(|(seed, entries)| random_buffer(seed, elem, capacity * kv_heads * entries));
    // What has not been written yet must not be looked at.
    for (buffer, values, entries) in [(&mut k, &mut ks, head_dim), (&mut v, &mut vs, value_dim)] {
        values[(start + chunk) * kv_heads * entries..].fill(f64::NAN);
        *buffer = Buffer::floats(elem, values);
    }
    let mut o = Buffer::garbage(elem, chunk * heads * value_dim);
    load(&[&kernel]).run(&kernel, &mut [&mut q, &mut k, &mut v, &mut Buffer::ints(&[start as i32]), &mut o]);
    let what = format!("attention of {problem:?}");
    assert_close(&what, &o, &attention(problem, start, &qs, &ks, &vs), rounding(elem) * 2.0, 2e-6);
}

/// Chunk, capacity, query and key heads, head size, window, storage.
fn plain(case: (usize, usize, usize, usize, usize, Option<usize>, Elem)) -> AttentionCached {
    let (chunk, capacity, heads, kv_heads, head_dim, window, elem) = case;
    let (value_dim, scale, softcap, alibi) = (head_dim, 1.3, None, None);
    AttentionCached { chunk, capacity, heads, kv_heads, head_dim, value_dim, scale, window, softcap, alibi, elem }
}

#[test]
fn a_chunk_sees_the_cache_up_to_itself() {
    check(&plain((1, 40, 4, 2, 64, None, Elem::F32)), 39);
    check(&plain((5, 33, 6, 2, 20, Some(7), Elem::F32)), 9);
    check(&plain((3, 16, 2, 2, 8, Some(100), Elem::Bf16)), 0);
    check(&plain((4, 50, 3, 1, 96, Some(1), Elem::Bf16)), 46);
    check(&plain((2, 20, 2, 2, 80, None, Elem::F32)), 11);
    check(&plain((1, 1, 1, 1, 1, None, Elem::F32)), 0);
    check(&plain((9, 300, 2, 1, 33, None, Elem::F32)), 200);
}

#[test]
fn scores_may_be_capped_and_lowered() {
    for elem in [Elem::F32, Elem::Bf16] {
        let (small, large) = (plain((5, 33, 6, 2, 20, Some(7), elem)), plain((3, 75, 4, 4, 8, None, elem)));
        for (softcap, alibi) in [(Some(1.5), None), (None, Some(1.0)), (Some(2.0), Some(0.3))] {
            check(&AttentionCached { softcap, alibi, ..small.clone() }, 20);
            check(&AttentionCached { softcap, alibi, ..large.clone() }, 71);
        }
    }
}

#[test]
fn values_may_have_another_size() {
    check(&AttentionCached { value_dim: 9, ..plain((4, 50, 6, 2, 33, Some(20), Elem::F32)) }, 30);
    check(&AttentionCached { value_dim: 128, alibi: Some(1.0), ..plain((2, 40, 2, 1, 48, None, Elem::Bf16)) }, 30);
}

#[test]
fn a_start_outside_the_cache_touches_nothing_else() {
    for (start, elem) in [(-5, Elem::F32), (i32::MIN, Elem::Bf16), (i32::MAX, Elem::F32)] {
        let problem = AttentionCached {
            chunk: 2,
            capacity: 3,
            heads: 1,
            kv_heads: 1,
            head_dim: 4,
            value_dim: 4,
            scale: 1.0,
            window: Some(2),
            softcap: Some(1.0),
            alibi: Some(1.0),
            elem,
        };
        let kernel = problem.build(&super::target());
        let [mut q, mut k, mut v] = [(1, 8), (2, 12), (3, 12)].map(|(seed, n)| random_buffer(seed, elem, n).0);
        let mut o = Buffer::garbage(elem, 8);
        load(&[&kernel]).run(&kernel, &mut [&mut q, &mut k, &mut v, &mut Buffer::ints(&[start]), &mut o]);
        assert_close("nothing seen", &o, &[0.0; 8], 0.0, 0.0);
    }
}
