//! Scalar functions in f64, and where their kernels are tried.
use super::erf::erf;
use amc_kernels::region::ScalarOp;

/// An op, its `f`, its stated error in units of the result's last place, and the largest argument tried.
pub type Function = (ScalarOp, fn(f64) -> f64, f64, f64);

pub fn functions() -> Vec<Function> {
    let gelu_tanh =
        |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh());
    vec![
        (ScalarOp::Exp, f64::exp, 1.5, 87.3),
        (ScalarOp::Log, f64::ln, 2.0, 1e30),
        (ScalarOp::Sqrt, f64::sqrt, 0.6, 1e30),
        (ScalarOp::Rsqrt, |x| 1.0 / x.sqrt(), 1.5, 1e30),
        (ScalarOp::Tanh, f64::tanh, 2.0, 20.0),
        (ScalarOp::Erf, erf, 2.0, 6.0),
        (ScalarOp::Sigmoid, |x| 1.0 / (1.0 + (-x).exp()), 3.0, 80.0),
        (ScalarOp::Silu, |x| x / (1.0 + (-x).exp()), 4.0, 80.0),
        (ScalarOp::GeluTanh, gelu_tanh, 64.0, 6.0),
        (ScalarOp::Relu, |x| x.max(0.0), 0.0, 10.0),
        (ScalarOp::Step, |x| f64::from(x > 0.0), 0.0, 10.0),
        (ScalarOp::Neg, |x| -x, 0.0, 10.0),
    ]
}

/// Arguments of all magnitudes up to `limit`, both signs unless the function wants positive ones.
pub fn arguments(limit: f64, positive: bool) -> Vec<f64> {
    let ramp = (0..20_000).map(|i| f64::from(i) / 20_000.0 * limit);
    let small = (0..20_000).map(|i| 10f64.powf(-9.0 + f64::from(i) / 20_000.0 * (limit.log10() + 9.0)));
    let both = ramp.chain(small).filter(|x| !positive || *x > 0.0);
    both.flat_map(|x| if positive { vec![x] } else { vec![x, -x] }).collect()
}
