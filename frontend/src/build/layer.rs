//! A layer as a function: two branches, each times a factor, are added to the stream; [`crate::arch::Wiring`] has the norms.
use super::linear::Scope;
use super::{Builder, Shared, Weight};
use crate::arch::{RopePairs, Wiring};
use crate::model::Mixer;
use crate::names::{MixerNames, NormNames};
use crate::rope::RopeSpec;
use amc_ir::ops::{Add, DeriveSeed, Rope, Scale};
use amc_ir::{DType, Function, Type, Value};

/// A layer ready to be called.
pub(super) struct Layer {
    function: Function,
    /// What the function's last parameters stand for.
    pub weights: Vec<Weight>,
    number: usize,
    /// Which of the rotation tables it reads, if any.
    table: Option<usize>,
    /// Columns of its key and value caches.
    pub cache_widths: [usize; 2],
}

impl Layer {
    /// Builds layer `number`.
    pub fn new(builder: &Builder, number: usize) -> Layer {
        let model = builder.request.model;
        let layer = &model.kinds[model.layers[number]];
        let names = &builder.names.layers[number];
        let rope = layer.mixer.rope();
        let table = rope
            .map(|rope| builder.rotations().iter().position(|known| known == rope).expect("every rotation is listed"));
        let cache_widths = layer.mixer.cache_widths();
        let mut weights: Vec<Weight> = names.vectors().map(|vector| builder.vector(vector)).collect();
        names.linears().for_each(|linear| builder.linear_weights(linear, &mut weights));

        let mut g = Function::new("layer");
        let stream = g.param("x", Type::new(builder.request.compute, [builder.tokens(), model.hidden]));
        let context = Context::declare(builder, &mut g, rope, cache_widths);
        let mut scope = Scope::declare(builder, &mut g, number, &weights);
        let residual = |g: &mut Function, stream: Value, branch: Value| {
            let branch = g.op(Scale { value: layer.residual as f32 }, &[branch]);
            g.op(Add {}, &[stream, branch])
        };
        let norm = |g: &mut Function, scope: &Scope, names: &Option<NormNames>, x: Value| {
            names.as_ref().map_or(x, |names| scope.norm(g, &layer.norm, names, x))
        };
        let normed = norm(&mut g, &scope, &names.mixer_norm, stream);
        let (mixed, caches) = scope.mixer(&mut g, &layer.mixer, &names.mixer, &context, normed);
        let mixed = norm(&mut g, &scope, &names.mixer_out_norm, mixed);
        let joined = residual(&mut g, stream, mixed);
        let read = match layer.wiring {
            Wiring::Parallel => normed,
            Wiring::ParallelApart => stream,
            Wiring::Pre | Wiring::Post | Wiring::Sandwich => joined,
        };
        let x = norm(&mut g, &scope, &names.ffn_norm, read);
        let out = scope.ffn(&mut g, &layer.ffn, &names.ffn, &context, x);
        let out = norm(&mut g, &scope, &names.ffn_out_norm, out);
        let joined = residual(&mut g, joined, out);
        g.results = [vec![joined], caches].concat();
        Layer { function: g, weights, number, table, cache_widths }
    }

    /// Calls the layer's function, which is added to the module unless an equal one is there. Returns the stream and the
    /// updated caches.
    pub fn call(
        &self,
        builder: &mut Builder,
        main: &mut Function,
        stream: Value,
        shared: &Shared,
        weights: &[Value],
        caches: &[Value],
    ) -> (Value, Vec<Value>) {
        let known = builder.module.functions.iter().position(|f| {
            let Function { params, insts, results, .. } = &self.function;
            f.params == *params && f.insts == *insts && f.results == *results
        });
        let callee = known.map(amc_ir::FuncId::new).unwrap_or_else(|| {
            let mut function = self.function.clone();
            let count = builder.module.functions.len();
            if count > 0 {
                function.name = format!("layer{count}");
            }
            builder.module.add(function)
        });
        let mut args = vec![stream, shared.positions];
        args.extend(shared.segments);
        args.extend(shared.start);
        args.extend(shared.seed.map(|seed| main.op(DeriveSeed { index: self.number }, &[seed])));
        args.extend(self.table.map(|table| shared.tables[table]).into_iter().flat_map(|(cos, sin)| [cos, sin]));
        args.extend(caches);
        args.extend(weights);
        let results = main.call(&builder.module, callee, &args);
        (results[0], results[1..].to_vec())
    }
}

impl Scope<'_> {
    /// What mixes tokens. Returns also the updated caches.
    fn mixer(
        &mut self,
        g: &mut Function,
        mixer: &Mixer,
        names: &MixerNames,
        context: &Context,
        x: Value,
    ) -> (Value, Vec<Value>) {
        match (mixer, names) {
            (Mixer::Attention(attention), MixerNames::Attention(names)) => {
                self.attention(g, attention, names, context, x)
            }
            (Mixer::Latent(latent), MixerNames::Latent(names)) => self.latent(g, latent, names, context, x),
            _ => unreachable!("names are made from the model"),
        }
    }
}

/// Cosines and sines of the positions, and what is rotated by them.
#[derive(Clone, Copy)]
pub(super) struct Rotation {
    cos: Value,
    sin: Value,
    neighbours: bool,
}

/// The parameters of a layer function that are neither its stream nor its weights.
pub(super) struct Context {
    pub positions: Value,
    pub segments: Option<Value>,
    pub start: Option<Value>,
    pub seed: Option<Value>,
    /// Where the layer rotates.
    pub rotation: Option<Rotation>,
    /// Key and value cache.
    pub caches: Option<(Value, Value)>,
}

impl Context {
    fn declare(builder: &Builder, g: &mut Function, rope: Option<&RopeSpec>, cache_widths: [usize; 2]) -> Context {
        let n = builder.tokens();
        let capacity = builder.decodes();
        let rows = capacity.unwrap_or(builder.request.seq);
        let rotation = |g: &mut Function, rope: &RopeSpec| {
            let table = Type::new(DType::F32, [rows, rope.rotary / 2]);
            let (cos, sin) = (g.param("rope_cos", table.clone()), g.param("rope_sin", table));
            Rotation { cos, sin, neighbours: rope.pairs == RopePairs::Neighbours }
        };
        Context {
            positions: g.param("positions", Type::new(DType::Position, [n])),
            segments: capacity.is_none().then(|| g.param("segments", Type::new(DType::Segment, [n]))),
            start: capacity.map(|_| g.param("start", Type::new(DType::Index, [1]))),
            seed: builder.dropout().then(|| g.param("seed", Type::new(DType::Seed, [2]))),
            rotation: rope.map(|rope| rotation(g, rope)),
            caches: capacity.map(|capacity| {
                let [k, v] = cache_widths.map(|width| Type::new(builder.request.compute, [capacity, width]));
                (g.param("k_cache", k), g.param("v_cache", v))
            }),
        }
    }

    /// `heads` heads, rotated from element `first` on where the layer has a table.
    pub fn rotated(&self, g: &mut Function, x: Value, heads: usize, first: usize) -> Value {
        let Some(Rotation { cos, sin, neighbours }) = self.rotation else { return x };
        g.op(Rope { heads, first, neighbours, inverse: false }, &[x, self.positions, cos, sin])
    }
}
