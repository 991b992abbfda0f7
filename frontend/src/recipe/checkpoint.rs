//! `checkpoint`: where and in which form results are written.
use super::node::{Node, Value};
use super::reader::{Log, Section};
use crate::diagnostic::Diagnostic;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub enabled: bool,
    pub checkpoint_dir: String,
    pub save_consolidated: Consolidated,
    /// How many complete checkpoints to keep besides those that a pointer names.
    pub max_recent_checkpoints: Option<u64>,
    /// The validation set whose loss ranks checkpoints, where there are several.
    pub best_metric_key: String,
    /// `LATEST`, `LOWEST_VAL`, a name under `checkpoint_dir`, or a path.
    pub restore_from: Option<String>,
}

/// Which checkpoints hold a folder that transformers loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consolidated {
    Final,
    Every,
    Never,
}

impl Consolidated {
    /// The word for it in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Consolidated::Final => "final",
            Consolidated::Every => "every",
            Consolidated::Never => "false",
        }
    }
}

/// Reads `checkpoint`; without it everything has its default and checkpoints are written.
pub(super) fn read(root: &Node, log: &Log) -> Checkpoint {
    let section = Section::open_or_empty("checkpoint", root, log);
    section.ignore(&[
        "is_async",
        "wait_for_staging",
        "cpu_offload",
        "allow_legacy_pickle_restore",
        "skip_task_head_prefixes_for_base_model",
        "single_rank_consolidation",
        "staging_dir",
        "v4_compatible",
        "diffusers_compatible",
        "consolidation_timeout_minutes",
        "dequantize_base_checkpoint",
        "model_cache_dir",
        "model_repo_id",
        "original_model_root_dir",
    ]);
    save_format(&section);
    let consolidated = [
        ("final", Consolidated::Final),
        ("every", Consolidated::Every),
        ("true", Consolidated::Every),
        ("false", Consolidated::Never),
    ];
    let checkpoint = Checkpoint {
        enabled: section.flag("enabled", true),
        checkpoint_dir: section.text("checkpoint_dir").unwrap_or_else(|| "checkpoints/".into()),
        save_consolidated: section.choice("save_consolidated", &consolidated).unwrap_or(Consolidated::Final),
        max_recent_checkpoints: section.integer("max_recent_checkpoints", 1),
        best_metric_key: section.text("best_metric_key").unwrap_or_else(|| "default".into()),
        restore_from: section.text("restore_from"),
    };
    section.finish();
    checkpoint
}

/// amc writes safetensors only; the other format is accepted and said to be replaced.
fn save_format(section: &Section) {
    let Some(node) = section.get("model_save_format") else { return };
    match &node.value {
        Value::Text(text) if text == "safetensors" => {}
        Value::Text(text) if text == "torch_save" => {
            let warning = Diagnostic::warning("`checkpoint.model_save_format: torch_save` is replaced by safetensors");
            section.log.push(warning.at(&node.span, "amc never writes pickles"));
        }
        _ => section.wrong("model_save_format", node, "safetensors"),
    }
}
