//! From a forward graph to a plan: the passes, the choice of kernels, the order and the memory.
pub mod autodiff;
pub mod fuse;
pub mod late;
pub mod memory;
pub mod packing;
pub mod pass;
pub mod pipeline;
pub mod plan;
pub mod rewrite;
pub mod schedule;
pub mod select;
pub mod stages;
pub mod streams;
pub mod tidy;

use amc_ir::Op;

/// Whether the op is a product in whose epilogue elementwise ops can be computed.
pub fn is_product(op: &Op) -> bool {
    matches!(op, Op::Matmul(_) | Op::MatmulSum(_) | Op::GroupedMatmul(_))
}

/// Whether the op computes every element from the elements at the same place (or from a broadcast one).
pub fn is_elementwise(op: &Op) -> bool {
    matches!(
        op,
        Op::Add(_)
            | Op::Sub(_)
            | Op::Mul(_)
            | Op::Div(_)
            | Op::Max(_)
            | Op::Neg(_)
            | Op::Exp(_)
            | Op::Log(_)
            | Op::Sqrt(_)
            | Op::Rsqrt(_)
            | Op::Tanh(_)
            | Op::Erf(_)
            | Op::Sigmoid(_)
            | Op::Silu(_)
            | Op::Gelu(_)
            | Op::GeluTanh(_)
            | Op::Relu(_)
            | Op::Step(_)
            | Op::Scale(_)
            | Op::Offset(_)
            | Op::Cast(_)
            | Op::Constant(_)
            | Op::Broadcast(_)
    )
}
