//! Transcendental functions on `lanes` f32 values: polynomials fitted by Lawson iteration, no library calls.
//!
//! NaN stays NaN. Denormal results of `exp` become zero. Where results are rounded to bf16 next, a GPU's hardware approximates
//! exponentials and quotients. The tests beside the code generator hold each function to its
//! stated error against f64.
use crate::emit::{Emitter, Value, float_type, int_type};

const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 in two parts; the products of the first with exponents up to 2^8 are exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// Adding 1.5 * 2^23 leaves the nearest integer in the low bits of a small f32.
const ROUNDER: f32 = 12_582_912.0;

/// `(e^f - 1 - f) / f²` on `|f| <= ln 2 / 2`, highest power first; relative error of e^f 3.3e-9.
const EXP: [f32; 5] = [1.381_314_2e-3, 8.369_419e-3, 4.166_845_6e-2, 1.666_651_5e-1, 4.999_999_4e-1];
/// `(ln(1 + f) - f + f²/2) / f³` on `1 + f` in `[√½, √2]`; relative error of the logarithm 5.8e-9.
const LOG: [f32; 8] = [
    -7.634_43e-2,
    1.276_155e-1,
    -1.316_019_4e-1,
    1.420_176_2e-1,
    -1.662_335_7e-1,
    2.000_122_7e-1,
    -2.500_082_3e-1,
    3.333_333e-1,
];
/// `(tanh x - x) / x³` in powers of x² on `|x| <= 0.625`; relative error of tanh 4.4e-9.
const TANH: [f32; 5] = [-5.704_978_5e-3, 2.063_907_9e-2, -5.373_971e-2, 1.333_144_2e-1, -3.333_328e-1];
/// `erf(x) / x - 1` in powers of x² on `|x| <= 0.93`; relative error of erf 1.7e-8.
const ERF_NEAR: [f32; 6] = [-5.953_739e-4, 4.985_94e-3, -2.676_172e-2, 1.128_168_25e-1, -3.761_248e-1, 1.283_791_5e-1];
/// `ln(1 - erf x) / x` on `[0.92, 4]`; relative error of erf 7.4e-10.
const ERF_FAR: [f32; 7] =
    [-1.123_146_6e-5, 3.228_054e-4, -3.642_465e-3, 2.376_207_5e-2, -1.062_368_9e-1, -6.351_513e-1, -1.128_648_5];

/// Largest argument of a finite `exp`, and smallest of a normal one.
const EXP_MAX: f32 = 88.722_83;
const EXP_MIN: f32 = -87.336_5;

/// The polynomial with `coefficients`, highest power first.
fn polynomial(e: &mut Emitter, x: &str, coefficients: &[f32], lanes: usize) -> Value {
    let mut sum = e.float(coefficients[0], lanes);
    for &c in &coefficients[1..] {
        let c = e.float(c, lanes);
        sum = e.fma(&sum, x, &c, lanes);
    }
    sum
}

/// `c - a * b` with one rounding.
fn subtract_product(e: &mut Emitter, a: &str, b: f32, c: &str, lanes: usize) -> Value {
    let b = e.float(-b, lanes);
    e.fma(a, &b, c, lanes)
}

/// `e^x` where neither under- nor overflow has been dealt with.
fn exp_core(e: &mut Emitter, x: &str, lanes: usize) -> Value {
    let (log2_e, rounder) = (e.float(LOG2_E, lanes), e.float(ROUNDER, lanes));
    let shifted = e.fma(x, &log2_e, &rounder, lanes);
    let n = e.float2("subf", &shifted, &rounder, lanes);
    let f = subtract_product(e, &n, LN2_HIGH, x, lanes);
    let f = subtract_product(e, &n, LN2_LOW, &f, lanes);
    let p = polynomial(e, &f, &EXP, lanes);
    let square = e.float2("mulf", &f, &f, lanes);
    let p = e.fma(&p, &square, &f, lanes);
    let one = e.float(1.0, lanes);
    let p = e.float2("addf", &p, &one, lanes);
    // The low bits of `shifted` hold n; moved to the exponent they multiply by 2^n.
    let (n, p) = (e.float_bits(&shifted, lanes), e.float_bits(&p, lanes));
    let places = e.int_constant(23, lanes);
    let n = e.int_lanes2("shli", &n, &places, lanes);
    let bits = e.int_lanes2("addi", &p, &n, lanes);
    e.bits_float(&bits, lanes)
}

/// `f` of every lane.
fn of_lanes(e: &mut Emitter, x: &str, lanes: usize, f: impl Fn(&mut Emitter, &str) -> Value) -> Value {
    if lanes == 1 {
        return f(e, x);
    }
    let ty = float_type(lanes);
    (0..lanes).fold(x.to_string(), |values, lane| {
        let value = e.op(format!("vector.extract {x}[{lane}] : f32 from {ty}"));
        let value = f(e, &value);
        e.op(format!("vector.insert {value}, {values}[{lane}] : f32 into {ty}"))
    })
}

/// `e^x` by the hardware of a GPU: at most 2^-22 of it, and as much again for every unit of `x` (PTX ISA, `ex2.approx.ftz.f32`).
fn exp_approximated(e: &mut Emitter, x: &str, lanes: usize) -> Value {
    let log2_e = e.float(LOG2_E, lanes);
    let x = e.float2("mulf", x, &log2_e, lanes);
    of_lanes(e, &x, lanes, |e, x| {
        e.op(format!("llvm.call_intrinsic \"llvm.nvvm.ex2.approx.ftz.f\"({x}) : (f32) -> f32"))
    })
}

/// `a / b`; where results may be approximated by the hardware's reciprocal, at most 2^-22 of it (PTX ISA, `rcp.approx.ftz.f32`).
fn quotient(e: &mut Emitter, a: &str, b: &str, lanes: usize) -> Value {
    if !e.approximates() {
        return e.float2("divf", a, b, lanes);
    }
    let inverse = of_lanes(e, b, lanes, |e, b| {
        e.op(format!("llvm.call_intrinsic \"llvm.nvvm.rcp.approx.ftz.f\"({b}) : (f32) -> f32"))
    });
    e.float2("mulf", a, &inverse, lanes)
}

/// `e^x`: at most 1.5 ulp; 0 below -87.3365 (no denormals), infinity above 88.7228.
pub fn exp(e: &mut Emitter, x: &str, lanes: usize) -> Value {
    let y = exp_of_small(e, x, lanes);
    if e.approximates() {
        return y;
    }
    let (limit, infinity) = (e.float(EXP_MAX, lanes), e.float(f32::INFINITY, lanes));
    let over = e.compare("ogt", x, &limit, lanes);
    e.select(&over, &infinity, &y, lanes)
}

/// `e^x` for `x <= 88.7` (softmax: the maximum has been subtracted); otherwise as [`exp`].
pub fn exp_of_small(e: &mut Emitter, x: &str, lanes: usize) -> Value {
    if e.approximates() {
        return exp_approximated(e, x, lanes);
    }
    let y = exp_core(e, x, lanes);
    let (limit, zero) = (e.float(EXP_MIN, lanes), e.float(0.0, lanes));
    let under = e.compare("olt", x, &limit, lanes);
    e.select(&under, &zero, &y, lanes)
}

/// Natural logarithm: at most 2 ulp; -infinity at 0, NaN below.
pub fn log(e: &mut Emitter, x: &str, lanes: usize) -> Value {
    let zero = e.float(0.0, lanes);
    // Denormals are scaled by 2^23 first.
    let (smallest, scale) = (e.float(f32::MIN_POSITIVE, lanes), e.float(8_388_608.0, lanes));
    let tiny = e.compare("olt", x, &smallest, lanes);
    let scaled = e.float2("mulf", x, &scale, lanes);
    let m = e.select(&tiny, &scaled, x, lanes);
    let correction = e.float(23.0, lanes);
    let correction = e.select(&tiny, &correction, &zero, lanes);
    // x = m * 2^n with m in [√½, √2): the exponent of x / √½.
    let bits = e.float_bits(&m, lanes);
    let offset = e.int_constant(0x3f35_04f3, lanes);
    let places = e.int_constant(23, lanes);
    let n = e.int_lanes2("subi", &bits, &offset, lanes);
    let n = e.int_lanes2("shrsi", &n, &places, lanes);
    let shift = e.int_lanes2("shli", &n, &places, lanes);
    let m = e.int_lanes2("subi", &bits, &shift, lanes);
    let m = e.bits_float(&m, lanes);
    let n = e.op(format!("arith.sitofp {n} : {} to {}", int_type(lanes, 32), float_type(lanes)));
    let n = e.float2("subf", &n, &correction, lanes);
    let one = e.float(1.0, lanes);
    let f = e.float2("subf", &m, &one, lanes);
    let p = polynomial(e, &f, &LOG, lanes);
    let p = e.float2("mulf", &p, &f, lanes);
    let half = e.float(-0.5, lanes);
    let p = e.float2("addf", &p, &half, lanes);
    let square = e.float2("mulf", &f, &f, lanes);
    let low = e.float(LN2_LOW, lanes);
    let low = e.float2("mulf", &n, &low, lanes);
    let p = e.fma(&p, &square, &low, lanes);
    let p = e.float2("addf", &p, &f, lanes);
    let high = e.float(LN2_HIGH, lanes);
    let y = e.fma(&n, &high, &p, lanes);
    log_special(e, x, &y, lanes)
}

/// `y`, with the logarithms of 0, of infinity and of what is negative or NaN put in.
fn log_special(e: &mut Emitter, x: &str, y: &str, lanes: usize) -> Value {
    let (zero, infinity) = (e.float(0.0, lanes), e.float(f32::INFINITY, lanes));
    let (lowest, nan) = (e.float(f32::NEG_INFINITY, lanes), e.float(f32::NAN, lanes));
    let finite = e.compare("olt", x, &infinity, lanes);
    let y = e.select(&finite, y, x, lanes);
    let is_zero = e.compare("oeq", x, &zero, lanes);
    let y = e.select(&is_zero, &lowest, &y, lanes);
    let negative = e.compare("olt", x, &zero, lanes);
    e.select(&negative, &nan, &y, lanes)
}

/// Hyperbolic tangent: at most 2 ulp; `±1` where it saturates.
pub fn tanh(e: &mut Emitter, x: &str, lanes: usize) -> Value {
    let square = e.float2("mulf", x, x, lanes);
    let p = polynomial(e, &square, &TANH, lanes);
    let p = e.float2("mulf", &p, &square, lanes);
    let near = e.fma(&p, x, x, lanes);
    // 1 - 2 / (e^2|x| + 1), with the sign of x.
    let t = e.absolute(x, lanes);
    let double = e.float2("addf", &t, &t, lanes);
    let y = exp(e, &double, lanes);
    let (one, two) = (e.float(1.0, lanes), e.float(2.0, lanes));
    let y = e.float2("addf", &y, &one, lanes);
    let y = quotient(e, &two, &y, lanes);
    let y = e.float2("subf", &one, &y, lanes);
    let far = e.copy_sign(&y, x, lanes);
    let limit = e.float(0.625, lanes);
    let is_far = e.compare("ogt", &t, &limit, lanes);
    e.select(&is_far, &far, &near, lanes)
}

/// Error function: at most 2 ulp; `±1` where it saturates.
pub fn erf(e: &mut Emitter, x: &str, lanes: usize) -> Value {
    let square = e.float2("mulf", x, x, lanes);
    let p = polynomial(e, &square, &ERF_NEAR, lanes);
    let near = e.fma(&p, x, x, lanes);
    let (t, limit) = (e.absolute(x, lanes), e.float(4.0, lanes));
    let beyond = e.compare("ogt", &t, &limit, lanes);
    let t4 = e.select(&beyond, &limit, &t, lanes);
    let p = polynomial(e, &t4, &ERF_FAR, lanes);
    let p = e.float2("mulf", &p, &t4, lanes);
    let y = exp_of_small(e, &p, lanes);
    let one = e.float(1.0, lanes);
    let y = e.float2("subf", &one, &y, lanes);
    let far = e.copy_sign(&y, x, lanes);
    let border = e.float(0.925, lanes);
    let is_far = e.compare("ogt", &t, &border, lanes);
    e.select(&is_far, &far, &near, lanes)
}

/// `1 / (1 + e^-x)`: at most 3 ulp; 0 below -88.7.
pub fn sigmoid(e: &mut Emitter, x: &str, lanes: usize) -> Value {
    let (minus_one, one) = (e.float(-1.0, lanes), e.float(1.0, lanes));
    let negated = e.float2("mulf", x, &minus_one, lanes);
    let y = exp(e, &negated, lanes);
    let y = e.float2("addf", &y, &one, lanes);
    quotient(e, &one, &y, lanes)
}

/// `x · sigmoid(x)`: at most 4 ulp.
pub fn silu(e: &mut Emitter, x: &str, lanes: usize) -> Value {
    let y = sigmoid(e, x, lanes);
    e.float2("mulf", x, &y, lanes)
}

/// `x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))`, computed as `x · sigmoid(2u)`, which loses nothing for negative `x`.
pub fn gelu_tanh(e: &mut Emitter, x: &str, lanes: usize) -> Value {
    let (cube, linear) = (e.float(2.0 * 0.797_884_6 * 0.044_715, lanes), e.float(2.0 * 0.797_884_6, lanes));
    let square = e.float2("mulf", x, x, lanes);
    let u = e.fma(&square, &cube, &linear, lanes);
    let u = e.float2("mulf", &u, x, lanes);
    let y = sigmoid(e, &u, lanes);
    e.float2("mulf", x, &y, lanes)
}

/// `x/2 · (1 + erf(x / √2))`.
pub fn gelu(e: &mut Emitter, x: &str, lanes: usize) -> Value {
    let (root, half) = (e.float(std::f32::consts::FRAC_1_SQRT_2, lanes), e.float(0.5, lanes));
    let u = e.float2("mulf", x, &root, lanes);
    let y = erf(e, &u, lanes);
    let h = e.float2("mulf", x, &half, lanes);
    e.fma(&h, &y, &h, lanes)
}
