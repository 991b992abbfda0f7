//! Table lookup and its gradient.
use super::{operands, want, want_dtype, want_float, want_matrix};
use crate::eval::Tensor;
use crate::graph::Function;
use crate::op::{Named, OpDef, Vjp};
use crate::{DType, Type, Value, op};

op! {
    /// Row `tokens[t]` of `table` for every token, times `scale`, stored as `dtype`. The row `padding` gets no gradient
    /// (`torch.nn.Embedding(padding_idx)`).
    "embedding" Embedding { scale: f32, padding: Option<usize>, dtype: DType } (table, tokens) -> "dtype[T, n]"
}

impl OpDef for Embedding {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [table, tokens] = operands(args, Self::OPERANDS)?;
        want_float("table", &table)?;
        want_dtype("tokens", &tokens, DType::Token)?;
        let (_, width) = want_matrix("table", &table)?;
        let ty = Type::new(self.dtype, [tokens.len(), width]);
        want_float("the result", &ty)?;
        Ok(vec![ty])
    }
    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        let (_, width) = args[0].rows();
        let row = |&t: &f64| &args[0].data[t as usize * width..][..width];
        let data = args[1].data.iter().flat_map(row).map(|x| x * self.scale as f64).collect();
        Some(vec![Tensor::new([args[1].data.len(), width], data)])
    }
    fn vjp(&self, g: &mut Function, at: &Vjp) -> Option<Vec<Option<Value>>> {
        let vocab = g.ty(at.args[0]).shape[0];
        let grad = EmbeddingGrad { vocab, scale: self.scale, padding: self.padding };
        Some(vec![at.needs[0].then(|| g.op(grad, &[at.args[1], at.dy()])), None])
    }
}

op! {
    /// Adds `scale * dy[t]` to row `tokens[t]` of a table of zeros, in f32 and in the order of the tokens.
    "embedding_grad" EmbeddingGrad { vocab: usize, scale: f32, padding: Option<usize> } (tokens, dy) -> "f32[vocab, n]"
}

impl OpDef for EmbeddingGrad {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [tokens, dy] = operands(args, Self::OPERANDS)?;
        want_dtype("tokens", &tokens, DType::Token)?;
        let (rows, width) = want_matrix("dy", &dy)?;
        want("dy", &dy, &Type::new(dy.dtype, [tokens.len(), width]))?;
        debug_assert_eq!(rows, tokens.len());
        Ok(vec![Type::new(DType::F32, [self.vocab, width])])
    }
    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        let (_, width) = args[1].rows();
        let mut table = Tensor::zeros(&[self.vocab, width]);
        for (&token, dy) in args[0].data.iter().zip(args[1].data.chunks(width)) {
            if self.padding != Some(token as usize) {
                for (to, d) in table.data[token as usize * width..].iter_mut().zip(dy) {
                    *to += d * self.scale as f64;
                }
            }
        }
        Some(vec![table])
    }
}
