//! Qwen 2 and 3: some layers may have a window.
use super::llama::*;
use super::mistral::UNBIASED_GLU;
use crate::arch::*;

/// Llama with biases on queries, keys and values.
pub const QWEN2: Arch = Arch {
    classes: &["Qwen2ForCausalLM"],
    layers: Layers { kinds: &[qwen_layer(QWEN2_ATTENTION), windowed(QWEN2_ATTENTION)], schedule: SCHEDULE },
    only: &[SINGLE_DECODER, NO_BIAS],
    ..LLAMA
};
const QWEN2_ATTENTION: Attention = Attention { qkv_bias: Flag::Is(true), out_bias: Flag::Is(false), ..ATTENTION };

/// Llama with an RMS norm on every query head and key head.
pub const QWEN3: Arch = Arch {
    classes: &["Qwen3ForCausalLM"],
    layers: Layers { kinds: &[qwen_layer(QWEN3_ATTENTION), windowed(QWEN3_ATTENTION)], schedule: SCHEDULE },
    ..LLAMA
};
const QWEN3_ATTENTION: Attention = Attention {
    head_dim: QWEN3_HEAD_DIM,
    scale: Div(&Is(1.0), &Sqrt(&QWEN3_HEAD_DIM)),
    qk_norm: QkNorm::PerHead(NORM),
    ..ATTENTION
};
const QWEN3_HEAD_DIM: Num = KeyOr("head_dim", &Is(128.0));

const SCHEDULE: Schedule = Schedule::Named {
    key: "layer_types",
    words: &["full_attention", "sliding_attention"],
    otherwise: &Schedule::Split {
        flag: Flag::Keys(&["use_sliding_window"], false),
        count: KeyOr("max_window_layers", &Is(28.0)),
    },
};
const fn qwen_layer(attention: Attention) -> Layer {
    Layer { mixer: Mixer::Attention(attention), ffn: Ffn::Glu(UNBIASED_GLU), ..LAYER }
}
const fn windowed(attention: Attention) -> Layer {
    qwen_layer(Attention { window: Window::Key("sliding_window", Some(4096)), ..attention })
}
