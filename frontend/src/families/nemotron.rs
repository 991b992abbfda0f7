//! Nemotron: Llama with `1 + weight` layer norms and a plain MLP of squared ReLUs, which rotates half of each head.
use super::llama::*;
use super::stablelm::LAYER_NORM;
use crate::arch::*;

pub const NEMOTRON: Arch = Arch {
    classes: &["NemotronForCausalLM"],
    layers: Layers { kinds: &[NEMOTRON_LAYER], schedule: Schedule::Same },
    final_norm: NEMOTRON_NORM,
    ..LLAMA
};
const NEMOTRON_NORM: Norm = Norm { eps: KeyOr("norm_eps", &Is(1e-5)), gain: Gain::OnePlusWeight, ..LAYER_NORM };
const NEMOTRON_LAYER: Layer = Layer {
    mixer: Mixer::Attention(Attention {
        position: Always(Position::Rope(Rope { part: RopePart::Partial("partial_rotary_factor", 0.5), ..ROPE })),
        ..ATTENTION
    }),
    ffn: Ffn::Plain(Plain { act: ActKey { default: Act::SquaredRelu, ..GLU.act }, ..PLAIN }),
    norm: NEMOTRON_NORM,
    ..LAYER
};
