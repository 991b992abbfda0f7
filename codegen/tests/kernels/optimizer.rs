//! Clipping and Adam.
use crate::harness::*;
use amc_kernels::emit::Elem;
use amc_kernels::optimizer::{Adam, FinishNorm};

#[test]
fn the_norm_is_clipped() {
    for (parts, max_norm) in [(1, 1.0), (100, 0.5), (33, 1e9), (3, f64::INFINITY)] {
        let kernel = FinishNorm { parts }.build(&super::target());
        let squares: Vec<f64> = random(1, parts).iter().map(|x| x.abs() * 9.0).collect();
        let mut partials = Buffer::floats(Elem::F32, &squares);
        let mut most = Buffer::floats(Elem::F32, &[max_norm]);
        let (mut norm, mut coefficient) = (Buffer::garbage(Elem::F32, 1), Buffer::garbage(Elem::F32, 1));
        load(&[&kernel]).run(&kernel, &mut [&mut partials, &mut most, &mut norm, &mut coefficient]);
        let want = squares.iter().sum::<f64>().sqrt();
        assert_close("norm", &norm, &[want], 1e-6, 0.0);
        assert_close("coefficient", &coefficient, &[(max_norm / (want + 1e-6)).min(1.0)], 1e-6, 0.0);
    }
}

#[test]
fn a_norm_that_is_no_number_is_not_hidden() {
    let kernel = FinishNorm { parts: 2 }.build(&super::target());
    let mut partials = Buffer::floats(Elem::F32, &[f64::NAN, 1.0]);
    let mut most = Buffer::floats(Elem::F32, &[f64::INFINITY]);
    let mut results = [0.0; 2].map(|x| Buffer::floats(Elem::F32, &[x]));
    let [norm, coefficient] = &mut results;
    load(&[&kernel]).run(&kernel, &mut [&mut partials, &mut most, norm, coefficient]);
    assert!(results.iter().all(|r| r.values()[0].is_nan()));
}

/// Parameter, first and second moment after a step.
fn adam(state: [f64; 4], scalars: [f64; 5], decoupled: bool) -> [f64; 3] {
    let ([mut p, grad, m, v], [coefficient, rate, decay, correction1, correction2]) = (state, scalars);
    let mut g = grad * coefficient;
    if decoupled {
        p *= 1.0 - rate * decay;
    } else {
        g += decay * p;
    }
    let (m, v) = (0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g);
    [p - rate / correction1 * m / (v.sqrt() / correction2.sqrt() + 1e-8), m, v]
}

#[test]
fn adam_takes_torchs_step() {
    let cases = [(1, Elem::F32, true), (4100, Elem::F32, false), (77, Elem::Bf16, true), (16, Elem::Bf16, false)];
    for (n, elem, decoupled) in cases {
        let kernel = Adam { n, elem, beta1: 0.9, beta2: 0.999, eps: 1e-8, decoupled }.build(&super::target());
        let (mut param, params) = random_buffer(1, elem, n);
        let [(mut grad, grads), (mut m, ms)] = [2, 3].map(|seed| random_buffer(seed, Elem::F32, n));
        let vs: Vec<f64> = random(4, n).iter().map(|x| x.abs()).collect();
        let mut v = Buffer::floats(Elem::F32, &vs);
        let scalars = [0.7, 1e-2, 0.1, 1.0 - 0.9_f64.powi(3), 1.0 - 0.999_f64.powi(3)];
        let mut scalar_buffers = scalars.map(|s| Buffer::floats(Elem::F32, &[s]));
        let mut operands: Vec<&mut Buffer> = vec![&mut param, &mut grad, &mut m, &mut v];
        operands.extend(scalar_buffers.iter_mut());
        load(&[&kernel]).run(&kernel, &mut operands);
        let want: Vec<[f64; 3]> =
            (0..n).map(|i| adam([params[i], grads[i], ms[i], vs[i]], scalars, decoupled)).collect();
        let column = |c: usize| want.iter().map(|w| w[c]).collect::<Vec<_>>();
        assert_close("param", &param, &column(0), rounding(elem), 2e-7);
        assert_close("grad", &grad, &vec![0.0; n], 0.0, 0.0);
        assert_close("exp_avg", &m, &column(1), 1e-6, 1e-7);
        assert_close("exp_avg_sq", &v, &column(2), 5e-7, 1e-9);
    }
}
