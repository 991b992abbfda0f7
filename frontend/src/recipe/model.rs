//! `model`: which weights or which configuration, and how they are stored.
use super::node::{Node, Value};
use super::reader::{Log, Section};
use super::targets::{Kind, Target};
use crate::diagnostic::{Diagnostic, Severity, nearest};

/// Where the model comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelSource {
    /// A folder or Hub id with `config.json` and safetensors.
    Pretrained { name_or_path: String },
    /// A folder, file or Hub id with `config.json` only; the weights are made up.
    Config { name_or_path: String },
}

/// How parameters are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TorchDtype {
    /// As in the checkpoint; bfloat16 without one.
    Auto,
    Float32,
    Bfloat16,
}

impl TorchDtype {
    /// The name that recipes use.
    pub fn name(self) -> &'static str {
        match self {
            TorchDtype::Auto => "auto",
            TorchDtype::Float32 => "float32",
            TorchDtype::Bfloat16 => "bfloat16",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub source: ModelSource,
    pub torch_dtype: TorchDtype,
    /// A branch, tag or commit of a Hub repository.
    pub revision: Option<String>,
    /// Keys that replace those of `config.json`, in the order of the recipe.
    pub config_overrides: Vec<(String, serde_json::Value)>,
}

/// Spellings of the storage types that amc has.
const DTYPES: [(&str, TorchDtype); 10] = [
    ("auto", TorchDtype::Auto),
    ("float32", TorchDtype::Float32),
    ("fp32", TorchDtype::Float32),
    ("float", TorchDtype::Float32),
    ("torch.float32", TorchDtype::Float32),
    ("torch.float", TorchDtype::Float32),
    ("bfloat16", TorchDtype::Bfloat16),
    ("bf16", TorchDtype::Bfloat16),
    ("torch.bfloat16", TorchDtype::Bfloat16),
    ("torch.bf16", TorchDtype::Bfloat16),
];

/// Choices of implementation in Automodel, or settings that fine-tuning on one device does not need.
const WITHOUT_EFFECT: [&str; 15] = [
    "attn_implementation",
    "use_liger_kernel",
    "use_sdpa_patching",
    "sdpa_method",
    "force_hf",
    "trust_remote_code",
    "cache_dir",
    "is_meta_device",
    "output_hidden_states",
    "use_cache",
    "low_cpu_mem_usage",
    "device_map",
    "has_packed_sequence",
    "_attn_implementation",
    "attn_implementation_new",
];

/// Reads `model`.
pub(super) fn read(root: &Node, log: &Log) -> Option<Model> {
    let section = required(root, "model", log)?;
    let target = section.target(Kind::Model, true);
    section.ignore(&WITHOUT_EFFECT);
    if let Some(backend) = section.section("backend")
        && backend.get("_target_").is_some()
    {
        backend.target(Kind::Backend, false);
    }
    let torch_dtype = dtype(&section, "torch_dtype").or(dtype(&section, "dtype")).unwrap_or(TorchDtype::Auto);
    section.refuse_if_set("quantization_config", "quantised weights");
    let revision = section.text("revision");
    let mut config_overrides = Vec::new();
    let source = match target? {
        Target::FromConfig => from_config(&section, &mut config_overrides),
        _ => {
            section.ignore(&["load_base_model"]);
            required_text(&section, "pretrained_model_name_or_path", "a folder or a Hub id")
                .map(|name_or_path| ModelSource::Pretrained { name_or_path })
        }
    };
    take_overrides(&section, &mut config_overrides, log);
    Some(Model { source: source?, torch_dtype, revision, config_overrides })
}

/// `config`: a name, or a mapping of `AutoConfig.from_pretrained` with overrides.
fn from_config(section: &Section, overrides: &mut Vec<(String, serde_json::Value)>) -> Option<ModelSource> {
    if let Some(node) = section.get("load_base_model")
        && matches!(node.value, Value::Bool(true))
    {
        section.unsupported(
            "load_base_model",
            node,
            "`from_config` with the weights of a checkpoint (use `from_pretrained`)",
        );
    }
    let node = section.get("config");
    if let Some(Node { value: Value::Text(name), .. }) = node {
        return Some(ModelSource::Config { name_or_path: name.clone() });
    }
    let Some(config) = Section::open(&section.dotted("config"), node, section.log) else {
        if node.is_none() {
            let message = "`model.config` is missing";
            let help = "from_config wants `config: {_target_: transformers.AutoConfig.from_pretrained, pretrained_model_name_or_path: …}`";
            section.log.push(Diagnostic::error(message).at(&section.span, "wanted here").help(help));
        }
        return None;
    };
    config.target(Kind::ModelConfig, true)?;
    config.ignore(&[
        "trust_remote_code",
        "use_cache",
        "cache_dir",
        "_attn_implementation",
        "attn_implementation",
        "attn_implementation_new",
    ]);
    let by_name = config.text("name_or_path");
    let name_or_path = match by_name {
        Some(name) => Some(name),
        None => required_text(&config, "pretrained_model_name_or_path", "a folder or a Hub id"),
    };
    config.ignore(&["pretrained_model_name_or_path"]);
    overrides.extend(config.others().map(|entry| (entry.key.clone(), entry.node.to_json())));
    Some(ModelSource::Config { name_or_path: name_or_path? })
}

/// Everything else in `model` replaces keys of `config.json`, as in Automodel; what looks like a slip is reported.
fn take_overrides(section: &Section, overrides: &mut Vec<(String, serde_json::Value)>, log: &Log) {
    let own = ["torch_dtype", "pretrained_model_name_or_path", "config", "revision", "backend", "_target_"];
    for entry in section.others() {
        if !log.is_full(Severity::Warning)
            && let Some(near) = nearest(&entry.key, own.into_iter().chain(WITHOUT_EFFECT))
        {
            let message = format!("`model.{}` is taken as a key of the model's config.json", entry.key);
            log.warning(&entry.key_span, message, format!("did you mean `{near}`?"));
        }
        overrides.push((entry.key.clone(), entry.node.to_json()));
    }
}

/// A storage type under `key`.
pub(super) fn dtype(section: &Section, key: &'static str) -> Option<TorchDtype> {
    if let Some(node @ Node { value: Value::Text(text), .. }) = section.get(key)
        && ["float16", "fp16", "half", "torch.float16", "torch.half"].contains(&text.as_str())
    {
        section.unsupported(key, node, "float16 (bfloat16 and float32 it does)");
        return None;
    }
    section.choice(key, &DTYPES)
}

/// The section `name`, whose absence is an error.
pub(super) fn required<'a>(root: &'a Node, name: &'static str, log: &'a Log) -> Option<Section<'a>> {
    if root.get(name).is_none_or(Node::is_null) {
        let start = crate::diagnostic::Span::new(&root.span.source, 0, 0);
        log.push(Diagnostic::error(format!("the recipe has no `{name}` section")).at(&start, "wanted in this file"));
        return None;
    }
    Section::open(name, root.get(name), log)
}

/// The text under `key`, whose absence is an error.
pub(super) fn required_text(section: &Section, key: &'static str, what: &str) -> Option<String> {
    if section.get(key).is_none() {
        section.log.error(&section.span, format!("`{}` is missing", section.dotted(key)), format!("wanted {what}"));
    }
    section.text(key)
}
