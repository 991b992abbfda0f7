//! Mixtral: Mistral with experts.
use super::llama::*;
use super::mistral::{UNBIASED, UNBIASED_GLU};
use crate::arch::*;

pub const MIXTRAL: Arch = Arch {
    classes: &["MixtralForCausalLM"],
    layers: Layers { kinds: &[MIXTRAL_LAYER], schedule: Schedule::Same },
    final_norm: MIXTRAL_NORM,
    only: &[SINGLE_DECODER, NO_BIAS, NO_ROUTER_LOSS],
    ..LLAMA
};
const MIXTRAL_NORM: Norm = Norm { eps: KeyOr("rms_norm_eps", &Is(1e-5)), ..NORM };
const MIXTRAL_LAYER: Layer = Layer {
    mixer: Mixer::Attention(Attention { window: Window::Key("sliding_window", None), ..UNBIASED }),
    ffn: Ffn::Experts(&MIXTRAL_EXPERTS),
    norm: MIXTRAL_NORM,
    ..LAYER
};

const MIXTRAL_EXPERTS: Experts = Experts {
    count: KeyOr("num_local_experts", &Is(8.0)),
    chosen: KeyOr("num_experts_per_tok", &Is(2.0)),
    normalize: Flag::Is(true),
    glu: UNBIASED_GLU,
    paths: ExpertPaths {
        router: "block_sparse_moe.gate",
        experts: "block_sparse_moe.experts",
        gate: "w1",
        up: "w3",
        down: "w2",
    },
    shared: None,
};

/// Without the auxiliary loss, its coefficient means nothing.
pub const NO_ROUTER_LOSS: &[Only] = &[
    Only { key: "output_router_logits", values: These(&["false"]), otherwise: "the router's auxiliary loss" },
    Only { key: "router_jitter_noise", values: These(&["0.0", "0"]), otherwise: "noise in front of the router" },
];
