//! `dataset`, `validation_dataset*` and the tokenizer inside them.
use super::Dialect;
use super::model::{required, required_text};
use super::node::{Node, Value};
use super::reader::{Log, Section};
use super::targets::{Kind, Target};
use crate::diagnostic::Diagnostic;

/// Most tokens of a row. Longer rows are a slip of the pen, which would fill the memory before anything could say so.
pub(super) const LONGEST_ROW: u64 = 1 << 20;
/// Most rows of a microbatch.
pub(super) const MOST_ROWS: u64 = 1 << 20;

/// What is trained on.
#[derive(Clone, Debug, PartialEq)]
pub enum Dataset {
    Squad(Squad),
    ColumnMapped(ColumnMapped),
    MockIterable(MockIterable),
    TokenFile(TokenFile),
}

/// Questions about a context, in SQuAD's flat form.
#[derive(Clone, Debug, PartialEq)]
pub struct Squad {
    /// A folder, file or Hub id.
    pub dataset_name: String,
    /// With an optional slice, as in `train[:100]`.
    pub split: String,
    pub tokens: TokenOptions,
    /// Literal Jinja or a path; replaces the tokenizer's own template.
    pub chat_template: Option<String>,
    /// In a chat, what is learnt begins with the second of these tokens; the form of 2025 alone has it.
    pub start_of_turn_token: Option<String>,
}

/// Rows whose columns are named by the recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnMapped {
    /// Local json or jsonl files, or one Hub id.
    pub path_or_dataset_id: Vec<String>,
    pub columns: Columns,
    pub split: Option<String>,
    /// The configuration of a Hub dataset.
    pub name: Option<String>,
    pub answer_only_loss_mask: bool,
    pub use_hf_chat_template: bool,
    pub tokens: TokenOptions,
}

/// Which column of the data is what. At least one of `context` and `question` is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    pub context: Option<String>,
    pub question: Option<String>,
    pub answer: String,
}

/// How examples become tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOptions {
    pub seq_length: Option<u64>,
    pub padding: Padding,
    pub truncation: bool,
    /// Take only so many examples from the start of the split.
    pub limit_dataset_samples: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    None,
    /// To the longest of a batch, which the collation does anyway.
    Longest,
    /// To `seq_length`.
    MaxLength,
}

/// Uniformly random tokens, already in batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MockIterable {
    pub vocab_size: u64,
    pub seq_len: u64,
    pub num_samples: u64,
    pub batch_size: u64,
}

/// Examples that are tokens already; amc's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFile {
    /// A jsonl file; each line has `input_ids` and may have `labels`.
    pub path: String,
    pub limit_dataset_samples: Option<u64>,
}

/// One validation set; the plain `validation_dataset` is called `default`.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidationSet {
    pub name: String,
    pub dataset: Dataset,
}

/// Where the tokenizer comes from, where that is not the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerConfig {
    pub pretrained_model_name_or_path: Option<String>,
    pub add_bos_token: Option<bool>,
    pub add_eos_token: Option<bool>,
}

/// Reads `dataset` and the tokenizer in it.
pub(super) fn read(root: &Node, dialect: Dialect, log: &Log) -> Option<(Dataset, Option<TokenizerConfig>)> {
    let section = required(root, "dataset", log)?;
    let tokenizer = tokenizer(&section);
    let dataset = one(&section, dialect);
    section.finish();
    Some((dataset?, tokenizer))
}

/// Reads every `validation_dataset*` of the recipe, in its order; null ones are left out.
pub(super) fn read_validation(
    root: &Node,
    dialect: Dialect,
    trained: &Option<TokenizerConfig>,
    log: &Log,
) -> Vec<ValidationSet> {
    let mut sets = Vec::new();
    for entry in root.entries() {
        let Some(name) = validation_name(&entry.key) else { continue };
        let Some(section) = Section::open(&entry.key, Some(&entry.node), log) else { continue };
        let own = tokenizer(&section);
        if own.is_some() && own != *trained {
            let label = "the tokenizer of `dataset` serves here too";
            log.warning(&section.span, format!("`{}.tokenizer` is ignored", entry.key), label);
        }
        if sets.iter().any(|set: &ValidationSet| set.name == name) {
            log.error(&entry.key_span, format!("two validation sets are called `{name}`"), "the second one");
        }
        if let Some(dataset) = one(&section, dialect) {
            sets.push(ValidationSet { name: name.into(), dataset });
        }
        section.finish();
    }
    sets
}

/// The name of the validation set under this key, if it is one.
pub(super) fn validation_name(key: &str) -> Option<&str> {
    let suffix = key.strip_prefix("validation_dataset")?;
    let name = suffix.strip_prefix(['_', '-', '.']).unwrap_or(suffix);
    Some(if name.is_empty() { "default" } else { name })
}

fn one(section: &Section, dialect: Dialect) -> Option<Dataset> {
    let Some(target) = section.target(Kind::Dataset, true) else {
        section.ignore_rest();
        return None;
    };
    match target {
        Target::Squad => Some(Dataset::Squad(squad(section, dialect))),
        Target::ColumnMapped => column_mapped(section).map(Dataset::ColumnMapped),
        Target::TokenFile => {
            let limit_dataset_samples = section.integer("limit_dataset_samples", 1);
            let path = required_text(section, "path", "a jsonl file");
            path.map(|path| Dataset::TokenFile(TokenFile { path, limit_dataset_samples }))
        }
        _ => Some(Dataset::MockIterable(MockIterable {
            vocab_size: section.integer_within("vocab_size", 1, i32::MAX as u64).unwrap_or(1024),
            seq_len: section.integer_within("seq_len", 1, LONGEST_ROW).unwrap_or(1024),
            num_samples: section.integer_within("num_samples", 1, u32::MAX.into()).unwrap_or(1_000_000),
            batch_size: section.integer_within("batch_size", 1, MOST_ROWS).unwrap_or(1),
        })),
    }
}

fn squad(section: &Section, dialect: Dialect) -> Squad {
    section.ignore(&["fp8"]);
    let split = section.text("split").unwrap_or_else(|| "train".into());
    let mut tokens = token_options(section, &split);
    if dialect == Dialect::S25 && tokens.seq_length.is_some() {
        tokens.padding = Padding::MaxLength;
    }
    let dataset_name = section.text("dataset_name").unwrap_or_else(|| "squad".into());
    let start_of_turn_token = (dialect == Dialect::S25).then(|| section.text("start_of_turn_token")).flatten();
    Squad { dataset_name, split, tokens, chat_template: section.text("chat_template"), start_of_turn_token }
}

fn column_mapped(section: &Section) -> Option<ColumnMapped> {
    let paths = section.texts("path_or_dataset_id");
    if section.get("path_or_dataset_id").is_none() {
        let message = format!("`{}` is missing", section.dotted("path_or_dataset_id"));
        section.log.error(&section.span, message, "wanted files or a Hub id");
    }
    let split = if section.is_null("split") { None } else { Some(section.text("split").unwrap_or("train".into())) };
    let tokens = token_options(section, split.as_deref().unwrap_or_default());
    let name = section.text("name");
    let answer_only_loss_mask = section.flag("answer_only_loss_mask", true);
    let use_hf_chat_template = section.flag("use_hf_chat_template", false);
    let columns = columns(section)?;
    let path_or_dataset_id = paths;
    Some(ColumnMapped { path_or_dataset_id, columns, split, name, answer_only_loss_mask, use_hf_chat_template, tokens })
}

fn columns(section: &Section) -> Option<Columns> {
    let Some(mapping) = section.section("column_mapping") else {
        if section.get("column_mapping").is_none() {
            let message = format!("`{}` is missing", section.dotted("column_mapping"));
            let help = "for instance `column_mapping: {question: prompt, answer: completion}`";
            section.log.push(Diagnostic::error(message).at(&section.span, "wanted here").help(help));
        }
        return None;
    };
    let (context, question) = (mapping.text("context"), mapping.text("question"));
    let answer = required_text(&mapping, "answer", "the column of the answer");
    if mapping.get("context").is_none() && mapping.get("question").is_none() {
        let message = format!("`{}` names neither a context nor a question", mapping.name);
        mapping.log.error(&mapping.span, message, "wanted one of them or both");
    }
    mapping.finish();
    Some(Columns { context, question, answer: answer? })
}

fn token_options(section: &Section, split: &str) -> TokenOptions {
    let padding = [
        ("false", Padding::None),
        ("do_not_pad", Padding::None),
        ("true", Padding::Longest),
        ("longest", Padding::Longest),
        ("max_length", Padding::MaxLength),
    ];
    let truncation =
        [("false", false), ("do_not_truncate", false), ("true", true), ("longest_first", true), ("only_first", true)];
    let options = TokenOptions {
        seq_length: section.integer_within("seq_length", 2, LONGEST_ROW),
        padding: section.choice("padding", &padding).unwrap_or(Padding::None),
        truncation: section.choice("truncation", &truncation).unwrap_or(false),
        limit_dataset_samples: section.integer("limit_dataset_samples", 1),
    };
    if let (Some(node), true) = (section.get("limit_dataset_samples"), split.contains('[')) {
        let message = format!("`{}` is ignored", section.dotted("limit_dataset_samples"));
        section.log.warning(&node.span, message, format!("the split `{split}` already has a slice"));
        return TokenOptions { limit_dataset_samples: None, ..options };
    }
    for (key, needs) in [("padding", options.padding == Padding::MaxLength), ("truncation", options.truncation)] {
        if let (Some(node), true, None) = (section.get(key), needs, section.get("seq_length")) {
            let message = format!("`{}` needs a `seq_length`", section.dotted(key));
            section.log.error(&node.span, message, "to which length?");
        }
    }
    options
}

fn tokenizer(section: &Section) -> Option<TokenizerConfig> {
    let tokenizer = section.section("tokenizer")?;
    tokenizer.target(Kind::Tokenizer, false);
    tokenizer.ignore(&["trust_remote_code", "use_fast", "force_default", "force_hf", "cache_dir"]);
    for key in ["truncation_side", "padding_side"] {
        if let Some(node @ Node { value: Value::Text(side), .. }) = tokenizer.get(key)
            && side != "right"
        {
            tokenizer.unsupported(key, node, &format!("a {key} other than right"));
        }
    }
    let flag = |key| tokenizer.get(key).map(|_| tokenizer.flag(key, false));
    let config = TokenizerConfig {
        pretrained_model_name_or_path: tokenizer.text("pretrained_model_name_or_path"),
        add_bos_token: flag("add_bos_token"),
        add_eos_token: flag("add_eos_token"),
    };
    tokenizer.finish();
    Some(config)
}
