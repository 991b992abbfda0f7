//! Comparisons: lanes to a mask.
use super::{DoublesTest, Mask, WordsTest, half};

macro_rules! test {
    (|$a:ident, $b:ident| $body:expr) => {
        |a, b| {
            let bits = a.iter().zip(b).enumerate();
            bits.fold(0 as Mask, |mask, (i, (&$a, &$b))| mask | (u32::from($body) << i))
        }
    };
}

/// The six comparisons of a type.
macro_rules! integer_tests {
    ($comparison:expr, $type:ty) => {
        match $comparison {
            "eq" => test!(|a, b| a as $type == b as $type),
            "ne" => test!(|a, b| a as $type != b as $type),
            "lt" | "lo" => test!(|a, b| (a as $type) < (b as $type)),
            "le" | "ls" => test!(|a, b| a as $type <= b as $type),
            "gt" | "hi" => test!(|a, b| a as $type > b as $type),
            "ge" | "hs" => test!(|a, b| a as $type >= b as $type),
            _ => return None,
        }
    };
}

/// Ordered comparisons are false where an operand is NaN, unordered ones (`equ` …) true.
macro_rules! float_tests {
    ($comparison:expr, $from:expr) => {
        match $comparison {
            "eq" => test!(|a, b| $from(a) == $from(b)),
            "ne" => test!(|a, b| $from(a) < $from(b) || $from(a) > $from(b)),
            "lt" => test!(|a, b| $from(a) < $from(b)),
            "le" => test!(|a, b| $from(a) <= $from(b)),
            "gt" => test!(|a, b| $from(a) > $from(b)),
            "ge" => test!(|a, b| $from(a) >= $from(b)),
            "equ" => test!(|a, b| !($from(a) < $from(b) || $from(a) > $from(b))),
            "neu" => test!(|a, b| $from(a) != $from(b)),
            "ltu" => test!(|a, b| !($from(a) >= $from(b))),
            "leu" => test!(|a, b| !($from(a) > $from(b))),
            "gtu" => test!(|a, b| !($from(a) <= $from(b))),
            "geu" => test!(|a, b| !($from(a) < $from(b))),
            "num" => test!(|a, b| !$from(a).is_nan() && !$from(b).is_nan()),
            "nan" => test!(|a, b| $from(a).is_nan() || $from(b).is_nan()),
            _ => return None,
        }
    };
}

/// The test of `setp.COMPARISON.TYPE` for types up to 32 bits.
#[expect(clippy::neg_cmp_op_on_partial_ord, reason = "an unordered comparison is the negation of an ordered one")]
pub fn words(comparison: &str, of: &str) -> Option<WordsTest> {
    Some(match of {
        "s16" => integer_tests!(comparison, i16),
        "u16" | "b16" => integer_tests!(comparison, u16),
        "s32" => integer_tests!(comparison, i32),
        "u32" | "b32" => integer_tests!(comparison, u32),
        "f32" => float_tests!(comparison, f32::from_bits),
        "bf16" => float_tests!(comparison, half::from_bf16),
        "f16" => float_tests!(comparison, half::from_f16),
        _ => return None,
    })
}

/// The test of `setp.COMPARISON.TYPE` for types of 64 bits.
#[expect(clippy::neg_cmp_op_on_partial_ord, reason = "an unordered comparison is the negation of an ordered one")]
pub fn doubles(comparison: &str, of: &str) -> Option<DoublesTest> {
    Some(match of {
        "s64" => integer_tests!(comparison, i64),
        "u64" | "b64" => integer_tests!(comparison, u64),
        "f64" => float_tests!(comparison, f64::from_bits),
        _ => return None,
    })
}
