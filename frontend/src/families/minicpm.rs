//! MiniCPM: Llama with a factor on embeddings, one on branches that falls with the depth, and one on logits that falls with the
//! width. MiniCPM 3 has latent attention.
use super::llama::*;
use super::mistral::UNBIASED_GLU;
use crate::arch::*;

pub const MINICPM: Arch = Arch {
    classes: &["MiniCPMForCausalLM"],
    embed_scale: EmbedScale::By(KeyOr("scale_emb", &Is(1.0))),
    layers: Layers { kinds: &[Layer { residual: BRANCH_SCALE, ..LAYER }], schedule: Schedule::Same },
    head: Head {
        tied: Flag::Keys(&["tie_word_embeddings"], true),
        divisor: Div(&Key("hidden_size"), &KeyOr("dim_model_base", &Is(1.0))),
        ..LLAMA.head
    },
    ..LLAMA
};
const BRANCH_SCALE: Num = Div(&KeyOr("scale_depth", &Is(1.0)), &Sqrt(&Key("num_hidden_layers")));

pub const MINICPM3: Arch = Arch {
    classes: &["MiniCPM3ForCausalLM"],
    layers: Layers { kinds: &[MINICPM3_LAYER], schedule: Schedule::Same },
    only: &[SINGLE_DECODER, NO_BIAS],
    // Sizes that follow from others.
    ignored: &["head_dim", "num_key_value_heads", "qk_head_dim"],
    ..MINICPM
};
const MINICPM3_LAYER: Layer = Layer {
    mixer: Mixer::Latent(Latent {
        heads: Key("num_attention_heads"),
        q_rank: Key("q_lora_rank"),
        kv_rank: Key("kv_lora_rank"),
        plain_dim: Key("qk_nope_head_dim"),
        rotated_dim: Key("qk_rope_head_dim"),
        value_dim: KeyOr("v_head_dim", &Div(&Key("hidden_size"), &Key("num_attention_heads"))),
        norm: Norm { eps: Is(1e-6), ..NORM },
        rope: ROPE,
    }),
    ffn: Ffn::Glu(UNBIASED_GLU),
    residual: BRANCH_SCALE,
    ..LAYER
};
