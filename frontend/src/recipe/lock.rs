//! A [`Recipe`] as YAML that reads back to the same recipe, in a fixed order.
//!
//! The file is a recipe of its own: its names are Automodel's, so that it runs there too.
use super::interpolate::protect;
use super::literal::{quote, translate};
use super::node::Value;
use super::schedule::{DECAYS, RISES, TAILS};
use super::targets::{Target, name_of};
use super::*;
use crate::diagnostic::Source;
use amc_artifact::LrDecay;
use serde_json::Value as Json;

/// The text of the lock file.
pub(super) fn write(recipe: &Recipe) -> String {
    let mut out = Lines::default();
    if recipe.dialect == Dialect::Head {
        let class = if recipe.benchmark { Target::Benchmark } else { Target::Finetune };
        out.line(0, "recipe", name_of(class));
    }
    out.line(0, "seed", recipe.seed);
    model(&mut out, &recipe.model);
    if let Some(config) = &recipe.peft {
        peft(&mut out, config);
    }
    out.head(0, "dataset");
    dataset(&mut out, &recipe.dataset);
    if let Some(config) = &recipe.tokenizer {
        tokenizer(&mut out, config);
    }
    for set in &recipe.validation_datasets {
        let suffix = if set.name == "default" { String::new() } else { format!("_{}", set.name) };
        out.head(0, &quoted(&format!("validation_dataset{suffix}")));
        dataset(&mut out, &set.dataset);
    }
    loader(&mut out, "dataloader", &recipe.dataloader);
    loader(&mut out, "validation_dataloader", &recipe.validation_dataloader);
    packed(&mut out, &recipe.packed_sequence);
    out.head(0, "loss_fn");
    out.line(1, "_target_", name_of(loss_target(recipe.loss)));
    optimizer(&mut out, &recipe.optimizer);
    if let Some(scheduler) = &recipe.lr_scheduler {
        rate(&mut out, scheduler);
    }
    steps(&mut out, &recipe.step_scheduler);
    out.head(0, "clip_grad_norm");
    out.line(1, "max_norm", float(recipe.max_grad_norm));
    checkpoint(&mut out, &recipe.checkpoint);
    out.head(0, "distributed");
    out.line(1, "strategy", "fsdp2");
    settings(&mut out, &recipe.amc);
    out.text
}

/// Text that grows by a `key: value` line at a time.
#[derive(Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn head(&mut self, depth: usize, key: &str) {
        self.text += &format!("{}{key}:\n", "  ".repeat(depth));
    }

    /// `value` is YAML already.
    fn line(&mut self, depth: usize, key: &str, value: impl std::fmt::Display) {
        self.text += &format!("{}{key}: {value}\n", "  ".repeat(depth));
    }

    fn optional<T: std::fmt::Display>(&mut self, depth: usize, key: &str, value: Option<T>) {
        match value {
            Some(value) => self.line(depth, key, value),
            None => self.line(depth, key, "null"),
        }
    }
}

/// A string as YAML that survives both readings: quoted, its `$` protected, and quoted again where it looks like a literal.
fn text(value: &str) -> String {
    let nowhere = Span::new(&Arc::new(Source { name: String::new(), text: String::new() }), 0, 0);
    let is_literal = !matches!(translate(value, &nowhere), Value::Text(same) if same == value);
    quoted(&protect(&if is_literal { quote(value) } else { value.into() }))
}

/// `value` as a double-quoted YAML scalar in printable characters.
fn quoted(value: &str) -> String {
    let mut written = String::from("\"");
    for it in value.chars() {
        match it {
            '"' | '\\' => written.extend(['\\', it]),
            '\n' => written += "\\n",
            '\t' => written += "\\t",
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                written += &format!("\\u{:04x}", it as u32)
            }
            _ if it.is_control() => written += &format!("\\u{:04x}", it as u32),
            _ => written.push(it),
        }
    }
    written + "\""
}

/// A number as YAML 1.1 writes floats: with a point, and a sign in the exponent.
fn float(value: f64) -> String {
    let plain = format!("{value:?}");
    let Some((mantissa, exponent)) = plain.split_once('e') else { return plain };
    let point = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with('-') { "" } else { "+" };
    format!("{mantissa}{point}e{sign}{exponent}")
}

fn texts(values: &[String]) -> String {
    format!("[{}]", values.iter().map(|it| text(it)).collect::<Vec<_>>().join(", "))
}

/// JSON as flow YAML.
fn flow(value: &Json) -> String {
    let list = |parts: Vec<String>| parts.join(", ");
    match value {
        Json::String(it) => text(it),
        Json::Number(it) if it.is_f64() => it.as_f64().map_or("null".into(), float),
        Json::Array(items) => format!("[{}]", list(items.iter().map(flow).collect())),
        Json::Object(entries) => {
            format!("{{{}}}", list(entries.iter().map(|(key, it)| format!("{}: {}", quoted(key), flow(it))).collect()))
        }
        other => other.to_string(),
    }
}

fn model(out: &mut Lines, model: &Model) {
    out.head(0, "model");
    let (target, name) = match &model.source {
        ModelSource::Pretrained { name_or_path } => (Target::FromPretrained, name_or_path),
        ModelSource::Config { name_or_path } => (Target::FromConfig, name_or_path),
    };
    out.line(1, "_target_", name_of(target));
    if target == Target::FromConfig {
        out.head(1, "config");
        out.line(2, "_target_", name_of(Target::AutoConfig));
        out.line(2, "pretrained_model_name_or_path", text(name));
    } else {
        out.line(1, "pretrained_model_name_or_path", text(name));
    }
    out.line(1, "torch_dtype", model.torch_dtype.name());
    if let Some(revision) = &model.revision {
        out.line(1, "revision", text(revision));
    }
    for (key, value) in &model.config_overrides {
        out.line(1, &quoted(key), flow(value));
    }
}

fn peft(out: &mut Lines, config: &PeftConfig) {
    out.head(0, "peft");
    out.line(1, "_target_", name_of(Target::Lora));
    out.line(1, "target_modules", texts(&config.target_modules));
    out.line(1, "exclude_modules", texts(&config.exclude_modules));
    out.line(1, "match_all_linear", config.match_all_linear);
    out.line(1, "dim", config.dim);
    out.line(1, "alpha", float(config.alpha));
    out.line(1, "dropout", float(config.dropout));
    let position = if config.dropout_position == DropoutPosition::Pre { "pre" } else { "post" };
    out.line(1, "dropout_position", position);
    let init = if config.lora_a_init == LoraInit::Xavier { "xavier" } else { "kaiming" };
    out.line(1, "lora_A_init", init);
    out.optional(1, "lora_dtype", config.lora_dtype.map(TorchDtype::name));
}

fn dataset(out: &mut Lines, dataset: &Dataset) {
    match dataset {
        Dataset::Squad(squad) => {
            out.line(1, "_target_", name_of(Target::Squad));
            out.line(1, "dataset_name", text(&squad.dataset_name));
            out.line(1, "split", text(&squad.split));
            token_options(out, &squad.tokens);
            out.optional(1, "chat_template", squad.chat_template.as_deref().map(text));
            if let Some(token) = &squad.start_of_turn_token {
                out.line(1, "start_of_turn_token", text(token));
            }
        }
        Dataset::ColumnMapped(mapped) => {
            out.line(1, "_target_", name_of(Target::ColumnMapped));
            out.line(1, "path_or_dataset_id", texts(&mapped.path_or_dataset_id));
            out.head(1, "column_mapping");
            out.optional(2, "context", mapped.columns.context.as_deref().map(text));
            out.optional(2, "question", mapped.columns.question.as_deref().map(text));
            out.line(2, "answer", text(&mapped.columns.answer));
            out.optional(1, "split", mapped.split.as_deref().map(text));
            out.optional(1, "name", mapped.name.as_deref().map(text));
            out.line(1, "answer_only_loss_mask", mapped.answer_only_loss_mask);
            out.line(1, "use_hf_chat_template", mapped.use_hf_chat_template);
            token_options(out, &mapped.tokens);
        }
        Dataset::TokenFile(file) => {
            out.line(1, "_target_", name_of(Target::TokenFile));
            out.line(1, "path", text(&file.path));
            out.optional(1, "limit_dataset_samples", file.limit_dataset_samples);
        }
        Dataset::MockIterable(mock) => {
            out.line(1, "_target_", name_of(Target::MockIterable));
            out.line(1, "vocab_size", mock.vocab_size);
            out.line(1, "seq_len", mock.seq_len);
            out.line(1, "num_samples", mock.num_samples);
            out.line(1, "batch_size", mock.batch_size);
        }
    }
}

fn token_options(out: &mut Lines, tokens: &TokenOptions) {
    let padding = match tokens.padding {
        Padding::None => "do_not_pad",
        Padding::Longest => "longest",
        Padding::MaxLength => "max_length",
    };
    out.optional(1, "seq_length", tokens.seq_length);
    out.line(1, "padding", padding);
    out.line(1, "truncation", tokens.truncation);
    out.optional(1, "limit_dataset_samples", tokens.limit_dataset_samples);
}

fn tokenizer(out: &mut Lines, config: &TokenizerConfig) {
    out.head(1, "tokenizer");
    out.line(2, "_target_", name_of(Target::AutoTokenizer));
    out.optional(2, "pretrained_model_name_or_path", config.pretrained_model_name_or_path.as_deref().map(text));
    out.optional(2, "add_bos_token", config.add_bos_token);
    out.optional(2, "add_eos_token", config.add_eos_token);
}

fn loader(out: &mut Lines, name: &str, loader: &DataLoader) {
    out.head(0, name);
    out.line(1, "_target_", name_of(Target::Loader));
    out.line(1, "shuffle", loader.shuffle);
    out.optional(1, "batch_size", loader.batch_size);
    out.line(1, "drop_last", loader.drop_last);
    out.head(1, "collate_fn");
    match loader.collate {
        Collate::Packed => out.line(2, "_target_", name_of(Target::PackedCollater)),
        Collate::Padded { multiple_of } => {
            out.line(2, "_target_", name_of(Target::DefaultCollater));
            out.line(2, "pad_seq_len_divisible", multiple_of);
        }
    }
}

fn packed(out: &mut Lines, packed: &Option<PackedSequence>) {
    out.head(0, "packed_sequence");
    out.line(1, "packed_sequence_size", packed.as_ref().map_or(0, |it| it.packed_sequence_size));
    if let Some(packed) = packed {
        out.line(1, "packing_strategy", "thd");
        out.optional(1, "max_packs", packed.max_packs);
    }
}

fn loss_target(loss: Loss) -> Target {
    match loss {
        Loss::MaskedCrossEntropy => Target::MaskedCrossEntropy,
        Loss::FusedLinearCrossEntropy => Target::FusedLinearCrossEntropy,
    }
}

fn optimizer(out: &mut Lines, optimizer: &Optimizer) {
    out.head(0, "optimizer");
    let target = if optimizer.algorithm == Algorithm::AdamW { Target::AdamW } else { Target::Adam };
    out.line(1, "_target_", name_of(target));
    out.line(1, "lr", float(optimizer.lr));
    out.line(1, "betas", format!("[{}, {}]", float(optimizer.betas[0]), float(optimizer.betas[1])));
    out.line(1, "eps", float(optimizer.eps));
    out.line(1, "weight_decay", float(optimizer.weight_decay));
}

/// The word for `value` in a table of choices.
fn word<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    table.iter().find(|(_, it)| it == value).map_or("WSD", |(name, _)| name)
}

fn rate(out: &mut Lines, scheduler: &LrScheduler) {
    out.head(0, "lr_scheduler");
    out.line(1, "init_lr", float(scheduler.init_lr));
    out.line(1, "max_lr", float(scheduler.max_lr));
    out.line(1, "min_lr", float(scheduler.min_lr));
    out.optional(1, "lr_warmup_steps", scheduler.lr_warmup_steps);
    out.optional(1, "lr_decay_steps", scheduler.lr_decay_steps);
    out.line(1, "lr_decay_style", word(&DECAYS, &scheduler.lr_decay));
    if let LrDecay::WarmupStableDecay { steps, style } = scheduler.lr_decay {
        out.line(1, "wsd_decay_steps", steps);
        out.line(1, "lr_wsd_decay_style", word(&TAILS, &style));
    }
    out.line(1, "start_wd", float(scheduler.start_wd));
    out.line(1, "end_wd", float(scheduler.end_wd));
    out.optional(1, "wd_incr_steps", scheduler.wd_incr_steps);
    out.line(1, "wd_incr_style", word(&RISES, &scheduler.wd_incr_style));
}

fn steps(out: &mut Lines, scheduler: &StepScheduler) {
    out.head(0, "step_scheduler");
    out.line(1, "global_batch_size", scheduler.global_batch_size);
    out.line(1, "local_batch_size", scheduler.local_batch_size);
    out.optional(1, "num_epochs", scheduler.num_epochs);
    out.optional(1, "max_steps", scheduler.max_steps);
    out.optional(1, "ckpt_every_steps", scheduler.ckpt_every_steps);
    out.line(1, "save_checkpoint_every_epoch", scheduler.save_checkpoint_every_epoch);
    out.optional(1, "val_every_steps", scheduler.val_every_steps);
    out.line(1, "log_remote_every_steps", scheduler.log_remote_every_steps);
    out.line(1, "loss_average_window_steps", scheduler.loss_average_window_steps);
    out.line(1, "preemption_signal", format!("[{}]", scheduler.preemption_signals.join(", ")));
}

fn checkpoint(out: &mut Lines, checkpoint: &Checkpoint) {
    out.head(0, "checkpoint");
    out.line(1, "enabled", checkpoint.enabled);
    out.line(1, "checkpoint_dir", text(&checkpoint.checkpoint_dir));
    out.line(1, "model_save_format", "safetensors");
    out.line(1, "save_consolidated", checkpoint.save_consolidated.name());
    out.optional(1, "max_recent_checkpoints", checkpoint.max_recent_checkpoints);
    out.line(1, "best_metric_key", text(&checkpoint.best_metric_key));
    out.optional(1, "restore_from", checkpoint.restore_from.as_deref().map(text));
}

fn settings(out: &mut Lines, settings: &Settings) {
    out.head(0, "amc");
    out.optional(1, "memory_budget", settings.memory_budget);
    out.line(1, "target", text(&settings.target));
    out.line(1, "vendor", settings.vendor.name());
    out.line(1, "tf32", settings.tf32);
    out.optional(1, "threads", settings.threads);
    out.optional(1, "initial_adapter", settings.initial_adapter.as_deref().map(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the YAML in `written` means after both readings.
    fn read_back(written: &str) -> Value {
        let source = Arc::new(Source { name: "lock".into(), text: format!("k: {written}\n") });
        let mut root = yaml::parse(&source).unwrap_or_else(|error| panic!("{error}"));
        interpolate::resolve(&mut root, &|_| None, &mut Vec::new());
        root.get("k").unwrap().value.clone()
    }

    #[test]
    fn every_text_survives() {
        let special = [0x2028, 0x2029, 0xfeff, 0xfffd, 0xffff, 0x1f600];
        let characters = (0..0x250).chain(special).filter_map(char::from_u32);
        let mut all: Vec<String> = characters.map(|it| format!("a{it}b")).collect();
        let awkward = [
            "",
            " ",
            "none",
            "10",
            "1e-8",
            "'x'",
            "[1]",
            "{}",
            "$HOME",
            "${HOME}",
            "'$HOME'",
            "a\\'b",
            "'\\",
            "yes",
            "null",
            "~",
            "# no",
            "a: b",
            "- a",
            "*x",
            "'a\nb'",
            "\t1",
            "1 ",
            "(1,",
            "{% if x %}$a{% endif %}",
            "\"\"\"a\"\"\"",
        ];
        all.extend(awkward.map(str::to_string));
        all.push("1".repeat(999) + "${x}");
        for wanted in all {
            let written = text(&wanted);
            assert!(matches!(read_back(&written), Value::Text(found) if found == wanted), "{wanted:?} as {written}");
        }
    }

    #[test]
    fn every_number_survives() {
        for wanted in
            [0.0, 1.0, -2.5, 1e-8, 1e-5, 0.1, 1.5e-300, 1e16, 1e300, f64::MAX, f64::MIN_POSITIVE, 123456789.125]
        {
            let written = float(wanted);
            let read = scalar::resolve_plain(&written);
            assert!(matches!(read, Value::Float(found) if found == wanted), "{wanted:?} as {written}");
        }
    }
}
