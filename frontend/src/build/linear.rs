//! Linear layers with bias and adapter, inside a layer function.
use super::layer::Context;
use super::{Builder, Lora, Weight, norm, view_name};
use crate::model::Norm;
use crate::names::{Linear, NormNames, Vector};
use amc_ir::ops::{Add, Broadcast, Cast, Dropout, GroupedMatmul, Matmul, Scale};
use amc_ir::{DType, Function, Init, Type, Value, View};
use std::collections::HashMap;

impl Builder<'_> {
    /// Adds the parameters of a linear layer: weight, bias, and the adapter's matrices. One that is there already (the
    /// matrix A that row blocks of one module share) is not added again.
    pub(super) fn linear_weights(&self, linear: &Linear, weights: &mut Vec<Weight>) {
        let mut add = |weight: Weight| {
            if !weights.iter().any(|known| known.view == weight.view) {
                weights.push(weight);
            }
        };
        let matrix = self.matrix(linear);
        let dtype = matrix.ty.dtype;
        add(matrix);
        if let Some(bias) = linear.bias() {
            add(self.stored(bias, vec![linear.outputs], linear.module_outputs));
        }
        let Some(lora) = self.lora(linear) else { return };
        let adapter = |view: View, shape: [usize; 2], all_rows: usize, init: Init| Weight {
            view,
            ty: Type::new(lora.dtype.unwrap_or(dtype), shape),
            all_rows,
            trainable: true,
            init,
        };
        let a = View { tensor: linear.lora_a(), start: 0, rows: lora.rank };
        add(adapter(a, [lora.rank, linear.inputs], lora.rank, lora.init));
        add(adapter(linear.lora_b(), [linear.outputs, lora.rank], linear.module_outputs, Init::Zeros));
    }

    /// The adapter of a linear layer, if it has one.
    pub(super) fn lora(&self, linear: &Linear) -> Option<&Lora> {
        self.request.lora.filter(|lora| lora.modules.contains(&linear.module))
    }
}

/// A layer function under construction: its weights by view.
pub(super) struct Scope<'a> {
    pub builder: &'a Builder<'a>,
    weights: HashMap<(String, usize), Value>,
    /// Dropout sites so far: module and first row.
    sites: Vec<(String, usize)>,
}

impl<'a> Scope<'a> {
    /// Declares the weights as parameters, called by what follows the layer's number.
    pub fn declare(builder: &'a Builder<'a>, g: &mut Function, number: usize, weights: &[Weight]) -> Scope<'a> {
        let prefix = format!("{}.{number}.", builder.request.model.paths.layer);
        let mut known = HashMap::new();
        for weight in weights {
            let name = view_name(&weight.view, weight.all_rows).replace(&prefix, "");
            let value = g.param(name, weight.ty.clone());
            known.insert((weight.view.tensor.clone(), weight.view.start), value);
        }
        Scope { builder, weights: known, sites: vec![] }
    }

    fn view(&self, view: &View) -> Value {
        self.weights[&(view.tensor.clone(), view.start)]
    }

    /// The parameter of a tensor that is no linear layer's.
    pub fn vector(&self, vector: &Vector) -> Value {
        self.view(&vector.view())
    }

    /// A norm of `x`.
    pub fn norm(&self, g: &mut Function, of: &Norm, names: &NormNames, x: Value) -> Value {
        let parameters: Vec<Value> = names.vectors().map(|vector| self.vector(vector)).collect();
        norm(g, of, x, &parameters)
    }

    /// `x · Wᵀ + b + scale · (x · Aᵀ) · Bᵀ`
    pub fn linear(&mut self, g: &mut Function, linear: &Linear, context: &Context, x: Value) -> Value {
        let dtype = g.ty(x).dtype;
        let mut y = self.adapted(g, &[linear], None, context, x);
        if let Some(bias) = linear.bias() {
            let shape = g.ty(y).shape.clone();
            let bias = g.op(Broadcast { shape }, &[self.view(&bias)]);
            let bias = if g.ty(bias).dtype == dtype { bias } else { g.op(Cast { dtype }, &[bias]) };
            y = g.op(Add {}, &[y, bias]);
        }
        y
    }

    /// The same without a bias; with `offsets` every group of rows of `x` meets its own of the linear layers.
    pub fn adapted(
        &mut self,
        g: &mut Function,
        linears: &[&Linear],
        offsets: Option<Value>,
        context: &Context,
        x: Value,
    ) -> Value {
        let weights: Vec<Value> = linears.iter().map(|linear| self.view(&linear.weight())).collect();
        let dtype = g.ty(x).dtype;
        let y = product(g, x, &weights, offsets, dtype);
        match self.builder.lora(linears[0]) {
            None => y,
            Some(lora) => {
                let adapted = self.adapter(g, lora, linears, offsets, context, x);
                g.op(Add {}, &[y, adapted])
            }
        }
    }

    /// The number of a dropout site, the same for the same key.
    fn site(&mut self, key: (String, usize)) -> usize {
        self.sites.iter().position(|known| *known == key).unwrap_or_else(|| {
            self.sites.push(key);
            self.sites.len() - 1
        })
    }

    /// The adapter's product is kept in f32 between its two matrices.
    fn adapter(
        &mut self,
        g: &mut Function,
        lora: &Lora,
        linears: &[&Linear],
        offsets: Option<Value>,
        context: &Context,
        x: Value,
    ) -> Value {
        let (dtype, linear) = (g.ty(x).dtype, linears[0]);
        let a_of = |linear: &&Linear| self.view(&View { tensor: linear.lora_a(), start: 0, rows: lora.rank });
        let a: Vec<Value> = linears.iter().map(a_of).collect();
        let b: Vec<Value> = linears.iter().map(|linear| self.view(&linear.lora_b())).collect();
        let dropout = lora.dropout.and_then(|dropout| context.seed.map(|seed| (dropout, seed)));
        // The blocks of one module read one input, so they share its dropout; their outputs are different elements.
        let block = if dropout.is_some_and(|(dropout, _)| dropout.on_input) { 0 } else { linear.start };
        let site = self.site((linear.module.clone(), block));
        let drop = |g: &mut Function, value: Value, on_input: bool| match dropout {
            Some((dropout, seed)) if dropout.on_input == on_input => {
                g.op(Dropout { p: dropout.p, site }, &[value, seed])
            }
            _ => value,
        };
        let x = drop(g, x, true);
        let low = product(g, x, &a, offsets, DType::F32);
        let low = g.op(Scale { value: lora.scale }, &[low]);
        let out = product(g, low, &b, offsets, dtype);
        drop(g, out, false)
    }
}

/// `x · Wᵀ`, or that of every group of rows with its own matrix.
fn product(g: &mut Function, x: Value, matrices: &[Value], offsets: Option<Value>, dtype: DType) -> Value {
    match offsets {
        None => g.op(Matmul::linear(dtype), &[x, matrices[0]]),
        Some(offsets) => g.op(GroupedMatmul { tb: true, dtype }, &[&[x, offsets], matrices].concat()),
    }
}
