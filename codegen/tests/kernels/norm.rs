//! RMS norm and layer norm and their gradients.
use crate::harness::*;
use amc_kernels::emit::Elem;
use amc_kernels::norm::{Kind, LayerNorm, NormGrad, NormGradWeight, RmsNorm};

const EPS: f64 = 1e-3;
const KINDS: [Kind; 2] = [Kind::Rms, Kind::Layer];
/// Rows, columns, storage, whether the factor is 1 + weight, whether there is a residual or an addend (of a layer norm, a bias).
const CASES: [(usize, usize, Elem, bool, bool); 11] = [
    (3, 64, Elem::F32, false, false),
    (2, 45, Elem::F32, true, true),
    (5, 33, Elem::Bf16, false, true),
    (40, 7, Elem::Bf16, true, false),
    (1, 1, Elem::F32, false, false),
    // What a GPU deals out to parts of warps, some of whose lanes have nothing; to warps, to more threads, and to more than keep it.
    (32, 64, Elem::Bf16, false, true),
    (48, 96, Elem::Bf16, true, false),
    (11, 584, Elem::Bf16, false, true),
    (2, 2072, Elem::Bf16, true, false),
    (2, 4100, Elem::F32, false, true),
    (1, 16_396, Elem::Bf16, false, true),
];

/// What is normalised of a row: the row, or the row less its mean.
fn centred(kind: Kind, row: &[f64]) -> Vec<f64> {
    let mean = if kind == Kind::Rms { 0.0 } else { row.iter().sum::<f64>() / row.len() as f64 };
    row.iter().map(|x| x - mean).collect()
}

fn inverse_root_mean(row: &[f64]) -> f64 {
    1.0 / (row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64 + EPS).sqrt()
}

/// The norm of every row, without its weight.
fn normed(kind: Kind, rows: &[f64], n: usize) -> Vec<f64> {
    let norm = |row: &[f64]| {
        let row = centred(kind, row);
        let r = inverse_root_mean(&row);
        row.into_iter().map(|x| x * r).collect::<Vec<f64>>()
    };
    rows.chunks(n).flat_map(norm).collect()
}

fn factor(weight: &[f64], plus_one: bool) -> Vec<f64> {
    weight.iter().map(|w| w + f64::from(u8::from(plus_one))).collect()
}

#[test]
fn forward_and_residual() {
    for (rows, n, elem, plus_one, residual) in CASES {
        let kernel =
            RmsNorm { rows, n, eps: EPS as f32, plus_one, residual, elem, weight: Elem::F32 }.build(&super::target());
        let library = load(&[&kernel]);
        let (mut x, xs) = random_buffer(1, elem, rows * n);
        let (mut r, rs) = random_buffer(2, elem, rows * n);
        let (mut weight, weights) = random_buffer(3, Elem::F32, n);
        let mut y = Buffer::garbage(elem, rows * n);
        let mut input = xs.clone();
        if residual {
            let mut s = Buffer::garbage(elem, rows * n);
            library.run_aliased(&kernel, &mut [&mut x, &mut r, &mut weight, &mut s, &mut y], &[(1, 3)]);
            let sums: Vec<f64> = xs.iter().zip(&rs).map(|(a, b)| a + b).collect();
            assert_close("sum", &s, &sums, rounding(elem), 1e-7);
            input = s.values();
        } else {
            library.run_aliased(&kernel, &mut [&mut x, &mut weight, &mut y], &[(0, 2)]);
        }
        let w = factor(&weights, plus_one);
        let normed = normed(Kind::Rms, &input, n);
        let want: Vec<f64> = normed.iter().zip(w.iter().cycle()).map(|(x, w)| x * w).collect();
        assert_close("norm", &y, &want, rounding(elem) * 1.5, 1e-6);
    }
}

#[test]
fn forward_of_a_layer_norm() {
    for (rows, n, elem, plus_one, with_bias) in CASES {
        let bias = with_bias.then_some(Elem::Bf16);
        let norm = LayerNorm { rows, n, eps: EPS as f32, plus_one, elem, weight: Elem::F32, bias };
        let kernel = norm.build(&super::target());
        let library = load(&[&kernel]);
        let (mut x, xs) = random_buffer(1, elem, rows * n);
        let (mut weight, weights) = random_buffer(2, Elem::F32, n);
        let (mut bias, biases) = random_buffer(3, Elem::Bf16, n);
        let mut y = Buffer::garbage(elem, rows * n);
        if with_bias {
            library.run_aliased(&kernel, &mut [&mut x, &mut weight, &mut bias, &mut y], &[(0, 3)]);
        } else {
            library.run_aliased(&kernel, &mut [&mut x, &mut weight, &mut y], &[(0, 2)]);
        }
        let w = factor(&weights, plus_one);
        let add = if with_bias { biases } else { vec![0.0; n] };
        let normed = normed(Kind::Layer, &xs, n);
        let want: Vec<f64> = normed.iter().enumerate().map(|(i, x)| x * w[i % n] + add[i % n]).collect();
        assert_close("norm", &y, &want, rounding(elem) * 1.5, 1e-6);
    }
}

/// Of numbers near 300, which are 1 apart, mean(x²) in f32 has hardly a digit of the variance.
#[test]
fn a_large_mean_is_taken_off_before_squares_are() {
    let (rows, n, elem) = (2, 77, Elem::F32);
    let norm = LayerNorm { rows, n, eps: EPS as f32, plus_one: false, elem, weight: elem, bias: None };
    let kernel = norm.build(&super::target());
    let library = load(&[&kernel]);
    let shifted: Vec<f64> = random(1, rows * n).iter().map(|x| x + 300.0).collect();
    let mut x = Buffer::floats(elem, &shifted);
    let mut weight = Buffer::floats(elem, &vec![1.0; n]);
    let mut y = Buffer::garbage(elem, rows * n);
    let want = normed(Kind::Layer, &x.values(), n);
    library.run(&kernel, &mut [&mut x, &mut weight, &mut y]);
    assert_close("norm", &y, &want, 1e-5, 1e-4);
}

#[test]
fn gradient_by_the_input() {
    for ((rows, n, elem, plus_one, add), kind) in CASES.into_iter().flat_map(|case| KINDS.map(|kind| (case, kind))) {
        let grad = NormGrad { rows, n, kind, eps: EPS as f32, plus_one, add, elem, weight: Elem::Bf16 };
        let kernel = grad.build(&super::target());
        let library = load(&[&kernel]);
        let (mut x, xs) = random_buffer(1, elem, rows * n);
        let (mut weight, weights) = random_buffer(2, Elem::Bf16, n);
        let (mut dy, dys) = random_buffer(3, elem, rows * n);
        let (mut d, ds) = random_buffer(4, elem, rows * n);
        let mut dx = Buffer::garbage(elem, rows * n);
        if add {
            library.run_aliased(&kernel, &mut [&mut x, &mut weight, &mut dy, &mut d, &mut dx], &[(3, 4)]);
        } else {
            library.run_aliased(&kernel, &mut [&mut x, &mut weight, &mut dy, &mut dx], &[(2, 3)]);
        }
        let w = factor(&weights, plus_one);
        let mut want = vec![];
        for (i, row) in xs.chunks(n).enumerate() {
            let row = centred(kind, row);
            let g: Vec<f64> = dys[i * n..(i + 1) * n].iter().zip(&w).map(|(d, w)| d * w).collect();
            let r = inverse_root_mean(&row);
            let mean = row.iter().zip(&g).map(|(x, g)| x * g).sum::<f64>() / n as f64;
            let g = centred(kind, &g);
            want.extend((0..n).map(|j| r * g[j] - row[j] * r.powi(3) * mean + if add { ds[i * n + j] } else { 0.0 }));
        }
        assert_close("dx", &dx, &want, rounding(elem) * 2.0, 2e-6);
    }
}

#[test]
fn gradient_by_the_weight() {
    let cases = CASES.into_iter().chain([(300, 40, Elem::F32, false, true)]);
    for ((rows, n, elem, _, accumulate), kind) in cases.flat_map(|case| KINDS.map(|kind| (case, kind))) {
        let problem = NormGradWeight { rows, n, kind, eps: EPS as f32, accumulate, elem };
        let target = super::target();
        let first = problem.build(&target);
        let (mut x, xs) = random_buffer(1, elem, rows * n);
        let (mut dy, dys) = random_buffer(2, elem, rows * n);
        let mut partials = Buffer::garbage(Elem::F32, problem.parts(&target) * n);
        let (mut dw, before) = random_buffer(3, Elem::F32, n);
        load(&[&first]).run(&first, &mut [&mut x, &mut dy, &mut partials]);
        run_steps(&problem.finish(&target), &mut [&mut partials, &mut dw], &[]);
        let mut want = if accumulate { before } else { vec![0.0; n] };
        for (i, (x, dy)) in normed(kind, &xs, n).iter().zip(&dys).enumerate() {
            want[i % n] += dy * x;
        }
        assert_close("dw", &dw, &want, 1e-5, 1e-5);
    }
}
