//! RMS norm and layer norm over the last axis and their gradients. Rows are tokens, or tokens times heads for a norm of each
//! head.
//!
//! `y = x · r · w` with `r = (mean(x²) + eps)^-½` (Zhang and Sennrich, "Root mean square layer normalization"); `w` is
//! the weight, or 1 plus it. With `g = w · dy`: `dx = r · g - x · r³ · mean(g · x)` and `dw = Σ_rows dy · x · r`.
//! A layer norm (Ba, Kiros and Hinton, "Layer normalization") takes `c = x - mean(x)` for `x` and adds a bias `b`; its `dx` is
//! `r · (g - mean(g)) - c · r³ · mean(g · c)`. The sum of `c²` is a pass of its own behind that of `x`: where the mean is
//! large, the difference of `mean(x²)` and its square would have no digits left.
//! Statistics are recomputed from `x`; arithmetic is f32 and rounds once, at the store.
mod by_weight;

use crate::emit::{Elem, Emitter, Value};
use crate::loops::Reduction;
use crate::{Kernel, Machine, Work};
pub use by_weight::NormGradWeight;

/// Which norm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Rms,
    Layer,
}

impl Kind {
    fn name(self) -> &'static str {
        if self == Kind::Rms { "rms_norm" } else { "layer_norm" }
    }
}

/// RMS norm, `y = norm(x)`. Operands: `x [rows, n]`, `weight [n]`, `y [rows, n]`; `y` may be `x`.
///
/// With `residual`: `x`, `r [rows, n]`, `weight`, `s [rows, n]`, `y`, where `s = x + r` is stored and `y = norm(s)` is
/// computed from what was stored; `s` may be `x` or `r`.
#[derive(Clone, PartialEq, Debug)]
pub struct RmsNorm {
    pub rows: usize,
    pub n: usize,
    pub eps: f32,
    /// Whether the factor is `1 + weight`.
    pub plus_one: bool,
    pub residual: bool,
    /// Storage of `x`, `r`, `s` and `y`.
    pub elem: Elem,
    /// Storage of `weight`.
    pub weight: Elem,
}

impl RmsNorm {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let (n, elem, wide) = (self.n, self.elem, 4 * machine.lanes());
        let mut e = machine.equal_rows(self.rows, n, elem);
        let operands: Vec<Value> = (0..if self.residual { 5 } else { 3 }).map(|i| e.arg(i)).collect();
        let (weight, y) = if self.residual { (&operands[2], &operands[4]) } else { (&operands[1], &operands[2]) };
        let normed = if self.residual { &operands[3] } else { &operands[0] };
        e.tasks(|e, row| {
            let [x, s, y] = [&operands[0], normed, y].map(|p| e.row(p, row, n, elem));
            let residual = self.residual.then_some((operands[1].as_str(), row));
            let s = if self.residual { &s } else { &x };
            e.keeping(n, |e| self.row(e, [&x, weight, s, &y], residual, wide));
        });
        let work = Work::new("norm", 4 * self.rows * n)
            .moving((operands.len() - 1) * self.rows * n, elem)
            .moving(n, self.weight);
        e.finish(&format!("rms_norm_{}x{n}_{}", self.rows, elem.name()), self.rows, 0, work)
    }
}

impl RmsNorm {
    /// The norm of a row, or of its sum with row `row` of `residual`.
    fn row(&self, e: &mut Emitter, [x, weight, s, y]: [&Value; 4], residual: Option<(&str, &str)>, wide: usize) {
        let (n, elem) = (self.n, self.elem);
        let count = e.index(n as i64);
        let square = if let Some((r, row)) = residual {
            let r = e.row(r, row, n, elem);
            e.load_ahead(x, elem);
            e.load_ahead(&r, elem);
            e.load_ahead(weight, self.weight);
            e.reduce(&count, wide, &[Reduction::Sum], |e, i, lanes, so_far| {
                let (a, b) = (e.load_at(x, i, elem, lanes), e.load_at(&r, i, elem, lanes));
                let sum = e.float2("addf", &a, &b, lanes);
                e.store_at(&sum, s, i, elem, lanes);
                let stored = e.load_at(s, i, elem, lanes);
                vec![e.fma(&stored, &stored, &so_far[0], lanes)]
            })
        } else {
            e.load_ahead(x, elem);
            e.load_ahead(weight, self.weight);
            sum_of_squares(e, x, None, n, elem, wide)
        };
        let r = inverse_root_mean(e, &square[0], n, self.eps);
        e.each(&count, wide, |e, i, lanes| {
            let value = e.load_at(s, i, elem, lanes);
            let w = load_weight(e, weight, i, self.weight, self.plus_one, lanes);
            let r = e.splat(&r, lanes);
            let value = e.float2("mulf", &value, &r, lanes);
            let value = e.float2("mulf", &value, &w, lanes);
            e.store_at(&value, y, i, elem, lanes);
        });
    }
}

/// Layer norm, `y = norm(x)`. Operands: `x [rows, n]`, `weight [n]`, `bias [n]` where there is one, `y [rows, n]`; `y` may be
/// `x`.
#[derive(Clone, PartialEq, Debug)]
pub struct LayerNorm {
    pub rows: usize,
    pub n: usize,
    pub eps: f32,
    /// Whether the factor is `1 + weight`.
    pub plus_one: bool,
    /// Storage of `x` and `y`.
    pub elem: Elem,
    /// Storage of `weight`.
    pub weight: Elem,
    /// Storage of `bias`, if there is one.
    pub bias: Option<Elem>,
}

impl LayerNorm {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let (n, elem, wide) = (self.n, self.elem, 4 * machine.lanes());
        let mut e = machine.equal_rows(self.rows, n, elem);
        let (x, weight) = (e.arg(0), e.arg(1));
        let bias = self.bias.map(|elem| (e.arg(2), elem));
        let y = e.arg(if bias.is_some() { 3 } else { 2 });
        e.tasks(|e, row| {
            let [x, y] = [&x, &y].map(|p| e.row(p, row, n, elem));
            e.keeping(n, |e| self.row(e, [&x, &weight, &y], bias.as_ref(), wide));
        });
        let work = Work::new("norm", 7 * self.rows * n).moving(2 * self.rows * n, elem).moving(n, self.weight);
        let work = self.bias.map_or(work, |bias| work.moving(n, bias));
        e.finish(&format!("layer_norm_{}x{n}_{}", self.rows, elem.name()), self.rows, 0, work)
    }

    fn row(&self, e: &mut Emitter, [x, weight, y]: [&Value; 3], bias: Option<&(Value, Elem)>, wide: usize) {
        let (n, elem) = (self.n, self.elem);
        let count = e.index(n as i64);
        e.load_ahead(x, elem);
        e.load_ahead(weight, self.weight);
        if let Some((bias, elem)) = bias {
            e.load_ahead(bias, *elem);
        }
        let mean = mean(e, x, n, elem, wide);
        let square = sum_of_squares(e, x, Some(&mean), n, elem, wide);
        let r = inverse_root_mean(e, &square[0], n, self.eps);
        e.each(&count, wide, |e, i, lanes| {
            let value = load_centred(e, x, Some(&mean), i, elem, lanes);
            let w = load_weight(e, weight, i, self.weight, self.plus_one, lanes);
            let r = e.splat(&r, lanes);
            let value = e.float2("mulf", &value, &r, lanes);
            let value = match bias {
                None => e.float2("mulf", &value, &w, lanes),
                Some((bias, elem)) => {
                    let bias = e.load_at(bias, i, *elem, lanes);
                    e.fma(&value, &w, &bias, lanes)
                }
            };
            e.store_at(&value, y, i, elem, lanes);
        });
    }
}

/// Gradient by `x`. Operands: `x [rows, n]`, `weight [n]`, `dy [rows, n]`, then with `add` an operand `d [rows, n]` that is
/// added to the result, then `dx [rows, n]`, which may be `dy` or `d`.
#[derive(Clone, PartialEq, Debug)]
pub struct NormGrad {
    pub rows: usize,
    pub n: usize,
    pub kind: Kind,
    pub eps: f32,
    pub plus_one: bool,
    pub add: bool,
    /// Storage of `x`, `dy`, `d` and `dx`.
    pub elem: Elem,
    pub weight: Elem,
}

impl NormGrad {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let (n, elem, wide) = (self.n, self.elem, 2 * machine.lanes());
        let mut e = machine.equal_rows(self.rows, n, elem);
        let [x, weight, dy] = [0, 1, 2].map(|i| e.arg(i));
        let rest: Vec<Value> = (3..if self.add { 5 } else { 4 }).map(|i| e.arg(i)).collect();
        e.tasks(|e, row| {
            let [x, dy] = [&x, &dy].map(|p| e.row(p, row, n, elem));
            let rest: Vec<Value> = rest.iter().map(|p| e.row(p, row, n, elem)).collect();
            e.keeping(n, |e| self.row(e, [&x, &weight, &dy], &rest, wide));
        });
        let operations = if self.kind == Kind::Rms { 9 } else { 14 };
        let work = Work::new("norm", operations * self.rows * n)
            .moving((if self.add { 4 } else { 3 }) * self.rows * n, elem)
            .moving(n, self.weight);
        let name = format!("{}_grad_{}x{n}_{}", self.kind.name(), self.rows, elem.name());
        e.finish(&name, self.rows, 0, work)
    }

    fn row(&self, e: &mut Emitter, [x, weight, dy]: [&Value; 3], rest: &[Value], wide: usize) {
        let (n, elem) = (self.n, self.elem);
        let count = e.index(n as i64);
        for (pointer, elem) in [(x, elem), (dy, elem), (weight, self.weight)] {
            e.load_ahead(pointer, elem);
        }
        if self.add {
            e.load_ahead(&rest[0], elem);
        }
        let means = (self.kind == Kind::Layer).then(|| self.means(e, x, dy, weight, wide));
        let (mean, mean_of_g) = means.unzip();
        let sums = e.reduce(&count, wide, &[Reduction::Sum; 2], |e, i, lanes, so_far| {
            let x = load_centred(e, x, mean.as_ref(), i, elem, lanes);
            let g = self.weighted(e, dy, weight, i, lanes);
            vec![e.fma(&x, &x, &so_far[0], lanes), e.fma(&x, &g, &so_far[1], lanes)]
        });
        let r = inverse_root_mean(e, &sums[0], n, self.eps);
        let pull = projection(e, &sums[1], &r, n);
        e.each(&count, wide, |e, i, lanes| {
            let x = load_centred(e, x, mean.as_ref(), i, elem, lanes);
            let g = self.weighted(e, dy, weight, i, lanes);
            let g = without(e, &g, mean_of_g.as_ref(), lanes);
            let (r, pull) = (e.splat(&r, lanes), e.splat(&pull, lanes));
            let mut dx = e.float2("mulf", &g, &r, lanes);
            dx = e.fma(&x, &pull, &dx, lanes);
            if self.add {
                let d = e.load_at(&rest[0], i, elem, lanes);
                dx = e.float2("addf", &dx, &d, lanes);
            }
            e.store_at(&dx, &rest[rest.len() - 1], i, elem, lanes);
        });
    }

    /// The means of a row of `x` and of `w · dy`.
    fn means(&self, e: &mut Emitter, x: &str, dy: &str, weight: &str, wide: usize) -> (Value, Value) {
        let count = e.index(self.n as i64);
        let sums = e.reduce(&count, wide, &[Reduction::Sum; 2], |e, i, lanes, so_far| {
            let x = e.load_at(x, i, self.elem, lanes);
            let g = self.weighted(e, dy, weight, i, lanes);
            vec![e.float2("addf", &so_far[0], &x, lanes), e.float2("addf", &so_far[1], &g, lanes)]
        });
        let n = e.float(self.n as f32, 1);
        (e.float2("divf", &sums[0], &n, 1), e.float2("divf", &sums[1], &n, 1))
    }

    /// `w · dy` at `i`.
    fn weighted(&self, e: &mut Emitter, dy: &str, weight: &str, i: &str, lanes: usize) -> Value {
        let dy = e.load_at(dy, i, self.elem, lanes);
        let w = load_weight(e, weight, i, self.weight, self.plus_one, lanes);
        e.float2("mulf", &dy, &w, lanes)
    }
}

/// The sum of the squares of a row, each less `mean` where there is one.
fn sum_of_squares(e: &mut Emitter, x: &str, mean: Option<&Value>, n: usize, elem: Elem, wide: usize) -> Vec<Value> {
    let count = e.index(n as i64);
    e.reduce(&count, wide, &[Reduction::Sum], |e, i, lanes, so_far| {
        let x = load_centred(e, x, mean, i, elem, lanes);
        vec![e.fma(&x, &x, &so_far[0], lanes)]
    })
}

fn mean(e: &mut Emitter, x: &str, n: usize, elem: Elem, wide: usize) -> Value {
    let count = e.index(n as i64);
    let sum = e.reduce(&count, wide, &[Reduction::Sum], |e, i, lanes, so_far| {
        let x = e.load_at(x, i, elem, lanes);
        vec![e.float2("addf", &so_far[0], &x, lanes)]
    });
    let n = e.float(n as f32, 1);
    e.float2("divf", &sum[0], &n, 1)
}

/// `x` at `i`, less the row's mean where there is one.
fn load_centred(e: &mut Emitter, x: &str, mean: Option<&Value>, i: &str, elem: Elem, lanes: usize) -> Value {
    let x = e.load_at(x, i, elem, lanes);
    without(e, &x, mean, lanes)
}

fn without(e: &mut Emitter, value: &str, mean: Option<&Value>, lanes: usize) -> Value {
    let Some(mean) = mean else { return value.into() };
    let mean = e.splat(mean, lanes);
    e.float2("subf", value, &mean, lanes)
}

/// `(sum / n + eps)^-½`
fn inverse_root_mean(e: &mut Emitter, sum: &str, n: usize, eps: f32) -> Value {
    let (n, eps) = (e.float(n as f32, 1), e.float(eps, 1));
    let mean = e.float2("divf", sum, &n, 1);
    let mean = e.float2("addf", &mean, &eps, 1);
    e.reciprocal_root(&mean, 1)
}

/// `-r³ · dot / n`, the factor of `x` in its gradient.
fn projection(e: &mut Emitter, dot: &str, r: &str, n: usize) -> Value {
    let n = e.float(-(n as f32), 1);
    let mean = e.float2("divf", dot, &n, 1);
    let cube = e.float2("mulf", r, r, 1);
    let cube = e.float2("mulf", &cube, r, 1);
    e.float2("mulf", &mean, &cube, 1)
}

fn load_weight(e: &mut Emitter, weight: &str, i: &str, elem: Elem, plus_one: bool, lanes: usize) -> Value {
    let w = e.load_at(weight, i, elem, lanes);
    if !plus_one {
        return w;
    }
    let one = e.float(1.0, lanes);
    e.float2("addf", &w, &one, lanes)
}
