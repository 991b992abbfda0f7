//! GPT-NeoX: layer norms, branches side by side, biases everywhere, queries, keys and values in one tensor head by head.
use super::llama::*;
use super::stablelm::LAYER_NORM;
use crate::arch::*;

pub const GPT_NEOX: Arch = Arch {
    classes: &["GPTNeoXForCausalLM"],
    padding: Padding::No,
    layers: Layers { kinds: &[GPT_NEOX_LAYER], schedule: Schedule::Same },
    final_norm: LAYER_NORM,
    ignored: &["classifier_dropout"],
    paths: Paths {
        embed: "gpt_neox.embed_in",
        layer: "gpt_neox.layers",
        o: "attention.dense",
        up: "mlp.dense_h_to_4h",
        down: "mlp.dense_4h_to_h",
        final_norm: "gpt_neox.final_layer_norm",
        head: "embed_out",
        buffers: &["attention.bias", "attention.masked_bias", "rotary_emb.inv_freq"],
        ..LLAMA.paths
    },
    ..LLAMA
};
const GPT_NEOX_BIAS: Flag = Flag::Keys(&["attention_bias"], true);
const GPT_NEOX_LAYER: Layer = Layer {
    mixer: Mixer::Attention(Attention {
        kv_heads: Key("num_attention_heads"),
        qkv: Stored::ByHead("attention.query_key_value"),
        qkv_bias: GPT_NEOX_BIAS,
        out_bias: GPT_NEOX_BIAS,
        position: Always(Position::Rope(Rope {
            theta: ("rotary_emb_base", 10_000.0),
            part: RopePart::Partial("rotary_pct", 0.25),
            ..ROPE
        })),
        ..ATTENTION
    }),
    ffn: Ffn::Plain(Plain { act: ActKey { default: Act::Gelu, ..GLU.act }, bias: Flag::Is(true), ..PLAIN }),
    wiring: If(Flag::Keys(&["use_parallel_residual"], true), Wiring::ParallelApart, Wiring::Pre),
    norm: LAYER_NORM,
    ..LAYER
};
