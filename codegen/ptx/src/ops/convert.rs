//! `cvt`: from one number type to another, by way of 64 bits that hold either an integer or an `f64`.
use super::{Doubles, Words, Words1, Words2, half, lanes};

/// How the source becomes 64 bits.
#[derive(Clone, Copy, Debug)]
pub enum Read {
    Words(fn(&Words) -> Doubles),
    Doubles(fn(&Doubles) -> Doubles),
}

/// How 64 bits become the destination.
#[derive(Clone, Copy, Debug)]
pub enum Write {
    Words(fn(&Doubles) -> Words),
    Doubles(fn(&Doubles) -> Doubles),
}

/// The whole conversion of an opcode that starts with `cvt`.
pub fn convert(opcode: &str) -> Option<(Read, Write)> {
    let mut parts = opcode.split('.').skip(1).filter(|part| *part != "ftz").collect::<Vec<_>>();
    let (from, to) = (parts.pop()?, parts.pop()?);
    match (is_float(from), is_float(to), parts.as_slice()) {
        (false, false, []) => Some((integer(from)?, to_integer(to)?)),
        (false, true, ["rn"]) => Some((integer(from)?, integer_to_float(to, from.starts_with('s'))?)),
        (true, false, [rounding]) => Some((rounded(from, rounding)?, float_to_integer(to)?)),
        (true, true, [] | ["rn"]) => Some((float(from)?, to_float(to)?)),
        (true, true, [rounding]) => Some((rounded(from, rounding)?, to_float(to)?)),
        _ => None,
    }
}

/// Conversions that are worth a function of their own, being frequent, and those that have no other.
pub fn words1(opcode: &str) -> Option<Words1> {
    Some(match opcode {
        "cvt.f32.bf16" => lanes!(|a| a << 16),
        "cvt.rn.bf16.f32" => lanes!(|a| half::to_bf16(f32::from_bits(a))),
        "cvt.rna.tf32.f32" => lanes!(|a| round_tf32(a)),
        "cvt.rn.tf32.f32" => lanes!(|a| round_tf32_even(a)),
        _ => return None,
    })
}

/// Two numbers packed into a word; the first operand is the high half.
pub fn words2(opcode: &str) -> Option<Words2> {
    Some(match opcode {
        "cvt.rn.bf16x2.f32" => {
            lanes!(|a, b| half::to_bf16(f32::from_bits(a)) << 16 | half::to_bf16(f32::from_bits(b)))
        }
        "cvt.rn.f16x2.f32" => {
            lanes!(|a, b| half::to_f16(f32::from_bits(a)) << 16 | half::to_f16(f32::from_bits(b)))
        }
        _ => return None,
    })
}

fn is_float(name: &str) -> bool {
    matches!(name, "f16" | "bf16" | "f32" | "f64")
}

fn integer(name: &str) -> Option<Read> {
    Some(match name {
        "u8" => Read::Words(lanes!(|a| u64::from(a as u8))),
        "s8" => Read::Words(lanes!(|a| a as i8 as u64)),
        "u16" | "b16" => Read::Words(lanes!(|a| u64::from(a as u16))),
        "s16" => Read::Words(lanes!(|a| a as i16 as u64)),
        "u32" | "b32" => Read::Words(lanes!(|a| u64::from(a))),
        "s32" => Read::Words(lanes!(|a| a as i32 as u64)),
        "u64" | "s64" | "b64" => Read::Doubles(lanes!(|a| a)),
        _ => return None,
    })
}

fn to_integer(name: &str) -> Option<Write> {
    Some(match name {
        "u8" => Write::Words(lanes!(|a| a as u32 & 0xff)),
        "s8" => Write::Words(lanes!(|a| a as i8 as u32)),
        "u16" | "s16" | "b16" => Write::Words(lanes!(|a| a as u32 & 0xffff)),
        "u32" | "s32" | "b32" => Write::Words(lanes!(|a| a as u32)),
        "u64" | "s64" | "b64" => Write::Doubles(lanes!(|a| a)),
        _ => return None,
    })
}

fn float(name: &str) -> Option<Read> {
    Some(match name {
        "f16" => Read::Words(lanes!(|a| f64::from(half::from_f16(a)).to_bits())),
        "bf16" => Read::Words(lanes!(|a| f64::from(half::from_bf16(a)).to_bits())),
        "f32" => Read::Words(lanes!(|a| f64::from(f32::from_bits(a)).to_bits())),
        "f64" => Read::Doubles(lanes!(|a| a)),
        _ => return None,
    })
}

/// A float rounded to an integral value, still as `f64`.
fn rounded(from: &str, rounding: &str) -> Option<Read> {
    macro_rules! by {
        ($round:expr) => {
            match from {
                "f32" => Read::Words(lanes!(|a| $round(f64::from(f32::from_bits(a))).to_bits())),
                "bf16" => Read::Words(lanes!(|a| $round(f64::from(half::from_bf16(a))).to_bits())),
                "f16" => Read::Words(lanes!(|a| $round(f64::from(half::from_f16(a))).to_bits())),
                "f64" => Read::Doubles(lanes!(|a| $round(f64::from_bits(a)).to_bits())),
                _ => return None,
            }
        };
    }
    Some(match rounding {
        "rni" => by!(f64::round_ties_even),
        "rzi" => by!(f64::trunc),
        "rmi" => by!(f64::floor),
        "rpi" => by!(f64::ceil),
        _ => return None,
    })
}

fn to_float(name: &str) -> Option<Write> {
    Some(match name {
        "f16" => Write::Words(lanes!(|a| half::to_f16(half::odd_single(f64::from_bits(a))))),
        "bf16" => Write::Words(lanes!(|a| half::to_bf16(half::odd_single(f64::from_bits(a))))),
        "f32" => Write::Words(lanes!(|a| (f64::from_bits(a) as f32).to_bits())),
        "f64" => Write::Doubles(lanes!(|a| a)),
        _ => return None,
    })
}

fn integer_to_float(name: &str, signed: bool) -> Option<Write> {
    Some(match (name, signed) {
        ("f32", true) => Write::Words(lanes!(|a| (a as i64 as f32).to_bits())),
        ("f32", false) => Write::Words(lanes!(|a| (a as f32).to_bits())),
        ("f64", true) => Write::Doubles(lanes!(|a| (a as i64 as f64).to_bits())),
        ("f64", false) => Write::Doubles(lanes!(|a| (a as f64).to_bits())),
        ("bf16", true) => Write::Words(lanes!(|a| half::to_bf16(half::odd_single(a as i64 as f64)))),
        ("bf16", false) => Write::Words(lanes!(|a| half::to_bf16(half::odd_single(a as f64)))),
        ("f16", true) => Write::Words(lanes!(|a| half::to_f16(half::odd_single(a as i64 as f64)))),
        ("f16", false) => Write::Words(lanes!(|a| half::to_f16(half::odd_single(a as f64)))),
        _ => return None,
    })
}

/// Out of range becomes the nearest integer of the type; NaN becomes 0, or the lowest number of 64 bits.
fn float_to_integer(name: &str) -> Option<Write> {
    Some(match name {
        "s16" => Write::Words(lanes!(|a| f64::from_bits(a) as i16 as u16 as u32)),
        "u16" => Write::Words(lanes!(|a| u32::from(f64::from_bits(a) as u16))),
        "s32" => Write::Words(lanes!(|a| f64::from_bits(a) as i32 as u32)),
        "u32" => Write::Words(lanes!(|a| f64::from_bits(a) as u32)),
        "s64" => Write::Doubles(lanes!(|a| nan_or(a, f64::from_bits(a) as i64 as u64))),
        "u64" => Write::Doubles(lanes!(|a| nan_or(a, f64::from_bits(a) as u64))),
        _ => return None,
    })
}

fn nan_or(bits: u64, value: u64) -> u64 {
    if f64::from_bits(bits).is_nan() { 1 << 63 } else { value }
}

/// To the nearest number of 10 mantissa bits, ties away from zero.
fn round_tf32(bits: u32) -> u32 {
    if f32::from_bits(bits).is_nan() { 0x7fff_ffff } else { bits.wrapping_add(0x1000) & !0x1fff }
}

fn round_tf32_even(bits: u32) -> u32 {
    let odd = bits >> 13 & 1;
    if f32::from_bits(bits).is_nan() { 0x7fff_ffff } else { bits.wrapping_add(0xfff + odd) & !0x1fff }
}
