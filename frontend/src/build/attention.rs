//! The attention block.
use super::layer::Context;
use super::linear::Scope;
use crate::model::{Attention, Position, QkNorm};
use crate::names::{AttentionNames, NormNames, QkvNames};
use amc_ir::ops::{self, AttentionCached, Broadcast, CacheAppend, Cast, Constant, Max, Mul, Neg, Reshape, SplitHeads};
use amc_ir::{Function, Type, Value};

/// What scores are, and how many heads have them.
pub(super) struct Scores {
    pub heads: usize,
    pub kv_heads: usize,
    pub scale: f64,
    pub softcap: Option<f64>,
    /// Factor of ALiBi's slopes.
    pub alibi: Option<f32>,
    pub window: Option<usize>,
}

impl Scope<'_> {
    /// Projections, norms of heads, rotation, attention, output projection. Returns also the updated caches.
    pub fn attention(
        &mut self,
        g: &mut Function,
        attention: &Attention,
        names: &AttentionNames,
        context: &Context,
        x: Value,
    ) -> (Value, Vec<Value>) {
        let [mut q, mut k, mut v] = match &names.qkv {
            QkvNames::Blocks(blocks) => blocks.each_ref().map(|block| self.linear(g, block, context, x)),
            QkvNames::ByHead(whole) => {
                let whole = self.linear(g, whole, context, x);
                let Attention { heads, kv_heads, head_dim, .. } = *attention;
                let sizes = vec![heads / kv_heads * head_dim, head_dim, head_dim];
                let parts = g.push(SplitHeads { heads: kv_heads, sizes, shared: false }, &[whole]);
                [parts[0], parts[1], parts[2]]
            }
        };
        if let Some((q_norm, k_norm)) = &names.qk_norm {
            q = self.qk_norm(g, attention, q_norm, q);
            k = self.qk_norm(g, attention, k_norm, k);
        }
        if let Some(clip) = attention.clip {
            [q, k, v] = [q, k, v].map(|x| clipped(g, x, clip as f32));
        }
        q = context.rotated(g, q, attention.heads, 0);
        k = context.rotated(g, k, attention.kv_heads, 0);
        let Attention { heads, kv_heads, scale, softcap, window, .. } = *attention;
        // One is the paper's factor of the distance.
        let alibi = (attention.position == Position::Alibi).then_some(1.0);
        let scores = Scores { heads, kv_heads, scale, softcap, alibi, window };
        let (out, caches) = self.attend(g, &scores, context, [q, k, v]);
        (self.linear(g, &names.o, context, out), caches)
    }

    /// Attention over the documents of the batch, or over the caches, which are returned with the chunk in them.
    pub fn attend(&self, g: &mut Function, scores: &Scores, context: &Context, qkv: [Value; 3]) -> (Value, Vec<Value>) {
        let [q, k, v] = qkv;
        let Scores { heads, kv_heads, scale, softcap, alibi, window } = *scores;
        let (scale, softcap) = (scale as f32, softcap.map(|cap| cap as f32));
        if let (Some((k_cache, v_cache)), Some(start)) = (context.caches, context.start) {
            let k = g.op(CacheAppend {}, &[k_cache, k, start]);
            let v = g.op(CacheAppend {}, &[v_cache, v, start]);
            let op = AttentionCached { heads, kv_heads, scale, window, softcap, alibi };
            return (g.op(op, &[q, k, v, start]), vec![k, v]);
        }
        let seq = self.builder.request.seq;
        let window = window.filter(|w| *w < seq);
        let segments = context.segments.expect("without a cache there are segments");
        let op = ops::Attention { seq, heads, kv_heads, scale, window, softcap, alibi };
        (g.push(op, &[q, k, v, segments])[0], vec![])
    }

    /// The norm of queries or keys: of all heads together, or of every head with a weight that all share or of its own.
    fn qk_norm(&self, g: &mut Function, attention: &Attention, names: &NormNames, x: Value) -> Value {
        match &attention.qk_norm {
            QkNorm::No => x,
            QkNorm::Whole(norm) => self.norm(g, norm, names, x),
            QkNorm::PerHead(norm) => {
                let (ty, head_dim) = (g.ty(x).clone(), attention.head_dim);
                let heads = g.op(Reshape { shape: vec![ty.len() / head_dim, head_dim] }, &[x]);
                let normed = self.norm(g, norm, names, heads);
                g.op(Reshape { shape: ty.shape }, &[normed])
            }
            QkNorm::ByHead(norm) => {
                let (ty, head_dim) = (g.ty(x).clone(), attention.head_dim);
                let heads = g.op(Reshape { shape: vec![ty.len() / head_dim, head_dim] }, &[x]);
                let normed = super::norm(g, norm, heads, &[]);
                let normed = g.op(Reshape { shape: ty.shape.clone() }, &[normed]);
                let weight = names.weight.as_ref().expect("a norm by heads has a weight");
                let width: usize = weight.shape.iter().product();
                let weight = g.op(Reshape { shape: vec![width] }, &[self.vector(weight)]);
                let weight = g.op(Cast { dtype: ty.dtype }, &[weight]);
                let weight = g.op(Broadcast { shape: ty.shape }, &[weight]);
                g.op(Mul {}, &[normed, weight])
            }
        }
    }
}

/// `x` within `-limit..limit`.
fn clipped(g: &mut Function, x: Value, limit: f32) -> Value {
    let Type { dtype, shape } = g.ty(x).clone();
    let lowest = g.op(Constant { value: -limit, dtype, shape }, &[]);
    let x = g.op(Max {}, &[x, lowest]);
    let turned = g.op(Neg {}, &[x]);
    let turned = g.op(Max {}, &[turned, lowest]);
    g.op(Neg {}, &[turned])
}
