//! Gemma: Llama with scaled embeddings, `1 + weight` norms and a tanh GELU; the head is the embedding. Gemma 2 and 3 have
//! norms on both sides of every branch, and layers of two kinds.
use super::llama::*;
use crate::arch::*;

pub const GEMMA: Arch = Arch {
    classes: &["GemmaForCausalLM"],
    embed_scale: EmbedScale::Rounded(Sqrt(&Key("hidden_size"))),
    padding: Padding::Key(Some(0)),
    layers: Layers { kinds: &[GEMMA_LAYER], schedule: Schedule::Same },
    final_norm: ONE_PLUS,
    head: Head { tied: Flag::Keys(&["tie_word_embeddings"], true), ..LLAMA.head },
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

/// A window on every second layer, and softcaps on scores and logits.
pub const GEMMA2: Arch = Arch {
    classes: &["Gemma2ForCausalLM"],
    layers: Layers {
        kinds: &[windowed(GEMMA2_ATTENTION), sandwich(GEMMA2_ATTENTION)],
        schedule: by_type(&Schedule::LastOf(Is(2.0))),
    },
    head: Head { softcap: Softcap::Key("final_logit_softcapping", Some(30.0)), ..GEMMA.head },
    paths: SANDWICH_PATHS,
    ..GEMMA
};
const GEMMA2_ATTENTION: Attention = Attention {
    head_dim: HEAD_DIM_256,
    scale: Div(&Is(1.0), &Sqrt(&KeyOr("query_pre_attn_scalar", &Is(256.0)))),
    softcap: Softcap::Key("attn_logit_softcapping", Some(50.0)),
    ..ATTENTION
};

/// Windows on all layers but every sixth, which rotates by other frequencies; norms of heads in the place of softcaps.
pub const GEMMA3: Arch = Arch {
    classes: &["Gemma3ForCausalLM"],
    layers: Layers {
        kinds: &[
            windowed(Attention {
                position: Always(Position::Rope(Rope {
                    theta: ("rope_local_base_freq", 10_000.0),
                    layers: RopeLayers::Sliding,
                    ..ROPE
                })),
                ..GEMMA3_ATTENTION
            }),
            sandwich(GEMMA3_ATTENTION),
        ],
        schedule: by_type(&Schedule::LastOf(KeyOr("sliding_window_pattern", &Is(6.0)))),
    },
    head: Head { softcap: Softcap::Key("final_logit_softcapping", None), ..GEMMA.head },
    ignored: &["_sliding_window_pattern"],
    paths: SANDWICH_PATHS,
    ..GEMMA
};
const GEMMA3_ATTENTION: Attention = Attention {
    softcap: Softcap::Key("attn_logit_softcapping", None),
    qk_norm: Always(QkNorm::PerHead(ONE_PLUS)),
    position: Always(Position::Rope(Rope { theta: ("rope_theta", 1_000_000.0), layers: RopeLayers::Full, ..ROPE })),
    ..GEMMA2_ATTENTION
};

const fn sandwich(attention: Attention) -> Layer {
    Layer { mixer: Mixer::Attention(attention), wiring: Always(Wiring::Sandwich), ..GEMMA_LAYER }
}
const fn windowed(attention: Attention) -> Layer {
    sandwich(Attention { window: Window::Key("sliding_window", Some(4096)), ..attention })
}
const fn by_type(otherwise: &'static Schedule) -> Schedule {
    Schedule::Named { key: "layer_types", words: &["sliding_attention", "full_attention"], otherwise }
}
const SANDWICH_PATHS: Paths = Paths {
    mixer_out_norm: "post_attention_layernorm",
    ffn_norm: "pre_feedforward_layernorm",
    ffn_out_norm: "post_feedforward_layernorm",
    ..LLAMA.paths
};
