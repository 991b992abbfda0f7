//! Attention over packed rows and its gradient against plain f64 code.
use crate::harness::*;
use amc_kernels::attention::Attention;
use amc_kernels::emit::Elem;
use amc_kernels::steps::Slot;
use amc_kernels::{Kernel, Machine};

/// Rows, tokens a row, query and key heads, head size, window, storage, and the documents of the rows: lengths, the rest
/// is padding.
pub type Case = (usize, usize, usize, usize, usize, Option<usize>, Elem, &'static [&'static [usize]]);

const CASES: &[Case] = &[
    // One document, sizes that divide everything; then sizes that divide nothing.
    (1, 128, 2, 1, 16, None, Elem::F32, &[&[128]]),
    (2, 75, 3, 3, 20, None, Elem::F32, &[&[75], &[40, 35]]),
    (1, 1, 1, 1, 1, None, Elem::F32, &[&[1]]),
    (2, 70, 4, 2, 7, Some(9), Elem::F32, &[&[70], &[11, 30, 20]]),
    // Whole blocks of other documents and of padding; a row of padding alone.
    (2, 200, 2, 1, 8, None, Elem::F32, &[&[60, 100], &[]]),
    (1, 200, 1, 1, 8, Some(1), Elem::F32, &[&[200]]),
    (1, 230, 2, 2, 8, Some(60), Elem::F32, &[&[190, 20]]),
    (1, 97, 2, 1, 24, None, Elem::Bf16, &[&[50, 47]]),
    (2, 70, 4, 2, 6, Some(9), Elem::Bf16, &[&[70], &[11, 30, 20]]),
    (2, 201, 2, 1, 8, None, Elem::Bf16, &[&[61, 100], &[]]),
    (1, 75, 3, 3, 7, None, Elem::Bf16, &[&[75]]),
    // An odd number of heads, whose queries are cut into parts on a CPU.
    (1, 190, 3, 1, 16, None, Elem::F32, &[&[150, 30]]),
    (3, 201, 3, 1, 8, Some(70), Elem::Bf16, &[&[201], &[150, 51], &[]]),
];

pub fn segments(seq: usize, documents: &[&[usize]]) -> Vec<i32> {
    let row = |lengths: &&[usize]| {
        let mut row: Vec<i32> = lengths.iter().enumerate().flat_map(|(i, &n)| vec![i as i32 + 1; n]).collect();
        row.resize(seq, 0);
        row
    };
    documents.iter().flat_map(row).collect()
}

struct Arrays {
    q: Vec<f64>,
    k: Vec<f64>,
    v: Vec<f64>,
    gradient: Vec<f64>,
    segments: Vec<i32>,
}

/// Results and their gradients: o, lse, dq, dk, dv.
fn reference(a: &Attention, x: &Arrays) -> [Vec<f64>; 5] {
    let (d, value_dim) = (a.head_dim, a.value_dim);
    let mut result = [&x.gradient, &x.gradient, &x.q, &x.k, &x.v].map(|like| vec![0.0; like.len()]);
    result[1] = vec![0.0; a.batch * a.seq * a.heads];
    for query in 0..a.batch * a.seq {
        for h in 0..a.heads {
            let own = query * a.heads + h;
            let row = query / a.seq * a.seq;
            let sees = |key: &usize| {
                x.segments[*key] > 0
                    && x.segments[*key] == x.segments[query]
                    && a.window.is_none_or(|window| key + window > query)
            };
            let keys: Vec<usize> = (row..=query).filter(sees).collect();
            if keys.is_empty() {
                continue;
            }
            let place = |key: usize| key * a.kv_heads + h / (a.heads / a.kv_heads);
            let dot = |a: &[f64], b: &[f64], n: usize| (0..n).map(|i| a[i] * b[i]).sum::<f64>();
            let product = |key: usize| dot(&x.q[own * d..], &x.k[place(key) * d..], d);
            let scores: Vec<(f64, f64)> = keys.iter().map(|&key| score(a, h, product(key), query - key)).collect();
            let top = scores.iter().fold(f64::MIN, |top, (score, _)| top.max(*score));
            let lse = top + scores.iter().map(|(s, _)| (s - top).exp()).sum::<f64>().ln();
            result[1][own] = lse;
            let p: Vec<f64> = scores.iter().map(|(s, _)| (s - lse).exp()).collect();
            let gradient = &x.gradient[own * value_dim..][..value_dim];
            let slopes: Vec<f64> =
                keys.iter().map(|&key| dot(gradient, &x.v[place(key) * value_dim..], value_dim)).collect();
            let mean: f64 = p.iter().zip(&slopes).map(|(p, s)| p * s).sum();
            for (j, &key) in keys.iter().enumerate() {
                let ds = p[j] * (slopes[j] - mean) * scores[j].1;
                for c in 0..d {
                    result[2][own * d + c] += ds * x.k[place(key) * d + c];
                    result[3][place(key) * d + c] += ds * x.q[own * d + c];
                }
                for c in 0..value_dim {
                    result[0][own * value_dim + c] += p[j] * x.v[place(key) * value_dim + c];
                    result[4][place(key) * value_dim + c] += p[j] * gradient[c];
                }
            }
        }
    }
    result
}

/// What head `h` makes of the product of a query and a key that is so far behind it, and the derivative of that by the product.
fn score(a: &Attention, h: usize, product: f64, distance: usize) -> (f64, f64) {
    let scale = f64::from(a.scale);
    let (score, slope) = a.softcap.map_or((scale * product, 1.0), |cap| {
        let tanh = (scale * product / f64::from(cap)).tanh();
        (f64::from(cap) * tanh, 1.0 - tanh * tanh)
    });
    (score - penalty(a.alibi, a.heads, h) * distance as f64, scale * slope)
}

/// What a distance of one token takes from a score with ALiBi: of 2^k heads, the first's slope is the 2^k-th root of 1/256, and
/// every other's the one before times that. What are more have the first, third and so on of twice as many heads.
pub fn penalty(alibi: Option<f32>, heads: usize, h: usize) -> f64 {
    let whole = if heads.is_power_of_two() { heads } else { heads.next_power_of_two() / 2 };
    let root = |n: usize| (1.0f64 / 256.0).powf(1.0 / n as f64);
    let slope =
        if h < whole { root(whole).powi(h as i32 + 1) } else { root(2 * whole).powi(2 * (h - whole) as i32 + 1) };
    alibi.map_or(0.0, |alibi| f64::from(alibi) * slope)
}

/// What the kernels make of `q`, `k`, `v`, the documents and the gradient of the output: `o`, `lse`, `dq`, `dk`, `dv`.
pub fn results(a: &Attention, [q, k, v]: [Buffer; 3], documents: Buffer, gradient: Buffer) -> [Buffer; 5] {
    let target = super::target();
    let tokens = a.batch * a.seq;
    let (forward, gradients) = (target.attention(a), target.attention_gradient(a));
    let kernels = [&forward].into_iter().chain(gradients.launches.iter().map(|(kernel, _)| kernel));
    let library = load(&kernels.collect::<Vec<_>>());
    let (o, lse) = (Buffer::garbage(a.elem, gradient.values().len()), Buffer::garbage(Elem::F32, tokens * a.heads));
    let widths = [a.heads * a.head_dim, a.kv_heads * a.head_dim, a.kv_heads * a.value_dim];
    let results = widths.map(|width| Buffer::garbage(a.elem, tokens * width));
    let temporaries = gradients.temporaries.iter().map(|bytes| Buffer::garbage(Elem::F32, bytes / 4));
    let mut buffers: Vec<Buffer> = [q, k, v, documents, o, lse, gradient].into_iter().chain(results).collect();
    let operands = buffers.len();
    buffers.extend(temporaries);
    let mut run = |kernel: &Kernel, places: &[usize]| {
        let mut taken: Vec<Buffer> = places.iter().map(|i| buffers[*i].clone()).collect();
        library.run(kernel, &mut taken.iter_mut().collect::<Vec<_>>());
        for (i, buffer) in places.iter().zip(taken) {
            buffers[*i] = buffer;
        }
    };
    run(&forward, &[0, 1, 2, 3, 4, 5]);
    for (kernel, slots) in &gradients.launches {
        let place = |slot: &Slot| match slot {
            Slot::Operand(i) => *i,
            Slot::Temporary(i) => operands + i,
        };
        run(kernel, &slots.iter().map(place).collect::<Vec<usize>>());
    }
    [4, 5, 7, 8, 9].map(|i| buffers[i].clone())
}

pub fn check(case: &Case) {
    check_segments(case, segments(case.1, case.7));
}

/// A case whose tokens have these segments.
pub fn check_segments(case: &Case, segments: Vec<i32>) {
    check_problem(&problem(case), segments);
}

/// A case's problem.
pub fn problem(case: &Case) -> Attention {
    let &(batch, seq, heads, kv_heads, head_dim, window, elem, _) = case;
    let (scale, value_dim) = (1.3 / (head_dim as f32).sqrt(), head_dim);
    Attention { batch, seq, heads, kv_heads, head_dim, value_dim, scale, window, softcap: None, alibi: None, elem }
}

/// The kernels of a problem whose tokens have these segments, against the reference.
pub fn check_problem(a: &Attention, segments: Vec<i32>) {
    let (tokens, elem) = (a.batch * a.seq, a.elem);
    let (q, qs) = random_buffer(1, elem, tokens * a.heads * a.head_dim);
    let (k, ks) = random_buffer(2, elem, tokens * a.kv_heads * a.head_dim);
    let (v, vs) = random_buffer(3, elem, tokens * a.kv_heads * a.value_dim);
    let (gradient, gradients) = random_buffer(4, elem, tokens * a.heads * a.value_dim);
    let documents = Buffer::ints(&segments);
    let want = reference(a, &Arrays { q: qs, k: ks, v: vs, gradient: gradients, segments });
    let [o, lse, dq, dk, dv] = results(a, [q, k, v], documents, gradient);
    let close = |what: &str, got: &Buffer, want: &[f64], times: f64| {
        assert_close(&format!("{what} of {a:?}"), got, want, rounding(elem) * times, rounding(elem) * times);
    };
    close("o", &o, &want[0], 2.0);
    assert_close("lse", &lse, &want[1], 1e-6, 2e-6);
    close("dq", &dq, &want[2], 4.0);
    close("dk", &dk, &want[3], 8.0);
    close("dv", &dv, &want[4], 8.0);
}

#[test]
fn sizes_that_divide() {
    check(&CASES[0]);
}

#[test]
fn sizes_that_do_not_divide() {
    CASES[1..3].iter().for_each(check);
}

#[test]
fn windows() {
    [3, 5, 6].iter().for_each(|&i| check(&CASES[i]));
}

#[test]
fn documents_and_padding() {
    check(&CASES[4]);
}

#[test]
fn bf16() {
    CASES[7..].iter().for_each(check);
}
