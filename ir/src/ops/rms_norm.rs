//! Root-mean-square normalisation (Zhang and Sennrich, 2019) over the last axis, and its gradients.
use super::{Add, Broadcast, Cast, Mul, Offset, Rsqrt, Scale, SumTo, operands, want, want_float};
use crate::eval::Tensor;
use crate::graph::Function;
use crate::op::{Named, OpDef, Vjp};
use crate::{DType, Type, Value, op};

op! {
    /// `x * rsqrt(mean(x², last axis) + eps) * weight`; with `plus_one` the factor is `1 + weight` (Gemma).
    "rms_norm" RmsNorm { eps: f32, plus_one: bool } (x, weight) -> "x"
}

/// Checks the operands that every norm has.
pub(super) fn check(x: &Type, weight: &Type) -> Result<(), String> {
    want_float("x", x)?;
    want_float("weight", weight)?;
    if weight.shape[..] != x.shape[x.shape.len() - 1..] {
        return Err(format!("`weight` is {weight}, the last axis of `x` is that of {x}"));
    }
    Ok(())
}

impl OpDef for RmsNorm {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [x, weight] = operands(args, Self::OPERANDS)?;
        check(&x, &weight)?;
        Ok(vec![x])
    }

    fn expand(&self, g: &mut Function, args: &[Value]) -> Option<Vec<Value>> {
        let ty = g.ty(args[0]).clone();
        let (x, weight) = (g.op(Cast { dtype: DType::F32 }, &args[..1]), g.op(Cast { dtype: DType::F32 }, &args[1..]));
        let inverse = inverse_rms(g, x, self.eps);
        let inverse = g.op(Broadcast { shape: ty.shape.clone() }, &[inverse]);
        let scaled = g.op(Mul {}, &[x, inverse]);
        let factor = if self.plus_one { g.op(Offset { value: 1.0 }, &[weight]) } else { weight };
        let factor = g.op(Broadcast { shape: ty.shape.clone() }, &[factor]);
        let y = g.op(Mul {}, &[scaled, factor]);
        Some(vec![g.op(Cast { dtype: ty.dtype }, &[y])])
    }

    fn vjp(&self, g: &mut Function, at: &Vjp) -> Option<Vec<Option<Value>>> {
        let (x, weight, dy) = (at.args[0], at.args[1], at.dy());
        let (eps, plus_one) = (self.eps, self.plus_one);
        Some(vec![
            at.needs[0].then(|| g.op(RmsNormGrad { eps, plus_one }, &[x, weight, dy])),
            at.needs[1].then(|| g.op(RmsNormGradWeight { eps }, &[x, dy])),
        ])
    }
}

/// `rsqrt(mean(x², last axis) + eps)`, the last axis kept with size 1.
fn inverse_rms(g: &mut Function, x: Value, eps: f32) -> Value {
    let square = g.op(Mul {}, &[x, x]);
    let mean = mean(g, square);
    let mean = g.op(Offset { value: eps }, &[mean]);
    g.op(Rsqrt {}, &[mean])
}

/// `mean(x, last axis)` in f32, the last axis kept with size 1.
pub(super) fn mean(g: &mut Function, x: Value) -> Value {
    let mut shape = g.ty(x).shape.clone();
    let width = shape.pop().expect("x has an axis");
    shape.push(1);
    let sum = g.op(SumTo { shape, dtype: DType::F32 }, &[x]);
    g.op(Scale { value: 1.0 / width as f32 }, &[sum])
}

op! {
    /// The cotangent of `x`: with `r = rsqrt(mean(x²) + eps)` and `u = dy * weight`, `r * (u - x * r² * mean(u * x))`.
    "rms_norm_grad" RmsNormGrad { eps: f32, plus_one: bool } (x, weight, dy) -> "x"
}

impl OpDef for RmsNormGrad {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [x, weight, dy] = operands(args, Self::OPERANDS)?;
        check(&x, &weight)?;
        want("dy", &dy, &x)?;
        Ok(vec![x])
    }

    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        let (rows, width) = args[0].rows();
        let mut dx = Tensor::zeros(&args[0].shape);
        for row in 0..rows {
            let (x, dy) = (&args[0].data[row * width..][..width], &args[2].data[row * width..][..width]);
            let r = inverse(x, self.eps);
            let one = if self.plus_one { 1.0 } else { 0.0 };
            let u: Vec<f64> = dy.iter().zip(&args[1].data).map(|(d, w)| d * (w + one)).collect();
            let mean = u.iter().zip(x).map(|(u, x)| u * x).sum::<f64>() / width as f64;
            for i in 0..width {
                dx.data[row * width + i] = r * (u[i] - x[i] * r * r * mean);
            }
        }
        Some(vec![dx])
    }
}

fn inverse(x: &[f64], eps: f32) -> f64 {
    1.0 / (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + eps as f64).sqrt()
}

op! {
    /// `rms_norm_grad(x, weight, dy) + d`: the branch's gradient joins the residual stream's.
    "rms_norm_grad_add" RmsNormGradAdd { eps: f32, plus_one: bool } (x, weight, dy, d) -> "x"
}

impl OpDef for RmsNormGradAdd {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [x, weight, dy, d] = operands(args, Self::OPERANDS)?;
        check(&x, &weight)?;
        want("dy", &dy, &x)?;
        want("d", &d, &x)?;
        Ok(vec![x])
    }
    fn expand(&self, g: &mut Function, args: &[Value]) -> Option<Vec<Value>> {
        let dx = g.op(RmsNormGrad { eps: self.eps, plus_one: self.plus_one }, &args[..3]);
        Some(vec![g.op(Add {}, &[dx, args[3]])])
    }
}

op! {
    /// The cotangent of `weight`, in f32: the sum over rows of `dy * x * rsqrt(mean(x²) + eps)`.
    "rms_norm_grad_weight" RmsNormGradWeight { eps: f32 } (x, dy) -> "f32[n]"
}

impl OpDef for RmsNormGradWeight {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [x, dy] = operands(args, Self::OPERANDS)?;
        want_float("x", &x)?;
        want("dy", &dy, &x)?;
        Ok(vec![Type::new(DType::F32, [x.shape[x.shape.len() - 1]])])
    }

    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        let (_, width) = args[0].rows();
        let mut dw = Tensor::zeros(&[width]);
        for (x, dy) in args[0].data.chunks(width).zip(args[1].data.chunks(width)) {
            let r = inverse(x, self.eps);
            for i in 0..width {
                dw.data[i] += dy[i] * x[i] * r;
            }
        }
        Some(vec![dw])
    }
}
