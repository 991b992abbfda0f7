//! Llama: pre-norm, rotary grouped-query attention, SwiGLU. Most families are this with a change.
use crate::arch::*;

pub const HEAD_DIM: Num = KeyOr("head_dim", &Div(&Key("hidden_size"), &Key("num_attention_heads")));

pub const ATTENTION: Attention = Attention {
    heads: Key("num_attention_heads"),
    kv_heads: KeyOr("num_key_value_heads", &Key("num_attention_heads")),
    head_dim: HEAD_DIM,
    scale: Div(&Is(1.0), &Sqrt(&HEAD_DIM)),
    softcap: Softcap::No,
    qkv: Stored::Apart,
    qkv_bias: Flag::Keys(&["attention_bias"], false),
    out_bias: Flag::Keys(&["attention_bias"], false),
    qk_norm: Always(QkNorm::No),
    clip: None,
    position: Always(Position::Rope(ROPE)),
    window: Window::All,
};

pub const ROPE: Rope = Rope {
    theta: ("rope_theta", 10_000.0),
    part: RopePart::Whole,
    pairs: RopePairs::Halves,
    layers: RopeLayers::All,
    scalings: &[
        ("default", Scaling::Default),
        ("linear", Scaling::Linear),
        ("dynamic", Scaling::Dynamic),
        ("yarn", Scaling::Yarn),
        ("llama3", Scaling::Llama3),
        ("longrope", Scaling::LongRope),
    ],
};

pub const GLU: Glu = Glu {
    width: Key("intermediate_size"),
    act: ActKey {
        keys: &["hidden_act"],
        words: &[
            ("silu", Act::Silu),
            ("swish", Act::Silu),
            ("gelu", Act::Gelu),
            ("gelu_new", Act::GeluTanh),
            ("gelu_fast", Act::GeluTanh),
            ("gelu_pytorch_tanh", Act::GeluTanh),
            ("relu", Act::Relu),
            ("relu2", Act::SquaredRelu),
        ],
        default: Act::Silu,
    },
    bias: MLP_BIAS,
    gate_up: Stored::Apart,
};

const MLP_BIAS: Flag = Flag::Keys(&["mlp_bias"], false);

/// `down(act(up(x)))` with the settings of [`GLU`].
pub const PLAIN: Plain = Plain { width: GLU.width, act: GLU.act, bias: MLP_BIAS };

pub const NORM: Norm = Norm { kind: NormKind::Rms, eps: KeyOr("rms_norm_eps", &Is(1e-6)), gain: Gain::Weight };

pub const LAYER: Layer = Layer {
    mixer: Mixer::Attention(ATTENTION),
    ffn: Ffn::Glu(GLU),
    wiring: Always(Wiring::Pre),
    norm: NORM,
    residual: Is(1.0),
};

pub const LLAMA: Arch = Arch {
    classes: &["LlamaForCausalLM"],
    vocab: Key("vocab_size"),
    hidden: Key("hidden_size"),
    depth: Key("num_hidden_layers"),
    embed_scale: EmbedScale::No,
    padding: Padding::Key(None),
    layers: Layers { kinds: &[LAYER], schedule: Schedule::Same },
    final_norm: NORM,
    head: Head {
        tied: Flag::Keys(&["tie_word_embeddings"], false),
        bias: Flag::Is(false),
        divisor: Is(1.0),
        softcap: Softcap::No,
    },
    only: &[SINGLE_DECODER],
    ignored: &[],
    paths: Paths {
        embed: "model.embed_tokens",
        layer: "model.layers",
        mixer_norm: "input_layernorm",
        mixer_out_norm: "post_self_attn_layernorm",
        q: "self_attn.q_proj",
        k: "self_attn.k_proj",
        v: "self_attn.v_proj",
        o: "self_attn.o_proj",
        q_a: "self_attn.q_a_proj",
        q_a_norm: "self_attn.q_a_layernorm",
        q_b: "self_attn.q_b_proj",
        kv_a: "self_attn.kv_a_proj_with_mqa",
        kv_a_norm: "self_attn.kv_a_layernorm",
        kv_b: "self_attn.kv_b_proj",
        q_norm: "self_attn.q_norm",
        k_norm: "self_attn.k_norm",
        ffn_norm: "post_attention_layernorm",
        ffn_out_norm: "post_mlp_layernorm",
        gate: "mlp.gate_proj",
        up: "mlp.up_proj",
        down: "mlp.down_proj",
        final_norm: "model.norm",
        head: "lm_head",
        buffers: &["rotary_emb.inv_freq"],
    },
};

/// What no family here supports.
pub const SINGLE_DECODER: &[Only] = &[
    no_dropout("attention_dropout"),
    no_dropout("attn_pdrop"),
    no_dropout("embd_pdrop"),
    no_dropout("embed_dropout"),
    no_dropout("embedding_dropout"),
    no_dropout("hidden_dropout"),
    no_dropout("resid_pdrop"),
    no_dropout("residual_dropout"),
    Only { key: "is_encoder_decoder", values: These(&["false"]), otherwise: "an encoder" },
    Only { key: "per_layer_config", values: These(&["{}"]), otherwise: "settings for single layers" },
    Only { key: "quantization_config", values: These(&[]), otherwise: "quantised weights" },
    Only { key: "rope_interleaved", values: These(&["false"]), otherwise: "rotation of neighbouring elements" },
    Only { key: "use_bidirectional_attention", values: These(&["false"]), otherwise: "attention to later tokens" },
];

const fn no_dropout(key: &'static str) -> Only {
    Only { key, values: These(&["0", "0.0"]), otherwise: "dropout inside the model" }
}

/// For the families whose linear layers never have a bias.
pub const NO_BIAS: &[Only] = &[
    Only { key: "attention_bias", values: These(&["false"]), otherwise: "biases that this family does not have" },
    Only { key: "mlp_bias", values: These(&["false"]), otherwise: "biases that this family does not have" },
];

/// Llama under another name.
pub const AQUILA: Arch = Arch { classes: &["AquilaForCausalLM", "AquilaModel"], ..LLAMA };

/// Llama while it has no experts.
pub const DEEPSEEK: Arch = Arch {
    classes: &["DeepseekForCausalLM"],
    only: &[SINGLE_DECODER, &[Only { key: "n_routed_experts", values: These(&[]), otherwise: "a mixture of experts" }]],
    ..LLAMA
};

/// Llama whose names are those of a GPT.
pub const EXAONE: Arch = Arch {
    classes: &["ExaoneForCausalLM"],
    depth: Key("num_layers"),
    layers: Layers { kinds: &[EXAONE_LAYER], schedule: Schedule::Same },
    final_norm: EXAONE_NORM,
    head: Head { tied: Flag::Keys(&["tie_word_embeddings"], true), ..LLAMA.head },
    paths: Paths {
        embed: "transformer.wte",
        layer: "transformer.h",
        mixer_norm: "ln_1",
        q: "attn.attention.q_proj",
        k: "attn.attention.k_proj",
        v: "attn.attention.v_proj",
        o: "attn.attention.out_proj",
        ffn_norm: "ln_2",
        gate: "mlp.c_fc_0",
        up: "mlp.c_fc_1",
        down: "mlp.c_proj",
        final_norm: "transformer.ln_f",
        ..LLAMA.paths
    },
    ..LLAMA
};
const EXAONE_NORM: Norm = Norm { eps: KeyOr("layer_norm_epsilon", &Is(1e-5)), ..NORM };
const EXAONE_LAYER: Layer = Layer {
    mixer: Mixer::Attention(Attention { qkv_bias: Flag::Is(false), out_bias: Flag::Is(false), ..ATTENTION }),
    ffn: Ffn::Glu(Glu { act: ActKey { keys: &["activation_function"], ..GLU.act }, bias: Flag::Is(false), ..GLU }),
    norm: EXAONE_NORM,
    ..LAYER
};
