//! Two bf16 in a word of four bytes, the first in its low half, as `vdpbf16ps` multiplies them.
use crate::emit::{Emitter, Value, float_type};

/// How two bf16 products are added to a sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pairs {
    /// By `vdpbf16ps`, which takes denormals for zero.
    Instruction,
    /// Widened, by two multiply-adds: what the instruction computes, on any CPU.
    Widened,
}

/// `sum + a.low * b.low + a.high * b.high` in every word.
pub fn dot(e: &mut Emitter, pairs: Pairs, a: &str, b: &str, sum: &str, lanes: usize) -> Value {
    match pairs {
        Pairs::Instruction => {
            let (words, bits) = (float_type(lanes), 32 * lanes);
            let halves = format!("vector<{}xbf16>", 2 * lanes);
            let [a, b] = [a, b].map(|x| e.op(format!("vector.bitcast {x} : {words} to {halves}")));
            e.op(format!(
                "llvm.call_intrinsic \"llvm.x86.avx512bf16.dpbf16ps.{bits}\"({sum}, {a}, {b}) : ({words}, {halves}, {halves}) -> {words}"
            ))
        }
        Pairs::Widened => {
            let [a, b] = [a, b].map(|x| e.float_bits(x, lanes));
            let (sixteen, high) = (e.int_constant(16, lanes), e.int_constant(-0x10000, lanes));
            let [a_high, b_high] = [&a, &b].map(|x| e.int_lanes2("andi", x, &high, lanes));
            let [a_low, b_low] = [&a, &b].map(|x| e.int_lanes2("shli", x, &sixteen, lanes));
            let [a_high, b_high, a_low, b_low] = [a_high, b_high, a_low, b_low].map(|x| e.bits_float(&x, lanes));
            let sum = e.fma(&a_high, &b_high, sum, lanes);
            e.fma(&a_low, &b_low, &sum, lanes)
        }
    }
}

/// The words of which `low` are the first halves and `high` the second, f32 lanes rounded to bf16.
pub fn words(e: &mut Emitter, low: &str, high: &str, lanes: usize) -> Value {
    let [low, high] = [low, high].map(|half| e.rounded_bits(half, lanes));
    let sixteen = e.int_constant(16, lanes);
    let high = e.int_lanes2("shli", &high, &sixteen, lanes);
    let bits = e.int_lanes2("ori", &low, &high, lanes);
    e.bits_float(&bits, lanes)
}
