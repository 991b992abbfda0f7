//! Gemma: Llama with scaled embeddings, `1 + weight` norms and a tanh GELU; the head is the embedding.
use super::llama::*;
use crate::arch::*;

pub const GEMMA: Arch = Arch {
    classes: &["GemmaForCausalLM"],
    embed_scale: EmbedScale::Rounded(Sqrt(&Key("hidden_size"))),
    padding: Some(0),
    layers: Layers { kinds: &[GEMMA_LAYER], schedule: Schedule::Same },
    final_norm: ONE_PLUS,
    head: Head { tied: Flag::Keys(&["tie_word_embeddings"], true), divisor: Is(1.0) },
    ..LLAMA
};
const ONE_PLUS: Norm = Norm { gain: Gain::OnePlusWeight, ..NORM };
const HEAD_DIM_256: Num = KeyOr("head_dim", &Is(256.0));
const GEMMA_LAYER: Layer = Layer {
    mixer: Mixer::Attention(Attention {
        head_dim: HEAD_DIM_256,
        scale: Div(&Is(1.0), &Sqrt(&HEAD_DIM_256)),
        ..ATTENTION
    }),
    ffn: Ffn::Glu(Glu { act: TANH_GELU, bias: Flag::Is(false), ..GLU }),
    norm: ONE_PLUS,
    ..LAYER
};
/// The first checkpoints say `gelu` and mean the tanh form.
const TANH_GELU: ActKey = ActKey {
    keys: &["hidden_activation", "hidden_act"],
    words: &[("gelu", Act::GeluTanh), ("gelu_pytorch_tanh", Act::GeluTanh), ("gelu_new", Act::GeluTanh)],
    default: Act::GeluTanh,
};
