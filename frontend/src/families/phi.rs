//! Phi 1 and 2: layer norms, branches side by side behind one norm, biases everywhere, the head too.
//! Phi 3 and 4: Llama whose checkpoint holds queries, keys and values in one tensor, and gate and up in another.
use super::llama::*;
use super::mistral::{UNBIASED, UNBIASED_GLU};
use super::stablelm::LAYER_NORM;
use crate::arch::*;

pub const PHI: Arch = Arch {
    classes: &["PhiForCausalLM"],
    layers: Layers { kinds: &[PHI_LAYER], schedule: Schedule::Same },
    final_norm: LAYER_NORM,
    head: Head { bias: Flag::Is(true), ..LLAMA.head },
    paths: Paths {
        o: "self_attn.dense",
        q_norm: "self_attn.q_layernorm",
        k_norm: "self_attn.k_layernorm",
        up: "mlp.fc1",
        down: "mlp.fc2",
        final_norm: "model.final_layernorm",
        ..LLAMA.paths
    },
    ..LLAMA
};
const PHI_LAYER: Layer = Layer {
    mixer: Mixer::Attention(Attention {
        qkv_bias: Flag::Is(true),
        out_bias: Flag::Is(true),
        qk_norm: If(Flag::Keys(&["qk_layernorm"], false), QkNorm::PerHead(LAYER_NORM), QkNorm::No),
        position: Always(Position::Rope(Rope { part: RopePart::Partial("partial_rotary_factor", 0.5), ..ROPE })),
        ..ATTENTION
    }),
    ffn: Ffn::Plain(Plain { act: ActKey { default: Act::GeluTanh, ..GLU.act }, bias: Flag::Is(true), ..PLAIN }),
    wiring: Always(Wiring::Parallel),
    norm: LAYER_NORM,
    ..LAYER
};

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
        position: Always(Position::Rope(Rope {
            part: RopePart::Partial("partial_rotary_factor", 1.0),
            // Before `longrope` had its name, files called it `su`, some even `yarn`.
            scalings: &[
                ("default", Scaling::Default),
                ("longrope", Scaling::LongRope),
                ("su", Scaling::LongRope),
                ("yarn", Scaling::LongRope),
            ],
            ..ROPE
        })),
        window: Window::Key("sliding_window", None),
        ..UNBIASED
    }),
    ffn: Ffn::Glu(Glu { gate_up: Stored::Together("mlp.gate_up_proj"), ..UNBIASED_GLU }),
    norm: Norm { eps: KeyOr("rms_norm_eps", &Is(1e-5)), ..NORM },
    ..LAYER
};
