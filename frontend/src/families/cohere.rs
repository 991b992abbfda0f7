//! Cohere: branches side by side behind one layer norm without bias, rotation of neighbours, a factor on logits. Cohere 2 has
//! windows on most layers, and no positions on the others.
use super::llama::*;
use super::mistral::UNBIASED_GLU;
use super::stablelm::LAYER_NORM;
use crate::arch::*;

pub const COHERE: Arch = Arch {
    classes: &["CohereForCausalLM"],
    padding: Padding::Key(Some(0)),
    layers: Layers { kinds: &[cohere_layer(COHERE_ATTENTION)], schedule: Schedule::Same },
    final_norm: COHERE_NORM,
    head: Head {
        tied: Flag::Keys(&["tie_word_embeddings"], true),
        divisor: Div(&Is(1.0), &KeyOr("logit_scale", &Is(0.0625))),
        ..LLAMA.head
    },
    ..LLAMA
};
const COHERE_NORM: Norm = Norm { kind: NormKind::Layer { bias: false }, ..LAYER_NORM };
const COHERE_ROPE: Rope = Rope { theta: ("rope_theta", 500_000.0), pairs: RopePairs::Neighbours, ..ROPE };
const COHERE_ATTENTION: Attention = Attention {
    qk_norm: If(Flag::Keys(&["use_qk_norm"], false), QkNorm::ByHead(COHERE_NORM), QkNorm::No),
    position: Always(Position::Rope(COHERE_ROPE)),
    ..ATTENTION
};
const NO_QK_NORM: &[Only] =
    &[Only { key: "use_qk_norm", values: These(&["false"]), otherwise: "a norm with a weight for each head" }];

pub const COHERE2: Arch = Arch {
    classes: &["Cohere2ForCausalLM"],
    layers: Layers {
        kinds: &[
            cohere_layer(Attention { window: Window::Key("sliding_window", Some(4096)), ..COHERE2_ATTENTION }),
            cohere_layer(Attention { position: Always(Position::No), ..COHERE_ATTENTION }),
        ],
        schedule: Schedule::Named {
            key: "layer_types",
            words: &["sliding_attention", "full_attention"],
            otherwise: &Schedule::LastOf(KeyOr("sliding_window_pattern", &Is(4.0))),
        },
    },
    only: &[SINGLE_DECODER, NO_QK_NORM],
    ignored: &[
        "layer_switch",
        "order_of_interleaved_layers",
        "position_embedding_type",
        "rotary_pct",
        "sliding_window_pattern",
        "use_gated_activation",
        "use_parallel_block",
        "use_parallel_embedding",
    ],
    ..COHERE
};
const COHERE2_ATTENTION: Attention = Attention {
    position: Always(Position::Rope(Rope { theta: ("rope_theta", 10_000.0), ..COHERE_ROPE })),
    ..COHERE_ATTENTION
};

const fn cohere_layer(attention: Attention) -> Layer {
    Layer {
        mixer: Mixer::Attention(attention),
        ffn: Ffn::Glu(UNBIASED_GLU),
        wiring: Always(Wiring::Parallel),
        norm: COHERE_NORM,
        ..LAYER
    }
}
