//! Products in which every group of rows meets a matrix of its own: experts' layers. `crate::ops::experts` says where
//! groups come from.
use super::{operands, want_dtype, want_float, want_matrix};
use crate::eval::Tensor;
use crate::graph::Function;
use crate::op::{Named, OpDef, Vjp};
use crate::{DType, Type, Value, op};
use std::ops::Range;

op! {
    /// Rows `offsets[e]..offsets[e + 1]` of `x` [R, k] times matrix e, the operands behind `offsets`: each [k, n], or
    /// with `tb` stored transposed.
    "grouped_matmul" GroupedMatmul { tb: bool, dtype: DType } (x, offsets, more) -> "dtype[R, n]"
}

/// `(k, n)` of the matrices.
fn inner_and_columns(tb: bool, matrix: &Type) -> Result<(usize, usize), String> {
    let (rows, columns) = want_matrix("a group's matrix", matrix)?;
    Ok(if tb { (columns, rows) } else { (rows, columns) })
}

/// The rows of each group.
fn groups(offsets: &Tensor) -> impl Iterator<Item = Range<usize>> {
    offsets.data.windows(2).map(|pair| pair[0] as usize..pair[1] as usize)
}

impl OpDef for GroupedMatmul {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [x, offsets, first, ..] = args else {
            return Err(format!("takes `x`, `offsets` and a matrix for each group, found {} operands", args.len()));
        };
        let matrices = &args[2..];
        want_float("x", x)?;
        want_float("a group's matrix", first)?;
        if let Some(other) = matrices.iter().find(|matrix| *matrix != first) {
            return Err(format!("a group's matrix is {other}, the first is {first}"));
        }
        super::want("offsets", offsets, &Type::new(DType::Index, [matrices.len() + 1]))?;
        let (rows, inner) = want_matrix("x", x)?;
        let (k, n) = inner_and_columns(self.tb, first)?;
        if k != inner {
            return Err(format!("{x} and {first} share no inner size"));
        }
        let ty = Type::new(self.dtype, [rows, n]);
        want_float("the result", &ty)?;
        Ok(vec![ty])
    }

    /// `2 R k n`
    fn operations(&self, args: &[Type], results: &[Type]) -> f64 {
        2.0 * (results[0].len() * args[0].shape[1]) as f64
    }

    fn eval(&self, args: &[&Tensor], types: &[Type]) -> Option<Vec<Tensor>> {
        let (k, n) = inner_and_columns(self.tb, &types[2]).ok()?;
        let mut out = Tensor::zeros(&[types[0].shape[0], n]);
        for (rows, matrix) in groups(args[1]).zip(&args[2..]) {
            let at = |l: usize, j: usize| matrix.data[if self.tb { j * k + l } else { l * n + j }];
            for i in rows {
                let x = &args[0].data[i * k..][..k];
                for (j, y) in out.data[i * n..][..n].iter_mut().enumerate() {
                    *y = x.iter().enumerate().map(|(l, x)| x * at(l, j)).sum();
                }
            }
        }
        Some(vec![out])
    }

    /// The cotangent of `x` is stored as `x` is, those of the matrices as f32, ready to be accumulated.
    fn vjp(&self, g: &mut Function, at: &Vjp) -> Option<Vec<Option<Value>>> {
        let (x, offsets, dy) = (at.args[0], at.args[1], at.dy());
        let back = GroupedMatmul { tb: !self.tb, dtype: g.ty(x).dtype };
        let dx = at.needs[0].then(|| g.op(back, &[&[dy, offsets], &at.args[2..]].concat()));
        let mut all = vec![dx, None];
        if at.needs[2..].iter().any(|needs| *needs) {
            let (a, b) = if self.tb { (dy, x) } else { (x, dy) };
            let by_matrix = g.push(GroupedMatmulGrad {}, &[a, b, offsets]);
            all.extend(by_matrix.into_iter().zip(&at.needs[2..]).map(|(d, needs)| needs.then_some(d)));
        }
        all.resize(at.args.len(), None);
        Some(all)
    }
}

op! {
    /// For every group `aᵀ · b` over its rows `offsets[e]..offsets[e + 1]`, `a` being [R, m] and `b` [R, n]: the
    /// gradients of a `grouped_matmul`'s matrices, each a result. Those of groups without rows are zeros.
    "grouped_matmul_grad" GroupedMatmulGrad {} (a, b, offsets) -> "f32[m, n]"
}

impl OpDef for GroupedMatmulGrad {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [a, b, offsets] = operands(args, Self::OPERANDS)?;
        want_float("a", &a)?;
        want_float("b", &b)?;
        want_dtype("offsets", &offsets, DType::Index)?;
        let ((rows, m), (others, n)) = (want_matrix("a", &a)?, want_matrix("b", &b)?);
        if rows != others {
            return Err(format!("{a} and {b} have different rows"));
        }
        match offsets.len() {
            0 | 1 => Err(format!("`offsets` is {offsets}, wanted one more than there are groups")),
            count => Ok(vec![Type::new(DType::F32, [m, n]); count - 1]),
        }
    }

    /// `2 R m n`
    fn operations(&self, args: &[Type], _results: &[Type]) -> f64 {
        2.0 * (args[0].len() * args[1].shape[1]) as f64
    }

    fn eval(&self, args: &[&Tensor], types: &[Type]) -> Option<Vec<Tensor>> {
        let (m, n) = (types[0].shape[1], types[1].shape[1]);
        let product = |rows: Range<usize>| {
            let mut out = Tensor::zeros(&[m, n]);
            for r in rows {
                for (i, to) in out.data.chunks_mut(n).enumerate() {
                    let (a, b) = (args[0].data[r * m + i], &args[1].data[r * n..][..n]);
                    to.iter_mut().zip(b).for_each(|(to, b)| *to += a * b);
                }
            }
            out
        };
        Some(groups(args[2]).map(product).collect())
    }
}
