//! Multi-head latent attention.
use super::attention::Scores;
use super::layer::Context;
use super::linear::Scope;
use crate::model::Latent;
use crate::names::LatentNames;
use amc_ir::ops::{JoinHeads, SplitHeads};
use amc_ir::{Function, Value};

impl Scope<'_> {
    /// Queries, keys and values through low-rank products with a norm between; the rotated part of the keys is made apart and
    /// the same for all heads (DeepSeek-AI, DeepSeek-V2, 2024). Returns also the updated caches.
    pub fn latent(
        &mut self,
        g: &mut Function,
        latent: &Latent,
        names: &LatentNames,
        context: &Context,
        x: Value,
    ) -> (Value, Vec<Value>) {
        let Latent { heads, plain_dim, value_dim, scale, .. } = *latent;
        let q = self.linear(g, &names.q_a, context, x);
        let q = self.norm(g, &latent.norm, &names.q_norm, q);
        let q = self.linear(g, &names.q_b, context, q);
        let q = context.rotated(g, q, heads, plain_dim);
        let kv = self.linear(g, &names.kv_a, context, x);
        let kv = self.norm(g, &latent.norm, &names.kv_norm, kv);
        let kv = self.linear(g, &names.kv_b, context, kv);
        let kv = g.push(SplitHeads { heads, sizes: vec![plain_dim, value_dim], shared: false }, &[kv]);
        let shared = self.linear(g, &names.k_rotated, context, x);
        let shared = context.rotated(g, shared, 1, 0);
        let k = g.op(JoinHeads { heads, shared: true }, &[kv[0], shared]);
        let scores = Scores { heads, kv_heads: heads, scale, softcap: None, alibi: None, window: None };
        let (out, caches) = self.attend(g, &scores, context, [q, k, kv[1]]);
        (self.linear(g, &names.o, context, out), caches)
    }
}
