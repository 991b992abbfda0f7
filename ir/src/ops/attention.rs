//! Causal grouped-query attention over packed rows, its gradient, and its form behind a key/value cache.
use super::{operands, want, want_dtype, want_float, want_matrix, want_positive};
use crate::eval::Tensor;
use crate::graph::Function;
use crate::op::{Named, OpDef, Vjp};
use crate::{DType, Type, Value, op};

op! {
    /// `softmax(s) v` for every head, with `s = scale · q kᵀ`. Rows of `seq` tokens are apart; within a row, token i sees token
    /// j where j ≤ i, both have the same segment above 0, and j > i - window (if there is one). With a `softcap` c, scores
    /// become `c · tanh(s / c)` (Gemma 2; transformers' modeling_gemma2.py). With `alibi` a, `a · slope(h) · (i - j)` is then
    /// subtracted from them: with n the largest power of two up to `heads`, slope(h) is `2^(-8 (h + 1) / n)` for h < n and
    /// `2^(-4 (2 (h - n) + 1) / n)` from there on (Press et al., 2022). Query head h reads key head h / (heads / kv_heads). `q` is
    /// [T, heads·d], `k` [T, kv_heads·d], `v` [T, kv_heads·dv]; results are the output [T, heads·dv] and the logarithm of the
    /// softmax's denominator [T, heads] in f32. A token that sees nothing gets zeros.
    "attention" Attention {
        seq: usize,
        heads: usize,
        kv_heads: usize,
        scale: f32,
        window: Option<usize>,
        softcap: Option<f32>,
        alibi: Option<f32>,
    } (q, k, v, segments) -> "q.dtype[T, heads·dv]", "f32[T, heads]"
}

/// Sizes of an attention problem.
struct Sizes {
    tokens: usize,
    /// Entries of a head of queries and keys, and of values.
    head_dim: usize,
    value_dim: usize,
}

/// A key that a query sees: where it stands, its score, and the score's derivative by `q · k`.
struct Seen {
    key: usize,
    score: f64,
    slope: f64,
}

/// Entries of a head of queries and keys, and of values: `keys` and `values` have `rows` rows of `kv_heads` heads.
fn head_sizes(
    (heads, kv_heads): (usize, usize),
    (q, width): (&Type, usize),
    rows: usize,
    [keys, values]: [(&str, &Type); 2],
) -> Result<(usize, usize), String> {
    if heads == 0 || width % heads != 0 || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(format!("`q` is {q}: it does not divide into {heads} heads over {kv_heads}"));
    }
    let head_dim = width / heads;
    want(keys.0, keys.1, &Type::new(q.dtype, [rows, kv_heads * head_dim]))?;
    let (name, ty) = values;
    let (_, value_width) = want_matrix(name, ty)?;
    want(name, ty, &Type::new(q.dtype, [rows, value_width]))?;
    if value_width == 0 || value_width % kv_heads != 0 {
        return Err(format!("`{name}` is {ty}: it does not divide into {kv_heads} heads"));
    }
    Ok((head_dim, value_width / kv_heads))
}

/// What ALiBi multiplies the distance of head `h`'s keys by.
fn alibi_slope(heads: usize, h: usize) -> f64 {
    let n = 1 << heads.ilog2();
    let exponent = if h < n { 8 * (h + 1) } else { 4 * (2 * (h - n) + 1) };
    (-(exponent as f64) / n as f64).exp2()
}

impl Attention {
    fn sizes(&self, q: &Type, k: &Type, v: &Type, segments: &Type) -> Result<Sizes, String> {
        want_float("q", q)?;
        want_dtype("segments", segments, DType::Segment)?;
        want_positive("softcap", self.softcap)?;
        want_positive("alibi", self.alibi)?;
        let (tokens, width) = want_matrix("q", q)?;
        if self.seq == 0 || tokens % self.seq != 0 || segments.shape != [tokens] {
            return Err(format!("`q` is {q} and `segments` {segments}: not rows of {} tokens", self.seq));
        }
        let heads = (self.heads, self.kv_heads);
        let (head_dim, value_dim) = head_sizes(heads, (q, width), tokens, [("k", k), ("v", v)])?;
        Ok(Sizes { tokens, head_dim, value_dim })
    }

    /// The type of the output.
    fn output(&self, q: &Type, sizes: &Sizes) -> Type {
        Type::new(q.dtype, [sizes.tokens, self.heads * sizes.value_dim])
    }

    fn visible(&self, segments: &[f64], i: usize, j: usize) -> bool {
        i / self.seq == j / self.seq
            && j <= i
            && segments[i] == segments[j]
            && segments[i] > 0.0
            && self.window.is_none_or(|w| j + w > i)
    }

    /// The keys that query `i` of head `h` sees.
    fn seen(&self, q: &Tensor, k: &Tensor, segments: &Tensor, i: usize, h: usize) -> Vec<Seen> {
        let d = q.rows().1 / self.heads;
        let group = h / (self.heads / self.kv_heads);
        let query = &q.data[(i * self.heads + h) * d..][..d];
        let first = i / self.seq * self.seq;
        let penalty = self.alibi.map_or(0.0, |alibi| alibi as f64 * alibi_slope(self.heads, h));
        (first..=i)
            .filter(|&j| self.visible(&segments.data, i, j))
            .map(|j| {
                let key = &k.data[(j * self.kv_heads + group) * d..][..d];
                let plain = self.scale as f64 * query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>();
                let (score, slope) = self.softcap.map_or((plain, 1.0), |cap| {
                    let tanh = (plain / cap as f64).tanh();
                    (cap as f64 * tanh, 1.0 - tanh * tanh)
                });
                Seen { key: j, score: score - penalty * (i - j) as f64, slope: slope * self.scale as f64 }
            })
            .collect()
    }
}

/// log(sum(exp)) of the scores.
fn log_sum_exp(seen: &[Seen]) -> f64 {
    let top = seen.iter().map(|s| s.score).fold(f64::NEG_INFINITY, f64::max);
    top + seen.iter().map(|s| (s.score - top).exp()).sum::<f64>().ln()
}

impl OpDef for Attention {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [q, k, v, segments] = operands(args, Self::OPERANDS)?;
        let sizes = self.sizes(&q, &k, &v, &segments)?;
        Ok(vec![self.output(&q, &sizes), Type::new(DType::F32, [sizes.tokens, self.heads])])
    }

    /// Two products over the keys that a query sees: half of its row, or the window.
    fn operations(&self, args: &[Type], results: &[Type]) -> f64 {
        let seen = self.window.map_or(self.seq as f64 / 2.0, |window| (window.min(self.seq)) as f64);
        2.0 * (args[0].len() + results[0].len()) as f64 * seen
    }

    fn eval(&self, args: &[&Tensor], types: &[Type]) -> Option<Vec<Tensor>> {
        let sizes = self.sizes(&types[0], &types[1], &types[2], &types[3]).ok()?;
        let (tokens, d) = (sizes.tokens, sizes.value_dim);
        let mut out = Tensor::zeros(&self.output(&types[0], &sizes).shape);
        let mut lse = Tensor::zeros(&[tokens, self.heads]);
        for (i, h) in (0..tokens).flat_map(|i| (0..self.heads).map(move |h| (i, h))) {
            let seen = self.seen(args[0], args[1], args[3], i, h);
            if seen.is_empty() {
                continue;
            }
            let total = log_sum_exp(&seen);
            lse.data[i * self.heads + h] = total;
            let group = h / (self.heads / self.kv_heads);
            for Seen { key, score, .. } in seen {
                let value = &args[2].data[(key * self.kv_heads + group) * d..][..d];
                for (o, v) in out.data[(i * self.heads + h) * d..][..d].iter_mut().zip(value) {
                    *o += (score - total).exp() * v;
                }
            }
        }
        Some(vec![out, lse])
    }

    fn vjp(&self, g: &mut Function, at: &Vjp) -> Option<Vec<Option<Value>>> {
        let Attention { seq, heads, kv_heads, scale, window, softcap, alibi } = self.clone();
        let grad = AttentionGrad { seq, heads, kv_heads, scale, window, softcap, alibi };
        let [q, k, v, segments] = at.args else { return None };
        let d = g.push(grad, &[*q, *k, *v, at.results[0], at.results[1], at.dy(), *segments]);
        Some(vec![Some(d[0]), Some(d[1]), Some(d[2]), None])
    }
}

op! {
    /// Cotangents of `q`, `k` and `v` of `attention` from its output `o`, its `lse` and the output's cotangent `dy`: with `s` the
    /// scores after everything, `p = exp(s - lse)` and `ds = p * (dy·v - dy·o)`, times `1 - tanh²` where scores were capped,
    /// `dq = scale ds k`, `dk = scale dsᵀ q`, `dv = pᵀ dy` (Dao, FlashAttention-2, 2023).
    "attention_grad" AttentionGrad {
        seq: usize,
        heads: usize,
        kv_heads: usize,
        scale: f32,
        window: Option<usize>,
        softcap: Option<f32>,
        alibi: Option<f32>,
    } (q, k, v, o, lse, dy, segments) -> "q", "k", "v"
}

impl AttentionGrad {
    /// What it is the gradient of.
    pub fn forward(&self) -> Attention {
        let AttentionGrad { seq, heads, kv_heads, scale, window, softcap, alibi } = self.clone();
        Attention { seq, heads, kv_heads, scale, window, softcap, alibi }
    }
}

impl OpDef for AttentionGrad {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [q, k, v, o, lse, dy, segments] = operands(args, Self::OPERANDS)?;
        let forward = self.forward();
        let sizes = forward.sizes(&q, &k, &v, &segments)?;
        let output = forward.output(&q, &sizes);
        want("o", &o, &output)?;
        want("dy", &dy, &output)?;
        want("lse", &lse, &Type::new(DType::F32, [sizes.tokens, self.heads]))?;
        Ok(vec![q, k, v])
    }

    fn eval(&self, args: &[&Tensor], types: &[Type]) -> Option<Vec<Tensor>> {
        let forward = self.forward();
        let sizes = forward.sizes(&types[0], &types[1], &types[2], &types[6]).ok()?;
        let Sizes { tokens, head_dim: d, value_dim } = sizes;
        let [q, k, v, o, lse, dy, segments] = args else { return None };
        let (mut dq, mut dk, mut dv) = (Tensor::zeros(&q.shape), Tensor::zeros(&k.shape), Tensor::zeros(&v.shape));
        for (i, h) in (0..tokens).flat_map(|i| (0..self.heads).map(move |h| (i, h))) {
            let row = i * self.heads + h;
            let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
            let dy = &dy.data[row * value_dim..][..value_dim];
            let delta = dot(dy, &o.data[row * value_dim..][..value_dim]);
            for Seen { key, score, slope } in forward.seen(q, k, segments, i, h) {
                let key = key * self.kv_heads + h / (self.heads / self.kv_heads);
                let p = (score - lse.data[row]).exp();
                let ds = slope * p * (dot(dy, &v.data[key * value_dim..][..value_dim]) - delta);
                for e in 0..d {
                    dq.data[row * d + e] += ds * k.data[key * d + e];
                    dk.data[key * d + e] += ds * q.data[row * d + e];
                }
                for (dv, dy) in dv.data[key * value_dim..][..value_dim].iter_mut().zip(dy) {
                    *dv += p * dy;
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
    /// Attention of a chunk `q` [C, heads·d] whose first token stands at `start[0]`, against caches [P, kv_heads·d] and
    /// [P, kv_heads·dv] that hold every token up to the chunk's last: token i of the chunk sees cache rows up to `start + i` in the
    /// window. Scores are those of `attention`.
    "attention_cached" AttentionCached {
        heads: usize,
        kv_heads: usize,
        scale: f32,
        window: Option<usize>,
        softcap: Option<f32>,
        alibi: Option<f32>,
    } (q, k_cache, v_cache, start) -> "q.dtype[C, heads·dv]"
}

impl OpDef for AttentionCached {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [q, k, v, start] = operands(args, Self::OPERANDS)?;
        want_float("q", &q)?;
        want_positive("softcap", self.softcap)?;
        want_positive("alibi", self.alibi)?;
        let (chunk, width) = want_matrix("q", &q)?;
        let (capacity, _) = want_matrix("k_cache", &k)?;
        let (heads, caches) = ((self.heads, self.kv_heads), [("k_cache", &k), ("v_cache", &v)]);
        let (_, value_dim) = head_sizes(heads, (&q, width), capacity, caches)?;
        want("start", &start, &Type::new(DType::Index, [1]))?;
        Ok(vec![Type::new(q.dtype, [chunk, self.heads * value_dim])])
    }
    fn eval(&self, args: &[&Tensor], types: &[Type]) -> Option<Vec<Tensor>> {
        let (chunk, width) = types[0].matrix()?;
        let capacity = types[1].shape[0];
        let start = args[3].data[0] as usize;
        let AttentionCached { heads, kv_heads, scale, window, softcap, alibi } = self.clone();
        let dense = Attention { seq: capacity, heads, kv_heads, scale, window, softcap, alibi };
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
        let width = out.rows().1;
        Some(vec![Tensor::new([chunk, width], out.data[start * width..(start + chunk) * width].to_vec())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paper's 8 heads; and 12, of which the last four have every other slope of 16 heads.
    #[test]
    fn slopes_are_those_of_the_paper() {
        let slopes = |heads: usize| (0..heads).map(|h| alibi_slope(heads, h)).collect::<Vec<_>>();
        let eight = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0].map(|exponent: f64| (-exponent).exp2());
        assert_eq!(slopes(8), eight);
        assert_eq!(slopes(12)[..8], eight);
        assert_eq!(slopes(12)[8..], [0.5, 1.5, 2.5, 3.5].map(|exponent: f64| (-exponent).exp2()));
        assert_eq!(slopes(1), [1.0 / 256.0]);
    }

    /// Two heads of two tokens; scores are `q k / 2`, capped at 1, less a distance with slopes 2^-4 and 2^-8.
    #[test]
    fn scores_are_capped_before_distances_count() {
        let op = Attention {
            seq: 2,
            heads: 2,
            kv_heads: 1,
            scale: 0.5,
            window: None,
            softcap: Some(1.0),
            alibi: Some(16.0),
        };
        let (q, k) = (Tensor::new([2, 2], vec![1.0, 2.0, 3.0, 4.0]), Tensor::new([2, 1], vec![0.5, -1.0]));
        let segments = Tensor::new([2], vec![1.0, 1.0]);
        let scores = |h| op.seen(&q, &k, &segments, 1, h).iter().map(|seen| seen.score).collect::<Vec<_>>();
        assert_eq!(scores(0), [0.75f64.tanh() - 1.0, (-1.5f64).tanh()]);
        assert_eq!(scores(1), [1f64.tanh() - 0.0625, (-2f64).tanh()]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let op = |softcap| Attention { seq: 2, heads: 2, kv_heads: 2, scale: 1.0, window: None, softcap, alibi: None };
        let infer = |op: Attention, v| {
            let float = |width| Type::new(DType::F32, [2, width]);
            op.infer(&[float(4), float(4), float(v), Type::new(DType::Segment, [2])])
        };
        assert_eq!(infer(op(None), 6).unwrap()[0], Type::new(DType::F32, [2, 6]));
        let error = infer(op(None), 5).unwrap_err();
        assert!(error.contains("`v` is f32[2,5]: it does not divide into 2 heads"), "{error}");
        for cap in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let error = infer(op(Some(cap)), 4).unwrap_err();
            assert!(error.contains("wanted a positive number or none"), "{error}");
        }
    }
}
