//! GPT-J: layer norms, branches side by side behind one norm, rotation of neighbours in the first elements of each head, biases
//! in the MLP and the head.
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

pub const GPT_J: Arch = Arch {
    classes: &["GPTJForCausalLM"],
    hidden: Key("n_embd"),
    depth: Key("n_layer"),
    padding: Padding::No,
    layers: Layers { kinds: &[GPT_J_LAYER], schedule: Schedule::Same },
    final_norm: GPT_J_NORM,
    head: Head { bias: Flag::Is(true), ..LLAMA.head },
    ignored: &["n_positions"],
    paths: Paths {
        embed: "transformer.wte",
        layer: "transformer.h",
        mixer_norm: "ln_1",
        q: "attn.q_proj",
        k: "attn.k_proj",
        v: "attn.v_proj",
        o: "attn.out_proj",
        up: "mlp.fc_in",
        down: "mlp.fc_out",
        final_norm: "transformer.ln_f",
        buffers: &["attn.bias", "attn.masked_bias", "attn.embed_positions"],
        ..LLAMA.paths
    },
    ..LLAMA
};
const GPT_J_NORM: Norm = Norm { eps: KeyOr("layer_norm_epsilon", &Is(1e-5)), ..LAYER_NORM };
const GPT_J_HEAD_DIM: Num = Div(&Key("n_embd"), &Key("n_head"));
const GPT_J_LAYER: Layer = Layer {
    mixer: Mixer::Attention(Attention {
        heads: Key("n_head"),
        kv_heads: Key("n_head"),
        head_dim: GPT_J_HEAD_DIM,
        scale: Div(&Is(1.0), &Sqrt(&GPT_J_HEAD_DIM)),
        qkv_bias: Flag::Is(false),
        out_bias: Flag::Is(false),
        position: Always(Position::Rope(Rope {
            part: RopePart::Elements(KeyOr("rotary_dim", &Is(64.0))),
            pairs: RopePairs::Neighbours,
            ..ROPE
        })),
        ..ATTENTION
    }),
    ffn: Ffn::Plain(Plain {
        // Where there is no width it is four times the stream's.
        width: KeyOr("n_inner", &Div(&Key("n_embd"), &Is(0.25))),
        act: ActKey { keys: &["activation_function"], default: Act::GeluTanh, ..GLU.act },
        bias: Flag::Is(true),
    }),
    wiring: Always(Wiring::Parallel),
    norm: GPT_J_NORM,
    ..LAYER
};
