//! What an architecture is: plain data. A family is a `const Arch`; a relative is its parent with fields changed.
//!
//! Types are sums, and numbers are references into `config.json`, so sizes are never copied here. [`crate::model`] turns
//! an `Arch` and a config into a [`crate::model::Model`] with every number known.
use std::fmt;

/// A decoder-only language model.
#[derive(Clone, Copy, Debug)]
pub struct Arch {
    /// Class names under `architectures` in `config.json`.
    pub classes: &'static [&'static str],
    pub vocab: Num,
    pub hidden: Num,
    pub depth: Num,
    pub embed_scale: EmbedScale,
    pub padding: Padding,
    pub layers: Layers,
    pub final_norm: Norm,
    pub head: Head,
    /// Keys that this family takes only with some values.
    pub only: &'static [&'static [Only]],
    /// Keys that files of this family have and the reference reads nowhere.
    pub ignored: &'static [&'static str],
    pub paths: Paths,
}

/// The row of the embedding that the lookup gives no gradient.
#[derive(Clone, Copy, Debug)]
pub enum Padding {
    /// There is none, whatever the config says.
    No,
    /// `pad_token_id`, or this one where the config has no such key.
    Key(Option<i64>),
}

/// A number read from the config.
#[derive(Clone, Copy, Debug)]
pub enum Num {
    Is(f64),
    Key(&'static str),
    KeyOr(&'static str, &'static Num),
    Div(&'static Num, &'static Num),
    Sqrt(&'static Num),
}
pub use Num::*;

/// A yes or no read from the config: the first of these keys that is there, else the default.
#[derive(Clone, Copy, Debug)]
pub enum Flag {
    Is(bool),
    Keys(&'static [&'static str], bool),
    /// Whether the key is there.
    Has(&'static str),
}

/// One of two, by a switch of the config.
#[derive(Clone, Copy, Debug)]
pub enum Choice<T> {
    Always(T),
    /// The first where the flag is set, else the second.
    If(Flag, T, T),
}
pub use Choice::{Always, If};

/// A key that would change the model in a way that is not supported, and the values that do not.
#[derive(Clone, Copy, Debug)]
pub struct Only {
    pub key: &'static str,
    pub values: Values,
    /// What other values would ask for.
    pub otherwise: &'static str,
}

/// Values of a key that are taken, as JSON; absent and `null` always are.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    These(&'static [&'static str]),
    AllBut(&'static [&'static str]),
}
pub use Values::*;

/// What the embedding is multiplied by.
#[derive(Clone, Copy, Debug)]
pub enum EmbedScale {
    No,
    By(Num),
    /// The factor is rounded to the dtype of the weights first.
    Rounded(Num),
}

/// The kinds of layer, and which layer is of which.
#[derive(Clone, Copy, Debug)]
pub struct Layers {
    pub kinds: &'static [Layer],
    pub schedule: Schedule,
}

/// The kind of each layer, as an index into [`Layers::kinds`].
#[derive(Clone, Copy, Debug)]
pub enum Schedule {
    /// All are of the first kind.
    Same,
    /// The list under `key` has a word for each layer: `words[i]` is kind `i`. Without the list, `otherwise` says.
    Named { key: &'static str, words: &'static [&'static str], otherwise: &'static Schedule },
    /// The first kind for the first `count` layers, then the second; all the first where the flag is not set.
    Split { flag: Flag, count: Num },
    /// The first kind for every `step`-th layer, but not for those whose numbers `dense` lists; otherwise the second.
    Every { step: Num, dense: &'static str },
    /// Kinds that differ in two ways, row by row: kind `i + columns · j`, `i` and `j` being what the two say.
    Crossed { columns: usize, i: &'static Schedule, j: &'static Schedule },
    /// The second kind for the last of every so many layers, the first for the others.
    LastOf(Num),
}

/// A mixer and what follows it, two branches that are added to the stream.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    pub mixer: Mixer,
    pub ffn: Ffn,
    pub wiring: Choice<Wiring>,
    /// Of all norms.
    pub norm: Norm,
    /// What branches are multiplied by.
    pub residual: Num,
}

/// Where the norms of a layer are, and what its second branch reads. Each `norm` is one of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wiring {
    /// `h += mixer(norm(h)); h += ffn(norm(h))`.
    Pre,
    /// `h += norm(mixer(h)); h += norm(ffn(h))`.
    Post,
    /// `h += norm(mixer(norm(h))); h += norm(ffn(norm(h)))`.
    Sandwich,
    /// `x = norm(h); h += mixer(x) + ffn(x)`.
    Parallel,
    /// `h += mixer(norm(h)) + ffn(norm(h))`.
    ParallelApart,
}

impl Wiring {
    /// Whether there are norms: before the mixer, behind it, before the second branch, behind it.
    pub fn norms(self) -> [bool; 4] {
        match self {
            Wiring::Pre | Wiring::ParallelApart => [true, false, true, false],
            Wiring::Post => [false, true, false, true],
            Wiring::Sandwich => [true; 4],
            Wiring::Parallel => [true, false, false, false],
        }
    }
}

/// What mixes tokens.
#[expect(clippy::large_enum_variant, reason = "constants, a few for a family")]
#[derive(Clone, Copy, Debug)]
pub enum Mixer {
    Attention(Attention),
    Latent(Latent),
}

/// Multi-head latent attention: queries, keys and values through low-rank products, and a rotated part of the keys that all
/// heads share (DeepSeek-AI, DeepSeek-V2, 2024).
#[derive(Clone, Copy, Debug)]
pub struct Latent {
    pub heads: Num,
    /// Inner sizes of the low-rank products.
    pub q_rank: Num,
    pub kv_rank: Num,
    /// Elements of a head of queries and keys that are not rotated, those behind them that are, and of a head of values.
    pub plain_dim: Num,
    pub rotated_dim: Num,
    pub value_dim: Num,
    /// Of both latents.
    pub norm: Norm,
    pub rope: Rope,
}

/// Causal grouped-query attention.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    pub heads: Num,
    pub kv_heads: Num,
    pub head_dim: Num,
    /// Factor of the scores.
    pub scale: Num,
    /// What scores are kept under.
    pub softcap: Softcap,
    pub qkv: Stored,
    pub qkv_bias: Flag,
    pub out_bias: Flag,
    pub qk_norm: Choice<QkNorm>,
    /// Key of the largest absolute value that queries, keys and values keep; none is limited where it is absent or `null`.
    pub clip: Option<&'static str>,
    pub position: Choice<Position>,
    pub window: Window,
}

/// How attention knows where tokens are.
#[derive(Clone, Copy, Debug)]
pub enum Position {
    Rope(Rope),
    /// Scores fall with the distance, in every head at its own rate (Press et al., 2022).
    Alibi,
    /// It does not, but for what comes before.
    No,
}

/// How matrices that read the same input lie in the checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stored {
    /// Each is a tensor.
    Apart,
    /// One tensor of this name holds them row block after row block.
    Together(&'static str),
    /// One tensor of this name holds, for every key head, the rows of its queries, of its key and of its value.
    ByHead(&'static str),
}

/// A norm of queries and keys before the rotation.
#[derive(Clone, Copy, Debug)]
pub enum QkNorm {
    No,
    /// Of each head; all heads share the weight.
    PerHead(Norm),
    /// Of each head, which has a weight of its own.
    ByHead(Norm),
    /// Of all heads together.
    Whole(Norm),
}

/// How many tokens, itself included, a token sees.
#[derive(Clone, Copy, Debug)]
pub enum Window {
    All,
    /// As many as the key says; all where it is `null` or 0; where it is absent, the default or, without one, all.
    Key(&'static str, Option<usize>),
}

/// A bound `c` on values `z`, which become `c · tanh(z / c)`.
#[derive(Clone, Copy, Debug)]
pub enum Softcap {
    No,
    /// The number under the key; none where it is `null`; where it is absent, the default or, without one, none.
    Key(&'static str, Option<f64>),
}

/// Rotary positions.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    /// The key of the base, which `rope_parameters` calls `rope_theta`, and the base where there is none.
    pub theta: (&'static str, f64),
    pub part: RopePart,
    pub pairs: RopePairs,
    pub layers: RopeLayers,
    /// `rope_type` words that the family knows.
    pub scalings: &'static [(&'static str, Scaling)],
}

/// How much of a head is rotated.
#[derive(Clone, Copy, Debug)]
pub enum RopePart {
    Whole,
    /// The fraction under the key, which `rope_parameters` calls `partial_rotary_factor`, or this one.
    Partial(&'static str, f64),
    /// So many elements.
    Elements(Num),
}

/// Which elements are rotated together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RopePairs {
    /// Those half of the rotated part apart.
    Halves,
    Neighbours,
}

/// The layers of a rotation, where `rope_parameters` has settings for each type of layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RopeLayers {
    /// All: there are no types.
    All,
    /// Those that see all tokens.
    Full,
    /// Those with a window; `rope_scaling` is not for them.
    Sliding,
}

/// How the frequencies are stretched to longer rows; [`crate::rope`] has the formulas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scaling {
    Default,
    Linear,
    Dynamic,
    Yarn,
    Llama3,
    LongRope,
}

/// What follows the mixer.
#[derive(Clone, Copy, Debug)]
pub enum Ffn {
    /// `down(act(gate(x)) · up(x))`.
    Glu(Glu),
    /// `down(act(up(x)))`.
    Plain(Plain),
    /// The weighted sum of what the experts that a router chooses for a token make of it.
    Experts(&'static Experts),
}

/// Experts, each a [`Glu`], of which the likeliest are chosen by `softmax(router · x)`.
#[derive(Clone, Copy, Debug)]
pub struct Experts {
    pub count: Num,
    /// Experts of a token.
    pub chosen: Num,
    /// Whether the probabilities of those are divided by their sum.
    pub normalize: Flag,
    /// An expert's.
    pub glu: Glu,
    pub paths: ExpertPaths,
    pub shared: Option<SharedExpert>,
}

/// An expert of all tokens, whose result is added, multiplied by `sigmoid(gate · x)`.
#[derive(Clone, Copy, Debug)]
pub struct SharedExpert {
    pub glu: Glu,
    /// Module that its matrices' names are relative to, which are those of the other experts.
    pub path: &'static str,
    pub gate: &'static str,
}

/// Module names of experts. Those of one are relative to `experts` and the expert's number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExpertPaths {
    pub router: &'static str,
    pub experts: &'static str,
    pub gate: &'static str,
    pub up: &'static str,
    pub down: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub struct Glu {
    pub width: Num,
    pub act: ActKey,
    pub bias: Flag,
    pub gate_up: Stored,
}

#[derive(Clone, Copy, Debug)]
pub struct Plain {
    pub width: Num,
    pub act: ActKey,
    pub bias: Flag,
}

/// The activation: the word under the first key that is there, in the family's sense.
#[derive(Clone, Copy, Debug)]
pub struct ActKey {
    pub keys: &'static [&'static str],
    pub words: &'static [(&'static str, Act)],
    pub default: Act,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    Silu,
    /// By the error function.
    Gelu,
    /// By tanh.
    GeluTanh,
    Relu,
    /// `relu(x)²` (So et al., Primer, 2021).
    SquaredRelu,
}

/// `gain · x / sqrt(mean(x²) + eps)`, of `x` as it is or without its mean, with or without a bias.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    pub kind: NormKind,
    pub eps: Num,
    pub gain: Gain,
}

/// What a norm does beside dividing and multiplying.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NormKind {
    /// Nothing.
    Rms,
    /// It takes the mean off first, and adds a bias where it has one.
    Layer { bias: bool },
}

/// What a norm multiplies by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gain {
    No,
    Weight,
    OnePlusWeight,
}

/// The output head.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Whether its matrix is the embedding's.
    pub tied: Flag,
    pub bias: Flag,
    /// Logits are divided by it.
    pub divisor: Num,
    /// What they are then kept under.
    pub softcap: Softcap,
}

/// Module names in the checkpoint. Those of a layer are relative to `layer` and the layer's number.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Paths {
    pub embed: &'static str,
    pub layer: &'static str,
    pub mixer_norm: &'static str,
    /// The norm behind the mixer.
    pub mixer_out_norm: &'static str,
    pub q: &'static str,
    pub k: &'static str,
    pub v: &'static str,
    pub o: &'static str,
    /// Latent attention's inner matrices of queries, and of keys and values, with their norms, and the outer ones.
    pub q_a: &'static str,
    pub q_a_norm: &'static str,
    pub q_b: &'static str,
    pub kv_a: &'static str,
    pub kv_a_norm: &'static str,
    pub kv_b: &'static str,
    pub q_norm: &'static str,
    pub k_norm: &'static str,
    pub ffn_norm: &'static str,
    pub ffn_out_norm: &'static str,
    pub gate: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    pub final_norm: &'static str,
    pub head: &'static str,
    /// Ends of the names of tensors that are computed, not learned: a checkpoint may hold them.
    pub buffers: &'static [&'static str],
}

impl fmt::Display for Num {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Is(x) => write!(f, "{x}"),
            Key(key) | KeyOr(key, _) => write!(f, "`{key}`"),
            Div(a, b) => write!(f, "{a} / {b}"),
            Sqrt(a) => write!(f, "sqrt({a})"),
        }
    }
}
