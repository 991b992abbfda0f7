//! Kernel templates: a problem and a target become MLIR text.
//!
//! Every kernel of a CPU has the same calling convention:
//! `func.func @symbol(%args: !llvm.ptr, %begin: i64, %end: i64, %scratch: !llvm.ptr)`.
//! `args` points at an array of operand pointers; the kernel computes tasks `begin..end` of its fixed number of tasks;
//! `scratch` is private to the calling thread. Tasks never depend on each other, so any split gives the same bits. Kernels
//! of GPUs are described in [`gpu`]; templates that serve both in [`machine`].
pub mod attention;
pub mod attention_cached;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod emit;
pub mod experts;
pub mod gemm;
pub mod gemv;
pub mod gpu;
pub mod grouped;
pub mod heads;
pub mod loops;
pub mod machine;
mod mask;
pub mod math;
pub mod norm;
pub mod optimizer;
pub mod pairs;
pub mod pointwise;
pub mod reduce;
pub mod region;
pub mod rope;
pub mod rows;
pub mod steps;
pub mod target;
mod transpose;
pub mod tuning;
pub mod work;

pub use gpu::Gpu;
pub use gpu::block::{Geometry, OperandArray};
pub use gpu::vendor::{Vendor, VendorProduct};
pub use machine::{Machine, Order};
pub use pairs::Pairs;
pub use target::Target;
pub use work::{Varies, Work};

/// What one launch does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kernel {
    /// Unique for its text: template name and problem.
    pub symbol: String,
    pub code: Code,
    /// Number of independent tasks; on a GPU of blocks, whose warps may have a task each.
    pub tasks: u32,
    /// Bytes of scratch that a task needs.
    pub scratch_bytes: u64,
    pub work: Work,
}

/// What does a kernel's tasks. Text is MLIR: one or more functions, of which the one named as the symbol has the calling
/// convention.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Code {
    /// Threads of a CPU.
    Cpu(String),
    /// Blocks of a GPU's threads.
    Gpu(String, Geometry),
    /// The vendor's library for that GPU, which has one task.
    Vendor(VendorProduct),
}

impl Kernel {
    /// The text, if it is ours to compile.
    pub fn text(&self) -> Option<&str> {
        match &self.code {
            Code::Cpu(text) | Code::Gpu(text, _) => Some(text),
            Code::Vendor(_) => None,
        }
    }
}
