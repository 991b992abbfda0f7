//! What f64 has no function for.

/// The error function by its series, or the continued fraction of its complement.
pub fn erf(x: f64) -> f64 {
    if x.abs() < 3.0 {
        let mut term = x;
        let mut sum = x;
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let t = x.abs();
    let fraction = (1..60).rev().fold(0.0, |below, k| f64::from(k) / 2.0 / (t + below));
    (1.0 - (-t * t).exp() / std::f64::consts::PI.sqrt() / (t + fraction)).copysign(x)
}
