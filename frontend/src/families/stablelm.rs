//! StableLM and Orion: Llama with layer norms; StableLM rotates a part of each head, and may have its branches side by side.
use super::llama::*;
use super::mistral::{UNBIASED, UNBIASED_GLU};
use crate::arch::*;

/// A layer norm with weight and bias.
pub const LAYER_NORM: Norm =
    Norm { kind: NormKind::Layer { bias: true }, eps: KeyOr("layer_norm_eps", &Is(1e-5)), gain: Gain::Weight };

pub const STABLELM: Arch = Arch {
    classes: &["StableLmForCausalLM"],
    layers: Layers { kinds: &[STABLELM_LAYER], schedule: Schedule::Same },
    final_norm: LAYER_NORM,
    only: &[
        SINGLE_DECODER,
        &[Only { key: "qk_layernorm", values: These(&["false"]), otherwise: "a norm with a tensor for each head" }],
    ],
    ..LLAMA
};
const STABLELM_LAYER: Layer = Layer {
    mixer: Mixer::Attention(Attention {
        qkv_bias: Flag::Keys(&["use_qkv_bias"], false),
        position: Always(Position::Rope(Rope { part: RopePart::Partial("partial_rotary_factor", 0.25), ..ROPE })),
        ..UNBIASED
    }),
    ffn: Ffn::Glu(UNBIASED_GLU),
    wiring: If(Flag::Keys(&["use_parallel_residual"], false), Wiring::Parallel, Wiring::Pre),
    norm: LAYER_NORM,
    ..LAYER
};

pub const ORION: Arch = Arch {
    classes: &["OrionForCausalLM"],
    layers: Layers { kinds: &[Layer { norm: ORION_NORM, ..LAYER }], schedule: Schedule::Same },
    final_norm: ORION_NORM,
    ignored: &["max_sequence_length"],
    ..LLAMA
};
const ORION_NORM: Norm = Norm { eps: KeyOr("rms_norm_eps", &Is(1e-5)), ..LAYER_NORM };
