//! The attention block.
use super::layer::Context;
use super::linear::Scope;
use crate::model::{Attention, QkNorm};
use crate::names::{AttentionNames, NormNames};
use amc_ir::ops::{self, AttentionCached, CacheAppend, Reshape, Rope};
use amc_ir::{Function, Value};

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
        let mut q = self.linear(g, &names.q, context, x);
        let mut k = self.linear(g, &names.k, context, x);
        let v = self.linear(g, &names.v, context, x);
        if let Some((q_norm, k_norm)) = &names.qk_norm {
            q = self.qk_norm(g, attention, q_norm, q);
            k = self.qk_norm(g, attention, k_norm, k);
        }
        let rotate = |g: &mut Function, x: Value, heads: usize| {
            g.op(Rope { heads, inverse: false }, &[x, context.positions, context.cos, context.sin])
        };
        let q = rotate(g, q, attention.heads);
        let k = rotate(g, k, attention.kv_heads);
        let (out, caches) = self.attend(g, attention, context, [q, k, v]);
        (self.linear(g, &names.o, context, out), caches)
    }

    fn attend(
        &self,
        g: &mut Function,
        attention: &Attention,
        context: &Context,
        qkv: [Value; 3],
    ) -> (Value, Vec<Value>) {
        let [q, k, v] = qkv;
        let Attention { heads, kv_heads, scale, window, .. } = *attention;
        let (scale, softcap) = (scale as f32, attention.softcap.map(|cap| cap as f32));
        if let (Some((k_cache, v_cache)), Some(start)) = (context.caches, context.start) {
            let k = g.op(CacheAppend {}, &[k_cache, k, start]);
            let v = g.op(CacheAppend {}, &[v_cache, v, start]);
            let op = AttentionCached { heads, kv_heads, scale, window, softcap, alibi: None };
            return (g.op(op, &[q, k, v, start]), vec![k, v]);
        }
        let seq = self.builder.request.seq;
        let window = window.filter(|w| *w < seq);
        let segments = context.segments.expect("without a cache there are segments");
        let op = ops::Attention { seq, heads, kv_heads, scale, window, softcap, alibi: None };
        (g.push(op, &[q, k, v, segments])[0], vec![])
    }

    /// The norm of queries or keys: of all heads together, or of every head with a weight that all share.
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
        }
    }
}
