//! Kernels for NVIDIA GPUs.
//!
//! A kernel is an `llvm.func` with the attribute `nvvm.kernel` whose parameters are the operands' addresses, or tensor maps
//! ([`tensor_map`]) where it wants them, in order, or arrays of either. A task is a block of threads (`ctaid.x` is its number) or one of
//! its warps, and a block knows its kernel's whole problem: grids have one axis, sizes are constants. Nothing is added
//! atomically, so every sum has one order.
//!
//! Operands begin at multiples of 16 bytes, but for rows that an epilogue adds to all others.
pub mod attention;
pub mod block;
mod columns;
pub mod deal;
pub mod gemm;
pub(crate) mod grouped;
mod hopper;
mod loops;
pub mod tensor_map;
mod tile;
pub mod vendor;
mod warp;

use crate::Kernel;
use crate::gemm::Gemm;
use crate::grouped::{GroupedDepth, GroupedRows};
use crate::reduce::ColumnSum;
use crate::steps::Steps;
use crate::tuning::{HOPPER_SHORT_DEPTH, WarpgroupTuning, hopper_gemm};
use vendor::Vendor;

/// A generation of GPUs, by the architecture that code is generated for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arch {
    /// Ampere, and whatever came later.
    Sm80,
    /// Hopper alone.
    Sm90a,
}

/// A GPU that code is generated for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gpu {
    pub arch: Arch,
    pub vendor: Vendor,
    /// Whether products of f32 matrices may round them to TF32, which the tensor cores multiply.
    pub tf32: bool,
}

impl Gpu {
    /// With kernels of our own alone, f32 unrounded.
    pub const ALL: [Gpu; 2] = [
        Gpu { arch: Arch::Sm80, vendor: Vendor::Never, tf32: false },
        Gpu { arch: Arch::Sm90a, vendor: Vendor::Never, tf32: false },
    ];

    /// LLVM's name of the architecture.
    pub fn name(self) -> &'static str {
        match self.arch {
            Arch::Sm80 => "sm_80",
            Arch::Sm90a => "sm_90a",
        }
    }

    /// The version of PTX that kernels are written in, times ten: the first that knows so many bytes of parameters.
    pub const PTX_VERSION: u32 = 81;

    /// Most bytes of a kernel's parameters in that version.
    pub const PARAMETER_BYTES: usize = 32_764;

    /// Most bytes of shared memory that a block can have.
    pub fn shared_bytes(self) -> usize {
        match self.arch {
            Arch::Sm80 => 163 << 10,
            Arch::Sm90a => 227 << 10,
        }
    }
}

/// The column sums; operands as [`ColumnSum`] has them.
pub fn column_sum(problem: &ColumnSum) -> Steps {
    columns::steps(problem)
}

/// The matrix product: by the vendor's library, or by warpgroups where the GPU has them, if they can compute it and the tuning
/// table wants them to.
pub fn product(gemm: &Gemm, gpu: &Gpu) -> Kernel {
    if let Some(kernel) = vendor::product(gemm, gpu) {
        return kernel;
    }
    match by_warpgroups(gemm, gpu) {
        Some(cut) => product_by_warpgroups(gemm, cut),
        None => gemm::build(gemm, gpu.tf32),
    }
}

/// The product in parts, if it goes to the kernels of sm_80 and the tuning table wants it so; operands as [`product`] has them.
pub fn product_in_parts(gemm: &Gemm, gpu: &Gpu) -> Option<Steps> {
    let alone = vendor::product(gemm, gpu).is_some() || by_warpgroups(gemm, gpu).is_some();
    if alone { None } else { gemm::in_parts(gemm, gpu) }
}

/// How warpgroups cut a product, if they are to compute it.
fn by_warpgroups(gemm: &Gemm, gpu: &Gpu) -> Option<WarpgroupTuning> {
    if gpu.arch == Arch::Sm80 || !hopper::suits(gemm, HOPPER_SHORT_DEPTH) {
        return None;
    }
    let cut = hopper_gemm(gemm.m, gemm.n)?;
    Some(if hopper::suits_clusters(gemm) { cut } else { cut.alone() })
}

/// Rows of groups by warpgroups, which can compute them, in a cut of the caller's.
pub fn grouped_rows_by_warpgroups(problem: &GroupedRows, cut: WarpgroupTuning) -> Kernel {
    assert!(hopper::suits_rows(problem, usize::MAX), "warpgroups cannot compute {problem:?}");
    hopper::rows(problem, cut)
}

/// Products over rows of groups by warpgroups, likewise.
pub fn grouped_depth_by_warpgroups(problem: &GroupedDepth, cut: WarpgroupTuning) -> Kernel {
    assert!(hopper::suits_depth(&problem.gemm()), "warpgroups cannot compute {problem:?}");
    hopper::depth(problem, cut)
}

/// The matrix product by warpgroups, which can compute it, in a cut of the caller's.
pub fn product_by_warpgroups(gemm: &Gemm, cut: WarpgroupTuning) -> Kernel {
    assert!(hopper::suits(gemm, usize::MAX), "warpgroups cannot compute {gemm:?}");
    hopper::build(gemm, cut)
}
