//! OLMo: Llama with layer norms that have no parameters, and limits of queries, keys and values.
//! OLMo 2 and OLMoE: Llama with norms of all queries and of all keys.
use super::llama::*;
use super::mistral::UNBIASED_GLU;
use super::mixtral::NO_ROUTER_LOSS;
use super::qwen::QWEN_EXPERTS;
use crate::arch::*;

pub const OLMO: Arch = Arch {
    classes: &["OlmoForCausalLM"],
    padding: Padding::Key(Some(1)),
    layers: Layers { kinds: &[OLMO_LAYER], schedule: Schedule::Same },
    final_norm: OLMO_NORM,
    ..LLAMA
};
const OLMO_NORM: Norm = Norm { kind: NormKind::Layer { bias: false }, eps: Is(1e-5), gain: Gain::No };
const OLMO_LAYER: Layer = Layer {
    mixer: Mixer::Attention(Attention { clip: Some("clip_qkv"), ..ATTENTION }),
    ffn: Ffn::Glu(Glu { bias: Flag::Is(false), ..GLU }),
    norm: OLMO_NORM,
    ..LAYER
};

/// The other norms stand behind the branches.
pub const OLMO2: Arch = Arch {
    classes: &["Olmo2ForCausalLM"],
    padding: Padding::Key(Some(1)),
    layers: Layers { kinds: &[OLMO2_LAYER], schedule: Schedule::Same },
    final_norm: OLMO2_NORM,
    paths: Paths {
        mixer_out_norm: "post_attention_layernorm",
        ffn_out_norm: "post_feedforward_layernorm",
        ..LLAMA.paths
    },
    ..LLAMA
};
const OLMO2_NORM: Norm = Norm { eps: KeyOr("rms_norm_eps", &Is(1e-5)), ..NORM };
const OLMO2_LAYER: Layer = Layer {
    mixer: Mixer::Attention(Attention { qk_norm: Always(QkNorm::Whole(OLMO2_NORM)), ..ATTENTION }),
    wiring: Always(Wiring::Post),
    norm: OLMO2_NORM,
    ..LAYER
};

/// With experts, and limits of queries, keys and values.
pub const OLMOE: Arch = Arch {
    classes: &["OlmoeForCausalLM"],
    padding: Padding::Key(Some(1)),
    layers: Layers { kinds: &[OLMOE_LAYER], schedule: Schedule::Same },
    final_norm: OLMO2_NORM,
    only: &[SINGLE_DECODER, NO_ROUTER_LOSS],
    ..LLAMA
};
const OLMOE_LAYER: Layer = Layer {
    mixer: Mixer::Attention(Attention {
        qk_norm: Always(QkNorm::Whole(OLMO2_NORM)),
        clip: Some("clip_qkv"),
        ..ATTENTION
    }),
    ffn: Ffn::Experts(&Experts { glu: UNBIASED_GLU, ..QWEN_EXPERTS }),
    norm: OLMO2_NORM,
    ..LAYER
};
