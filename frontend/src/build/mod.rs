//! The forward graph of a model for one static shape.
//!
//! The entry `main` and its parameters are described in [`amc_ir::binding`]. Each layer is built as a function; layers whose
//! functions are equal share one, so a model has as many layer functions as it has kinds of layer.
mod attention;
mod experts;
mod ffn;
mod latent;
mod layer;
mod linear;

use crate::arch::{Gain, NormKind};
use crate::model::{Model, Norm};
use crate::names::{Linear, Names, Vector};
use crate::rope::RopeSpec;
use amc_ir::ops::{
    Add, Broadcast, Cast, Constant, Embedding, LayerNorm, LinearCrossEntropy, Matmul, RmsNorm, Scale, Tanh,
};
use amc_ir::{Binding, Bindings, BoundTensor, DType, Function, Init, Module, Type, Value, View};
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};

/// What a graph is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// The loss of a batch; with gradients later where something is trained.
    Loss,
    /// The logits of every token.
    Logits,
    /// The logits of a chunk of `seq` tokens behind a cache of `capacity` rows, of texts of at most `longest` tokens.
    Decode { capacity: usize, longest: usize },
}

/// Low-rank adapters.
#[derive(Clone, PartialEq, Debug)]
pub struct Lora {
    /// Modules that get one.
    pub modules: BTreeSet<String>,
    pub rank: usize,
    /// `alpha / rank`
    pub scale: f32,
    /// How A starts.
    pub init: Init,
    /// Storage of A and B; as the adapted weight where not given.
    pub dtype: Option<DType>,
    pub dropout: Option<Dropout>,
}

/// Dropout of an adapter: on its input or on its output.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Dropout {
    pub p: f32,
    pub on_input: bool,
}

/// A model, a shape, and what is trained.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub model: &'a Model,
    /// Storage of each checkpoint tensor.
    pub stored: &'a BTreeMap<String, DType>,
    /// Storage of activations.
    pub compute: DType,
    pub batch: usize,
    pub seq: usize,
    pub purpose: Purpose,
    /// Adapters; without them all parameters are trained if `train_all`, else none.
    pub lora: Option<&'a Lora>,
    pub train_all: bool,
}

/// A forward graph and what its parameters stand for.
#[derive(Clone, PartialEq, Debug)]
pub struct Built {
    pub module: Module,
    pub bindings: Bindings,
}

/// Builds the graph that `request` describes.
///
/// # Errors
/// An adapter on the output head, which the fused loss has no room for; adapters on some experts' matrices alone; experts whose
/// matrices are stored in different ways.
pub fn build(request: &Request) -> Result<Built> {
    let names = Names::new(request.model);
    if request.lora.is_some_and(|lora| lora.modules.contains(&names.head.module)) {
        bail!(
            "peft: an adapter on the output head `{}` is not supported; leave it out with exclude_modules or name the \
             target_modules",
            names.head.module
        );
    }
    experts::check(request, &names)?;
    let mut builder = Builder { request, names: &names, bindings: Bindings::default(), module: Module::default() };
    builder.main();
    Ok(Built { module: builder.module, bindings: builder.bindings })
}

/// The name of a view as a parameter: the tensor's, with the rows where it is not the whole.
fn view_name(view: &View, all_rows: usize) -> String {
    if view.start == 0 && view.rows == all_rows {
        return view.tensor.clone();
    }
    format!("{}[{}:{}]", view.tensor, view.start, view.rows)
}

/// A parameter that a function wants.
#[derive(Clone, PartialEq, Debug)]
struct Weight {
    view: View,
    ty: Type,
    /// Rows of the stored tensor.
    all_rows: usize,
    trainable: bool,
    init: Init,
}

struct Builder<'a> {
    request: &'a Request<'a>,
    names: &'a Names,
    bindings: Bindings,
    module: Module,
}

/// What `main` hands to its layers beside the stream and the weights.
struct Shared {
    positions: Value,
    segments: Option<Value>,
    start: Option<Value>,
    seed: Option<Value>,
    /// By kind of rotation: cosine and sine.
    tables: Vec<(Value, Value)>,
}

impl Builder<'_> {
    fn tokens(&self) -> usize {
        self.request.batch * self.request.seq
    }

    fn dropout(&self) -> bool {
        self.request.lora.is_some_and(|lora| lora.dropout.is_some()) && self.request.purpose == Purpose::Loss
    }

    fn decodes(&self) -> Option<usize> {
        match self.request.purpose {
            Purpose::Decode { capacity, .. } => Some(capacity),
            _ => None,
        }
    }

    /// Distinct rotations, in the order of the kinds of layer.
    fn rotations(&self) -> Vec<RopeSpec> {
        let mut rotations: Vec<RopeSpec> = vec![];
        for rope in self.request.model.kinds.iter().filter_map(|kind| kind.mixer.rope()) {
            if !rotations.contains(rope) {
                rotations.push(rope.clone());
            }
        }
        rotations
    }

    fn main(&mut self) {
        let model = self.request.model;
        let layers: Vec<layer::Layer> = (0..model.layers.len()).map(|i| layer::Layer::new(self, i)).collect();
        let mut main = Function::new("main");
        let tokens = self.input(&mut main, "tokens", DType::Token, self.tokens());
        let loss = self.request.purpose == Purpose::Loss;
        let labels = loss.then(|| self.input(&mut main, "labels", DType::Label, self.tokens()));
        let loss_scale = loss.then(|| self.input(&mut main, "loss_scale", DType::LossScale, 1));
        let shared = self.shared(&mut main);
        let embed = self.vector(&self.names.embed);
        let embed = self.weight(&mut main, &embed);
        let weights: Vec<Vec<Value>> =
            layers.iter().map(|layer| layer.weights.iter().map(|w| self.weight(&mut main, w)).collect()).collect();
        let caches: Vec<Vec<Value>> = (0..layers.len()).map(|i| self.caches(&mut main, i, &layers[i])).collect();
        let final_norm = self.names.final_norm.vectors();
        let final_norm: Vec<Value> = final_norm.map(|vector| self.weight(&mut main, &self.vector(vector))).collect();
        let head = self.matrix(&self.names.head);
        let head = if model.tied { embed } else { self.weight(&mut main, &head) };
        let head_bias = self.names.head.bias().map(|view| {
            let bias = self.stored(view, vec![model.vocab], model.vocab);
            self.weight(&mut main, &bias)
        });

        let scale = Embedding { scale: self.embed_scale(), padding: model.padding, dtype: self.request.compute };
        let mut stream = main.op(scale, &[embed, tokens]);
        let mut new_caches = vec![];
        for (i, layer) in layers.iter().enumerate() {
            let (next, kept) = layer.call(self, &mut main, stream, &shared, &weights[i], &caches[i]);
            stream = next;
            new_caches.extend(kept);
        }
        let stream = norm(&mut main, &model.final_norm, stream, &final_norm);
        let logit_scale = (1.0 / model.logit_divisor) as f32;
        let softcap = model.logit_softcap.map(|cap| cap as f32);
        main.results = match (labels, loss_scale) {
            (Some(labels), Some(loss_scale)) => {
                let mut args = vec![stream, head, labels, loss_scale];
                args.extend(head_bias);
                vec![main.op(LinearCrossEntropy { logit_scale, softcap }, &args)]
            }
            _ => {
                let mut logits = main.op(Matmul::linear(DType::F32), &[stream, head]);
                if let Some(bias) = head_bias {
                    let bias = main.op(Cast { dtype: DType::F32 }, &[bias]);
                    let bias = main.op(Broadcast { shape: main.ty(logits).shape.clone() }, &[bias]);
                    logits = main.op(Add {}, &[logits, bias]);
                }
                let mut logits = main.op(Scale { value: logit_scale }, &[logits]);
                if let Some(cap) = softcap {
                    let share = main.op(Scale { value: 1.0 / cap }, &[logits]);
                    let tanh = main.op(Tanh {}, &[share]);
                    logits = main.op(Scale { value: cap }, &[tanh]);
                }
                [vec![logits], new_caches].concat()
            }
        };
        self.module.add(main);
    }

    fn embed_scale(&self) -> f32 {
        let scale = self.request.model.embed_scale as f32;
        if self.request.model.embed_scale_rounded && self.request.compute == DType::Bf16 {
            return half::bf16::from_f32(scale).to_f32();
        }
        scale
    }

    fn shared(&mut self, main: &mut Function) -> Shared {
        let n = self.tokens();
        let positions = self.input(main, "positions", DType::Position, n);
        let decodes = self.decodes();
        let segments = decodes.is_none().then(|| self.input(main, "segments", DType::Segment, n));
        let start = decodes.map(|_| self.input(main, "start", DType::Index, 1));
        let seed = self.dropout().then(|| self.input(main, "seed", DType::Seed, 2));
        let rows = decodes.unwrap_or(self.request.seq);
        // Not what the cache has room for beyond that: scalings of long texts would begin too early.
        let longest = if let Purpose::Decode { longest, .. } = self.request.purpose { longest } else { rows };
        let tables = self
            .rotations()
            .iter()
            .enumerate()
            .map(|(i, rope)| {
                let tables = rope.tables(rows, longest);
                let suffix = if i == 0 { String::new() } else { format!(".{i}") };
                let shape = [rows, rope.rotary / 2];
                let cos = self.constant(main, format!("rope_cos{suffix}"), &tables.cos, &shape);
                (cos, self.constant(main, format!("rope_sin{suffix}"), &tables.sin, &shape))
            })
            .collect();
        Shared { positions, segments, start, seed, tables }
    }

    fn input(&mut self, main: &mut Function, name: &str, dtype: DType, n: usize) -> Value {
        self.bindings.params.insert(name.into(), Binding::Input);
        main.param(name, Type::new(dtype, [n]))
    }

    fn constant(&mut self, main: &mut Function, name: String, values: &[f32], shape: &[usize]) -> Value {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.bindings.params.insert(name.clone(), Binding::Constant(bytes));
        main.param(name, Type::new(DType::F32, shape))
    }

    fn caches(&mut self, main: &mut Function, number: usize, layer: &layer::Layer) -> Vec<Value> {
        let Some(capacity) = self.decodes() else { return vec![] };
        let caches = ["k_cache", "v_cache"].into_iter().zip(layer.cache_widths);
        let cache = |(kind, width): (&str, usize)| {
            let name = format!("{kind}.{number}");
            self.bindings.params.insert(name.clone(), Binding::State);
            main.param(name, Type::new(self.request.compute, [capacity, width]))
        };
        caches.map(cache).collect()
    }

    /// The parameter of `main` for a weight, bound and listed.
    fn weight(&mut self, main: &mut Function, weight: &Weight) -> Value {
        let name = view_name(&weight.view, weight.all_rows);
        if let Some(known) = main.params.iter().position(|p| p.name == name) {
            return Value::new(known);
        }
        let view = weight.view.clone();
        let mut ty = weight.ty.clone();
        ty.shape[0] = weight.all_rows;
        let tensor = BoundTensor { ty, trainable: weight.trainable, init: weight.init };
        self.bindings.tensors.insert(view.tensor.clone(), tensor);
        let binding = if weight.trainable { Binding::Trainable(view) } else { Binding::Frozen(view) };
        self.bindings.params.insert(name.clone(), binding);
        main.param(name, weight.ty.clone())
    }

    fn vector(&self, vector: &Vector) -> Weight {
        self.stored(vector.view(), vector.shape.clone(), vector.shape[0])
    }

    fn matrix(&self, linear: &Linear) -> Weight {
        self.stored(linear.weight(), vec![linear.outputs, linear.inputs], linear.module_outputs)
    }

    /// A tensor of the checkpoint.
    fn stored(&self, view: View, shape: Vec<usize>, all_rows: usize) -> Weight {
        let dtype = self.request.stored.get(&view.tensor).copied().unwrap_or(self.request.compute);
        let trainable = self.request.train_all && self.request.lora.is_none();
        Weight { view, ty: Type::new(dtype, shape), all_rows, trainable, init: Init::Checkpoint }
    }
}

/// A norm of `x`; its parameters are the weight and, if it has one, the bias. Without any, the weight is one.
fn norm(g: &mut Function, norm: &Norm, x: Value, parameters: &[Value]) -> Value {
    let (eps, plus_one) = (norm.eps as f32, norm.gain == Gain::OnePlusWeight);
    let mut args = [&[x], parameters].concat();
    if parameters.is_empty() {
        let width = g.ty(x).shape.last().copied().unwrap_or(1);
        args.push(g.op(Constant { value: 1.0, dtype: DType::F32, shape: vec![width] }, &[]));
    }
    match norm.kind {
        NormKind::Rms => g.op(RmsNorm { eps, plus_one }, &args),
        NormKind::Layer { .. } => g.op(LayerNorm { eps, plus_one }, &args),
    }
}
