//! Ops over states: accumulation, the norm of the gradient, Adam.
use super::{operands, want, want_float};
use crate::eval::Tensor;
use crate::op::{Named, OpDef};
use crate::{DType, Type, op};

op! {
    /// `state + x`, in the memory of `state` (f32).
    "accumulate" Accumulate {} (state, x) -> "state"
}
impl OpDef for Accumulate {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [state, x] = operands(args, Self::OPERANDS)?;
        want_float("x", &x)?;
        want("state", &state, &x.with_dtype(DType::F32))?;
        Ok(vec![state])
    }
    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        Some(vec![args[0].zip(args[1], |s, x| s + x)])
    }
    fn in_place(&self) -> &'static [(usize, usize)] {
        &[(0, 0)]
    }
}

op! {
    /// The L2 norm of `grad`, and what to multiply it by so that its norm is at most `max_norm`:
    /// `min(1, max_norm / (norm + 1e-6))` (`torch.nn.utils.clip_grad_norm_`).
    "clip_coefficient" ClipCoefficient {} (grad, max_norm) -> "f32[1]", "f32[1]"
}
impl OpDef for ClipCoefficient {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [grad, max_norm] = operands(args, Self::OPERANDS)?;
        let scalar = Type::new(DType::F32, [1]);
        want("grad", &grad, &grad.with_dtype(DType::F32))?;
        want("max_norm", &max_norm, &scalar)?;
        Ok(vec![scalar.clone(), scalar])
    }
    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        let norm = args[0].data.iter().map(|g| g * g).sum::<f64>().sqrt();
        Some(vec![Tensor::scalar(norm), Tensor::scalar((args[1].data[0] / (norm + 1e-6)).min(1.0))])
    }
}

op! {
    /// One step of Adam (Kingma and Ba, 2015) over flat parameters, as `torch.optim.Adam` computes it, or of AdamW
    /// (Loshchilov and Hutter, 2019) with `decoupled`. The gradient is first multiplied by `coefficient`; it is zero
    /// afterwards. Bias corrections are `1 - betaᵗ`. Parameter, gradient and both moments keep their memory.
    "adam" Adam { beta1: f32, beta2: f32, eps: f32, decoupled: bool }
        (param, grad, exp_avg, exp_avg_sq, coefficient, learning_rate, weight_decay, correction1, correction2)
        -> "param", "grad", "exp_avg", "exp_avg_sq"
}
impl OpDef for Adam {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [param, grad, m, v, rest @ ..] = operands::<9>(args, Self::OPERANDS)?;
        want_float("param", &param)?;
        let state = param.with_dtype(DType::F32);
        want("grad", &grad, &state)?;
        want("exp_avg", &m, &state)?;
        want("exp_avg_sq", &v, &state)?;
        for (name, ty) in Self::OPERANDS[4..].iter().zip(&rest) {
            want(name, ty, &Type::new(DType::F32, [1]))?;
        }
        Ok(vec![param, state.clone(), state.clone(), state])
    }

    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        let scalar = |i: usize| args[i].data[0];
        let (coefficient, lr, decay, c1, c2) = (scalar(4), scalar(5), scalar(6), scalar(7), scalar(8));
        let (beta1, beta2) = (self.beta1 as f64, self.beta2 as f64);
        let mut out: Vec<Tensor> = args[..4].iter().map(|t| (*t).clone()).collect();
        for i in 0..out[0].data.len() {
            let mut p = out[0].data[i];
            let mut g = out[1].data[i] * coefficient;
            if self.decoupled {
                p *= 1.0 - lr * decay;
            } else {
                g += decay * p;
            }
            let m = beta1 * out[2].data[i] + (1.0 - beta1) * g;
            let v = beta2 * out[3].data[i] + (1.0 - beta2) * g * g;
            p -= lr / c1 * m / (v.sqrt() / c2.sqrt() + self.eps as f64);
            (out[0].data[i], out[1].data[i], out[2].data[i], out[3].data[i]) = (p, 0.0, m, v);
        }
        Some(out)
    }

    fn in_place(&self) -> &'static [(usize, usize)] {
        &[(0, 0), (1, 1), (2, 2), (3, 3)]
    }
}
