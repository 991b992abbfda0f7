//! GLM 4: Llama with rotation of neighbours in half of each head, and gate and up in one tensor. The models of 2025 have norms
//! on both sides of every branch.
use super::llama::*;
use super::mistral::UNBIASED_GLU;
use crate::arch::*;

pub const GLM: Arch = Arch {
    classes: &["GlmForCausalLM"],
    layers: Layers { kinds: &[glm_layer(true)], schedule: Schedule::Same },
    final_norm: GLM_NORM,
    ..LLAMA
};

pub const GLM4: Arch = Arch {
    classes: &["Glm4ForCausalLM"],
    layers: Layers {
        kinds: &[Layer { wiring: Always(Wiring::Sandwich), norm: GLM4_NORM, ..glm_layer(false) }],
        schedule: Schedule::Same,
    },
    final_norm: GLM4_NORM,
    ..LLAMA
};

const GLM_NORM: Norm = Norm { eps: KeyOr("rms_norm_eps", &Is(1.5625e-7)), ..NORM };
const GLM4_NORM: Norm = Norm { eps: KeyOr("rms_norm_eps", &Is(1e-5)), ..NORM };
const GLM_HEAD_DIM: Num = KeyOr("head_dim", &Is(128.0));
const GLM_ROPE: Rope =
    Rope { part: RopePart::Partial("partial_rotary_factor", 0.5), pairs: RopePairs::Neighbours, ..ROPE };

/// A layer, and whether queries, keys and values have biases where the config does not say.
const fn glm_layer(bias: bool) -> Layer {
    Layer {
        mixer: Mixer::Attention(Attention {
            head_dim: GLM_HEAD_DIM,
            scale: Div(&Is(1.0), &Sqrt(&GLM_HEAD_DIM)),
            qkv_bias: Flag::Keys(&["attention_bias"], bias),
            out_bias: Flag::Is(false),
            position: Always(Position::Rope(GLM_ROPE)),
            ..ATTENTION
        }),
        ffn: Ffn::Glu(Glu { gate_up: Stored::Together("mlp.gate_up_proj"), ..UNBIASED_GLU }),
        norm: GLM_NORM,
        ..LAYER
    }
}
