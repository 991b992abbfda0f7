//! Rates for a machine that was not measured, by the vectors that its code uses.
//!
//! AVX2 is the table of kernels in `docs/performance.md`, measured on one thread of an AMD EPYC (Zen 3).
//! AVX-512 is what steps of SmolLM2 in f32 and bf16 took on two threads of an AMD EPYC (Zen 5), a kernel at a time.
use crate::{Rate, Rates, Source};
use std::collections::BTreeMap;

/// A family, and its GFLOP/s and GB/s a thread and microseconds a launch; 0 where that does not bound it.
type Row = (&'static str, f64, f64, f64);

const AVX2_ERROR: f64 = 0.3;
const AVX2_IDLE: f64 = 0.02;
const AVX2_WAIT: f64 = 3e-6;
const AVX2: &[Row] = &[
    ("attention", 64.0, 0.0, 0.0),
    ("attention_grad", 71.0, 0.0, 0.0),
    ("column_sum", 0.0, 45.0, 0.0),
    ("cross_entropy", 0.0, 8.8, 0.0),
    ("embedding_grad", 0.0, 30.0, 0.0),
    ("gemv", 0.0, 17.0, 0.0),
    ("norm", 0.0, 40.0, 0.0),
    ("optimizer", 0.0, 25.0, 0.0),
    ("pointwise", 0.0, 13.6, 0.0),
    ("product", 85.0, 0.0, 0.0),
    ("product_thin", 60.0, 0.0, 0.0),
    ("product_widened", 80.0, 0.0, 0.0),
    ("rope", 0.0, 50.0, 0.0),
    ("rows", 0.0, 30.0, 0.0),
    ("sum", 0.0, 12.0, 0.0),
];

/// Rows that differ from [`AVX2`].
const AVX512_ERROR: f64 = 0.3;
const AVX512: &[Row] = &[
    ("attention", 172.0, 0.0, 0.0),
    ("attention_bf16", 305.0, 0.0, 0.0),
    ("attention_grad", 180.0, 0.0, 0.0),
    ("attention_grad_bf16", 325.0, 0.0, 0.0),
    ("cross_entropy", 0.0, 22.0, 0.0),
    ("norm", 0.0, 33.0, 0.0),
    ("optimizer", 0.0, 37.0, 0.0),
    ("pointwise", 0.0, 26.0, 0.0),
    ("product", 234.0, 0.0, 0.0),
    ("product_bf16", 455.0, 0.0, 0.0),
    ("product_thin", 200.0, 0.0, 0.0),
    ("product_widened", 200.0, 0.0, 0.0),
];

/// The rates for code with those features; `why` says why they are not measured ones.
pub fn of(features: &[String], why: String) -> Rates {
    let wide = features.iter().any(|feature| feature == "avx512f");
    let rows = AVX2.iter().chain(if wide { AVX512 } else { &[] });
    let families: BTreeMap<String, Rate> = rows.map(|row| (row.0.to_string(), rate(row))).collect();
    let error = if wide { AVX512_ERROR } else { AVX2_ERROR };
    Rates { source: Source::BuiltIn(why), error, idle: AVX2_IDLE, wait: AVX2_WAIT, overlap: false, families }
}

fn rate(&(_, gigaflops, gigabytes, microseconds): &Row) -> Rate {
    let seconds = |giga: f64| if giga > 0.0 { 1e-9 / giga } else { 0.0 };
    Rate { operation: seconds(gigaflops), byte: seconds(gigabytes), launch: microseconds * 1e-6 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_vectors_change_what_arithmetic_bounds() {
        let of = |features: &[&str]| of(&features.iter().map(|f| f.to_string()).collect::<Vec<_>>(), String::new());
        let (narrow, wide) = (of(&["avx2"]), of(&["avx2", "avx512f"]));
        assert!(wide.families["product"].operation < narrow.families["product"].operation / 2.0);
        assert_eq!(wide.families["rope"], narrow.families["rope"]);
    }
}
