//! Every op of the IR, one row each. An op's file holds all that is peculiar to it.
mod attention;
mod cross_entropy;
mod dropout;
mod elementwise;
mod embedding;
mod experts;
mod grouped_matmul;
mod heads;
mod layer_norm;
mod matmul;
mod optimizer;
mod rms_norm;
mod rope;
mod shape;

pub use attention::{Attention, AttentionCached, AttentionGrad, CacheAppend};
pub use cross_entropy::{LinearCrossEntropy, LinearCrossEntropyGrad};
pub use dropout::{DeriveSeed, Dropout};
pub use elementwise::*;
pub use embedding::{Embedding, EmbeddingGrad};
pub use experts::{GatherRows, GroupRows, Route, RouteGrad, SumRows};
pub use grouped_matmul::{GroupedMatmul, GroupedMatmulGrad};
pub use heads::{JoinHeads, SplitHeads};
pub use layer_norm::{LayerNorm, LayerNormGrad, LayerNormGradAdd, LayerNormGradWeight};
pub use matmul::{Matmul, MatmulSum};
pub use optimizer::{Accumulate, Adam, ClipCoefficient};
pub use rms_norm::{RmsNorm, RmsNormGrad, RmsNormGradAdd, RmsNormGradWeight};
pub use rope::Rope;
pub use shape::{Broadcast, Reshape, Rows, SumTo};

use crate::op::{Named, OpDef};
use crate::{DType, Type};

crate::ops! {
    elementwise::Add,
    elementwise::Sub,
    elementwise::Mul,
    elementwise::Div,
    elementwise::Max,
    elementwise::Neg,
    elementwise::Exp,
    elementwise::Log,
    elementwise::Sqrt,
    elementwise::Rsqrt,
    elementwise::Tanh,
    elementwise::Erf,
    elementwise::Sigmoid,
    elementwise::Silu,
    elementwise::Gelu,
    elementwise::GeluTanh,
    elementwise::Relu,
    elementwise::Step,
    elementwise::Scale,
    elementwise::Offset,
    elementwise::Cast,
    elementwise::Constant,
    shape::Broadcast,
    shape::SumTo,
    shape::Reshape,
    shape::Rows,
    matmul::Matmul,
    matmul::MatmulSum,
    grouped_matmul::GroupedMatmul,
    grouped_matmul::GroupedMatmulGrad,
    experts::Route,
    experts::RouteGrad,
    experts::GroupRows,
    experts::GatherRows,
    experts::SumRows,
    embedding::Embedding,
    embedding::EmbeddingGrad,
    rms_norm::RmsNorm,
    rms_norm::RmsNormGrad,
    rms_norm::RmsNormGradAdd,
    rms_norm::RmsNormGradWeight,
    layer_norm::LayerNorm,
    layer_norm::LayerNormGrad,
    layer_norm::LayerNormGradAdd,
    layer_norm::LayerNormGradWeight,
    rope::Rope,
    heads::SplitHeads,
    heads::JoinHeads,
    attention::Attention,
    attention::AttentionGrad,
    attention::CacheAppend,
    attention::AttentionCached,
    cross_entropy::LinearCrossEntropy,
    cross_entropy::LinearCrossEntropyGrad,
    dropout::Dropout,
    dropout::DeriveSeed,
    optimizer::Accumulate,
    optimizer::ClipCoefficient,
    optimizer::Adam,
}

/// Exactly `N` operands, or a sentence with the names that were wanted.
fn operands<const N: usize>(args: &[Type], names: &[&str]) -> Result<[Type; N], String> {
    <[Type; N]>::try_from(args.to_vec())
        .map_err(|_| format!("takes {N} operands ({}), found {}", names.join(", "), args.len()))
}

fn want_float(name: &str, ty: &Type) -> Result<(), String> {
    if ty.dtype.is_float() { Ok(()) } else { Err(format!("`{name}` is {ty}, wanted f32 or bf16 elements")) }
}

fn want(name: &str, found: &Type, wanted: &Type) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("`{name}` is {found}, wanted {wanted}")) }
}

fn want_dtype(name: &str, found: &Type, wanted: DType) -> Result<(), String> {
    let what = wanted.name();
    if found.dtype == wanted { Ok(()) } else { Err(format!("`{name}` is {found}, wanted {what} elements")) }
}

fn want_matrix(name: &str, ty: &Type) -> Result<(usize, usize), String> {
    ty.matrix().ok_or_else(|| format!("`{name}` is {ty}, wanted two axes"))
}

fn want_positive(name: &str, value: Option<f32>) -> Result<(), String> {
    match value {
        Some(value) if !(value > 0.0 && value.is_finite()) => {
            Err(format!("`{name}` is {value}, wanted a positive number or none"))
        }
        _ => Ok(()),
    }
}
