//! OLMo 2: Llama with its norms behind the branches, and norms of all queries and of all keys.
use super::llama::*;
use crate::arch::*;

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
