//! A model with every number known: an [`Arch`] read against a config.
mod reader;

use crate::arch::{Act, ExpertPaths, Gain, NormKind, Paths, Stored, Wiring};
use crate::config::Config;
use crate::families;
use crate::names::Names;
use crate::rope::RopeSpec;
use anyhow::{Result, anyhow, ensure};
use reader::Reader;

/// Larger models do not exist; below this, sizes in bytes fit in 64 bits.
const MOST_PARAMETERS: u128 = 1 << 50;

/// A decoder-only language model.
#[derive(Clone, PartialEq, Debug)]
pub struct Model {
    pub vocab: usize,
    pub hidden: usize,
    pub embed_scale: f64,
    /// Whether `embed_scale` is rounded to the dtype of the weights first.
    pub embed_scale_rounded: bool,
    /// The row of the embedding that the lookup gives no gradient.
    pub padding: Option<usize>,
    /// The distinct kinds of layer that occur.
    pub kinds: Vec<Layer>,
    /// The kind of each layer.
    pub layers: Vec<usize>,
    pub final_norm: Norm,
    /// Whether the head's matrix is the embedding's.
    pub tied: bool,
    pub head_bias: bool,
    /// Logits are divided by it.
    pub logit_divisor: f64,
    /// Then logits `z` become `c · tanh(z / c)`.
    pub logit_softcap: Option<f64>,
    /// The longest row that the model is said to take.
    pub longest: Option<usize>,
    pub paths: Paths,
}

/// A mixer and what follows it, two branches that are added to the stream.
#[derive(Clone, PartialEq, Debug)]
pub struct Layer {
    pub mixer: Mixer,
    pub ffn: Ffn,
    pub wiring: Wiring,
    /// Of all norms.
    pub norm: Norm,
    /// What branches are multiplied by.
    pub residual: f64,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Mixer {
    Attention(Attention),
    Latent(Latent),
}

impl Mixer {
    /// The rotation, if there is one.
    pub fn rope(&self) -> Option<&RopeSpec> {
        match self {
            Mixer::Attention(Attention { position: Position::Rope(rope), .. }) => Some(rope),
            Mixer::Attention(Attention { position: Position::Alibi | Position::No, .. }) => None,
            Mixer::Latent(latent) => Some(&latent.rope),
        }
    }

    /// Columns of the caches of keys and of values.
    pub fn cache_widths(&self) -> [usize; 2] {
        match self {
            Mixer::Attention(attention) => [attention.kv_heads * attention.head_dim; 2],
            Mixer::Latent(Latent { heads, plain_dim, rotated_dim, value_dim, .. }) => {
                [heads * (plain_dim + rotated_dim), heads * value_dim]
            }
        }
    }
}

/// Multi-head latent attention.
#[derive(Clone, PartialEq, Debug)]
pub struct Latent {
    pub heads: usize,
    /// Inner sizes of the low-rank products.
    pub q_rank: usize,
    pub kv_rank: usize,
    /// Elements of a head of queries and keys that are not rotated, those behind them that are, and of a head of values.
    pub plain_dim: usize,
    pub rotated_dim: usize,
    pub value_dim: usize,
    pub scale: f64,
    /// Of both latents.
    pub norm: Norm,
    pub rope: RopeSpec,
}

/// Causal grouped-query attention.
#[derive(Clone, PartialEq, Debug)]
pub struct Attention {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub scale: f64,
    /// Scores `s` become `c · tanh(s / c)`.
    pub softcap: Option<f64>,
    pub qkv: Stored,
    pub qkv_bias: bool,
    pub out_bias: bool,
    pub qk_norm: QkNorm,
    /// The largest absolute value that queries, keys and values keep.
    pub clip: Option<f64>,
    pub position: Position,
    /// How many tokens, itself included, a token sees; all if `None`.
    pub window: Option<usize>,
}

/// How attention knows where tokens are.
#[derive(Clone, PartialEq, Debug)]
pub enum Position {
    Rope(RopeSpec),
    /// Scores fall with the distance.
    Alibi,
    /// It does not, but for what comes before.
    No,
}

/// A norm of queries and keys before the rotation.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum QkNorm {
    No,
    /// Of each head; all heads share the weight.
    PerHead(Norm),
    /// Of each head, which has a weight of its own.
    ByHead(Norm),
    /// Of all heads together.
    Whole(Norm),
}

#[derive(Clone, PartialEq, Debug)]
pub enum Ffn {
    Glu(Glu),
    Plain(Plain),
    Experts(Experts),
}

/// Experts, each a [`Glu`], of which the likeliest are chosen by `softmax(router · x)`.
#[derive(Clone, PartialEq, Debug)]
pub struct Experts {
    pub count: usize,
    /// Experts of a token.
    pub chosen: usize,
    /// Whether the probabilities of those are divided by their sum.
    pub normalize: bool,
    pub glu: Glu,
    pub paths: ExpertPaths,
    pub shared: Option<SharedExpert>,
}

/// An expert of all tokens, whose result is added, multiplied by `sigmoid(gate · x)`.
#[derive(Clone, PartialEq, Debug)]
pub struct SharedExpert {
    pub glu: Glu,
    pub path: &'static str,
    pub gate: &'static str,
}

/// `down(act(gate(x)) · up(x))`.
#[derive(Clone, PartialEq, Debug)]
pub struct Glu {
    pub width: usize,
    pub act: Act,
    pub bias: bool,
    pub gate_up: Stored,
}

/// `down(act(up(x)))`.
#[derive(Clone, PartialEq, Debug)]
pub struct Plain {
    pub width: usize,
    pub act: Act,
    pub bias: bool,
}

/// `gain · x / sqrt(mean(x²) + eps)`, of `x` as it is or without its mean, with or without a bias.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Norm {
    pub kind: NormKind,
    pub eps: f64,
    pub gain: Gain,
}

impl Model {
    /// The model that a config describes; its family is that of the first class under `architectures`.
    ///
    /// # Errors
    /// An unknown family, a key that is missing or out of range, a setting that is not supported.
    pub fn read(config: &Config) -> Result<Model> {
        let root = config.root();
        let classes = root.words("architectures")?.unwrap_or_default();
        let wanted = "a list with the class of the model, such as \"LlamaForCausalLM\"";
        let class = classes.first().ok_or_else(|| root.missing("architectures", wanted))?;
        let family = families::find(class).map_err(|error| anyhow!("{}: {error}", root.name("architectures")))?;
        let model = Reader { root }.model(family)?;
        let parameters = model.parameters();
        ensure!(parameters < MOST_PARAMETERS, "{}: a model of {parameters} parameters is not believed", root.place());
        Ok(model)
    }

    /// Number of parameters; of a tied head none.
    pub fn parameters(&self) -> u128 {
        let tensors = Names::new(self).tensors();
        tensors.values().map(|shape| shape.iter().map(|&size| size as u128).product::<u128>()).sum()
    }
}
