//! Ops that move elements without computing: broadcast and its transpose, reshape, row slices.
use super::{operands, want_float};
use crate::eval::Tensor;
use crate::graph::Function;
use crate::op::{Named, OpDef, Vjp};
use crate::{DType, Type, Value, op};

/// Index into the smaller shape of each element of `wide`; shapes align at the right, size 1 stretches.
fn narrow_indices(wide: &[usize], narrow: &[usize]) -> Vec<usize> {
    let lead = wide.len() - narrow.len();
    (0..wide.iter().product())
        .map(|flat: usize| {
            let (mut rest, mut index, mut stride) = (flat, 0, 1);
            for axis in (0..wide.len()).rev() {
                let i = rest % wide[axis];
                rest /= wide[axis];
                if axis >= lead {
                    let size = narrow[axis - lead];
                    index += if size == 1 { 0 } else { i * stride };
                    stride *= size;
                }
            }
            index
        })
        .collect()
}

fn stretches(narrow: &[usize], wide: &[usize]) -> bool {
    narrow.len() <= wide.len() && narrow.iter().rev().zip(wide.iter().rev()).all(|(n, w)| n == w || *n == 1)
}

op! {
    /// Repeats `x` to `shape`; axes align at the right, an axis of size 1 stretches.
    "broadcast" Broadcast { shape: Vec<usize> } (x) -> "x.dtype[shape]"
}
impl OpDef for Broadcast {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [x] = operands(args, Self::OPERANDS)?;
        if !stretches(&x.shape, &self.shape) {
            return Err(format!("{x} does not stretch to {:?}", self.shape));
        }
        Ok(vec![Type::new(x.dtype, self.shape.clone())])
    }
    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        let from = narrow_indices(&self.shape, &args[0].shape);
        Some(vec![Tensor::new(self.shape.clone(), from.iter().map(|&i| args[0].data[i]).collect())])
    }
    fn vjp(&self, g: &mut Function, at: &Vjp) -> Option<Vec<Option<Value>>> {
        let shape = g.ty(at.args[0]).shape.clone();
        Some(vec![Some(g.op(SumTo { shape, dtype: DType::F32 }, &[at.dy()]))])
    }
}

op! {
    /// Sums `x` down to `shape`, the transpose of `broadcast`; the sum is stored as `dtype`.
    "sum_to" SumTo { shape: Vec<usize>, dtype: DType } (x) -> "dtype[shape]"
}
impl OpDef for SumTo {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [x] = operands(args, Self::OPERANDS)?;
        want_float("x", &x)?;
        if !stretches(&self.shape, &x.shape) {
            return Err(format!("{x} does not sum down to {:?}", self.shape));
        }
        Ok(vec![Type::new(self.dtype, self.shape.clone())])
    }
    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        let mut sum = Tensor::zeros(&self.shape);
        for (x, to) in args[0].data.iter().zip(narrow_indices(&args[0].shape, &self.shape)) {
            sum.data[to] += x;
        }
        Some(vec![sum])
    }
    fn vjp(&self, g: &mut Function, at: &Vjp) -> Option<Vec<Option<Value>>> {
        let wide = g.ty(at.args[0]).clone();
        let dy = super::elementwise::Cast { dtype: wide.dtype };
        let dy = g.op(dy, &[at.dy()]);
        Some(vec![Some(g.op(Broadcast { shape: wide.shape }, &[dy]))])
    }
}

op! {
    /// The same elements in the same order under another shape.
    "reshape" Reshape { shape: Vec<usize> } (x) -> "x.dtype[shape]"
}
impl OpDef for Reshape {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [x] = operands(args, Self::OPERANDS)?;
        if self.shape.iter().product::<usize>() != x.len() {
            return Err(format!("{x} has {} elements, {:?} another number", x.len(), self.shape));
        }
        Ok(vec![Type::new(x.dtype, self.shape.clone())])
    }
    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        Some(vec![Tensor::new(self.shape.clone(), args[0].data.clone())])
    }
    fn vjp(&self, g: &mut Function, at: &Vjp) -> Option<Vec<Option<Value>>> {
        let shape = g.ty(at.args[0]).shape.clone();
        Some(vec![Some(g.op(Reshape { shape }, &[at.dy()]))])
    }
}

op! {
    /// Rows `start..start + count` of `x`, first axis.
    "rows" Rows { start: usize, count: usize } (x) -> "x.dtype[count, …]"
}
impl OpDef for Rows {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [x] = operands(args, Self::OPERANDS)?;
        let Some(&all) = x.shape.first() else { return Err("`x` has no axis".into()) };
        if self.start.checked_add(self.count).is_none_or(|end| end > all) {
            return Err(format!("rows {}+{} lie outside {x}", self.start, self.count));
        }
        let mut ty = x;
        ty.shape[0] = self.count;
        Ok(vec![ty])
    }
    fn eval(&self, args: &[&Tensor], types: &[Type]) -> Option<Vec<Tensor>> {
        let width: usize = types[0].shape[1..].iter().product();
        let mut shape = types[0].shape.clone();
        shape[0] = self.count;
        let data = args[0].data[self.start * width..(self.start + self.count) * width].to_vec();
        Some(vec![Tensor::new(shape, data)])
    }
}
