//! Baichuan: Llama whose checkpoint holds queries, keys and values in one tensor. Those of 13 billion parameters have ALiBi in
//! the place of rotations, and no number of positions in their config.
use super::llama::*;
use super::mistral::{UNBIASED, UNBIASED_GLU};
use crate::arch::*;

pub const BAICHUAN: Arch = Arch {
    classes: &["BaichuanForCausalLM", "BaiChuanForCausalLM"],
    padding: Padding::Key(Some(0)),
    layers: Layers { kinds: &[BAICHUAN_LAYER], schedule: Schedule::Same },
    only: &[SINGLE_DECODER, FIRST_GENERATION],
    ..LLAMA
};
const BAICHUAN_LAYER: Layer = Layer {
    mixer: Mixer::Attention(Attention {
        kv_heads: Key("num_attention_heads"),
        qkv: Stored::Together("self_attn.W_pack"),
        position: If(Flag::Has("max_position_embeddings"), Position::Rope(ROPE), Position::Alibi),
        ..UNBIASED
    }),
    ffn: Ffn::Glu(UNBIASED_GLU),
    ..LAYER
};
const NORMED_HEAD: &str = "a head whose rows are divided by their lengths (Baichuan 2)";
/// The second generation is known by its vocabulary.
const FIRST_GENERATION: &[Only] = &[
    Only { key: "vocab_size", values: AllBut(&["125696"]), otherwise: NORMED_HEAD },
    Only { key: "z_loss_weight", values: These(&[]), otherwise: NORMED_HEAD },
];
