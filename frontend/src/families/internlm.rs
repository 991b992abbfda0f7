//! InternLM: Llama with other switches of biases; the second one has other names too.
use super::llama::*;
use crate::arch::*;

/// Llama with as many key heads as heads, and biases in attention alone.
pub const INTERNLM: Arch = Arch {
    classes: &["InternLMForCausalLM"],
    padding: Padding::Key(Some(2)),
    layers: Layers { kinds: &[INTERNLM_LAYER], schedule: Schedule::Same },
    ..LLAMA
};
const INTERNLM_BIAS: Flag = Flag::Keys(&["bias"], true);
const INTERNLM_LAYER: Layer = Layer {
    mixer: Mixer::Attention(Attention {
        kv_heads: Key("num_attention_heads"),
        qkv_bias: INTERNLM_BIAS,
        out_bias: INTERNLM_BIAS,
        ..ATTENTION
    }),
    ffn: Ffn::Glu(Glu { bias: Flag::Is(false), ..GLU }),
    ..LAYER
};

/// Llama whose checkpoint holds queries, keys and values in one tensor, key head by key head, under names of its own.
pub const INTERNLM2: Arch = Arch {
    classes: &["InternLM2ForCausalLM"],
    padding: Padding::Key(Some(2)),
    layers: Layers { kinds: &[INTERNLM2_LAYER], schedule: Schedule::Same },
    paths: Paths {
        embed: "model.tok_embeddings",
        mixer_norm: "attention_norm",
        o: "attention.wo",
        ffn_norm: "ffn_norm",
        gate: "feed_forward.w1",
        up: "feed_forward.w3",
        down: "feed_forward.w2",
        head: "output",
        ..LLAMA.paths
    },
    ..LLAMA
};
const INTERNLM2_LAYER: Layer = Layer {
    mixer: Mixer::Attention(Attention {
        qkv: Stored::ByHead("attention.wqkv"),
        qkv_bias: INTERNLM_BIAS,
        out_bias: INTERNLM_BIAS,
        ..ATTENTION
    }),
    ffn: Ffn::Glu(Glu { bias: Flag::Is(false), ..GLU }),
    ..LAYER
};

/// Llama whose bias switches have other names (transformers 5 writes Llama's).
pub const INTERNLM3: Arch = Arch {
    classes: &["InternLM3ForCausalLM"],
    padding: Padding::Key(Some(2)),
    layers: Layers { kinds: &[INTERNLM3_LAYER], schedule: Schedule::Same },
    ..LLAMA
};
const INTERNLM3_HEAD_DIM: Num = KeyOr("head_dim", &Is(128.0));
const INTERNLM3_LAYER: Layer = Layer {
    mixer: Mixer::Attention(Attention {
        head_dim: INTERNLM3_HEAD_DIM,
        scale: Div(&Is(1.0), &Sqrt(&INTERNLM3_HEAD_DIM)),
        qkv_bias: Flag::Keys(&["qkv_bias", "attention_bias"], false),
        out_bias: Flag::Keys(&["bias", "attention_bias"], false),
        ..ATTENTION
    }),
    ffn: Ffn::Glu(Glu { bias: Flag::Keys(&["bias", "mlp_bias"], false), ..GLU }),
    ..LAYER
};
