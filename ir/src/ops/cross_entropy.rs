//! The output head and the loss as one op, so that logits never exist as a whole.
use super::{operands, want, want_dtype, want_float, want_matrix, want_positive};
use crate::eval::Tensor;
use crate::graph::Function;
use crate::op::{Named, OpDef, Vjp};
use crate::{DType, Type, Value, op};

op! {
    /// Cross entropy of the logits `z = logit_scale · (x wᵀ + bias)` against `labels`, summed over the rows whose label is not
    /// -100 and multiplied by `loss_scale`. With a `softcap` c, logits become `c · tanh(z / c)` first (Gemma 2; transformers'
    /// modeling_gemma2.py). `x` is [T, H], `w` [V, H]; `more` is the bias [V], or nothing; the result is f32[1].
    "linear_cross_entropy" LinearCrossEntropy { logit_scale: f32, softcap: Option<f32> } (x, w, labels, loss_scale, more)
        -> "f32[1]"
}

fn check(args: &[Type], softcap: Option<f32>) -> Result<(), String> {
    want_positive("softcap", softcap)?;
    let (head, bias) = args.split_at(args.len().min(4));
    let [x, w, labels, loss_scale] = operands(head, &LinearCrossEntropy::OPERANDS[..4])?;
    want_float("x", &x)?;
    want_float("w", &w)?;
    let (tokens, width) = want_matrix("x", &x)?;
    let (vocab, _) = want_matrix("w", &w)?;
    want("w", &w, &Type::new(w.dtype, [vocab, width]))?;
    want_dtype("labels", &labels, DType::Label)?;
    want("labels", &labels, &Type::new(DType::Label, [tokens]))?;
    want("loss_scale", &loss_scale, &Type::new(DType::LossScale, [1]))?;
    match bias {
        [] => Ok(()),
        [bias] => {
            want_float("bias", bias)?;
            want("bias", bias, &Type::new(bias.dtype, [vocab]))
        }
        more => Err(format!("takes at most one bias behind the loss scale, found {}", more.len())),
    }
}

/// A row with a label.
struct Supervised {
    row: usize,
    label: usize,
    probabilities: Vec<f64>,
    /// The derivative of each logit by the product that it is made of.
    slopes: Vec<f64>,
}

fn supervised_rows(args: &[&Tensor], logit_scale: f32, softcap: Option<f32>) -> Vec<Supervised> {
    let (x, w) = (args[0], args[1]);
    let width = x.rows().1;
    let labelled = args[2].data.iter().enumerate().filter(|(_, label)| **label >= 0.0);
    labelled
        .map(|(t, &label)| {
            let row = &x.data[t * width..][..width];
            let bias = |v: usize| args.get(4).map_or(0.0, |bias| bias.data[v]);
            let product = |w: &[f64]| row.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
            let logit = |(v, w): (usize, &[f64])| logit_scale as f64 * (product(w) + bias(v));
            let capped = |z: f64| softcap.map_or((z, 1.0), |cap| soft(z, cap as f64));
            let (logits, slopes): (Vec<f64>, Vec<f64>) =
                w.data.chunks(width).enumerate().map(logit).map(capped).unzip();
            let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = logits.iter().map(|l| (l - top).exp()).sum();
            let probabilities = logits.iter().map(|l| (l - top).exp() / total).collect();
            let slopes = slopes.iter().map(|slope| slope * logit_scale as f64).collect();
            Supervised { row: t, label: label as usize, probabilities, slopes }
        })
        .collect()
}

/// `cap · tanh(z / cap)` and its derivative.
fn soft(z: f64, cap: f64) -> (f64, f64) {
    let tanh = (z / cap).tanh();
    (cap * tanh, 1.0 - tanh * tanh)
}

impl OpDef for LinearCrossEntropy {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        check(args, self.softcap)?;
        Ok(vec![Type::new(DType::F32, [1])])
    }

    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        let rows = supervised_rows(args, self.logit_scale, self.softcap);
        let sum: f64 = rows.iter().map(|row| -row.probabilities[row.label].ln()).sum();
        Some(vec![Tensor::scalar(sum * args[3].data[0])])
    }

    fn vjp(&self, g: &mut Function, at: &Vjp) -> Option<Vec<Option<Value>>> {
        let LinearCrossEntropy { logit_scale, softcap } = *self;
        let (weight, bias) = (at.needs[1], at.needs.get(4) == Some(&true));
        let grad = LinearCrossEntropyGrad { logit_scale, softcap, weight, bias };
        let results = g.push(grad, at.args);
        let times_dy = |g: &mut Function, d: Value| {
            let ty = g.ty(d).clone();
            let dy = g.op(super::Cast { dtype: ty.dtype }, &[at.dy()]);
            let dy = g.op(super::Broadcast { shape: ty.shape }, &[dy]);
            g.op(super::Mul {}, &[d, dy])
        };
        let dx = at.needs[0].then(|| times_dy(g, results[1]));
        let dw = weight.then(|| times_dy(g, results[2]));
        let mut gradients = vec![dx, dw, None, None];
        if at.args.len() > 4 {
            gradients.push(bias.then(|| times_dy(g, results[2 + usize::from(weight)])));
        }
        Some(gradients)
    }
}

op! {
    /// The loss of `linear_cross_entropy` and its gradients in one pass: the loss, the cotangent of `x`, with `weight` that of
    /// `w` in f32, and with `bias` that of the bias in f32. A row's products have the gradient `(softmax - onehot) · logit_scale · loss_scale`, times
    /// `1 - tanh²` with a `softcap`.
    "linear_cross_entropy_grad" LinearCrossEntropyGrad {
        logit_scale: f32,
        softcap: Option<f32>,
        weight: bool,
        bias: bool,
    } (x, w, labels, loss_scale, more) -> "f32[1]", "x", "f32[w.shape] with `weight`", "f32[V] with `bias`"
}

impl OpDef for LinearCrossEntropyGrad {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        check(args, self.softcap)?;
        let mut results = vec![Type::new(DType::F32, [1]), args[0].clone()];
        if self.weight {
            results.push(args[1].with_dtype(DType::F32));
        }
        match args.get(4) {
            Some(bias) if self.bias => results.push(bias.with_dtype(DType::F32)),
            None if self.bias => return Err("`bias` wants the gradient of a bias, of which there is none".into()),
            _ => {}
        }
        Ok(results)
    }

    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        let (x, w) = (args[0], args[1]);
        let width = x.rows().1;
        let (mut loss, mut dx, mut dw) = (0.0, Tensor::zeros(&x.shape), Tensor::zeros(&w.shape));
        let mut db = Tensor::zeros(&w.shape[..1]);
        for Supervised { row: t, label, probabilities, slopes } in supervised_rows(args, self.logit_scale, self.softcap)
        {
            loss -= probabilities[label].ln() * args[3].data[0];
            for (v, (p, slope)) in probabilities.iter().zip(slopes).enumerate() {
                let target = if v == label { 1.0 } else { 0.0 };
                let d = (p - target) * slope * args[3].data[0];
                db.data[v] += d;
                for i in 0..width {
                    dx.data[t * width + i] += d * w.data[v * width + i];
                    dw.data[v * width + i] += d * x.data[t * width + i];
                }
            }
        }
        let mut results = vec![Tensor::scalar(loss), dx];
        if self.weight {
            results.push(dw);
        }
        if self.bias {
            results.push(db);
        }
        Some(results)
    }
}
