//! Every family against real checkpoint headers: `tests/oracle` has a tiny model of each, made by the reference
//! implementations.
use amc_frontend::checkpoint;
use amc_frontend::config::Config;
use amc_frontend::model::Model;
use amc_frontend::names::Names;
use amc_frontend::safetensors::{SafetensorsFile, Weights};
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/oracle")
}

fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|case| case.join("config.json").exists());
    cases.sort();
    assert!(cases.len() >= 20, "found {} cases", cases.len());
    cases
}

fn model(case: &Path, file: &str) -> Model {
    let config = Config::load(&case.join(file)).unwrap();
    let model = Model::read(&config).unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(config.unread(), Vec::<String>::new(), "{} {file}", case.display());
    model
}

#[test]
fn parameters_are_the_tensors_of_the_checkpoint() {
    for case in cases() {
        let model = model(&case, "config.json");
        let weights = Weights::open(&case).unwrap();
        let stored = checkpoint::check(&weights, &model).unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(stored.len(), Names::new(&model).tensors().len());
    }
}

#[test]
fn both_forms_of_a_config_give_the_same_model() {
    let mut compared = 0;
    for case in cases().iter().filter(|case| case.join("config_v5.json").exists()) {
        assert_eq!(model(case, "config.json"), model(case, "config_v5.json"), "{}", case.display());
        compared += 1;
    }
    assert!(compared >= 19, "compared {compared}");
}

/// The adapters name the linear modules that PEFT found, and those of experts; ours must be the same but for the head.
#[test]
fn linear_modules_are_those_that_peft_finds() {
    for case in cases() {
        let open = |folder: &str| SafetensorsFile::open(&case.join(folder).join("adapter_model.safetensors"));
        let (adapter, experts) = (open("adapter").unwrap(), open("adapter_experts").ok());
        let mut wanted = Vec::new();
        let model = model(&case, "config.json");
        for module in Names::new(&model).modules().iter().filter(|m| m.name != model.paths.head) {
            let name = |matrix: &str| format!("base_model.model.{}.lora_{matrix}.weight", module.name);
            let tensor = |name: String| {
                adapter.tensor(&name).or_else(|error| experts.as_ref().map_or(Err(error), |file| file.tensor(&name)))
            };
            let (a, b) = (tensor(name("A")).unwrap(), tensor(name("B")).unwrap());
            assert_eq!((a.shape[1], b.shape[0]), (module.inputs as u64, module.outputs as u64), "{}", module.name);
            wanted.extend([name("A"), name("B")]);
        }
        wanted.sort();
        let files = [Some(&adapter), experts.as_ref()].into_iter().flatten();
        let mut found: Vec<String> = files.flat_map(|file| file.tensors().keys().cloned()).collect();
        found.sort();
        found.dedup();
        assert_eq!(found, wanted, "{}", case.display());
    }
}

#[test]
fn fused_tensors_are_seen_as_row_blocks() {
    let names = Names::new(&model(&folder().join("phi3"), "config.json"));
    let views: Vec<String> = names.layers[1]
        .linears()
        .map(|l| format!("{} {}+{} of {}", l.weight().tensor, l.start, l.outputs, l.module_outputs))
        .collect();
    let at = |name: &str, rows: &str| format!("model.layers.1.{name}.weight {rows}");
    assert_eq!(
        views,
        [
            at("self_attn.qkv_proj", "0+64 of 128"),
            at("self_attn.qkv_proj", "64+32 of 128"),
            at("self_attn.qkv_proj", "96+32 of 128"),
            at("self_attn.o_proj", "0+64 of 64"),
            at("mlp.gate_up_proj", "0+96 of 192"),
            at("mlp.gate_up_proj", "96+96 of 192"),
            at("mlp.down_proj", "0+64 of 64"),
        ]
    );
    let modules: Vec<String> = names.modules().into_iter().map(|module| module.name).collect();
    assert_eq!(modules.iter().filter(|name| name.ends_with("qkv_proj")).count(), 2, "one module a layer");
    let k = names.layers[1].linears().nth(1).unwrap();
    assert_eq!(k.lora_b().tensor, "base_model.model.model.layers.1.self_attn.qkv_proj.lora_B.weight");
    assert_eq!((k.lora_b().start, k.lora_b().rows), (64, 32));
}

#[test]
fn layers_of_one_kind_are_one_kind() {
    let windows = |case: &str| -> (Vec<Option<usize>>, Vec<usize>) {
        let model = model(&folder().join(case), "config.json");
        let window = |kind: &amc_frontend::model::Layer| {
            let amc_frontend::model::Mixer::Attention(attention) = &kind.mixer else { panic!("no plain attention") };
            attention.window
        };
        (model.kinds.iter().map(window).collect(), model.layers)
    };
    assert_eq!(windows("qwen2"), (vec![None], vec![0, 0]));
    assert_eq!(windows("qwen2__sw_yarn"), (vec![None, Some(8)], vec![0, 1, 1]));
    assert_eq!(windows("mistral"), (vec![Some(8)], vec![0, 0]));
}

#[test]
fn config_mistakes_are_named() {
    let base = std::fs::read_to_string(folder().join("llama/config.json")).unwrap();
    let say = |key: &str, value: serde_json::Value| {
        let mut config = Config::parse(&base, "config.json").unwrap();
        config.replace(key, value);
        format!("{:#}", Model::read(&config).unwrap_err())
    };
    use serde_json::json;
    let cases = [
        (
            "architectures",
            json!(["LamaForCausalLM"]),
            "no architecture is called `LamaForCausalLM`; the nearest is `LlamaForCausalLM`; known are ",
        ),
        ("architectures", json!([]), "is missing; wanted a list with the class of the model"),
        ("hidden_size", json!(null), "`hidden_size` (set by the recipe) is missing; wanted a number"),
        ("hidden_size", json!("64"), "`hidden_size` (set by the recipe) is \"64\"; wanted a number"),
        ("hidden_size", json!(62), "`hidden_size` / `num_attention_heads` is 15.5; wanted a whole number"),
        ("num_hidden_layers", json!(1u64 << 30), "at most 16384 layers are believed"),
        ("num_attention_heads", json!(0), "wanted a whole number from 1"),
        ("num_key_value_heads", json!(3), "is 3, which does not divide the 4 heads"),
        ("hidden_act", json!("mish"), "is \"mish\"; this family knows silu, swish, gelu"),
        ("hidden_size", json!(1u64 << 31), "parameters is not believed"),
        ("rms_norm_eps", json!(-1.0), "is -1; wanted more than 0"),
        ("pad_token_id", json!(128), "is 128; the vocabulary has 128 tokens"),
        ("attention_dropout", json!(0.1), "which asks for dropout inside the model: that is not supported"),
        ("quantization_config", json!({"bits": 4}), "which asks for quantised weights"),
        (
            "rope_scaling",
            json!({"type": "linear"}),
            "`rope_scaling.factor` (set by the recipe) is missing; wanted a number, because",
        ),
        ("rope_scaling", json!({"type": "magic"}), "is \"magic\"; this family knows default, linear"),
        ("rope_scaling", json!([1]), "is [1]; wanted an object"),
        (
            "rope_scaling",
            json!({"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}),
            "has 1 numbers; wanted 8",
        ),
        ("tie_word_embeddings", json!("yes"), "is \"yes\"; wanted true or false"),
    ];
    for (key, value, wanted) in cases {
        let error = say(key, value);
        assert!(error.contains(wanted) && error.starts_with("config.json: "), "wanted {wanted:?} in {error:?}");
    }
}

/// Nothing in a config of Baichuan's says that the head is of the second kind but its size.
#[test]
fn the_second_baichuan_is_refused() {
    let mut config = Config::load(&folder().join("baichuan__1_13b/config.json")).unwrap();
    assert!(Model::read(&config).unwrap().kinds[0].mixer.rope().is_none());
    config.replace("vocab_size", serde_json::json!(125_696));
    let error = format!("{:#}", Model::read(&config).unwrap_err());
    let wanted = "is 125696; wanted another value, which asks for a head whose rows are divided by their lengths";
    assert!(error.contains(wanted), "{error}");
}

#[test]
fn heads_that_cannot_be_rotated_in_pairs_are_named() {
    let cases = [
        ("minicpm3", "qk_rope_head_dim", "`qk_rope_head_dim` (set by the recipe) is 15; wanted an even number"),
        (
            "qwen3",
            "head_dim",
            "config.json: 15 of a head's 15 elements cannot be rotated in pairs, wanted an even number of them",
        ),
        ("gptj", "rotary_dim", "`rotary_dim` (set by the recipe) is 15: 15 of a head's 16 elements cannot"),
    ];
    for (family, key, wanted) in cases {
        let mut config = Config::load(&folder().join(family).join("config.json")).unwrap();
        config.replace(key, serde_json::json!(15));
        let error = format!("{:#}", Model::read(&config).unwrap_err());
        assert!(error.contains(wanted), "wanted {wanted:?} in {error:?}");
    }
}

#[test]
fn mistakes_about_experts_are_named() {
    let base = std::fs::read_to_string(folder().join("mixtral/config.json")).unwrap();
    use serde_json::json;
    let cases = [
        ("num_experts_per_tok", json!(5), "`num_experts_per_tok` (set by the recipe) is 5; there are 4 experts"),
        ("num_local_experts", json!(1000), "is 1000; at most 512 experts are supported"),
        ("output_router_logits", json!(true), "which asks for the router's auxiliary loss: that is not supported"),
        ("router_jitter_noise", json!(0.1), "which asks for noise in front of the router"),
    ];
    for (key, value, wanted) in cases {
        let mut config = Config::parse(&base, "config.json").unwrap();
        config.replace(key, value);
        let error = format!("{:#}", Model::read(&config).unwrap_err());
        assert!(error.contains(wanted), "wanted {wanted:?} in {error:?}");
    }
}

#[test]
fn a_checkpoint_that_does_not_fit_is_explained() {
    let mut config = Config::load(&folder().join("llama/config.json")).unwrap();
    config.replace("intermediate_size", serde_json::json!(100));
    config.replace("num_hidden_layers", serde_json::json!(3));
    config.replace("tie_word_embeddings", serde_json::json!(true));
    let weights = Weights::open(&folder().join("llama")).unwrap();
    let say =
        |config: &Config| format!("{:#}", checkpoint::check(&weights, &Model::read(config).unwrap()).unwrap_err());
    assert!(say(&config).contains("ties `lm_head.weight` to `model.embed_tokens.weight`, but they differ"));
    config.replace("tie_word_embeddings", serde_json::json!(false));
    let error = say(&config);
    assert!(error.contains("9 missing: `model.layers.2.input_layernorm.weight` [64];"), "{error}");
    assert!(error.contains("and 1 more"), "{error}");
    assert!(error.contains("`model.layers.0.mlp.down_proj.weight` is [64, 96], wanted [64, 100]"), "{error}");
    config.replace("num_hidden_layers", serde_json::json!(1));
    assert!(say(&config).contains("9 not part of this model: `model.layers.1.input_layernorm.weight` BF16[64]"));
}

/// Sizes that the publishers state, from the shapes that their configs state.
#[test]
fn published_models_have_their_published_sizes() {
    let config = |class: &str, sizes: [u64; 6], more: &str| {
        let [hidden, width, depth, heads, kv_heads, vocab] = sizes;
        format!(
            r#"{{"architectures": ["{class}"], "hidden_size": {hidden}, "intermediate_size": {width},
            "num_hidden_layers": {depth}, "num_attention_heads": {heads}, "num_key_value_heads": {kv_heads},
            "vocab_size": {vocab}{more}}}"#
        )
    };
    let tied = r#", "tie_word_embeddings": true"#;
    let cases = [
        ("LlamaForCausalLM", [576, 1536, 30, 9, 3, 49152], tied, 134_515_008),
        ("LlamaForCausalLM", [8192, 28672, 80, 64, 8, 128_256], "", 70_553_706_496),
        ("MistralForCausalLM", [4096, 14336, 32, 32, 8, 32000], "", 7_241_732_096),
        ("MixtralForCausalLM", [4096, 14336, 32, 32, 8, 32000], "", 46_702_792_704),
        ("Qwen2ForCausalLM", [3584, 18944, 28, 28, 4, 152_064], "", 7_615_616_512),
        ("Qwen3ForCausalLM", [4096, 12288, 36, 32, 8, 151_936], "", 8_190_735_360),
        (
            "Qwen3MoeForCausalLM",
            [2048, 6144, 48, 32, 4, 151_936],
            r#", "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768"#,
            30_532_122_624,
        ),
        (
            "OlmoeForCausalLM",
            [2048, 1024, 16, 16, 16, 50304],
            r#", "num_experts": 64, "num_experts_per_tok": 8"#,
            6_919_161_856,
        ),
        ("GemmaForCausalLM", [2048, 16384, 18, 8, 1, 256_000], "", 2_506_172_416),
        ("Phi3ForCausalLM", [3072, 8192, 32, 32, 32, 32064], "", 3_821_079_552),
    ];
    for (class, sizes, more, wanted) in cases {
        let config = Config::parse(&config(class, sizes, more), "config.json").unwrap();
        assert_eq!(Model::read(&config).unwrap().parameters(), wanted, "{class} {sizes:?}");
    }
}

#[test]
fn hostile_configs_are_refused_or_read_but_never_panic() {
    use serde_json::json;
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e308),
        json!(1u64 << 31),
        json!(0.3),
        json!(""),
        json!("\u{1f600}".repeat(100)),
        json!([]),
        json!([1e-300, "x", null]),
        json!({}),
        json!({"rope_type": "yarn", "factor": 1e-300, "original_max_position_embeddings": 1}),
        json!({"rope_type": "llama3", "factor": 1e300, "low_freq_factor": 1e-300, "high_freq_factor": 1e300}),
        json!({"rope_type": "dynamic", "factor": 1e300}),
    ];
    for case in cases() {
        let text = std::fs::read_to_string(case.join("config.json")).unwrap();
        let keys: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
        for key in keys.keys().map(String::as_str).chain(["rope_parameters", "layer_types", "head_dim"]) {
            for value in &values {
                let mut config = Config::parse(&text, "config.json").unwrap();
                config.replace(key, value.clone());
                let model = Model::read(&config).ok();
                let rope = model.as_ref().and_then(|model| model.kinds[0].mixer.rope());
                if let Some(rope) = rope.filter(|rope| rope.rotary < 1000) {
                    rope.tables(4, 100);
                }
            }
        }
    }
}
