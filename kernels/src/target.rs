//! What a CPU target offers to the templates.
use crate::Pairs;

/// A CPU that code is generated for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// LLVM's name of the processor, such as `znver3`.
    pub cpu: String,
    /// LLVM's feature string.
    pub features: String,
    /// f32 lanes of a vector register: 8 (AVX2) or 16 (AVX-512).
    pub lanes: usize,
    /// Vector registers: 16 (AVX2) or 32 (AVX-512).
    pub registers: usize,
    /// How products of bf16 are added two at a time, if they are.
    pub pairs: Option<Pairs>,
}

impl Target {
    /// Whether `vdpbf16ps` and `vcvtneps2bf16` exist.
    pub fn has_bf16(&self) -> bool {
        self.pairs == Some(Pairs::Instruction)
    }

    /// x86-64 with AVX2 and FMA, which every target has at least.
    pub fn avx2() -> Target {
        Target { cpu: "x86-64-v3".into(), features: String::new(), lanes: 8, registers: 16, pairs: None }
    }
}
