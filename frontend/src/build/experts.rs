//! Experts instead of one feed-forward block.
use super::Request;
use super::ffn::activation;
use super::layer::Context;
use super::linear::Scope;
use crate::model::Experts;
use crate::names::{ExpertNames, FfnNames, GluNames, Linear, Names};
use amc_ir::ops::{Add, Broadcast, Cast, GatherRows, GroupRows, Matmul, Mul, Reshape, Route, Sigmoid, SumRows};
use amc_ir::{DType, Function, Type, Value};
use anyhow::{Result, ensure};

/// A matrix of every expert, as a group of rows meets them.
type Matrix = fn(&GluNames) -> &Linear;
const MATRICES: [Matrix; 3] = [|names| &names.gate, |names| &names.up, |names| &names.down];

impl Scope<'_> {
    /// `Σ over the chosen experts e, p_e · down_e(act(gate_e(x)) · up_e(x))` (Fedus et al., "Switch transformers",
    /// 2021; transformers `modeling_mixtral.py`), p being the router's probabilities; with a shared expert `sigmoid(g ·
    /// x) · shared(x)` is added (`modeling_qwen2_moe.py`).
    ///
    /// The probability is multiplied in before the last product. Its gradient then needs what that product's own
    /// gradient needs, and not its result, which is kept for no other reason.
    pub fn experts(
        &mut self,
        g: &mut Function,
        experts: &Experts,
        names: &ExpertNames,
        context: &Context,
        x: Value,
    ) -> Value {
        let routed = self.routed(g, experts, names, context, x);
        let (Some(expert), Some((names, gate))) = (&experts.shared, &names.shared) else { return routed };
        let (shared, ty) = (self.glu(g, &expert.glu, names, context, x), g.ty(routed).clone());
        let gate = g.op(Matmul::linear(DType::F32), &[x, self.vector(gate)]);
        let gate = g.op(Sigmoid {}, &[gate]);
        let gate = spread(g, gate, &ty);
        let shared = g.op(Mul {}, &[shared, gate]);
        g.op(Add {}, &[routed, shared])
    }

    /// The part of those that were chosen.
    fn routed(
        &mut self,
        g: &mut Function,
        experts: &Experts,
        names: &ExpertNames,
        context: &Context,
        x: Value,
    ) -> Value {
        let k = experts.chosen;
        let logits = g.op(Matmul::linear(DType::F32), &[x, self.vector(&names.router)]);
        let [weights, chosen] = g.push(Route { k, normalize: experts.normalize }, &[logits])[..] else {
            unreachable!("`route` has two results")
        };
        let [offsets, slots, rows] = g.push(GroupRows { groups: experts.count }, &[chosen])[..] else {
            unreachable!("`group_rows` has three results")
        };
        let x = g.op(GatherRows { k }, &[x, slots, rows]);
        let weights = g.op(Reshape { shape: vec![g.ty(slots).len(), 1] }, &[weights]);
        let weights = g.op(GatherRows { k: 1 }, &[weights, slots, rows]);
        let mut times = |g: &mut Function, matrix: Matrix, x: Value| {
            let linears: Vec<&Linear> = names.experts.iter().map(matrix).collect();
            self.adapted(g, &linears, Some(offsets), context, x)
        };
        let [gate, up, down] = MATRICES;
        let gate = times(g, gate, x);
        let up = times(g, up, x);
        let gate = activation(g, experts.glu.act, gate);
        let inner = g.op(Mul {}, &[gate, up]);
        let ty = g.ty(inner).clone();
        let weights = spread(g, weights, &ty);
        let inner = g.op(Mul {}, &[inner, weights]);
        let out = times(g, down, inner);
        g.op(SumRows { k }, &[out, slots, rows])
    }
}

/// A factor of each row, in f32, at every element of a matrix.
fn spread(g: &mut Function, factors: Value, ty: &Type) -> Value {
    let wide = g.op(Broadcast { shape: ty.shape.clone() }, &[factors]);
    if ty.dtype == DType::F32 { wide } else { g.op(Cast { dtype: ty.dtype }, &[wide]) }
}

/// Whether each matrix of a layer's experts is stored in one way and adapted in all or none, since one product takes
/// them all.
pub(super) fn check(request: &Request, names: &Names) -> Result<()> {
    let layers = names.layers.iter().filter_map(|layer| match &layer.ffn {
        FfnNames::Experts(names) => Some(&names.experts),
        FfnNames::Glu(_) | FfnNames::Plain(_) => None,
    });
    for (experts, matrix) in layers.flat_map(|experts| MATRICES.map(|matrix| (experts, matrix))) {
        let (first, others) = (matrix(&experts[0]), experts[1..].iter().map(matrix));
        let stored = |linear: &Linear| request.stored.get(&linear.weight_tensor);
        let adapted = |linear: &Linear| request.lora.is_some_and(|lora| lora.modules.contains(&linear.module));
        for other in others {
            ensure!(
                stored(first) == stored(other),
                "`{}` and `{}` have different dtypes; experts of one layer are wanted in one",
                first.weight_tensor,
                other.weight_tensor
            );
            let (with, without) = if adapted(first) { (first, other) } else { (other, first) };
            ensure!(
                adapted(first) == adapted(other),
                "peft: `{}` gets an adapter and `{}` does not; name the target_modules so that they match all experts or none",
                with.module,
                without.module
            );
        }
    }
    Ok(())
}
