//! Rotary position embedding (Su et al., 2021), of element `i` with `i + r/2` as transformers' `rotate_half` has it, or of
//! neighbours as in the paper.
use super::{operands, want_dtype, want_float, want_matrix};
use crate::eval::Tensor;
use crate::graph::Function;
use crate::op::{Named, OpDef, Vjp};
use crate::{DType, Type, Value, op};

op! {
    /// Rotates `r` elements, from element `first` on, of each of `heads` heads of `x` [T, heads·d] by the angle of the token's
    /// position; `cos` and `sin` are [P, r/2], row `positions[t]` being token t's. Pair i are elements i and i + r/2, or with
    /// `neighbours` 2i and 2i + 1. `inverse` rotates back, which is the gradient.
    "rope" Rope { heads: usize, first: usize, neighbours: bool, inverse: bool } (x, positions, cos, sin) -> "x"
}

impl OpDef for Rope {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [x, positions, cos, sin] = operands(args, Self::OPERANDS)?;
        want_float("x", &x)?;
        want_dtype("positions", &positions, DType::Position)?;
        want_dtype("cos", &cos, DType::F32)?;
        super::want("sin", &sin, &cos)?;
        let (tokens, width) = want_matrix("x", &x)?;
        let (_, half) = want_matrix("cos", &cos)?;
        if positions.len() != tokens {
            return Err(format!("`positions` is {positions}, `x` has {tokens} rows"));
        }
        let end = self.first.saturating_add(2 * half);
        if self.heads == 0 || width % self.heads != 0 || end > width / self.heads {
            let Rope { heads, first, .. } = self;
            return Err(format!("`x` is {x}: {heads} heads have no elements {first} to {end} to rotate"));
        }
        Ok(vec![x])
    }

    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        let (tokens, width) = args[0].rows();
        let (d, half) = (width / self.heads, args[2].rows().1);
        let mut y = args[0].clone();
        for t in 0..tokens {
            let row = args[1].data[t] as usize * half;
            for at in (0..self.heads).map(|h| t * width + h * d + self.first) {
                for i in 0..half {
                    let (cos, sin) = (args[2].data[row + i], args[3].data[row + i]);
                    let sin = if self.inverse { -sin } else { sin };
                    let (i, j) = if self.neighbours { (at + 2 * i, at + 2 * i + 1) } else { (at + i, at + half + i) };
                    let (a, b) = (args[0].data[i], args[0].data[j]);
                    y.data[i] = a * cos - b * sin;
                    y.data[j] = b * cos + a * sin;
                }
            }
        }
        Some(vec![y])
    }

    fn vjp(&self, g: &mut Function, at: &Vjp) -> Option<Vec<Option<Value>>> {
        let back = Rope { inverse: !self.inverse, ..self.clone() };
        let dx = at.needs[0].then(|| g.op(back, &[at.dy(), at.args[1], at.args[2], at.args[3]]));
        Some(vec![dx, None, None, None])
    }
}
