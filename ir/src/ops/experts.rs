//! Mixtures of experts: which experts a token goes to, its way there and back.
//!
//! Each of T tokens chooses k of E experts: k *slots* a token, slot `t·k + j` being token t's j-th choice. Sorted by
//! expert the R = T·k slots are the *rows* that experts compute, those of expert e being `offsets[e]..offsets[e + 1]`.
//! No slot is left out, so all sizes are known when a graph is built; only the offsets depend on data. `slots[r]` is
//! the slot of row r, `rows[s]` the row of slot s.
use super::{operands, want, want_dtype, want_float, want_matrix};
use crate::eval::Tensor;
use crate::graph::Function;
use crate::op::{Named, OpDef, Vjp};
use crate::{DType, Type, Value, op};

op! {
    /// The `k` likeliest experts of each token, the likeliest first, of equals the lower one, and their probabilities
    /// under `softmax(logits)` over all experts; with `normalize` these are divided by their sum (transformers
    /// `modeling_mixtral.py`, `modeling_qwen3_moe.py`).
    "route" Route { k: usize, normalize: bool } (logits) -> "f32[T, k]", "index[T, k]"
}

/// `softmax` of a row.
fn probabilities(logits: &[f64]) -> Vec<f64> {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.iter().map(|l| (l - top).exp()).sum();
    logits.iter().map(|l| (l - top).exp() / total).collect()
}

/// What the chosen probabilities are divided by.
fn divisor(normalize: bool, chosen: impl Iterator<Item = f64>) -> f64 {
    if normalize { chosen.sum() } else { 1.0 }
}

impl OpDef for Route {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [logits] = operands(args, Self::OPERANDS)?;
        want_dtype("logits", &logits, DType::F32)?;
        let (tokens, experts) = want_matrix("logits", &logits)?;
        if self.k == 0 || self.k > experts {
            return Err(format!("`logits` is {logits}: {} of {experts} experts cannot be chosen", self.k));
        }
        Ok(vec![Type::new(DType::F32, [tokens, self.k]), Type::new(DType::Index, [tokens, self.k])])
    }

    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        let (tokens, experts) = args[0].rows();
        let (mut weights, mut chosen) = (vec![], vec![]);
        for logits in args[0].data.chunks(experts) {
            let p = probabilities(logits);
            let mut order: Vec<usize> = (0..experts).collect();
            // Adding zero makes -0 and 0 equal.
            order.sort_by(|a, b| (logits[*b] + 0.0).total_cmp(&(logits[*a] + 0.0)));
            order.truncate(self.k);
            let total = divisor(self.normalize, order.iter().map(|e| p[*e]));
            weights.extend(order.iter().map(|e| p[*e] / total));
            chosen.extend(order.iter().map(|e| *e as f64));
        }
        Some(vec![Tensor::new([tokens, self.k], weights), Tensor::new([tokens, self.k], chosen)])
    }

    fn vjp(&self, g: &mut Function, at: &Vjp) -> Option<Vec<Option<Value>>> {
        let grad = RouteGrad { normalize: self.normalize };
        Some(vec![Some(g.op(grad, &[at.args[0], at.results[1], at.dy()]))])
    }
}

op! {
    /// The cotangent of the logits of `route`, from what it chose and the cotangent of its weights: with p the softmax,
    /// c the chosen experts and w their weights, `w_c (dw_c - Σ_c w dw)` for those and 0 for others where weights are
    /// normalised, otherwise `p_e (dw_e - Σ_c p dw)` with `dw_e` 0 for those that were not chosen.
    "route_grad" RouteGrad { normalize: bool } (logits, experts, dy) -> "logits"
}

impl OpDef for RouteGrad {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [logits, experts, dy] = operands(args, Self::OPERANDS)?;
        want_dtype("logits", &logits, DType::F32)?;
        let (tokens, all) = want_matrix("logits", &logits)?;
        let (_, k) = want_matrix("experts", &experts)?;
        want("experts", &experts, &Type::new(DType::Index, [tokens, k]))?;
        want("dy", &dy, &Type::new(DType::F32, [tokens, k]))?;
        if k > all { Err(format!("`experts` is {experts}: there are {all}")) } else { Ok(vec![logits]) }
    }

    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        let ((_, all), (_, k)) = (args[0].rows(), args[1].rows());
        let mut out = Tensor::zeros(&args[0].shape);
        let tokens = args[0].data.chunks(all).zip(args[1].data.chunks(k)).zip(args[2].data.chunks(k));
        for (((logits, chosen), dw), d) in tokens.zip(out.data.chunks_mut(all)) {
            let p = probabilities(logits);
            let chosen = || chosen.iter().map(|e| *e as usize);
            let total = divisor(self.normalize, chosen().map(|e| p[e]));
            let mean: f64 = chosen().zip(dw).map(|(e, dw)| p[e] / total * dw).sum();
            if !self.normalize {
                d.iter_mut().zip(&p).for_each(|(d, p)| *d = -p * mean);
            }
            for (e, dw) in chosen().zip(dw) {
                d[e] = p[e] / total * (dw - mean);
            }
        }
        Some(vec![out])
    }
}

op! {
    /// Sorts the slots of `experts` by expert, those of one expert in order: `offsets`, `slots` and `rows`.
    "group_rows" GroupRows { groups: usize } (experts) -> "index[E + 1]", "index[T·k]", "index[T·k]"
}

impl OpDef for GroupRows {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [experts] = operands(args, Self::OPERANDS)?;
        want_dtype("experts", &experts, DType::Index)?;
        want_matrix("experts", &experts)?;
        let index = |count| Type::new(DType::Index, [count]);
        Ok(vec![index(self.groups + 1), index(experts.len()), index(experts.len())])
    }

    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        let experts = &args[0].data;
        let mut slots: Vec<usize> = (0..experts.len()).collect();
        slots.sort_by(|a, b| experts[*a].total_cmp(&experts[*b]));
        let mut rows = vec![0.0; slots.len()];
        slots.iter().enumerate().for_each(|(row, slot)| rows[*slot] = row as f64);
        let before = |group: usize| experts.iter().filter(|e| **e < group as f64).count() as f64;
        let offsets: Vec<f64> = (0..=self.groups).map(before).collect();
        let slots = slots.iter().map(|s| *s as f64).collect();
        Some([offsets, slots, rows].map(|data: Vec<f64>| Tensor::new([data.len()], data)).into())
    }
}

/// The sizes of a matrix beside `slots` and `rows`: how many slots there are, and its columns.
fn sorted(x: &Type, slots: &Type, rows: &Type) -> Result<(usize, usize), String> {
    want_float("x", x)?;
    want_dtype("slots", slots, DType::Index)?;
    want("rows", rows, slots)?;
    let (_, n) = want_matrix("x", x)?;
    Ok((slots.len(), n))
}

op! {
    /// Row r is row `slots[r] / k` of `x` [T, n]: the tokens, each `k` times, sorted by expert. The gradient reads
    /// `rows`.
    "gather_rows" GatherRows { k: usize } (x, slots, rows) -> "x.dtype[T·k, n]"
}

impl OpDef for GatherRows {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [x, slots, rows] = operands(args, Self::OPERANDS)?;
        let (count, n) = sorted(&x, &slots, &rows)?;
        if count != x.shape[0] * self.k {
            return Err(format!("`slots` is {slots}, wanted {} for each row of {x}", self.k));
        }
        Ok(vec![Type::new(x.dtype, [count, n])])
    }

    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        let (_, n) = args[0].rows();
        let row = |slot: &f64| &args[0].data[*slot as usize / self.k * n..][..n];
        let data = args[1].data.iter().flat_map(row).copied().collect();
        Some(vec![Tensor::new([args[1].data.len(), n], data)])
    }

    fn vjp(&self, g: &mut Function, at: &Vjp) -> Option<Vec<Option<Value>>> {
        let sum = SumRows { k: self.k };
        let dx = at.needs[0].then(|| g.op(sum, &[at.dy(), at.args[1], at.args[2]]));
        Some(vec![dx, None, None])
    }
}

op! {
    /// Row t is the sum of rows `rows[t·k]`, …, `rows[t·k + k - 1]` of `x` [T·k, n], in that order: what experts
    /// computed, back at the tokens. The gradient reads `slots`.
    "sum_rows" SumRows { k: usize } (x, slots, rows) -> "x.dtype[T, n]"
}

impl OpDef for SumRows {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [x, slots, rows] = operands(args, Self::OPERANDS)?;
        let (count, n) = sorted(&x, &slots, &rows)?;
        if count != x.shape[0] || self.k == 0 || count % self.k != 0 {
            return Err(format!("`rows` is {rows}, wanted a multiple of {} for the rows of {x}", self.k));
        }
        Ok(vec![Type::new(x.dtype, [count / self.k, n])])
    }

    fn operations(&self, args: &[Type], _results: &[Type]) -> f64 {
        args[0].len() as f64
    }

    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        let (count, n) = args[0].rows();
        let mut out = Tensor::zeros(&[count / self.k, n]);
        for (to, rows) in out.data.chunks_mut(n).zip(args[2].data.chunks(self.k)) {
            for row in rows {
                let from = &args[0].data[*row as usize * n..][..n];
                to.iter_mut().zip(from).for_each(|(to, x)| *to += x);
            }
        }
        Some(vec![out])
    }

    fn vjp(&self, g: &mut Function, at: &Vjp) -> Option<Vec<Option<Value>>> {
        let gather = GatherRows { k: self.k };
        let dx = at.needs[0].then(|| g.op(gather, &[at.dy(), at.args[1], at.args[2]]));
        Some(vec![dx, None, None])
    }
}
