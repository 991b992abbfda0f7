//! Arithmetic of `f32` and `f64`.
use super::{Doubles1, Doubles2, Doubles3, Words1, Words2, Words3, lanes};

/// Subnormal numbers become zero of the same sign, as `.ftz` has it.
pub fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

/// An `f32` function, and the same with subnormal arguments and results flushed.
macro_rules! float {
    ($flush:expr, |$($a:ident),+| $body:expr) => {
        if $flush {
            lanes!(|$($a),+| { $(let $a = flush(f32::from_bits($a));)+ flush($body).to_bits() })
        } else {
            lanes!(|$($a),+| { $(let $a = f32::from_bits($a);)+ f32::to_bits($body) })
        }
    };
}

macro_rules! double {
    (|$($a:ident),+| $body:expr) => {
        lanes!(|$($a),+| { $(let $a = f64::from_bits($a);)+ f64::to_bits($body) })
    };
}

/// The opcode without its `.ftz`, and whether it had one.
fn without_flush(opcode: &str) -> (String, bool) {
    (opcode.replacen(".ftz", "", 1), opcode.contains(".ftz"))
}

pub fn words1(opcode: &str) -> Option<Words1> {
    let (name, ftz) = without_flush(opcode);
    Some(match name.as_str() {
        "neg.f32" => float!(ftz, |a| -a),
        "abs.f32" => float!(ftz, |a| a.abs()),
        "sqrt.rn.f32" | "sqrt.approx.f32" => float!(ftz, |a| a.sqrt()),
        "rcp.rn.f32" | "rcp.approx.f32" => float!(ftz, |a| 1.0 / a),
        "rsqrt.approx.f32" => float!(ftz, |a| (1.0 / f64::from(a).sqrt()) as f32),
        "ex2.approx.f32" => float!(ftz, |a| a.exp2()),
        "lg2.approx.f32" => float!(ftz, |a| a.log2()),
        "sin.approx.f32" => float!(ftz, |a| a.sin()),
        "cos.approx.f32" => float!(ftz, |a| a.cos()),
        "tanh.approx.f32" => float!(ftz, |a| a.tanh()),
        _ => return None,
    })
}

pub fn words2(opcode: &str) -> Option<Words2> {
    let (name, ftz) = without_flush(opcode);
    Some(match name.as_str() {
        "add.f32" | "add.rn.f32" => float!(ftz, |a, b| a + b),
        "sub.f32" | "sub.rn.f32" => float!(ftz, |a, b| a - b),
        "mul.f32" | "mul.rn.f32" => float!(ftz, |a, b| a * b),
        "add.rn.sat.f32" | "add.sat.f32" => float!(ftz, |a, b| saturate(a + b)),
        "mul.rn.sat.f32" | "mul.sat.f32" => float!(ftz, |a, b| saturate(a * b)),
        "div.rn.f32" | "div.full.f32" | "div.approx.f32" => float!(ftz, |a, b| a / b),
        "min.f32" => float!(ftz, |a, b| minimum(a, b)),
        "max.f32" => float!(ftz, |a, b| maximum(a, b)),
        "min.NaN.f32" => float!(ftz, |a, b| if a.is_nan() || b.is_nan() { f32::NAN } else { minimum(a, b) }),
        "max.NaN.f32" => float!(ftz, |a, b| if a.is_nan() || b.is_nan() { f32::NAN } else { maximum(a, b) }),
        "copysign.f32" => float!(false, |a, b| b.copysign(a)),
        _ => return None,
    })
}

pub fn words3(opcode: &str) -> Option<Words3> {
    let (name, ftz) = without_flush(opcode);
    Some(match name.as_str() {
        "fma.rn.f32" => float!(ftz, |a, b, c| a.mul_add(b, c)),
        "fma.rn.sat.f32" => float!(ftz, |a, b, c| saturate(a.mul_add(b, c))),
        _ => return None,
    })
}

pub fn doubles1(opcode: &str) -> Option<Doubles1> {
    Some(match opcode {
        "neg.f64" => double!(|a| -a),
        "abs.f64" => double!(|a| a.abs()),
        "sqrt.rn.f64" => double!(|a| a.sqrt()),
        "rcp.rn.f64" => double!(|a| 1.0 / a),
        _ => return None,
    })
}

pub fn doubles2(opcode: &str) -> Option<Doubles2> {
    Some(match opcode {
        "add.f64" | "add.rn.f64" => double!(|a, b| a + b),
        "sub.f64" | "sub.rn.f64" => double!(|a, b| a - b),
        "mul.f64" | "mul.rn.f64" => double!(|a, b| a * b),
        "div.rn.f64" => double!(|a, b| a / b),
        "min.f64" => double!(|a, b| a.min(b)),
        "max.f64" => double!(|a, b| a.max(b)),
        "copysign.f64" => double!(|a, b| b.copysign(a)),
        _ => return None,
    })
}

pub fn doubles3(opcode: &str) -> Option<Doubles3> {
    Some(match opcode {
        "fma.rn.f64" => double!(|a, b, c| a.mul_add(b, c)),
        _ => return None,
    })
}

/// NaN becomes zero.
fn saturate(x: f32) -> f32 {
    if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) }
}

/// The other operand where one is NaN; -0 is less than +0.
pub fn minimum(a: f32, b: f32) -> f32 {
    if a == b && a.is_sign_negative() {
        a
    } else if a == b {
        b
    } else {
        a.min(b)
    }
}

/// The other operand where one is NaN; -0 is less than +0.
pub fn maximum(a: f32, b: f32) -> f32 {
    if a == b && a.is_sign_positive() {
        a
    } else if a == b {
        b
    } else {
        a.max(b)
    }
}
