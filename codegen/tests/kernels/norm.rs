//! RMS norm and its gradients.
use crate::harness::*;
use amc_kernels::emit::Elem;
use amc_kernels::norm::{RmsNorm, RmsNormGrad, RmsNormGradWeight};

const EPS: f64 = 1e-3;
/// Rows, columns, storage, whether the factor is 1 + weight, whether there is a residual or an addend.
const CASES: [(usize, usize, Elem, bool, bool); 5] = [
    (3, 64, Elem::F32, false, false),
    (2, 45, Elem::F32, true, true),
    (5, 33, Elem::Bf16, false, true),
    (40, 7, Elem::Bf16, true, false),
    (1, 1, Elem::F32, false, false),
];

fn inverse_root_mean(row: &[f64]) -> f64 {
    1.0 / (row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64 + EPS).sqrt()
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
        let want: Vec<f64> = input
            .chunks(n)
            .flat_map(|row| row.iter().zip(&w).map(|(x, w)| x * inverse_root_mean(row) * w).collect::<Vec<_>>())
            .collect();
        assert_close("norm", &y, &want, rounding(elem) * 1.5, 1e-6);
    }
}

#[test]
fn gradient_by_the_input() {
    for (rows, n, elem, plus_one, add) in CASES {
        let kernel =
            RmsNormGrad { rows, n, eps: EPS as f32, plus_one, add, elem, weight: Elem::Bf16 }.build(&super::target());
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
            let g: Vec<f64> = dys[i * n..(i + 1) * n].iter().zip(&w).map(|(d, w)| d * w).collect();
            let r = inverse_root_mean(row);
            let mean = row.iter().zip(&g).map(|(x, g)| x * g).sum::<f64>() / n as f64;
            want.extend((0..n).map(|j| r * g[j] - row[j] * r.powi(3) * mean + if add { ds[i * n + j] } else { 0.0 }));
        }
        assert_close("dx", &dx, &want, rounding(elem) * 2.0, 1e-6);
    }
}

#[test]
fn gradient_by_the_weight() {
    for (rows, n, elem, _, accumulate) in CASES.into_iter().chain([(300, 40, Elem::F32, false, true)]) {
        let problem = RmsNormGradWeight { rows, n, eps: EPS as f32, accumulate, elem };
        let (first, last) = (problem.build(&super::target()), problem.finish(&super::target()));
        let library = load(&[&first, &last]);
        let (mut x, xs) = random_buffer(1, elem, rows * n);
        let (mut dy, dys) = random_buffer(2, elem, rows * n);
        let mut partials = Buffer::garbage(Elem::F32, problem.parts() * n);
        let (mut dw, before) = random_buffer(3, Elem::F32, n);
        library.run(&first, &mut [&mut x, &mut dy, &mut partials]);
        library.run(&last, &mut [&mut partials, &mut dw]);
        let mut want = if accumulate { before } else { vec![0.0; n] };
        for (row, dy) in xs.chunks(n).zip(dys.chunks(n)) {
            let r = inverse_root_mean(row);
            want.iter_mut().enumerate().for_each(|(j, w)| *w += dy[j] * row[j] * r);
        }
        assert_close("dw", &dw, &want, 1e-5, 1e-5);
    }
}
