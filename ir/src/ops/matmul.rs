//! Matrix products. Products accumulate in f32; the result is stored as `dtype`.
use super::{Add, operands, want_float, want_matrix};
use crate::eval::Tensor;
use crate::graph::Function;
use crate::op::{Named, OpDef, Vjp};
use crate::{DType, Type, Value, op};

op! {
    /// `a · b`, [m, k] by [k, n], where `ta` and `tb` say that an operand is stored transposed. A linear layer is `x · wᵀ`.
    "matmul" Matmul { ta: bool, tb: bool, dtype: DType } (a, b) -> "dtype[m, n]"
}

/// `(m, k)` of `a` and `(k, n)` of `b` after the transpositions.
fn sizes(ta: bool, tb: bool, a: &Type, b: &Type) -> Result<(usize, usize, usize), String> {
    want_float("a", a)?;
    want_float("b", b)?;
    let flip = |(r, c): (usize, usize), t: bool| if t { (c, r) } else { (r, c) };
    let (m, k) = flip(want_matrix("a", a)?, ta);
    let (k2, n) = flip(want_matrix("b", b)?, tb);
    if k != k2 {
        return Err(format!("{a}{} and {b}{} share no inner size", mark(ta), mark(tb)));
    }
    Ok((m, k, n))
}

fn mark(transposed: bool) -> &'static str {
    if transposed { "ᵀ" } else { "" }
}

impl Matmul {
    /// `x · wᵀ` with the result stored as `x` is.
    pub fn linear(dtype: DType) -> Matmul {
        Matmul { ta: false, tb: true, dtype }
    }
}

impl OpDef for Matmul {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [a, b] = operands(args, Self::OPERANDS)?;
        let (m, _, n) = sizes(self.ta, self.tb, &a, &b)?;
        let ty = Type::new(self.dtype, [m, n]);
        want_float("the result", &ty)?;
        Ok(vec![ty])
    }

    /// `2 m n k`
    fn operations(&self, args: &[Type], _results: &[Type]) -> f64 {
        sizes(self.ta, self.tb, &args[0], &args[1]).map_or(0.0, |(m, k, n)| 2.0 * (m * k * n) as f64)
    }

    fn eval(&self, args: &[&Tensor], types: &[Type]) -> Option<Vec<Tensor>> {
        let (m, k, n) = sizes(self.ta, self.tb, &types[0], &types[1]).ok()?;
        let (a, b) = (&args[0].data, &args[1].data);
        let mut out = Tensor::zeros(&[m, n]);
        for i in 0..m {
            for l in 0..k {
                let x = if self.ta { a[l * m + i] } else { a[i * k + l] };
                for j in 0..n {
                    out.data[i * n + j] += x * if self.tb { b[j * k + l] } else { b[l * n + j] };
                }
            }
        }
        Some(vec![out])
    }

    /// The cotangent of `a` is stored as `a` is, that of `b` (the weights) as f32, ready to be accumulated.
    fn vjp(&self, g: &mut Function, at: &Vjp) -> Option<Vec<Option<Value>>> {
        let (a, b, dy) = (at.args[0], at.args[1], at.dy());
        let (da_type, db_type) = (g.ty(a).dtype, DType::F32);
        let da = at.needs[0].then(|| match self.ta {
            false => g.op(Matmul { ta: false, tb: !self.tb, dtype: da_type }, &[dy, b]),
            true => g.op(Matmul { ta: self.tb, tb: true, dtype: da_type }, &[b, dy]),
        });
        let db = at.needs[1].then(|| match self.tb {
            false => g.op(Matmul { ta: !self.ta, tb: false, dtype: db_type }, &[a, dy]),
            true => g.op(Matmul { ta: true, tb: self.ta, dtype: db_type }, &[dy, a]),
        });
        Some(vec![da, db])
    }
}

op! {
    /// A sum of matrix products that share their tiles: `a0 · b0 + a1 · b1 + …`, operands in that order. LoRA's low-rank
    /// product rides in its linear this way, and the input gradients of linears that read one value become one product.
    "matmul_sum" MatmulSum { ta: Vec<bool>, tb: Vec<bool>, dtype: DType } (more) -> "dtype[m, n]"
}

impl OpDef for MatmulSum {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        if self.ta.is_empty() || self.ta.len() != self.tb.len() || args.len() != 2 * self.ta.len() {
            return Err(format!("{} operands do not make {} products", args.len(), self.ta.len()));
        }
        let mut result: Option<(usize, usize)> = None;
        for (pair, (ta, tb)) in args.chunks(2).zip(self.ta.iter().zip(&self.tb)) {
            let (m, _, n) = sizes(*ta, *tb, &pair[0], &pair[1])?;
            if *result.get_or_insert((m, n)) != (m, n) {
                return Err(format!("a product is [{m},{n}], the first is {result:?}"));
            }
        }
        let (m, n) = result.expect("there is a first product");
        Ok(vec![Type::new(self.dtype, [m, n])])
    }

    fn expand(&self, g: &mut Function, args: &[Value]) -> Option<Vec<Value>> {
        let product = |g: &mut Function, i: usize| {
            g.op(Matmul { ta: self.ta[i], tb: self.tb[i], dtype: self.dtype }, &args[2 * i..2 * i + 2])
        };
        let first = product(g, 0);
        let sum = (1..self.ta.len()).fold(first, |sum, i| {
            let next = product(g, i);
            g.op(Add {}, &[sum, next])
        });
        Some(vec![sum])
    }
}
