//! Every CPU kernel template, compiled for the fallback target and compared with plain f64 code.
mod gemm;
mod harness;
mod norm;
mod pointwise;
mod reduce;
mod rope;
