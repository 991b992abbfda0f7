//! StarCoder 2: layer norms and a plain MLP around Llama's attention, biases everywhere, a window on every layer.
use super::llama::*;
use super::stablelm::LAYER_NORM;
use crate::arch::*;

pub const STARCODER2: Arch = Arch {
    classes: &["Starcoder2ForCausalLM"],
    layers: Layers { kinds: &[STARCODER2_LAYER], schedule: Schedule::Same },
    final_norm: STARCODER2_NORM,
    head: Head { tied: Flag::Keys(&["tie_word_embeddings"], true), ..LLAMA.head },
    only: &[SINGLE_DECODER, ONE_KIND],
    ignored: &["layer_norm_epsilon"],
    paths: Paths { up: "mlp.c_fc", down: "mlp.c_proj", ..LLAMA.paths },
    ..LLAMA
};
const BIAS: Flag = Flag::Keys(&["use_bias"], true);
const STARCODER2_NORM: Norm = Norm { eps: KeyOr("norm_epsilon", &Is(1e-5)), ..LAYER_NORM };
const STARCODER2_LAYER: Layer = Layer {
    mixer: Mixer::Attention(Attention {
        qkv_bias: BIAS,
        out_bias: BIAS,
        window: Window::Key("sliding_window", None),
        ..ATTENTION
    }),
    ffn: Ffn::Plain(Plain { act: ActKey { default: Act::GeluTanh, ..GLU.act }, bias: BIAS, ..PLAIN }),
    norm: STARCODER2_NORM,
    ..LAYER
};
/// Words of the files that the reference does not read.
const ONE_KIND: &[Only] = &[
    Only { key: "norm_type", values: These(&["\"layer_norm\""]), otherwise: "another norm" },
    Only { key: "mlp_type", values: These(&["\"default\""]), otherwise: "another MLP" },
];
