//! Every CPU kernel template, compared with plain f64 code: with vectors of 8 lanes, and with those of 16. And the way
//! from text to shared object.
// Loading the tests twice is the point.
#![allow(clippy::duplicate_mod)]
mod harness;
mod shared_object;

use amc_codegen::host_target;
use amc_kernels::Target;

/// The templates' tests, on one target.
macro_rules! on {
    ($lanes:ident, $target:expr) => {
        #[path = "."]
        mod $lanes {
            fn target() -> amc_kernels::Target {
                $target
            }

            mod attention;
            mod attention_cached;
            mod cross_entropy;
            mod dropout;
            mod embedding;
            mod gemm;
            mod gemv;
            mod norm;
            mod optimizer;
            mod pointwise;
            mod reduce;
            mod rope;
        }
    };
}

on!(lanes8, amc_kernels::Target::avx2());
on!(lanes16, crate::wide());

/// A target with AVX-512: this machine where it has it. Elsewhere LLVM breaks the vectors up, which shows everything but
/// that the processor's own instructions do what LLVM says.
fn wide() -> Target {
    let host = host_target().expect("a CPU with AVX2");
    if host.lanes == 16 { host } else { Target { lanes: 16, registers: 32, ..host } }
}
