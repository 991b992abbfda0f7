//! MiniCPM: Llama with a factor on embeddings, one on branches that falls with the depth, and one on logits that falls with the
//! width.
use super::llama::*;
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
pub const BRANCH_SCALE: Num = Div(&KeyOr("scale_depth", &Is(1.0)), &Sqrt(&Key("num_hidden_layers")));
