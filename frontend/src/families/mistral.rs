//! Mistral: Llama with a window on every layer and no biases. GritLM trains as one.
use super::llama::*;
use crate::arch::*;

pub const MISTRAL: Arch = Arch {
    classes: &["MistralForCausalLM", "GritLM"],
    layers: Layers { kinds: &[WINDOWED], schedule: Schedule::Same },
    only: &[SINGLE_DECODER, NO_BIAS],
    ..LLAMA
};
const WINDOWED: Layer = Layer {
    mixer: Mixer::Attention(Attention { window: Window::Key("sliding_window", Some(4096)), ..UNBIASED }),
    ffn: Ffn::Glu(UNBIASED_GLU),
    ..LAYER
};
pub const UNBIASED: Attention = Attention { qkv_bias: Flag::Is(false), out_bias: Flag::Is(false), ..ATTENTION };
pub const UNBIASED_GLU: Glu = Glu { bias: Flag::Is(false), ..GLU };
