//! What a model's parameters are called in its checkpoint, and which rows of which tensor each is.
//!
//! - A parameter of the graph is a [`View`]: rows of a stored tensor. Tensors that a checkpoint fuses (`qkv_proj`,
//!   `gate_up_proj`) are seen as their row blocks; nothing is copied.
//! - A linear layer knows its *module*, the name that LoRA patterns match and adapters are saved under. Row blocks of one
//!   module share its adapter: one matrix A, and the same rows of B.
use crate::arch::{ExpertPaths, Gain, NormKind, Stored};
use crate::model::{Attention, Experts, Ffn, Glu, Latent, Mixer, Model, Norm, Plain, QkNorm};
use amc_ir::View;
use std::collections::BTreeMap;

/// All parameters of a model.
#[derive(Clone, PartialEq, Debug)]
pub struct Names {
    pub embed: Vector,
    pub layers: Vec<LayerNames>,
    pub final_norm: NormNames,
    /// Of a tied head: its module keeps its own name, its weight is the embedding.
    pub head: Linear,
}

/// The parameters of a layer.
#[derive(Clone, PartialEq, Debug)]
pub struct LayerNames {
    pub mixer_norm: Option<NormNames>,
    pub mixer: MixerNames,
    /// The norm behind the mixer.
    pub mixer_out_norm: Option<NormNames>,
    pub ffn_norm: Option<NormNames>,
    /// The norm behind what follows.
    pub ffn_out_norm: Option<NormNames>,
    pub ffn: FfnNames,
}

#[derive(Clone, PartialEq, Debug)]
pub enum MixerNames {
    Attention(AttentionNames),
    Latent(LatentNames),
}

impl MixerNames {
    fn linears(&self) -> Vec<&Linear> {
        match self {
            MixerNames::Attention(AttentionNames { qkv: QkvNames::Blocks(blocks), o, .. }) => {
                blocks.iter().chain([o]).collect()
            }
            MixerNames::Attention(AttentionNames { qkv: QkvNames::ByHead(whole), o, .. }) => vec![whole, o],
            MixerNames::Latent(LatentNames { q_a, q_b, kv_a, k_rotated, kv_b, o, .. }) => {
                vec![q_a, q_b, kv_a, k_rotated, kv_b, o]
            }
        }
    }

    fn norms(&self) -> Vec<&NormNames> {
        match self {
            MixerNames::Attention(AttentionNames { qk_norm, .. }) => qk_norm.iter().flat_map(|(q, k)| [q, k]).collect(),
            MixerNames::Latent(LatentNames { q_norm, kv_norm, .. }) => vec![q_norm, kv_norm],
        }
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct LatentNames {
    pub q_a: Linear,
    pub q_norm: NormNames,
    pub q_b: Linear,
    /// The rows of the inner matrix that make the latent of keys and values, and those that make the keys' rotated part.
    pub kv_a: Linear,
    pub k_rotated: Linear,
    pub kv_norm: NormNames,
    pub kv_b: Linear,
    pub o: Linear,
}

#[derive(Clone, PartialEq, Debug)]
pub enum QkvNames {
    /// Queries, keys, values.
    Blocks([Linear; 3]),
    /// One matrix, whose rows are, for every key head, those of its queries, of its key and of its value.
    ByHead(Linear),
}

#[derive(Clone, PartialEq, Debug)]
pub struct AttentionNames {
    pub qkv: QkvNames,
    pub o: Linear,
    /// The norms of queries and keys.
    pub qk_norm: Option<(NormNames, NormNames)>,
}

#[derive(Clone, PartialEq, Debug)]
pub enum FfnNames {
    Glu(GluNames),
    Plain(PlainNames),
    Experts(ExpertNames),
}

/// A router, which is no linear layer to LoRA, and its experts.
#[derive(Clone, PartialEq, Debug)]
pub struct ExpertNames {
    pub router: Vector,
    pub experts: Vec<GluNames>,
    /// The expert of all tokens, and the row that says how much of it.
    pub shared: Option<(GluNames, Vector)>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct GluNames {
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
}

impl GluNames {
    fn linears(&self) -> [&Linear; 3] {
        [&self.gate, &self.up, &self.down]
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct PlainNames {
    pub up: Linear,
    pub down: Linear,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NormNames {
    pub weight: Option<Vector>,
    pub bias: Option<Vector>,
}

/// A parameter that is one whole tensor and no linear layer: a norm's weight or bias, the embedding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vector {
    pub tensor: String,
    pub shape: Vec<usize>,
}

/// A linear layer, or a row block of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Linear {
    /// Full name of the module in the model.
    pub module: String,
    /// The tensor of the weight.
    pub weight_tensor: String,
    pub inputs: usize,
    /// Outputs of the block.
    pub outputs: usize,
    /// First row of the block.
    pub start: usize,
    /// Rows of the whole module.
    pub module_outputs: usize,
    pub has_bias: bool,
}

/// A linear layer as LoRA sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinearModule {
    pub name: String,
    pub inputs: usize,
    pub outputs: usize,
}

impl Vector {
    /// The parameter as a view.
    pub fn view(&self) -> View {
        View { tensor: self.tensor.clone(), start: 0, rows: self.shape[0] }
    }
}

impl NormNames {
    fn new(norm: &Norm, module: &str, shape: &[usize]) -> NormNames {
        let bias = Vector { tensor: format!("{module}.bias"), shape: shape.into() };
        let has_bias = norm.kind == NormKind::Layer { bias: true };
        let weight = (norm.gain != Gain::No).then(|| weight(module, shape));
        NormNames { weight, bias: has_bias.then_some(bias) }
    }

    /// The weight, then the bias, as far as they are there.
    pub fn vectors(&self) -> impl Iterator<Item = &Vector> {
        self.weight.iter().chain(&self.bias)
    }
}

impl Linear {
    /// Weight [outputs, inputs].
    pub fn weight(&self) -> View {
        self.rows_of(self.weight_tensor.clone())
    }
    /// Bias [outputs].
    pub fn bias(&self) -> Option<View> {
        self.has_bias.then(|| self.rows_of(format!("{}.bias", self.module)))
    }
    /// PEFT's name of adapter matrix A [rank, inputs].
    pub fn lora_a(&self) -> String {
        format!("base_model.model.{}.lora_A.weight", self.module)
    }
    /// PEFT's matrix B, the rows [outputs, rank] of this block.
    pub fn lora_b(&self) -> View {
        self.rows_of(format!("base_model.model.{}.lora_B.weight", self.module))
    }
    fn rows_of(&self, tensor: String) -> View {
        View { tensor, start: self.start, rows: self.outputs }
    }
}

impl Names {
    pub fn new(model: &Model) -> Names {
        let paths = &model.paths;
        let embed = weight(paths.embed, &[model.vocab, model.hidden]);
        let mut head = linear(paths.head.into(), model.hidden, model.vocab, model.head_bias);
        if model.tied {
            head.weight_tensor = embed.tensor.clone();
        }
        let layers = (0..model.layers.len()).map(|i| LayerNames::new(model, i)).collect();
        Names { embed, layers, final_norm: NormNames::new(&model.final_norm, paths.final_norm, &[model.hidden]), head }
    }

    /// Every stored tensor and its shape.
    pub fn tensors(&self) -> BTreeMap<String, Vec<usize>> {
        let mut tensors = BTreeMap::new();
        let of_layers = self.layers.iter().flat_map(LayerNames::vectors);
        let vectors = of_layers.chain(self.final_norm.vectors()).chain([&self.embed]);
        tensors.extend(vectors.map(|vector| (vector.tensor.clone(), vector.shape.clone())));
        for linear in self.linears() {
            tensors.insert(linear.weight_tensor.clone(), vec![linear.module_outputs, linear.inputs]);
            if let Some(bias) = linear.bias() {
                tensors.insert(bias.tensor, vec![linear.module_outputs]);
            }
        }
        tensors
    }

    /// Every linear module, in the order of the model, the head last.
    pub fn modules(&self) -> Vec<LinearModule> {
        let all = self.linears().map(|linear| LinearModule {
            name: linear.module.clone(),
            inputs: linear.inputs,
            outputs: linear.module_outputs,
        });
        let mut modules: Vec<LinearModule> = all.collect();
        modules.dedup();
        modules
    }

    /// Every norm.
    pub fn norms(&self) -> impl Iterator<Item = &NormNames> {
        self.layers.iter().flat_map(LayerNames::norms).chain([&self.final_norm])
    }

    fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.layers.iter().flat_map(LayerNames::linears).chain([&self.head])
    }
}

impl LayerNames {
    fn new(model: &Model, number: usize) -> LayerNames {
        let (paths, layer) = (&model.paths, &model.kinds[model.layers[number]]);
        let scope = Scope { layer: format!("{}.{number}.", paths.layer), model };
        let places = [paths.mixer_norm, paths.mixer_out_norm, paths.ffn_norm, paths.ffn_out_norm];
        let norms = std::array::from_fn(|i| (places[i], layer.wiring.norms()[i]));
        let norm = |(path, there): (&str, bool)| there.then(|| scope.norm(&layer.norm, path, model.hidden));
        let [mixer_norm, mixer_out_norm, ffn_norm, ffn_out_norm] = norms.map(norm);
        LayerNames {
            mixer_norm,
            mixer_out_norm,
            ffn_norm,
            ffn_out_norm,
            mixer: match &layer.mixer {
                Mixer::Attention(attention) => MixerNames::Attention(scope.attention(attention)),
                Mixer::Latent(latent) => MixerNames::Latent(scope.latent(latent)),
            },
            ffn: match &layer.ffn {
                Ffn::Glu(glu) => FfnNames::Glu(scope.glu(glu)),
                Ffn::Plain(plain) => FfnNames::Plain(scope.plain(plain)),
                Ffn::Experts(experts) => FfnNames::Experts(scope.experts(experts)),
            },
        }
    }

    /// The linear layers, row blocks of one module side by side.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        let ffn: Vec<&Linear> = match &self.ffn {
            FfnNames::Glu(glu) => glu.linears().into(),
            FfnNames::Plain(PlainNames { up, down }) => vec![up, down],
            FfnNames::Experts(names) => {
                let shared = names.shared.iter().map(|(glu, _)| glu);
                names.experts.iter().chain(shared).flat_map(GluNames::linears).collect()
            }
        };
        self.mixer.linears().into_iter().chain(ffn)
    }

    /// All other parameters.
    pub fn vectors(&self) -> impl Iterator<Item = &Vector> {
        let (router, gate) = match &self.ffn {
            FfnNames::Glu(_) | FfnNames::Plain(_) => (None, None),
            FfnNames::Experts(names) => (Some(&names.router), names.shared.as_ref().map(|(_, gate)| gate)),
        };
        self.norms().flat_map(NormNames::vectors).chain(router).chain(gate)
    }

    /// The norms, those of the branches first.
    fn norms(&self) -> impl Iterator<Item = &NormNames> {
        let of_branches = [&self.mixer_norm, &self.ffn_norm, &self.mixer_out_norm, &self.ffn_out_norm];
        of_branches.into_iter().flatten().chain(self.mixer.norms())
    }
}

/// Names of one layer.
struct Scope<'a> {
    /// What stands before a name: `model.layers.3.`.
    layer: String,
    model: &'a Model,
}

impl Scope<'_> {
    fn norm(&self, norm: &Norm, module: &str, size: usize) -> NormNames {
        self.norms(norm, module, &[size])
    }

    fn norms(&self, norm: &Norm, module: &str, shape: &[usize]) -> NormNames {
        NormNames::new(norm, &format!("{}{module}", self.layer), shape)
    }

    fn attention(&self, attention: &Attention) -> AttentionNames {
        let (paths, hidden) = (&self.model.paths, self.model.hidden);
        let Attention { heads, kv_heads, head_dim, qkv_bias, out_bias, .. } = *attention;
        let (wide, narrow) = (heads * head_dim, kv_heads * head_dim);
        let blocks = [(paths.q, wide), (paths.k, narrow), (paths.v, narrow)];
        let qkv = match attention.qkv {
            Stored::ByHead(path) => {
                QkvNames::ByHead(linear(format!("{}{path}", self.layer), hidden, wide + 2 * narrow, qkv_bias))
            }
            stored => QkvNames::Blocks(self.blocks(stored, blocks, hidden, qkv_bias)),
        };
        let qk_norm = match &attention.qk_norm {
            QkNorm::No => None,
            QkNorm::PerHead(norm) => {
                Some((self.norm(norm, paths.q_norm, head_dim), self.norm(norm, paths.k_norm, head_dim)))
            }
            QkNorm::ByHead(norm) => Some((
                self.norms(norm, paths.q_norm, &[heads, head_dim]),
                self.norms(norm, paths.k_norm, &[kv_heads, head_dim]),
            )),
            QkNorm::Whole(norm) => Some((self.norm(norm, paths.q_norm, wide), self.norm(norm, paths.k_norm, narrow))),
        };
        AttentionNames { qkv, o: linear(format!("{}{}", self.layer, paths.o), wide, hidden, out_bias), qk_norm }
    }

    fn latent(&self, latent: &Latent) -> LatentNames {
        let (paths, hidden) = (&self.model.paths, self.model.hidden);
        let Latent { heads, q_rank, kv_rank, plain_dim, rotated_dim, value_dim, .. } = *latent;
        let layer = |path: &str, inputs, outputs| linear(format!("{}{path}", self.layer), inputs, outputs, false);
        let inner = [("", kv_rank), ("", rotated_dim)];
        let [kv_a, k_rotated] = self.blocks(Stored::Together(paths.kv_a), inner, hidden, false);
        LatentNames {
            q_a: layer(paths.q_a, hidden, q_rank),
            q_norm: self.norm(&latent.norm, paths.q_a_norm, q_rank),
            q_b: layer(paths.q_b, q_rank, heads * (plain_dim + rotated_dim)),
            kv_a,
            k_rotated,
            kv_norm: self.norm(&latent.norm, paths.kv_a_norm, kv_rank),
            kv_b: layer(paths.kv_b, kv_rank, heads * (plain_dim + value_dim)),
            o: layer(paths.o, heads * value_dim, hidden),
        }
    }

    fn glu(&self, glu: &Glu) -> GluNames {
        let (paths, hidden) = (&self.model.paths, self.model.hidden);
        let blocks = [(paths.gate, glu.width), (paths.up, glu.width)];
        let [gate, up] = self.blocks(glu.gate_up, blocks, hidden, glu.bias);
        let down = linear(format!("{}{}", self.layer, paths.down), glu.width, hidden, glu.bias);
        GluNames { gate, up, down }
    }

    fn plain(&self, plain: &Plain) -> PlainNames {
        let (paths, hidden) = (&self.model.paths, self.model.hidden);
        let name = |path| format!("{}{path}", self.layer);
        let up = linear(name(paths.up), hidden, plain.width, plain.bias);
        PlainNames { up, down: linear(name(paths.down), plain.width, hidden, plain.bias) }
    }

    fn experts(&self, experts: &Experts) -> ExpertNames {
        let hidden = self.model.hidden;
        let row = |module: &str, rows: usize| weight(&format!("{}{module}", self.layer), &[rows, hidden]);
        let of = |number| self.expert(experts, &format!("{}.{number}", experts.paths.experts), experts.glu.width);
        let shared = experts.shared.as_ref();
        ExpertNames {
            router: row(experts.paths.router, experts.count),
            experts: (0..experts.count).map(of).collect(),
            shared: shared.map(|it| (self.expert(experts, it.path, it.glu.width), row(it.gate, 1))),
        }
    }

    fn expert(&self, experts: &Experts, module: &str, width: usize) -> GluNames {
        let (ExpertPaths { gate, up, down, .. }, hidden) = (experts.paths, self.model.hidden);
        let of = |path, inputs, outputs| linear(format!("{}{module}.{path}", self.layer), inputs, outputs, false);
        GluNames { gate: of(gate, hidden, width), up: of(up, hidden, width), down: of(down, width, hidden) }
    }

    /// Linear layers over one input, as modules of their own or as row blocks of one.
    fn blocks<const N: usize>(
        &self,
        stored: Stored,
        blocks: [(&str, usize); N],
        inputs: usize,
        bias: bool,
    ) -> [Linear; N] {
        let module_outputs = blocks.iter().map(|(_, rows)| rows).sum();
        let mut start = 0;
        blocks.map(|(path, outputs)| match stored {
            Stored::Apart => linear(format!("{}{path}", self.layer), inputs, outputs, bias),
            Stored::Together(path) | Stored::ByHead(path) => {
                let whole = linear(format!("{}{path}", self.layer), inputs, module_outputs, bias);
                start += outputs;
                Linear { outputs, start: start - outputs, ..whole }
            }
        })
    }
}

fn weight(module: &str, shape: &[usize]) -> Vector {
    Vector { tensor: format!("{module}.weight"), shape: shape.into() }
}

fn linear(module: String, inputs: usize, outputs: usize, has_bias: bool) -> Linear {
    let weight_tensor = format!("{module}.weight");
    Linear { module, weight_tensor, inputs, outputs, start: 0, module_outputs: outputs, has_bias }
}
