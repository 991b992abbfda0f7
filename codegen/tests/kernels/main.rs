//! Every CPU kernel template, compiled for the fallback target and compared with plain f64 code.
mod attention;
mod attention_cached;
mod cross_entropy;
mod dropout;
mod embedding;
mod gemm;
mod gemv;
mod harness;
mod norm;
mod optimizer;
mod pointwise;
mod reduce;
mod rope;
