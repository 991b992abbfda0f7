//! What is measured: small models whose launches are like those of real ones, trained in every way, in both dtypes.
use anyhow::{Context, Result};
use half::bf16;
use serde_json::json;
use std::path::Path;

use amc_artifact::philox::Stream;
use amc_artifact::safetensors::{self, Dtype, TensorData};
use amc_frontend::config::Config;
use amc_frontend::model::Model;
use amc_frontend::names::Names;
use amc_ir::DType;

/// Sizes of a model, and of its batches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    pub hidden: usize,
    pub intermediate: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub vocabulary: usize,
    pub bias: bool,
    pub rows: usize,
    pub tokens: usize,
}

/// How a model is trained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Training {
    pub lora: bool,
    /// Of the adapters.
    pub dropout: bool,
    pub compute: DType,
}

/// Sizes of SmolLM2-135M, of its larger sister, and a small model: two layers of each.
pub const SHAPES: &[(Shape, &[Training])] = &[
    (
        Shape {
            hidden: 576,
            intermediate: 1536,
            heads: 9,
            kv_heads: 3,
            vocabulary: 16384,
            bias: false,
            rows: 2,
            tokens: 512,
        },
        &[
            Training { lora: true, dropout: false, compute: DType::F32 },
            Training { lora: true, dropout: false, compute: DType::Bf16 },
            Training { lora: false, dropout: false, compute: DType::F32 },
            Training { lora: false, dropout: false, compute: DType::Bf16 },
        ],
    ),
    (
        Shape {
            hidden: 960,
            intermediate: 2560,
            heads: 15,
            kv_heads: 5,
            vocabulary: 8192,
            bias: false,
            rows: 1,
            tokens: 256,
        },
        &[
            Training { lora: true, dropout: true, compute: DType::F32 },
            Training { lora: false, dropout: false, compute: DType::Bf16 },
        ],
    ),
    (
        Shape {
            hidden: 256,
            intermediate: 768,
            heads: 4,
            kv_heads: 2,
            vocabulary: 4096,
            bias: true,
            rows: 4,
            tokens: 128,
        },
        &[
            Training { lora: true, dropout: true, compute: DType::Bf16 },
            Training { lora: false, dropout: false, compute: DType::F32 },
        ],
    ),
];

const LAYERS: usize = 2;

impl Shape {
    /// Writes the model into `folder`: its config, and random weights in bf16, as most checkpoints have them.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let config = json!({
            "model_type": if self.bias { "qwen2" } else { "llama" },
            "architectures": [if self.bias { "Qwen2ForCausalLM" } else { "LlamaForCausalLM" }],
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "max_position_embeddings": 2048,
            "vocab_size": self.vocabulary,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": true,
            "torch_dtype": "bfloat16",
        });
        let path = folder.join("config.json");
        std::fs::write(&path, config.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
        let model = Model::read(&Config::load(&path)?)?;
        let tensors: Vec<(String, Vec<u64>, Vec<u8>)> = Names::new(&model)
            .tensors()
            .into_iter()
            .map(|(name, shape)| {
                let bytes = random(&name, shape.iter().product());
                (name, shape.iter().map(|size| *size as u64).collect(), bytes)
            })
            .collect();
        let views: Vec<TensorData> =
            tensors.iter().map(|(name, shape, bytes)| TensorData { name, dtype: Dtype::Bf16, shape, bytes }).collect();
        safetensors::write(&folder.join("model.safetensors"), &views, &[("format", "pt")])
    }
}

/// Numbers between -0.05 and 0.05, as bf16.
fn random(name: &str, count: usize) -> Vec<u8> {
    let stream = Stream::new(0, name);
    let words = (0..count.div_ceil(4) as u64).flat_map(|block| stream.block(block));
    let value = |word: u32| bf16::from_f32((f64::from(word) / f64::from(u32::MAX) * 0.1 - 0.05) as f32);
    words.take(count).flat_map(|word| value(word).to_le_bytes()).collect()
}
