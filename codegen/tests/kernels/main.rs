//! Every kernel template, compared with plain f64 code: on CPUs with vectors of 8 lanes and of 16, and on a GPU, whose code
//! is interpreted. And the way from text to shared object and to PTX.
// Loading the tests twice is the point.
#![allow(clippy::duplicate_mod)]
mod device;
#[path = "../support/erf.rs"]
mod erf;
mod harness;
mod interpreted;
mod ptx;
mod shared_object;

use amc_codegen::host_target;
use amc_kernels::{Pairs, Target};

/// Tests of templates, on one target: those that any machine has, and others.
macro_rules! on {
    ($name:ident, $type:ty, $target:expr, $($other:ident),*) => {
        #[path = "."]
        mod $name {
            fn target() -> $type {
                $target
            }

            mod attention;
            mod cross_entropy;
            mod dropout;
            mod embedding;
            mod experts;
            mod gemm;
            mod grouped;
            mod heads;
            mod norm;
            mod optimizer;
            mod pointwise;
            mod reduce;
            mod rope;
            $(mod $other;)*
        }
    };
}

on!(
    lanes8,
    amc_kernels::Target,
    amc_kernels::Target::avx2(),
    attention_cached,
    attention_scores,
    gemm_plans,
    gemv,
    packing
);
on!(lanes16, amc_kernels::Target, crate::wide(), attention_cached, attention_scores, gemm_plans, gemv, packing);
on!(gpu, amc_kernels::Gpu, amc_kernels::Gpu::ALL[0], attention_scores, gpu_gemm, gpu_attention);

/// Products, those of groups too, and attention of a Hopper GPU; its other kernels are those of any.
#[path = "."]
mod hopper {
    fn target() -> amc_kernels::Gpu {
        amc_kernels::Gpu::ALL[1]
    }

    mod attention;
    mod gemm;
    mod gpu_attention;
    mod grouped;
    mod hopper_attention;
    mod hopper_clusters;
    mod hopper_gemm;
    mod hopper_grouped;
}

/// A target with AVX-512 and bf16: this machine where it has them. Elsewhere LLVM breaks the vectors up, and pairs of bf16
/// are multiplied by other instructions, which shows everything but that the processor's own do what LLVM says.
fn wide() -> Target {
    let host = host_target().expect("a CPU with AVX2");
    if host.has_bf16() { host } else { Target { lanes: 16, registers: 32, pairs: Some(Pairs::Widened), ..host } }
}
