//! Causal grouped-query attention over packed rows, its gradient, and its form behind a key/value cache.
use super::{operands, want, want_dtype, want_float, want_matrix};
use crate::eval::Tensor;
use crate::graph::Function;
use crate::op::{Named, OpDef, Vjp};
use crate::{DType, Type, Value, op};

op! {
    /// `softmax(scale · q kᵀ) v` for every head. Rows of `seq` tokens are apart; within a row, token i sees token j where
    /// j ≤ i, both have the same segment above 0, and j > i - window (if there is one). Query head h reads key head
    /// h / (heads / kv_heads). `q` is [T, heads·d], `k` and `v` are [T, kv_heads·d]; results are the output [T, heads·d]
    /// and the logarithm of the softmax's denominator [T, heads] in f32. A token that sees nothing gets zeros.
    "attention" Attention { seq: usize, heads: usize, kv_heads: usize, scale: f32, window: Option<usize> }
        (q, k, v, segments) -> "q", "f32[T, heads]"
}

/// Sizes of an attention problem.
struct Sizes {
    tokens: usize,
    head_dim: usize,
}

impl Attention {
    fn sizes(&self, q: &Type, k: &Type, v: &Type, segments: &Type) -> Result<Sizes, String> {
        want_float("q", q)?;
        want_dtype("segments", segments, DType::Segment)?;
        let (tokens, width) = want_matrix("q", q)?;
        if self.heads == 0 || width % self.heads != 0 || self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads)
        {
            return Err(format!("`q` is {q}: it does not divide into {} heads over {}", self.heads, self.kv_heads));
        }
        if self.seq == 0 || tokens % self.seq != 0 || segments.shape != [tokens] {
            return Err(format!("`q` is {q} and `segments` {segments}: not rows of {} tokens", self.seq));
        }
        let head_dim = width / self.heads;
        want("k", k, &Type::new(q.dtype, [tokens, self.kv_heads * head_dim]))?;
        want("v", v, k)?;
        Ok(Sizes { tokens, head_dim })
    }

    fn visible(&self, segments: &[f64], i: usize, j: usize) -> bool {
        i / self.seq == j / self.seq
            && j <= i
            && segments[i] == segments[j]
            && segments[i] > 0.0
            && self.window.is_none_or(|w| j + w > i)
    }

    /// Scores of query `i` of head `h` against the keys it sees.
    fn scores(&self, q: &Tensor, k: &Tensor, segments: &Tensor, i: usize, h: usize) -> Vec<(usize, f64)> {
        let d = q.rows().1 / self.heads;
        let group = h / (self.heads / self.kv_heads);
        let query = &q.data[(i * self.heads + h) * d..][..d];
        let first = i / self.seq * self.seq;
        (first..=i)
            .filter(|&j| self.visible(&segments.data, i, j))
            .map(|j| {
                let key = &k.data[(j * self.kv_heads + group) * d..][..d];
                (j, self.scale as f64 * query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>())
            })
            .collect()
    }
}

/// log(sum(exp)) of the scores.
fn log_sum_exp(scores: &[(usize, f64)]) -> f64 {
    let top = scores.iter().map(|s| s.1).fold(f64::NEG_INFINITY, f64::max);
    top + scores.iter().map(|s| (s.1 - top).exp()).sum::<f64>().ln()
}

impl OpDef for Attention {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [q, k, v, segments] = operands(args, Self::OPERANDS)?;
        let sizes = self.sizes(&q, &k, &v, &segments)?;
        Ok(vec![q, Type::new(DType::F32, [sizes.tokens, self.heads])])
    }

    /// Two products over the keys that a query sees: half of its row, or the window.
    fn operations(&self, args: &[Type], _results: &[Type]) -> f64 {
        let seen = self.window.map_or(self.seq as f64 / 2.0, |window| (window.min(self.seq)) as f64);
        4.0 * args[0].len() as f64 * seen
    }

    fn eval(&self, args: &[&Tensor], types: &[Type]) -> Option<Vec<Tensor>> {
        let Sizes { tokens, head_dim: d } = self.sizes(&types[0], &types[1], &types[2], &types[3]).ok()?;
        let mut out = Tensor::zeros(&args[0].shape);
        let mut lse = Tensor::zeros(&[tokens, self.heads]);
        for (i, h) in (0..tokens).flat_map(|i| (0..self.heads).map(move |h| (i, h))) {
            let scores = self.scores(args[0], args[1], args[3], i, h);
            if scores.is_empty() {
                continue;
            }
            let total = log_sum_exp(&scores);
            lse.data[i * self.heads + h] = total;
            let group = h / (self.heads / self.kv_heads);
            for (j, score) in scores {
                let value = &args[2].data[(j * self.kv_heads + group) * d..][..d];
                for (o, v) in out.data[(i * self.heads + h) * d..][..d].iter_mut().zip(value) {
                    *o += (score - total).exp() * v;
                }
            }
        }
        Some(vec![out, lse])
    }

    fn vjp(&self, g: &mut Function, at: &Vjp) -> Option<Vec<Option<Value>>> {
        let Attention { seq, heads, kv_heads, scale, window } = self.clone();
        let grad = AttentionGrad { seq, heads, kv_heads, scale, window };
        let [q, k, v, segments] = at.args else { return None };
        let d = g.push(grad, &[*q, *k, *v, at.results[0], at.results[1], at.dy(), *segments]);
        Some(vec![Some(d[0]), Some(d[1]), Some(d[2]), None])
    }
}

op! {
    /// Cotangents of `q`, `k` and `v` from the output `o`, its `lse` and its cotangent `dy`: with `p = exp(s - lse)` and
    /// `ds = p * (dy·v - dy·o)`, `dq = scale ds k`, `dk = scale dsᵀ q`, `dv = pᵀ dy` (Dao, FlashAttention-2, 2023).
    "attention_grad" AttentionGrad { seq: usize, heads: usize, kv_heads: usize, scale: f32, window: Option<usize> }
        (q, k, v, o, lse, dy, segments) -> "q", "k", "v"
}

impl AttentionGrad {
    fn forward(&self) -> Attention {
        let AttentionGrad { seq, heads, kv_heads, scale, window } = self.clone();
        Attention { seq, heads, kv_heads, scale, window }
    }
}

impl OpDef for AttentionGrad {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [q, k, v, o, lse, dy, segments] = operands(args, Self::OPERANDS)?;
        let sizes = self.forward().sizes(&q, &k, &v, &segments)?;
        want("o", &o, &q)?;
        want("dy", &dy, &q)?;
        want("lse", &lse, &Type::new(DType::F32, [sizes.tokens, self.heads]))?;
        Ok(vec![q, k, v])
    }

    fn eval(&self, args: &[&Tensor], types: &[Type]) -> Option<Vec<Tensor>> {
        let forward = self.forward();
        let Sizes { tokens, head_dim: d } = forward.sizes(&types[0], &types[1], &types[2], &types[6]).ok()?;
        let [q, k, v, o, lse, dy, segments] = args else { return None };
        let (mut dq, mut dk, mut dv) = (Tensor::zeros(&q.shape), Tensor::zeros(&k.shape), Tensor::zeros(&v.shape));
        for (i, h) in (0..tokens).flat_map(|i| (0..self.heads).map(move |h| (i, h))) {
            let at = (i * self.heads + h) * d;
            let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
            let delta = dot(&dy.data[at..][..d], &o.data[at..][..d]);
            for (j, score) in forward.scores(q, k, segments, i, h) {
                let key = (j * self.kv_heads + h / (self.heads / self.kv_heads)) * d;
                let p = (score - lse.data[i * self.heads + h]).exp();
                let ds = self.scale as f64 * p * (dot(&dy.data[at..][..d], &v.data[key..][..d]) - delta);
                for e in 0..d {
                    dq.data[at + e] += ds * k.data[key + e];
                    dk.data[key + e] += ds * q.data[at + e];
                    dv.data[key + e] += p * dy.data[at + e];
                }
            }
        }
        Some(vec![dq, dk, dv])
    }
}

op! {
    /// Writes the rows of `new` [C, n] into `cache` [P, n] from row `start[0]` on, and passes the cache out.
    "cache_append" CacheAppend {} (cache, new, start) -> "cache"
}

impl OpDef for CacheAppend {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [cache, new, start] = operands(args, Self::OPERANDS)?;
        let (capacity, width) = want_matrix("cache", &cache)?;
        let (rows, _) = want_matrix("new", &new)?;
        want("new", &new, &Type::new(cache.dtype, [rows, width]))?;
        want("start", &start, &Type::new(DType::Index, [1]))?;
        if rows > capacity { Err(format!("`new` has {rows} rows, `cache` {capacity}")) } else { Ok(vec![cache]) }
    }
    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        let mut cache = args[0].clone();
        let at = args[2].data[0] as usize * cache.rows().1;
        cache.data[at..at + args[1].data.len()].copy_from_slice(&args[1].data);
        Some(vec![cache])
    }
    fn in_place(&self) -> &'static [(usize, usize)] {
        &[(0, 0)]
    }
}

op! {
    /// Attention of a chunk `q` [C, heads·d] whose first token stands at `start[0]`, against caches [P, kv_heads·d] that
    /// hold every token up to the chunk's last: token i of the chunk sees cache rows up to `start + i` in the window.
    "attention_cached" AttentionCached { heads: usize, kv_heads: usize, scale: f32, window: Option<usize> }
        (q, k_cache, v_cache, start) -> "q"
}

impl OpDef for AttentionCached {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [q, k, v, start] = operands(args, Self::OPERANDS)?;
        want_float("q", &q)?;
        let (_, width) = want_matrix("q", &q)?;
        if self.heads == 0 || width % self.heads != 0 || self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads)
        {
            return Err(format!("`q` is {q}: it does not divide into {} heads over {}", self.heads, self.kv_heads));
        }
        let (capacity, _) = want_matrix("k_cache", &k)?;
        want("k_cache", &k, &Type::new(q.dtype, [capacity, self.kv_heads * (width / self.heads)]))?;
        want("v_cache", &v, &k)?;
        want("start", &start, &Type::new(DType::Index, [1]))?;
        Ok(vec![q])
    }
    fn eval(&self, args: &[&Tensor], types: &[Type]) -> Option<Vec<Tensor>> {
        let (chunk, width) = types[0].matrix()?;
        let capacity = types[1].shape[0];
        let start = args[3].data[0] as usize;
        let dense = Attention {
            seq: capacity,
            heads: self.heads,
            kv_heads: self.kv_heads,
            scale: self.scale,
            window: self.window,
        };
        let mut q = Tensor::zeros(&[capacity, width]);
        q.data[start * width..(start + chunk) * width].copy_from_slice(&args[0].data);
        let segments = Tensor::zeros(&[capacity]).map(|_| 1.0);
        let all = [
            Type::new(types[0].dtype, [capacity, width]),
            types[1].clone(),
            types[2].clone(),
            Type::new(DType::Segment, [capacity]),
        ];
        let out = dense.eval(&[&q, args[1], args[2], &segments], &all)?.swap_remove(0);
        Some(vec![Tensor::new([chunk, width], out.data[start * width..(start + chunk) * width].to_vec())])
    }
}
