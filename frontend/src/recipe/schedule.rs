//! `step_scheduler` and `lr_scheduler`: what a recipe says about time, and the schedules that follow once the length of an epoch
//! is known.
use super::Dialect;
use super::dataset::MOST_ROWS;
use super::node::{Node, Value};
use super::optimizer::{Optimizer, positive_or_zero};
use super::reader::{Log, Section};
use crate::diagnostic::Diagnostic;
use amc_artifact::{LrDecay, LrSchedule, StepSchedule, TailStyle, WeightDecayStyle};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepScheduler {
    /// Examples of an optimizer step.
    pub global_batch_size: u64,
    /// Examples of a microbatch.
    pub local_batch_size: u64,
    /// `None`: as many as `max_steps` takes, or ten.
    pub num_epochs: Option<u64>,
    /// `None`: to the end of the last epoch.
    pub max_steps: Option<u64>,
    /// `None`: once an epoch.
    pub ckpt_every_steps: Option<u64>,
    pub save_checkpoint_every_epoch: bool,
    /// `None`: only with checkpoints.
    pub val_every_steps: Option<u64>,
    pub log_remote_every_steps: u64,
    /// Steps over which the average loss is taken.
    pub loss_average_window_steps: u64,
    /// Signals that make the run save and stop.
    pub preemption_signals: Vec<String>,
}

/// `lr_scheduler` with the defaults that follow from the optimizer; step counts that are missing follow from the run's length.
#[derive(Clone, Debug, PartialEq)]
pub struct LrScheduler {
    pub init_lr: f64,
    pub max_lr: f64,
    pub min_lr: f64,
    /// `None`: a tenth of the run, at most 1000.
    pub lr_warmup_steps: Option<u64>,
    /// `None`: the whole run.
    pub lr_decay_steps: Option<u64>,
    pub lr_decay: LrDecay,
    pub start_wd: f64,
    pub end_wd: f64,
    /// `None`: the whole run.
    pub wd_incr_steps: Option<u64>,
    pub wd_incr_style: WeightDecayStyle,
}

const SIGNALS: [(&str, i64); 6] =
    [("SIGHUP", 1), ("SIGINT", 2), ("SIGUSR1", 10), ("SIGUSR2", 12), ("SIGALRM", 14), ("SIGTERM", 15)];

/// Words for the ways in which the rate falls; `WSD` is made with its own two keys.
pub(super) const DECAYS: [(&str, LrDecay); 5] = [
    ("constant", LrDecay::Constant),
    ("linear", LrDecay::Linear),
    ("cosine", LrDecay::Cosine),
    ("inverse-square-root", LrDecay::InverseSquareRoot),
    ("WSD", LrDecay::WarmupStableDecay { steps: 0, style: TailStyle::Linear }),
];
pub(super) const TAILS: [(&str, TailStyle); 4] = [
    ("linear", TailStyle::Linear),
    ("cosine", TailStyle::Cosine),
    ("exponential", TailStyle::Exponential),
    ("minus_sqrt", TailStyle::MinusSqrt),
];
pub(super) const RISES: [(&str, WeightDecayStyle); 3] = [
    ("constant", WeightDecayStyle::Constant),
    ("linear", WeightDecayStyle::Linear),
    ("cosine", WeightDecayStyle::Cosine),
];

impl StepScheduler {
    /// The schedule for an epoch of this many microbatches.
    ///
    /// # Errors
    /// An empty epoch.
    pub fn schedule(&self, microbatches_per_epoch: u64, dialect: Dialect) -> Result<StepSchedule, String> {
        if microbatches_per_epoch == 0 {
            return Err("the training data holds no batch: nothing to train on".into());
        }
        let accumulation = (self.global_batch_size / self.local_batch_size.max(1)).max(1);
        let epoch = microbatches_per_epoch.div_ceil(accumulation);
        let epochs = self.num_epochs.unwrap_or_else(|| self.max_steps.map_or(10, |steps| steps.div_ceil(epoch)));
        let schedule = StepSchedule {
            microbatches_per_epoch,
            accumulation,
            epochs,
            max_steps: self.max_steps.unwrap_or(u64::MAX),
            checkpoint_every: self.ckpt_every_steps.unwrap_or(epoch),
            checkpoint_every_epoch: self.save_checkpoint_every_epoch,
            validate_every: self.val_every_steps,
            validate_at_checkpoints: dialect == Dialect::Head,
            first_number: if dialect == Dialect::Head { 0 } else { 1 },
        };
        schedule.check().map(|()| schedule)
    }
}

impl LrScheduler {
    /// The schedule of a run with these steps.
    ///
    /// # Errors
    /// What [`LrSchedule::check`] finds.
    pub fn schedule(&self, steps: &StepSchedule, dialect: Dialect) -> Result<LrSchedule, String> {
        let total = match dialect {
            Dialect::Head => steps.total_steps(),
            Dialect::S25 => steps.epochs.saturating_mul(steps.microbatches_per_epoch) / steps.accumulation.max(1),
        };
        let schedule = LrSchedule {
            init_lr: self.init_lr,
            max_lr: self.max_lr,
            min_lr: self.min_lr,
            warmup_steps: self.lr_warmup_steps.unwrap_or((total / 10).min(1000)),
            decay_steps: self.lr_decay_steps.unwrap_or(total),
            decay: self.lr_decay,
            start_weight_decay: self.start_wd,
            end_weight_decay: self.end_wd,
            weight_decay_steps: self.wd_incr_steps.unwrap_or(total),
            weight_decay_style: self.wd_incr_style,
        };
        schedule.check().map(|()| schedule)
    }
}

/// Reads `step_scheduler`.
pub(super) fn read_steps(root: &Node, dialect: Dialect, log: &Log) -> StepScheduler {
    let section = Section::open_or_empty("step_scheduler", root, log);
    section.ignore(&["gc_every_steps"]);
    section.refuse_if_set("start_step", "starting at a later step (resume from a checkpoint instead)");
    section.refuse_if_set("start_epoch", "starting at a later epoch (resume from a checkpoint instead)");
    let (local_batch_size, global_batch_size) = batch_sizes(&section, root, dialect);
    let scheduler = StepScheduler {
        global_batch_size,
        local_batch_size,
        num_epochs: or_null(&section, "num_epochs", 10),
        max_steps: section.integer("max_steps", 1),
        ckpt_every_steps: or_null(&section, "ckpt_every_steps", 100),
        save_checkpoint_every_epoch: section.flag("save_checkpoint_every_epoch", true),
        val_every_steps: section.integer("val_every_steps", 1),
        log_remote_every_steps: section.integer("log_remote_every_steps", 1).unwrap_or(1),
        loss_average_window_steps: section.integer("loss_average_window_steps", 1).unwrap_or(50),
        preemption_signals: signals(&section),
    };
    section.finish();
    scheduler
}

/// A count whose absence means `default` and whose null means that it follows from the rest.
fn or_null(section: &Section, key: &'static str, default: u64) -> Option<u64> {
    if section.is_null(key) { None } else { Some(section.integer(key, 1).unwrap_or(default)) }
}

/// Local and global batch size. The guides of 2025 gave the first in `dataloader` and the ratio as `grad_acc_steps`.
fn batch_sizes(section: &Section, root: &Node, dialect: Dialect) -> (u64, u64) {
    let local = section.integer_within("local_batch_size", 1, MOST_ROWS).unwrap_or(1);
    if dialect == Dialect::S25 && section.get("grad_acc_steps").is_some() {
        return guide_batch_sizes(section, root, local);
    }
    if dialect == Dialect::Head
        && let Some(node) = root.get("step_scheduler").and_then(|it| it.get("grad_acc_steps"))
    {
        let error = Diagnostic::error("unknown key `grad_acc_steps` in `step_scheduler`");
        let help = "write `global_batch_size`: grad_acc_steps times the examples of a microbatch";
        section.log.push(error.at(&node.span, "belongs to the form of 2025, without `recipe`").help(help));
        section.ignore(&["grad_acc_steps"]);
    }
    let global = section.integer("global_batch_size", 1).unwrap_or(32);
    if !global.is_multiple_of(local) {
        let span = section.get("global_batch_size").map_or(&section.span, |node| &node.span);
        let message =
            format!("global_batch_size ({global}) must be divisible by local_batch_size * dp_size ({local} * 1)");
        section.log.error(span, message, format!("wanted a multiple of {local}"));
    }
    (local, global)
}

fn guide_batch_sizes(section: &Section, root: &Node, local: u64) -> (u64, u64) {
    let accumulation = section.integer("grad_acc_steps", 1).unwrap_or(1);
    let of_loader = root.get("dataloader").and_then(|it| it.get("batch_size")).map(|it| &it.value);
    let local = match of_loader {
        Some(Value::Int(size)) if (1..=MOST_ROWS as i64).contains(size) => *size as u64,
        _ => local,
    };
    let global = accumulation.saturating_mul(local);
    if let Some(given) = section.integer("global_batch_size", 1)
        && let (true, Some(node)) = (given != global, section.get("global_batch_size"))
    {
        let message =
            format!("global_batch_size ({given}) must equal grad_acc_steps * batch_size ({accumulation} * {local})");
        section.log.error(&node.span, message, "leave one of the two out");
    }
    (local, global)
}

/// A signal by name or number, several, or null for none.
fn signals(section: &Section) -> Vec<String> {
    let Some(node) = section.raw("preemption_signal") else { return vec!["SIGTERM".into()] };
    let name = |value: &Value| match value {
        Value::Text(text) => SIGNALS.iter().find(|(name, _)| name == text),
        Value::Int(number) => SIGNALS.iter().find(|(_, it)| it == number),
        _ => None,
    };
    let names: Option<Vec<String>> = match &node.value {
        Value::Null => Some(Vec::new()),
        Value::List(items) => items.iter().map(|it| name(&it.value).map(|(name, _)| name.to_string())).collect(),
        value => name(value).map(|(name, _)| vec![name.to_string()]),
    };
    names.unwrap_or_else(|| {
        let known = SIGNALS.map(|(name, _)| name).join(", ");
        section.wrong("preemption_signal", node, &format!("one or more of {known}, or null"));
        Vec::new()
    })
}

/// Reads `lr_scheduler`; without it the rate is constant.
pub(super) fn read_rate(root: &Node, optimizer: &Optimizer, log: &Log) -> Option<LrScheduler> {
    let section = Section::open("lr_scheduler", root.get("lr_scheduler"), log)?;
    checkpoint_wins(&section);
    let number = |key, default| positive_or_zero(&section, key).unwrap_or(default);
    let scheduler = LrScheduler {
        init_lr: number("init_lr", 0.1 * optimizer.lr),
        max_lr: number("max_lr", optimizer.lr),
        min_lr: number("min_lr", 0.01 * optimizer.lr),
        lr_warmup_steps: section.integer("lr_warmup_steps", 0),
        lr_decay_steps: section.integer("lr_decay_steps", 1),
        lr_decay: decay(&section),
        start_wd: number("start_wd", optimizer.weight_decay),
        end_wd: number("end_wd", optimizer.weight_decay),
        wd_incr_steps: section.integer("wd_incr_steps", 1),
        wd_incr_style: section.choice("wd_incr_style", &RISES).unwrap_or(WeightDecayStyle::Constant),
    };
    check_rate(&section, &scheduler);
    section.finish();
    Some(scheduler)
}

/// A resumed run always continues with the schedule of its checkpoint.
fn checkpoint_wins(section: &Section) {
    for (key, only) in [("use_checkpoint_opt_param_scheduler", true), ("override_opt_param_scheduler", false)] {
        if let (true, Some(node)) = (section.flag(key, only) != only, section.get(key)) {
            section.unsupported(key, node, "another learning rate schedule after a restart");
        }
    }
}

fn decay(section: &Section) -> LrDecay {
    let decay = section.choice("lr_decay_style", &DECAYS).unwrap_or(LrDecay::Cosine);
    let steps = section.integer("wsd_decay_steps", 1);
    let style = section.choice("lr_wsd_decay_style", &TAILS);
    match (decay, steps, style) {
        (LrDecay::WarmupStableDecay { .. }, Some(steps), Some(style)) => LrDecay::WarmupStableDecay { steps, style },
        (LrDecay::WarmupStableDecay { .. }, ..) => {
            let message = "`lr_decay_style: WSD` needs `wsd_decay_steps` and `lr_wsd_decay_style`";
            section.log.error(&section.span, message, "in this section");
            LrDecay::Cosine
        }
        _ => decay,
    }
}

/// What can be checked before the length of the run is known: missing step counts are taken to fit.
fn check_rate(section: &Section, scheduler: &LrScheduler) {
    let unbounded = u64::MAX;
    let schedule = LrSchedule {
        init_lr: scheduler.init_lr,
        max_lr: scheduler.max_lr,
        min_lr: scheduler.min_lr,
        warmup_steps: scheduler.lr_warmup_steps.unwrap_or(0),
        decay_steps: scheduler.lr_decay_steps.unwrap_or(unbounded),
        decay: scheduler.lr_decay,
        start_weight_decay: scheduler.start_wd,
        end_weight_decay: scheduler.end_wd,
        weight_decay_steps: scheduler.wd_incr_steps.unwrap_or(unbounded),
        weight_decay_style: scheduler.wd_incr_style,
    };
    if let Err(message) = schedule.check() {
        section.log.error(&section.span, format!("`lr_scheduler`: {message}"), "in this section");
    }
}
