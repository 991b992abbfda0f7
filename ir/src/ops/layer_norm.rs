//! Layer normalisation (Ba, Kiros and Hinton, 2016) over the last axis, and its gradients.
//!
//! It is the RMS norm of `x` without its mean. To take the mean off is a symmetric linear map, so the gradients are those of
//! the RMS norm, with the mean taken off before and, for `x`, behind them.
use super::rms_norm::{check, mean};
use super::{
    Add, Broadcast, Cast, RmsNorm, RmsNormGrad, RmsNormGradAdd, RmsNormGradWeight, Sub, SumTo, operands, want,
    want_float,
};
use crate::graph::Function;
use crate::op::{Named, OpDef, Vjp};
use crate::{DType, Type, Value, op};

op! {
    /// `(x - m) * rsqrt(mean((x - m)²) + eps) * weight + bias` with `m = mean(x)`, means over the last axis; with `plus_one`
    /// the factor is `1 + weight` (Nemotron). `more` is the bias, or nothing.
    "layer_norm" LayerNorm { eps: f32, plus_one: bool } (x, weight, more) -> "x"
}

impl OpDef for LayerNorm {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let (norm, bias) = args.split_at(args.len().min(2));
        let [x, weight] = operands(norm, &Self::OPERANDS[..2])?;
        check(&x, &weight)?;
        match bias {
            [] => {}
            [bias] => {
                want_float("bias", bias)?;
                want("bias", bias, &Type::new(bias.dtype, weight.shape))?;
            }
            more => return Err(format!("takes at most one bias behind x and weight, found {}", more.len())),
        }
        Ok(vec![x])
    }

    fn expand(&self, g: &mut Function, args: &[Value]) -> Option<Vec<Value>> {
        let ty = g.ty(args[0]).clone();
        let x = centred(g, args[0]);
        let mut y = g.op(RmsNorm { eps: self.eps, plus_one: self.plus_one }, &[x, args[1]]);
        if let [bias] = args[2..] {
            let bias = g.op(Cast { dtype: DType::F32 }, &[bias]);
            let bias = g.op(Broadcast { shape: ty.shape.clone() }, &[bias]);
            y = g.op(Add {}, &[y, bias]);
        }
        Some(vec![g.op(Cast { dtype: ty.dtype }, &[y])])
    }

    fn vjp(&self, g: &mut Function, at: &Vjp) -> Option<Vec<Option<Value>>> {
        let (x, weight, dy) = (at.args[0], at.args[1], at.dy());
        let (eps, plus_one) = (self.eps, self.plus_one);
        let mut gradients = vec![
            at.needs[0].then(|| g.op(LayerNormGrad { eps, plus_one }, &[x, weight, dy])),
            at.needs[1].then(|| g.op(LayerNormGradWeight { eps }, &[x, dy])),
        ];
        if let [bias] = at.args[2..] {
            let shape = g.ty(bias).shape.clone();
            gradients.push(at.needs[2].then(|| g.op(SumTo { shape, dtype: DType::F32 }, &[dy])));
        }
        Some(gradients)
    }
}

/// `x` without its mean over the last axis, in f32.
fn centred(g: &mut Function, x: Value) -> Value {
    let shape = g.ty(x).shape.clone();
    let x = g.op(Cast { dtype: DType::F32 }, &[x]);
    let mean = mean(g, x);
    let mean = g.op(Broadcast { shape }, &[mean]);
    g.op(Sub {}, &[x, mean])
}

op! {
    /// The cotangent of `x`: with `c = x - mean(x)`, `r = rsqrt(mean(c²) + eps)` and `u = dy * weight`,
    /// `r * (u - mean(u) - c * r² * mean(u * c))`.
    "layer_norm_grad" LayerNormGrad { eps: f32, plus_one: bool } (x, weight, dy) -> "x"
}

impl OpDef for LayerNormGrad {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        RmsNormGrad { eps: self.eps, plus_one: self.plus_one }.infer(args)
    }

    fn expand(&self, g: &mut Function, args: &[Value]) -> Option<Vec<Value>> {
        let dtype = g.ty(args[0]).dtype;
        let x = centred(g, args[0]);
        let dy = g.op(Cast { dtype: DType::F32 }, &args[2..]);
        let dx = g.op(RmsNormGrad { eps: self.eps, plus_one: self.plus_one }, &[x, args[1], dy]);
        let dx = centred(g, dx);
        Some(vec![g.op(Cast { dtype }, &[dx])])
    }
}

op! {
    /// `layer_norm_grad(x, weight, dy) + d`: the branch's gradient joins the residual stream's.
    "layer_norm_grad_add" LayerNormGradAdd { eps: f32, plus_one: bool } (x, weight, dy, d) -> "x"
}

impl OpDef for LayerNormGradAdd {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        RmsNormGradAdd { eps: self.eps, plus_one: self.plus_one }.infer(args)
    }

    fn expand(&self, g: &mut Function, args: &[Value]) -> Option<Vec<Value>> {
        let dx = g.op(LayerNormGrad { eps: self.eps, plus_one: self.plus_one }, &args[..3]);
        Some(vec![g.op(Add {}, &[dx, args[3]])])
    }
}

op! {
    /// The cotangent of `weight`, in f32: the sum over rows of `dy * (x - mean(x)) * rsqrt(mean((x - mean(x))²) + eps)`.
    "layer_norm_grad_weight" LayerNormGradWeight { eps: f32 } (x, dy) -> "f32[n]"
}

impl OpDef for LayerNormGradWeight {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        RmsNormGradWeight { eps: self.eps }.infer(args)
    }

    fn expand(&self, g: &mut Function, args: &[Value]) -> Option<Vec<Value>> {
        let x = centred(g, args[0]);
        let dy = g.op(Cast { dtype: DType::F32 }, &args[1..]);
        Some(vec![g.op(RmsNormGradWeight { eps: self.eps }, &[x, dy])])
    }
}
