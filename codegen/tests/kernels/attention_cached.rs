//! The key/value cache and attention against it.
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
    let (d, kv_width) = (problem.head_dim, problem.kv_heads * problem.head_dim);
    let mut o = vec![0.0; q.len()];
    for (i, h) in (0..problem.chunk).flat_map(|i| (0..problem.heads).map(move |h| (i, h))) {
        let at = (i * problem.heads + h) * d;
        let kv = h / (problem.heads / problem.kv_heads) * d;
        let sees = |j: &usize| *j <= start + i && problem.window.is_none_or(|w| j + w > start + i);
        let dot = |j: usize| (0..d).map(|e| q[at + e] * k[j * kv_width + kv + e]).sum::<f64>();
        let weights: Vec<(usize, f64)> =
            (0..problem.capacity).filter(sees).map(|j| (j, (f64::from(problem.scale) * dot(j)).exp())).collect();
        let sum: f64 = weights.iter().map(|w| w.1).sum();
        for (j, weight) in weights {
            (0..d).for_each(|e| o[at + e] += weight / sum * v[j * kv_width + kv + e]);
        }
    }
    o
}

#[test]
fn a_chunk_sees_the_cache_up_to_itself() {
    let cases = [
        (1, 40, 4, 2, 64, None, Elem::F32, 39),
        (5, 33, 6, 2, 20, Some(7), Elem::F32, 9),
        (3, 16, 2, 2, 8, Some(100), Elem::Bf16, 0),
        (4, 50, 3, 1, 96, Some(1), Elem::Bf16, 46),
        (2, 20, 2, 2, 80, None, Elem::F32, 11),
        (1, 1, 1, 1, 1, None, Elem::F32, 0),
        (9, 300, 2, 1, 33, None, Elem::F32, 200),
    ];
    for (chunk, capacity, heads, kv_heads, head_dim, window, elem, start) in cases {
        let problem = AttentionCached { chunk, capacity, heads, kv_heads, head_dim, scale: 1.3, window, elem };
        let kernel = problem.build(&super::target());
        let (mut q, qs) = random_buffer(1, elem, chunk * heads * head_dim);
        let [(mut k, mut ks), (mut v, mut vs)] =
            [2, 3].map(|seed| random_buffer(seed, elem, capacity * kv_heads * head_dim));
        // What has not been written yet must not be looked at.
        for (buffer, values) in [(&mut k, &mut ks), (&mut v, &mut vs)] {
            values[(start + chunk) * kv_heads * head_dim..].fill(f64::NAN);
            *buffer = Buffer::floats(elem, values);
        }
        let mut o = Buffer::garbage(elem, chunk * heads * head_dim);
        load(&[&kernel]).run(&kernel, &mut [&mut q, &mut k, &mut v, &mut Buffer::ints(&[start as i32]), &mut o]);
        assert_close("attention", &o, &attention(&problem, start, &qs, &ks, &vs), rounding(elem) * 2.0, 2e-6);
    }
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
            scale: 1.0,
            window: Some(2),
            elem,
        };
        let kernel = problem.build(&super::target());
        let [mut q, mut k, mut v] = [(1, 8), (2, 12), (3, 12)].map(|(seed, n)| random_buffer(seed, elem, n).0);
        let mut o = Buffer::garbage(elem, 8);
        load(&[&kernel]).run(&kernel, &mut [&mut q, &mut k, &mut v, &mut Buffer::ints(&[start]), &mut o]);
        assert_close("nothing seen", &o, &[0.0; 8], 0.0, 0.0);
    }
}
