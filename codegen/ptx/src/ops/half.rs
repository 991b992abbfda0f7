//! Arithmetic of `bf16` and `f16`, single and in pairs.
use super::{
    Words1, Words2, Words3,
    float::{maximum, minimum},
    lanes,
};
use ::half::{bf16, f16};

pub fn from_bf16(bits: u32) -> f32 {
    f32::from_bits(bits << 16)
}

pub fn to_bf16(x: f32) -> u32 {
    u32::from(bf16::from_f32(x).to_bits())
}

pub fn from_f16(bits: u32) -> f32 {
    f16::from_bits(bits as u16).to_f32()
}

pub fn to_f16(x: f32) -> u32 {
    u32::from(f16::from_f32(x).to_bits())
}

/// An `f64` as `f32`, inexact results made odd, so that a further rounding to fewer bits is right.
pub fn odd_single(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) == x || !near.is_finite() {
        return near;
    }
    let beyond = f64::from(near).abs() > x.abs();
    f32::from_bits((near.to_bits() - u32::from(beyond)) | 1)
}

fn fused(a: f32, b: f32, c: f32) -> f32 {
    odd_single(f64::from(a) * f64::from(b) + f64::from(c))
}

/// One number in the low half. Sums and products in `f32` are rounded twice without harm: 24 bits are more than twice
/// those of the result, and two.
macro_rules! single {
    ($from:ident, $to:ident, |$($a:ident),+| $body:expr) => {
        lanes!(|$($a),+| { $(let $a = $from($a & 0xffff);)+ $to($body) })
    };
}

/// Two numbers in a word.
macro_rules! pair {
    ($from:ident, $to:ident, |$($a:ident),+| $body:expr) => {
        lanes!(|$($a),+| {
            let low = { $(let $a = $from($a & 0xffff);)+ $to($body) };
            let high = { $(let $a = $from($a >> 16);)+ $to($body) };
            high << 16 | low
        })
    };
}

pub fn words1(opcode: &str) -> Option<Words1> {
    Some(match opcode {
        "neg.bf16" | "neg.f16" => lanes!(|a| a ^ 0x8000),
        "neg.bf16x2" | "neg.f16x2" => lanes!(|a| a ^ 0x8000_8000),
        "abs.bf16" | "abs.f16" => lanes!(|a| a & 0x7fff),
        "abs.bf16x2" | "abs.f16x2" => lanes!(|a| a & 0x7fff_7fff),
        "ex2.approx.ftz.bf16" => single!(from_bf16, to_bf16, |a| a.exp2()),
        "ex2.approx.ftz.bf16x2" => pair!(from_bf16, to_bf16, |a| a.exp2()),
        "tanh.approx.bf16" => single!(from_bf16, to_bf16, |a| a.tanh()),
        "tanh.approx.bf16x2" => pair!(from_bf16, to_bf16, |a| a.tanh()),
        _ => return None,
    })
}

pub fn words2(opcode: &str) -> Option<Words2> {
    let name = opcode.replacen(".rn.", ".", 1);
    Some(match name.as_str() {
        "add.bf16" => single!(from_bf16, to_bf16, |a, b| a + b),
        "sub.bf16" => single!(from_bf16, to_bf16, |a, b| a - b),
        "mul.bf16" => single!(from_bf16, to_bf16, |a, b| a * b),
        "min.bf16" => single!(from_bf16, to_bf16, |a, b| minimum(a, b)),
        "max.bf16" => single!(from_bf16, to_bf16, |a, b| maximum(a, b)),
        "add.bf16x2" => pair!(from_bf16, to_bf16, |a, b| a + b),
        "sub.bf16x2" => pair!(from_bf16, to_bf16, |a, b| a - b),
        "mul.bf16x2" => pair!(from_bf16, to_bf16, |a, b| a * b),
        "min.bf16x2" => pair!(from_bf16, to_bf16, |a, b| minimum(a, b)),
        "max.bf16x2" => pair!(from_bf16, to_bf16, |a, b| maximum(a, b)),
        "add.f16" => single!(from_f16, to_f16, |a, b| a + b),
        "sub.f16" => single!(from_f16, to_f16, |a, b| a - b),
        "mul.f16" => single!(from_f16, to_f16, |a, b| a * b),
        "add.f16x2" => pair!(from_f16, to_f16, |a, b| a + b),
        "mul.f16x2" => pair!(from_f16, to_f16, |a, b| a * b),
        _ => return None,
    })
}

pub fn words3(opcode: &str) -> Option<Words3> {
    Some(match opcode {
        "fma.rn.bf16" => single!(from_bf16, to_bf16, |a, b, c| fused(a, b, c)),
        "fma.rn.bf16x2" => pair!(from_bf16, to_bf16, |a, b, c| fused(a, b, c)),
        "fma.rn.f16" => single!(from_f16, to_f16, |a, b, c| fused(a, b, c)),
        "fma.rn.f16x2" => pair!(from_f16, to_f16, |a, b, c| fused(a, b, c)),
        _ => return None,
    })
}
