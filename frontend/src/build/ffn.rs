//! The feed-forward block.
use super::layer::Context;
use super::linear::Scope;
use crate::arch::Act;
use crate::model::{Ffn, Glu, Plain};
use crate::names::{FfnNames, GluNames, PlainNames};
use amc_ir::ops::{self, Mul};
use amc_ir::{Function, Value};

impl Scope<'_> {
    pub fn ffn(&mut self, g: &mut Function, ffn: &Ffn, names: &FfnNames, context: &Context, x: Value) -> Value {
        match (ffn, names) {
            (Ffn::Glu(glu), FfnNames::Glu(names)) => self.glu(g, glu, names, context, x),
            (Ffn::Plain(plain), FfnNames::Plain(names)) => self.plain(g, plain, names, context, x),
            (Ffn::Experts(experts), FfnNames::Experts(names)) => self.experts(g, experts, names, context, x),
            _ => unreachable!("names are made from the model"),
        }
    }

    /// `down(act(gate(x)) · up(x))` (Shazeer, GLU variants, 2020).
    pub(super) fn glu(&mut self, g: &mut Function, glu: &Glu, names: &GluNames, context: &Context, x: Value) -> Value {
        let gate = self.linear(g, &names.gate, context, x);
        let up = self.linear(g, &names.up, context, x);
        let gate = activation(g, glu.act, gate);
        let inner = g.op(Mul {}, &[gate, up]);
        self.linear(g, &names.down, context, inner)
    }

    /// `down(act(up(x)))`.
    fn plain(&mut self, g: &mut Function, plain: &Plain, names: &PlainNames, context: &Context, x: Value) -> Value {
        let up = self.linear(g, &names.up, context, x);
        let inner = activation(g, plain.act, up);
        self.linear(g, &names.down, context, inner)
    }
}

pub(super) fn activation(g: &mut Function, act: Act, x: Value) -> Value {
    match act {
        Act::Silu => g.op(ops::Silu {}, &[x]),
        Act::Gelu => g.op(ops::Gelu {}, &[x]),
        Act::GeluTanh => g.op(ops::GeluTanh {}, &[x]),
        Act::Relu => g.op(ops::Relu {}, &[x]),
        Act::SquaredRelu => {
            let root = g.op(ops::Relu {}, &[x]);
            g.op(Mul {}, &[root, root])
        }
    }
}
