//! The top level of a recipe: which keys there are, and what becomes of those that amc does not read.
//!
//! Automodel ignores a top-level key that it does not know. So does amc, but it says so.
use super::Dialect;
use super::node::{Entry, Node, Value};
use super::reader::{Log, Section, resolve_target};
use super::targets::{Kind, Target};
use crate::diagnostic::{Diagnostic, Severity, nearest};

/// Sections that are read.
const READ: [&str; 17] = [
    "recipe",
    "seed",
    "model",
    "peft",
    "dataset",
    "validation_dataset",
    "dataloader",
    "validation_dataloader",
    "packed_sequence",
    "loss_fn",
    "optimizer",
    "lr_scheduler",
    "step_scheduler",
    "clip_grad_norm",
    "checkpoint",
    "distributed",
    "amc",
];

/// Sections that amc has no use for: set-up of devices, choices of implementation, metadata of tests.
const WITHOUT_EFFECT: [&str; 13] = [
    "rng",
    "ci",
    "dist_env",
    "parallelizer",
    "autopipeline",
    "nvtx",
    "compile",
    "benchmark",
    "prewarm",
    "sdpa_method",
    "mfu",
    "moe_metrics",
    "enable_user_modules",
];

/// Sections whose loss is worth a word.
const IGNORED: [(&str, &str); 10] = [
    ("tokenizer", "the tokenizer comes from `dataset.tokenizer`, or from the model"),
    ("distributed_config", "its options belong into `distributed`"),
    ("wandb", "metrics are written to training.jsonl and validation.jsonl only"),
    ("mlflow", "metrics are written to training.jsonl and validation.jsonl only"),
    ("comet", "metrics are written to training.jsonl and validation.jsonl only"),
    ("skypilot", "amc runs where it is started; use the scheduler's own tools to launch it"),
    ("nemo_run", "amc runs where it is started; use the scheduler's own tools to launch it"),
    ("slurm", "amc runs where it is started; use the scheduler's own tools to launch it"),
    ("tool_call_eval", "amc does not generate during training"),
    ("longalign", "nothing reads it"),
];

/// Sections that would change the result, and are refused where they are on.
const UNSUPPORTED: [(&str, &str); 5] = [
    ("fp8", "training in float8"),
    ("qat", "quantisation-aware training"),
    ("quantization", "quantised base weights"),
    ("neftune", "noise on embeddings (neftune)"),
    ("embedding_row_repair", "repair of embedding rows"),
];

/// The form of the recipe: with a `recipe` key it is today's, without one that of the guides of 2025.
pub(super) fn dialect(root: &Node) -> Dialect {
    if root.get("recipe").is_some() { Dialect::Head } else { Dialect::S25 }
}

/// The class that `recipe` names.
pub(super) fn read_recipe(root: &Node, log: &Log) -> Option<Target> {
    let node = root.get("recipe")?;
    if matches!(node.value, Value::Map(_)) {
        let section = Section::open("recipe", Some(node), log)?;
        let target = section.target(Kind::Recipe, true);
        section.finish();
        return target;
    }
    resolve_target("recipe", Kind::Recipe, node, log)
}

/// Whether nothing below this key is looked at, so that its variables need not be set.
pub(super) fn is_unread(key: &str) -> bool {
    let quantising = UNSUPPORTED.iter().any(|(name, _)| *name == key);
    !(READ.contains(&key) || key == "rng" || key == "wandb" || quantising || key.starts_with("validation_dataset"))
}

/// Says what becomes of the sections that are not read.
pub(super) fn check(root: &Node, log: &Log) {
    for entry in root.entries() {
        let key = entry.key.as_str();
        let read = READ.contains(&key) || WITHOUT_EFFECT.contains(&key) || key.starts_with("validation_dataset");
        if read || key.starts_with('_') || entry.node.is_null() || is_off(key, &entry.node) {
            continue;
        }
        if let Some((_, what)) = UNSUPPORTED.iter().find(|(name, _)| *name == key) {
            let error = Diagnostic::error(format!("amc does not support {what} yet"));
            log.push(error.at(&entry.key_span, format!("asked for by `{key}`")));
        } else if let Some((_, why)) = IGNORED.iter().find(|(name, _)| *name == key) {
            log.warning(&entry.key_span, format!("`{key}` is ignored"), *why);
        } else if !log.is_full(Severity::Warning) {
            log.push(unknown(entry));
        }
    }
}

/// `enabled: false`, `enable: false`, `false`, or quantisation without any bits.
fn is_off(key: &str, node: &Node) -> bool {
    let says_no = |name: &str| node.get(name).is_some_and(|it| matches!(it.value, Value::Bool(false)));
    let says_yes = |name: &str| node.get(name).is_some_and(|it| matches!(it.value, Value::Bool(true)));
    match key {
        "fp8" | "qat" => !says_yes("enabled"),
        "wandb" => says_no("enable"),
        "quantization" => !says_yes("load_in_4bit") && !says_yes("load_in_8bit"),
        _ => matches!(node.value, Value::Bool(false)),
    }
}

fn unknown(entry: &Entry) -> Diagnostic {
    let others = IGNORED.iter().map(|(name, _)| *name).chain(UNSUPPORTED.iter().map(|(name, _)| *name));
    let label = match nearest(&entry.key, READ.into_iter().chain(WITHOUT_EFFECT).chain(others)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "no section of this name is known".into(),
    };
    Diagnostic::warning(format!("the top-level key `{}` is ignored, here and in Automodel", entry.key))
        .at(&entry.key_span, label)
}
