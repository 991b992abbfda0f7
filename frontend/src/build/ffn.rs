//! The feed-forward block.
use super::layer::Context;
use super::linear::Scope;
use crate::arch::Act;
use crate::model::Glu;
use crate::names::GluNames;
use amc_ir::ops::{self, Mul, Op};
use amc_ir::{Function, Value};

impl Scope<'_> {
    /// `down(act(gate(x)) · up(x))` (Shazeer, GLU variants, 2020).
    pub fn glu(&mut self, g: &mut Function, glu: &Glu, names: &GluNames, context: &Context, x: Value) -> Value {
        let gate = self.linear(g, &names.gate, context, x);
        let up = self.linear(g, &names.up, context, x);
        let gate = g.op(activation(glu.act), &[gate]);
        let inner = g.op(Mul {}, &[gate, up]);
        self.linear(g, &names.down, context, inner)
    }
}

pub(super) fn activation(act: Act) -> Op {
    match act {
        Act::Silu => ops::Silu {}.into(),
        Act::Gelu => ops::Gelu {}.into(),
        Act::GeluTanh => ops::GeluTanh {}.into(),
        Act::Relu => ops::Relu {}.into(),
    }
}
