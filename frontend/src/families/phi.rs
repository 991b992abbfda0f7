//! Phi 3 and 4: Llama whose checkpoint holds queries, keys and values in one tensor, and gate and up in another.
use super::llama::*;
use super::mistral::{UNBIASED, UNBIASED_GLU};
use crate::arch::*;

pub const PHI3: Arch = Arch {
    classes: &["Phi3ForCausalLM"],
    padding: Padding::Key(Some(32000)),
    layers: Layers { kinds: &[PHI3_LAYER], schedule: Schedule::Same },
    only: &[SINGLE_DECODER, NO_BIAS],
    ..LLAMA
};
const PHI3_LAYER: Layer = Layer {
    mixer: Mixer::Attention(Attention {
        qkv: Stored::Together("self_attn.qkv_proj"),
        rope: Rope {
            part: RopePart::Partial("partial_rotary_factor", 1.0),
            // Before `longrope` had its name, files called it `su`, some even `yarn`.
            scalings: &[
                ("default", Scaling::Default),
                ("longrope", Scaling::LongRope),
                ("su", Scaling::LongRope),
                ("yarn", Scaling::LongRope),
            ],
            ..ROPE
        },
        window: Window::Key("sliding_window", None),
        ..UNBIASED
    }),
    ffn: Ffn::Glu(Glu { gate_up: Stored::Together("mlp.gate_up_proj"), ..UNBIASED_GLU }),
    norm: Norm { eps: KeyOr("rms_norm_eps", &Is(1e-5)), ..NORM },
    ..LAYER
};
