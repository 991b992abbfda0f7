//! Scalar ops applied to every element: a row each with doc, reference value and gradient.
use super::{operands, want, want_float};
use crate::eval::Tensor;
use crate::graph::Function;
use crate::op::{Named, OpDef, Vjp};
use crate::{DType, Type, Value, op};

/// Operands and results of a scalar op have one float type.
fn same(args: &[Type], names: &[&str]) -> Result<Vec<Type>, String> {
    if args.len() != names.len() {
        return Err(format!("takes {} operands ({}), found {}", names.len(), names.join(", "), args.len()));
    }
    want_float(names[0], &args[0])?;
    for (name, ty) in names.iter().zip(args).skip(1) {
        want(name, ty, &args[0])?;
    }
    Ok(vec![args[0].clone()])
}

/// A row per op: doc, name, struct, operands, value, and the cotangents as graph-building code over `g`, the operands,
/// the result `y` and its cotangent `dy`.
macro_rules! scalar_ops {
    ($($(#[doc = $doc:literal])* $name:literal $ty:ident ($($x:ident),*) = $value:expr;
        |$g:ident, $y:ident, $dy:ident| [$($grad:expr),*];)*) => { $(
        op! { $(#[doc = $doc])* $name $ty {} ($($x),*) -> "x" }
        impl OpDef for $ty {
            fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
                same(args, Self::OPERANDS)
            }
            fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
                Some(vec![pointwise(args, |x| { let &[$($x),*] = x else { unreachable!("checked by infer") }; $value })])
            }
            fn vjp(&self, $g: &mut Function, at: &Vjp) -> Option<Vec<Option<Value>>> {
                let &[$($x),*] = at.args else { unreachable!("checked by infer") };
                let ($y, $dy) = (at.results[0], at.dy());
                let _ = (&$g, $y, $dy, $($x),*);
                let mut needs = at.needs.iter();
                Some(vec![$(if *needs.next()? { $grad } else { None }),*])
            }
        }
    )* };
}

fn pointwise(args: &[&Tensor], f: impl Fn(&[f64]) -> f64) -> Tensor {
    let value = |i: usize| f(&args.iter().map(|t| t.data[i]).collect::<Vec<f64>>());
    Tensor { shape: args[0].shape.clone(), data: (0..args[0].data.len()).map(value).collect() }
}

scalar_ops! {
    /// `x + y`
    "add" Add (x, y) = x + y; |g, out, dy| [Some(dy), Some(dy)];
    /// `x - y`
    "sub" Sub (x, y) = x - y; |g, out, dy| [Some(dy), Some(g.op(Neg {}, &[dy]))];
    /// `x * y`
    "mul" Mul (x, y) = x * y; |g, out, dy| [Some(g.op(Mul {}, &[dy, y])), Some(g.op(Mul {}, &[dy, x]))];
    /// `x / y`
    "div" Div (x, y) = x / y; |g, out, dy| [Some(g.op(Div {}, &[dy, y])), {
        let slope = g.op(Div {}, &[out, y]);
        let down = g.op(Mul {}, &[dy, slope]);
        Some(g.op(Neg {}, &[down]))
    }];
    /// The larger of `x` and `y`; where they are equal the gradient goes to `y`.
    "max" Max (x, y) = x.max(y); |g, out, dy| [Some(where_greater(g, x, y, dy)), {
        let to_x = where_greater(g, x, y, dy);
        Some(g.op(Sub {}, &[dy, to_x]))
    }];
    /// `-x`
    "neg" Neg (x) = -x; |g, out, dy| [Some(g.op(Neg {}, &[dy]))];
    /// `e^x`
    "exp" Exp (x) = x.exp(); |g, out, dy| [Some(g.op(Mul {}, &[dy, out]))];
    /// Natural logarithm.
    "log" Log (x) = x.ln(); |g, out, dy| [Some(g.op(Div {}, &[dy, x]))];
    /// Square root.
    "sqrt" Sqrt (x) = x.sqrt(); |g, out, dy| [{
        let half = g.op(Scale { value: 0.5 }, &[dy]);
        Some(g.op(Div {}, &[half, out]))
    }];
    /// `1 / sqrt(x)`
    "rsqrt" Rsqrt (x) = 1.0 / x.sqrt(); |g, out, dy| [{
        let slope = g.op(Div {}, &[out, x]);
        let slope = g.op(Scale { value: -0.5 }, &[slope]);
        Some(g.op(Mul {}, &[dy, slope]))
    }];
    /// Hyperbolic tangent.
    "tanh" Tanh (x) = x.tanh(); |g, out, dy| [{
        let square = g.op(Mul {}, &[out, out]);
        let down = g.op(Mul {}, &[dy, square]);
        Some(g.op(Sub {}, &[dy, down]))
    }];
    /// The error function, `2/sqrt(pi)` times the integral of `exp(-t²)` from 0 to `x`.
    "erf" Erf (x) = erf(x); |g, out, dy| [{
        let bell = bell(g, x, std::f32::consts::FRAC_2_SQRT_PI, -1.0);
        Some(g.op(Mul {}, &[dy, bell]))
    }];
    /// `1 / (1 + e^-x)`
    "sigmoid" Sigmoid (x) = 1.0 / (1.0 + (-x).exp()); |g, out, dy| [{
        let rest = one_minus(g, out);
        let slope = g.op(Mul {}, &[out, rest]);
        Some(g.op(Mul {}, &[dy, slope]))
    }];
    /// `x * sigmoid(x)`
    "silu" Silu (x) = x / (1.0 + (-x).exp()); |g, out, dy| [{
        let s = g.op(Sigmoid {}, &[x]);
        let rest = one_minus(g, s);
        let bend = g.op(Mul {}, &[x, rest]);
        let bend = g.op(Offset { value: 1.0 }, &[bend]);
        let slope = g.op(Mul {}, &[s, bend]);
        Some(g.op(Mul {}, &[dy, slope]))
    }];
    /// `x * (1 + erf(x / sqrt 2)) / 2`
    "gelu" Gelu (x) = 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)); |g, out, dy| [{
        let inner = g.op(Scale { value: std::f32::consts::FRAC_1_SQRT_2 }, &[x]);
        let cdf = g.op(Erf {}, &[inner]);
        let cdf = g.op(Offset { value: 1.0 }, &[cdf]);
        let cdf = g.op(Scale { value: 0.5 }, &[cdf]);
        let density = bell(g, x, 0.398_942_3, -0.5);
        let bend = g.op(Mul {}, &[x, density]);
        let slope = g.op(Add {}, &[cdf, bend]);
        Some(g.op(Mul {}, &[dy, slope]))
    }];
    /// `x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x³))) / 2`, transformers' `gelu_pytorch_tanh`.
    "gelu_tanh" GeluTanh (x) = 0.5 * x * (1.0 + (GELU_A as f64 * (x + GELU_B as f64 * x * x * x)).tanh()); |g, out, dy| [{
        let square = g.op(Mul {}, &[x, x]);
        let cubic = g.op(Scale { value: GELU_B }, &[square]);
        let cubic = g.op(Offset { value: 1.0 }, &[cubic]);
        let inner = g.op(Mul {}, &[x, cubic]);
        let inner = g.op(Scale { value: GELU_A }, &[inner]);
        let t = g.op(Tanh {}, &[inner]);
        let cdf = g.op(Offset { value: 1.0 }, &[t]);
        let cdf = g.op(Scale { value: 0.5 }, &[cdf]);
        let t2 = g.op(Mul {}, &[t, t]);
        let sech = one_minus(g, t2);
        let steep = g.op(Scale { value: 3.0 * GELU_B }, &[square]);
        let steep = g.op(Offset { value: 1.0 }, &[steep]);
        let bend = g.op(Mul {}, &[sech, steep]);
        let bend = g.op(Mul {}, &[bend, x]);
        let bend = g.op(Scale { value: 0.5 * GELU_A }, &[bend]);
        let slope = g.op(Add {}, &[cdf, bend]);
        Some(g.op(Mul {}, &[dy, slope]))
    }];
    /// `max(x, 0)`
    "relu" Relu (x) = x.max(0.0); |g, out, dy| [{
        let open = g.op(Step {}, &[x]);
        Some(g.op(Mul {}, &[dy, open]))
    }];
    /// 1 where `x > 0`, else 0; its gradient is zero.
    "step" Step (x) = if x > 0.0 { 1.0 } else { 0.0 }; |g, out, dy| [None];
}

/// sqrt(2 / pi) and the cubic's factor, as in Hendrycks and Gimpel, "Gaussian Error Linear Units".
const GELU_A: f32 = 0.797_884_6;
const GELU_B: f32 = 0.044_715;

fn one_minus(g: &mut Function, x: Value) -> Value {
    let minus = g.op(Neg {}, &[x]);
    g.op(Offset { value: 1.0 }, &[minus])
}

/// `height * exp(curve * x²)`
fn bell(g: &mut Function, x: Value, height: f32, curve: f32) -> Value {
    let square = g.op(Mul {}, &[x, x]);
    let power = g.op(Scale { value: curve }, &[square]);
    let bell = g.op(Exp {}, &[power]);
    g.op(Scale { value: height }, &[bell])
}

fn where_greater(g: &mut Function, x: Value, y: Value, dy: Value) -> Value {
    let difference = g.op(Sub {}, &[x, y]);
    let open = g.op(Step {}, &[difference]);
    g.op(Mul {}, &[dy, open])
}

/// erf to about 1e-15: a power series near zero, a continued fraction of erfc far from it
/// (Abramowitz and Stegun, 7.1.6 and 7.1.14).
pub fn erf(x: f64) -> f64 {
    if x.abs() < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..100 {
            term *= 2.0 * x * x / (2.0 * n as f64 + 1.0);
            sum += term;
        }
        return std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum;
    }
    let z = x.abs();
    let fraction = (1..120).rev().fold(0.0, |rest, n| n as f64 / 2.0 / (z + rest));
    let tail = (-z * z).exp() / std::f64::consts::PI.sqrt() / (z + fraction);
    (1.0 - tail).copysign(x)
}

op! {
    /// `x * value`
    "scale" Scale { value: f32 } (x) -> "x"
}
impl OpDef for Scale {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        same(args, Self::OPERANDS)
    }
    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        Some(vec![args[0].map(|x| x * self.value as f64)])
    }
    fn vjp(&self, g: &mut Function, at: &Vjp) -> Option<Vec<Option<Value>>> {
        Some(vec![Some(g.op(self.clone(), &[at.dy()]))])
    }
}

op! {
    /// `x + value`
    "offset" Offset { value: f32 } (x) -> "x"
}
impl OpDef for Offset {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        same(args, Self::OPERANDS)
    }
    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        Some(vec![args[0].map(|x| x + self.value as f64)])
    }
    fn vjp(&self, _g: &mut Function, at: &Vjp) -> Option<Vec<Option<Value>>> {
        Some(vec![Some(at.dy())])
    }
}

op! {
    /// `x` stored as `dtype`. The reference keeps every digit.
    "cast" Cast { dtype: DType } (x) -> "dtype[x.shape]"
}
impl OpDef for Cast {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [x] = operands(args, Self::OPERANDS)?;
        want_float("x", &x)?;
        want_float("the result", &x.with_dtype(self.dtype))?;
        Ok(vec![x.with_dtype(self.dtype)])
    }
    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        Some(vec![args[0].clone()])
    }
    fn vjp(&self, g: &mut Function, at: &Vjp) -> Option<Vec<Option<Value>>> {
        let dtype = g.ty(at.args[0]).dtype;
        Some(vec![Some(g.op(Cast { dtype }, &[at.dy()]))])
    }
}

op! {
    /// `value` in every element.
    "constant" Constant { value: f32, dtype: DType, shape: Vec<usize> } () -> "dtype[shape]"
}
impl OpDef for Constant {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [] = operands(args, Self::OPERANDS)?;
        let ty = Type::new(self.dtype, self.shape.clone());
        want_float("the result", &ty)?;
        Ok(vec![ty])
    }
    fn eval(&self, _args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        Some(vec![Tensor::zeros(&self.shape).map(|_| self.value as f64)])
    }
    fn vjp(&self, _g: &mut Function, _at: &Vjp) -> Option<Vec<Option<Value>>> {
        Some(vec![])
    }
}
