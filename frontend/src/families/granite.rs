//! Granite: Llama with a factor on embeddings, branches, scores and logits.
use super::llama::*;
use crate::arch::*;

pub const GRANITE: Arch = Arch {
    classes: &["GraniteForCausalLM"],
    embed_scale: EmbedScale::By(KeyOr("embedding_multiplier", &Is(1.0))),
    layers: Layers { kinds: &[GRANITE_LAYER], schedule: Schedule::Same },
    head: Head { divisor: KeyOr("logits_scaling", &Is(1.0)), ..LLAMA.head },
    ..LLAMA
};
const GRANITE_LAYER: Layer = Layer {
    mixer: Mixer::Attention(Attention { scale: KeyOr("attention_multiplier", &Is(1.0)), ..ATTENTION }),
    residual: KeyOr("residual_multiplier", &Is(1.0)),
    ..LAYER
};
