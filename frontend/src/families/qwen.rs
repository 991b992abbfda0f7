//! Qwen 2 and 3: some layers may have a window, or experts.
use super::llama::*;
use super::mistral::UNBIASED_GLU;
use super::mixtral::NO_ROUTER_LOSS;
use crate::arch::*;

/// Llama with biases on queries, keys and values.
pub const QWEN2: Arch = Arch {
    classes: &["Qwen2ForCausalLM"],
    layers: Layers { kinds: &[qwen_layer(QWEN2_ATTENTION), windowed(QWEN2_ATTENTION)], schedule: SCHEDULE },
    only: &[SINGLE_DECODER, NO_BIAS],
    ..LLAMA
};
const QWEN2_ATTENTION: Attention = Attention { qkv_bias: Flag::Is(true), out_bias: Flag::Is(false), ..ATTENTION };

/// Llama with an RMS norm on every query head and key head.
pub const QWEN3: Arch = Arch {
    classes: &["Qwen3ForCausalLM"],
    layers: Layers { kinds: &[qwen_layer(QWEN3_ATTENTION), windowed(QWEN3_ATTENTION)], schedule: SCHEDULE },
    ..LLAMA
};
const QWEN3_ATTENTION: Attention = Attention {
    head_dim: QWEN3_HEAD_DIM,
    scale: Div(&Is(1.0), &Sqrt(&QWEN3_HEAD_DIM)),
    qk_norm: Always(QkNorm::PerHead(NORM)),
    ..ATTENTION
};
const QWEN3_HEAD_DIM: Num = KeyOr("head_dim", &Is(128.0));

const SCHEDULE: Schedule = Schedule::Named {
    key: "layer_types",
    words: &["full_attention", "sliding_attention"],
    otherwise: &Schedule::Split {
        flag: Flag::Keys(&["use_sliding_window"], false),
        count: KeyOr("max_window_layers", &Is(28.0)),
    },
};

/// Qwen 2 whose layers have experts, one of all tokens among them; some layers may have none.
pub const QWEN2_MOE: Arch = Arch {
    classes: &["Qwen2MoeForCausalLM"],
    layers: Layers { kinds: &sparse(QWEN2_MOE_ATTENTION, &QWEN2_EXPERTS), schedule: SPARSE },
    only: &[SINGLE_DECODER, NO_BIAS, NO_ROUTER_LOSS, NO_WINDOWS],
    ..LLAMA
};
const QWEN2_MOE_ATTENTION: Attention = Attention { qkv_bias: Flag::Keys(&["qkv_bias"], true), ..QWEN2_ATTENTION };
const QWEN2_EXPERTS: Experts = Experts {
    shared: Some(SharedExpert {
        glu: Glu { width: Key("shared_expert_intermediate_size"), ..UNBIASED_GLU },
        path: "mlp.shared_expert",
        gate: "mlp.shared_expert_gate",
    }),
    ..QWEN_EXPERTS
};

/// Qwen 3 with experts.
pub const QWEN3_MOE: Arch = Arch {
    classes: &["Qwen3MoeForCausalLM"],
    layers: Layers { kinds: &sparse(QWEN3_MOE_ATTENTION, &QWEN_EXPERTS), schedule: SPARSE },
    only: &[SINGLE_DECODER, NO_ROUTER_LOSS, NO_WINDOWS],
    ..LLAMA
};
const QWEN3_MOE_ATTENTION: Attention = Attention { qk_norm: Always(QkNorm::PerHead(NORM)), ..ATTENTION };

pub const QWEN_EXPERTS: Experts = Experts {
    count: KeyOr("num_experts", &Key("num_local_experts")),
    chosen: Key("num_experts_per_tok"),
    normalize: Flag::Keys(&["norm_topk_prob"], false),
    glu: Glu { width: Key("moe_intermediate_size"), ..UNBIASED_GLU },
    paths: ExpertPaths {
        router: "mlp.gate",
        experts: "mlp.experts",
        gate: "gate_proj",
        up: "up_proj",
        down: "down_proj",
    },
    shared: None,
};
const SPARSE: Schedule = Schedule::Crossed {
    columns: 2,
    i: &Schedule::Every { step: KeyOr("decoder_sparse_step", &Is(1.0)), dense: "mlp_only_layers" },
    j: &SCHEDULE,
};
/// Which layers have a window where this is set differs between releases of transformers, and no published model sets it.
const NO_WINDOWS: &[Only] = &[Only {
    key: "use_sliding_window",
    values: These(&["false"]),
    otherwise: "windows on some layers of a model with experts",
}];
/// With experts and without, then the same with a window.
const fn sparse(attention: Attention, experts: &'static Experts) -> [Layer; 4] {
    let (all, some) = (qwen_layer(attention), windowed(attention));
    let ffn = Ffn::Experts(experts);
    [Layer { ffn, ..all }, all, Layer { ffn, ..some }, some]
}

const fn qwen_layer(attention: Attention) -> Layer {
    Layer { mixer: Mixer::Attention(attention), ffn: Ffn::Glu(UNBIASED_GLU), ..LAYER }
}
const fn windowed(attention: Attention) -> Layer {
    qwen_layer(Attention { window: Window::Key("sliding_window", Some(4096)), ..attention })
}
