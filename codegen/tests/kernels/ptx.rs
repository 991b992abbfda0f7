//! Kernels of GPUs as PTX.
use amc_codegen::ptx as emit;
use amc_kernels::emit::Elem;
use amc_kernels::norm::RmsNorm;
use amc_kernels::{Gpu, Kernel};

fn norm(rows: usize) -> Kernel {
    let (elem, weight) = (Elem::Bf16, Elem::F32);
    RmsNorm { rows, n: 96, eps: 1e-5, plus_one: false, residual: true, elem, weight }.build(&Gpu::ALL[0])
}

#[test]
fn kernels_are_entries_of_one_module() {
    let kernels = [norm(3), norm(4)];
    for gpu in Gpu::ALL {
        let text = emit(&kernels, gpu).unwrap();
        assert_eq!(text.matches(&format!(".target {}\n", gpu.name())).count(), 1, "{text}");
        for kernel in &kernels {
            assert!(text.contains(&format!(".visible .entry {}(", kernel.symbol)), "{text}");
        }
    }
}
