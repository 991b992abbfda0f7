//! `dataloader`, `validation_dataloader` and `packed_sequence`.
use super::Dialect;
use super::dataset::{Dataset, LONGEST_ROW, MOST_ROWS};
use super::node::{Node, Value};
use super::reader::{Log, Section, resolve_target};
use super::targets::{Kind, Target};
use crate::diagnostic::Diagnostic;

/// How examples become batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataLoader {
    /// Whether each epoch goes through the data in another order; the default, for validation too.
    pub shuffle: bool,
    /// Examples of a microbatch; `None` where the dataset yields batches itself.
    pub batch_size: Option<u64>,
    /// Whether an incomplete last batch is left out.
    pub drop_last: bool,
    pub collate: Collate,
}

/// How the rows of a batch come to the same length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collate {
    /// To the longest row, rounded up to a multiple.
    Padded { multiple_of: u64 },
    /// Packs of equal length with sequence boundaries.
    Packed,
}

/// Several documents in one row, which cannot see each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedSequence {
    /// Tokens of a row.
    pub packed_sequence_size: u64,
    /// Most rows.
    pub max_packs: Option<u64>,
}

/// Reads a loader; without a batch size of its own it takes `local_batch_size`.
pub(super) fn read(name: &'static str, root: &Node, local_batch_size: u64, log: &Log) -> DataLoader {
    let section = Section::open_or_empty(name, root, log);
    if section.get("_target_").is_some() {
        section.target(Kind::DataLoader, false);
    }
    section.ignore(&["num_workers", "pin_memory", "persistent_workers", "prefetch_factor", "shuffle_buffer_size"]);
    section.refuse_if_set("group_by_length", "sampling by length");
    if let Some(node) = section.get("dataloader_type") {
        section.unsupported("dataloader_type", node, "Megatron's data loaders");
    }
    let batch_size = if section.is_null("batch_size") {
        None
    } else {
        Some(section.integer_within("batch_size", 1, MOST_ROWS).unwrap_or(local_batch_size))
    };
    let loader = DataLoader {
        shuffle: section.flag("shuffle", true),
        batch_size,
        drop_last: section.flag("drop_last", false),
        collate: collate(&section),
    };
    section.finish();
    loader
}

/// `collate_fn`: a dotted name, or a mapping with `_target_` and arguments.
fn collate(section: &Section) -> Collate {
    let padded = Collate::Padded { multiple_of: 1 };
    let Some(node) = section.get("collate_fn") else { return padded };
    let name = section.dotted("collate_fn");
    let (target, multiple_of) = match &node.value {
        Value::Map(_) => {
            let Some(inner) = Section::open(&name, Some(node), section.log) else { return padded };
            let target = inner.target(Kind::Collate, true);
            let multiple_of = inner.integer_within("pad_seq_len_divisible", 1, LONGEST_ROW).unwrap_or(1);
            inner.finish();
            (target, multiple_of)
        }
        _ => (resolve_target(&name, Kind::Collate, node, section.log), 1),
    };
    match target {
        Some(Target::PackedCollater) => Collate::Packed,
        _ => Collate::Padded { multiple_of },
    }
}

/// Complains about batch sizes that do not go with the rest of the recipe.
pub(super) fn check_batch_size(
    root: &Node,
    loader: &DataLoader,
    dataset: &Dataset,
    local_batch_size: u64,
    dialect: Dialect,
    log: &Log,
) {
    let batched = matches!(dataset, Dataset::MockIterable(_));
    let Some(node) = root.get("dataloader").and_then(|it| it.get("batch_size")) else { return };
    match loader.batch_size {
        None if !batched => {
            let message = "`dataloader.batch_size: null` is for datasets that yield batches";
            log.error(&node.span, message, "wanted an integer greater than 0");
        }
        Some(size) if size != local_batch_size && dialect == Dialect::Head => {
            let warning = Diagnostic::warning("`dataloader.batch_size` differs from `step_scheduler.local_batch_size`");
            let label = format!("{size} examples in a microbatch, not {local_batch_size}");
            log.push(
                warning.at(&node.span, label).help("how many microbatches make a step follows from local_batch_size"),
            );
        }
        _ => {}
    }
}

/// Reads `packed_sequence`; size 0 turns packing off.
pub(super) fn read_packed(root: &Node, dialect: Dialect, log: &Log) -> Option<PackedSequence> {
    let section = Section::open("packed_sequence", root.get("packed_sequence"), log)?;
    section.ignore(&["num_proc", "drop_long_samples"]);
    section.refuse_if_set("prepacked", "datasets packed beforehand");
    let size = section.integer_within("packed_sequence_size", 0, LONGEST_ROW).unwrap_or(0);
    let max_packs = section.integer("max_packs", 1);
    if let Some(node) = section.get("packing_strategy") {
        match &node.value {
            Value::Text(text) if text == "thd" => {}
            Value::Text(text) if text == "neat" => {
                section.unsupported("packing_strategy", node, "neat packing (use thd)")
            }
            _ => section.wrong("packing_strategy", node, "thd"),
        }
    }
    split_across_pack(&section, dialect);
    section.finish();
    (size > 0).then_some(PackedSequence { packed_sequence_size: size, max_packs })
}

/// The option of 2025 that let a document go on in the next row; dropped by Automodel since.
fn split_across_pack(section: &Section, dialect: Dialect) {
    let Some(node) = section.get("split_across_pack") else { return };
    match (&node.value, dialect) {
        (Value::Bool(true), Dialect::S25) => {
            section.unsupported("split_across_pack", node, "documents split over packs")
        }
        (Value::Bool(_), Dialect::S25) => {}
        _ => section.log.warning(&node.span, "`packed_sequence.split_across_pack` is ignored", "Automodel dropped it"),
    }
}
