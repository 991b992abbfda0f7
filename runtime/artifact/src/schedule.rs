//! When things happen: learning rate and weight decay by step, and which steps validate, save and stop.
//!
//! Pure functions of the step number, so a resumed run continues exactly. Steps are counted from zero, over the whole run.
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;
use std::ops::Range;

/// Learning rate and weight decay as functions of `n`, the number of finished steps. Step `n` (from zero) trains with
/// `learning_rate(n)`; its log line shows `learning_rate(n + 1)`, as NeMo Automodel does.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LrSchedule {
    /// Where the warm-up starts.
    pub init_lr: f64,
    pub max_lr: f64,
    pub min_lr: f64,
    pub warmup_steps: u64,
    /// The step after which the rate stays at `min_lr`, warm-up included.
    pub decay_steps: u64,
    pub decay: LrDecay,
    pub start_weight_decay: f64,
    pub end_weight_decay: f64,
    pub weight_decay_steps: u64,
    pub weight_decay_style: WeightDecayStyle,
}

/// How the rate falls after the warm-up.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub enum LrDecay {
    Constant,
    Linear,
    Cosine,
    InverseSquareRoot,
    /// Stable at the maximum, then down within the last `steps`.
    WarmupStableDecay {
        steps: u64,
        style: TailStyle,
    },
}

/// The last part of [`LrDecay::WarmupStableDecay`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TailStyle {
    Linear,
    Cosine,
    Exponential,
    MinusSqrt,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum WeightDecayStyle {
    Constant,
    Linear,
    Cosine,
}

impl LrSchedule {
    /// The same rate and weight decay at every step.
    pub fn constant(learning_rate: f64, weight_decay: f64) -> LrSchedule {
        LrSchedule {
            init_lr: learning_rate,
            max_lr: learning_rate,
            min_lr: learning_rate,
            warmup_steps: 0,
            decay_steps: 1,
            decay: LrDecay::Constant,
            start_weight_decay: weight_decay,
            end_weight_decay: weight_decay,
            weight_decay_steps: 1,
            weight_decay_style: WeightDecayStyle::Constant,
        }
    }

    /// Says what makes the schedule meaningless, in the terms of a recipe.
    ///
    /// # Errors
    /// Rates out of order, a warm-up as long as the decay, or a tail longer than the decay.
    pub fn check(&self) -> Result<(), String> {
        let LrSchedule { init_lr, max_lr, min_lr, warmup_steps, decay_steps, .. } = self;
        if !(0.0 <= *min_lr && min_lr <= max_lr) {
            return Err(format!("min_lr ({min_lr:?}) must lie between 0 and max_lr ({max_lr:?})"));
        }
        if init_lr > max_lr {
            return Err(format!("init_lr ({init_lr:?}) must not exceed max_lr ({max_lr:?})"));
        }
        if warmup_steps >= decay_steps {
            return Err(format!("lr_warmup_steps ({warmup_steps}) must be less than lr_decay_steps ({decay_steps})"));
        }
        match self.decay {
            LrDecay::WarmupStableDecay { steps, .. } if steps == 0 || steps > *decay_steps => {
                return Err(format!("wsd_decay_steps ({steps}) must lie between 1 and lr_decay_steps ({decay_steps})"));
            }
            _ => {}
        }
        let (start, end) = (self.start_weight_decay, self.end_weight_decay);
        if !(0.0 <= start && start <= end) {
            return Err(format!("start_wd ({start:?}) must lie between 0 and end_wd ({end:?})"));
        }
        if self.weight_decay_style == WeightDecayStyle::Constant && start != end {
            return Err(format!("with wd_incr_style constant, start_wd ({start:?}) must equal end_wd ({end:?})"));
        }
        Ok(())
    }

    /// Learning rate after `n` finished steps.
    pub fn learning_rate(&self, n: u64) -> f64 {
        let (step, warmup) = (n as f64, self.warmup_steps as f64);
        if self.warmup_steps > 0 && n <= self.warmup_steps {
            return self.init_lr + (self.max_lr - self.init_lr) * step / warmup;
        }
        if self.decay == LrDecay::Constant {
            return self.max_lr;
        }
        if n > self.decay_steps {
            return self.min_lr;
        }
        let remaining = self.decay_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let ratio = (step - warmup) / remaining;
        let share = match self.decay {
            LrDecay::Constant => 1.0,
            LrDecay::InverseSquareRoot => {
                let rate = self.max_lr * warmup.max(1.0).sqrt() / step.max(1.0).sqrt();
                return rate.max(self.min_lr);
            }
            LrDecay::Linear => 1.0 - ratio,
            LrDecay::Cosine => 0.5 * ((PI * ratio).cos() + 1.0),
            LrDecay::WarmupStableDecay { steps, style } => tail(n, self.decay_steps, steps, style),
        };
        self.min_lr + share * (self.max_lr - self.min_lr)
    }

    /// Weight decay after `n` finished steps.
    pub fn weight_decay(&self, n: u64) -> f64 {
        if n > self.weight_decay_steps || self.weight_decay_style == WeightDecayStyle::Constant {
            return self.end_weight_decay;
        }
        let ratio = n as f64 / self.weight_decay_steps.max(1) as f64;
        let share = match self.weight_decay_style {
            WeightDecayStyle::Cosine => 0.5 * ((PI * (1.0 - ratio)).cos() + 1.0),
            _ => ratio,
        };
        self.start_weight_decay + share * (self.end_weight_decay - self.start_weight_decay)
    }
}

/// The share of the maximum that is left at step `n` of a stable phase followed by a tail of `steps`.
fn tail(n: u64, decay_steps: u64, steps: u64, style: TailStyle) -> f64 {
    let start = decay_steps.saturating_sub(steps);
    if n <= start {
        return 1.0;
    }
    let progress = (n - start) as f64 / steps.max(1) as f64;
    match style {
        TailStyle::Linear => 1.0 - progress,
        TailStyle::Cosine => 0.5 * ((PI * progress).cos() + 1.0),
        TailStyle::Exponential => 2.0 * 0.5f64.powf(progress) - 1.0,
        TailStyle::MinusSqrt => 1.0 - progress.sqrt(),
    }
}

/// Which steps there are, what data each takes, and what follows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StepSchedule {
    /// Microbatches that the loader yields in one epoch.
    pub microbatches_per_epoch: u64,
    /// Microbatches of one optimizer step; the last step of an epoch may have fewer.
    pub accumulation: u64,
    pub epochs: u64,
    /// Steps after which to stop even within an epoch.
    pub max_steps: u64,
    pub checkpoint_every: u64,
    pub checkpoint_every_epoch: bool,
    pub validate_every: Option<u64>,
    pub validate_at_checkpoints: bool,
    /// The number that the first step has in names and logs.
    pub first_number: u64,
}

impl StepSchedule {
    /// Says what makes the schedule meaningless.
    ///
    /// # Errors
    /// A zero where a count is wanted.
    pub fn check(&self) -> Result<(), String> {
        let counts = [
            ("microbatches in an epoch", self.microbatches_per_epoch),
            ("microbatches of a step", self.accumulation),
            ("epochs", self.epochs),
            ("max_steps", self.max_steps),
            ("ckpt_every_steps", self.checkpoint_every),
            ("val_every_steps", self.validate_every.unwrap_or(1)),
        ];
        match counts.into_iter().find(|(_, count)| *count == 0) {
            Some((name, _)) => Err(format!("the number of {name} must be greater than 0")),
            None => Ok(()),
        }
    }

    /// Optimizer steps of a whole epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.microbatches_per_epoch.div_ceil(self.accumulation.max(1)).max(1)
    }

    /// Optimizer steps of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.epochs.saturating_mul(self.steps_per_epoch()).min(self.max_steps)
    }

    /// The epoch that step `step` belongs to, from zero.
    pub fn epoch(&self, step: u64) -> u64 {
        step / self.steps_per_epoch()
    }

    /// The microbatches of step `step`, counted from the start of its epoch.
    pub fn microbatches(&self, step: u64) -> Range<u64> {
        let start = (step % self.steps_per_epoch()) * self.accumulation;
        start..start.saturating_add(self.accumulation).min(self.microbatches_per_epoch)
    }

    /// Whether `step` is the last of its epoch.
    pub fn ends_epoch(&self, step: u64) -> bool {
        step % self.steps_per_epoch() == self.steps_per_epoch() - 1
    }

    /// Whether `step` is the last of the run.
    pub fn is_last(&self, step: u64) -> bool {
        step.saturating_add(1) >= self.total_steps()
    }

    /// Whether a checkpoint follows `step`.
    pub fn saves_at(&self, step: u64) -> bool {
        hits(step, self.checkpoint_every)
            || (self.checkpoint_every_epoch && self.ends_epoch(step))
            || self.is_last(step)
    }

    /// Whether validation follows `step`; it comes before the checkpoint, so that its loss can rank it.
    pub fn validates_at(&self, step: u64) -> bool {
        let due = self.validate_every.is_some_and(|every| hits(step, every));
        due || (self.validate_at_checkpoints && self.saves_at(step))
    }

    /// The number of `step` in names and logs.
    pub fn number(&self, step: u64) -> u64 {
        step.saturating_add(self.first_number)
    }

    /// The folder of the checkpoint that follows `step`.
    pub fn checkpoint_name(&self, step: u64) -> String {
        format!("epoch_{}_step_{}", self.epoch(step), self.number(step))
    }
}

/// Whether `step`, counted from zero, completes a group of `every` steps.
fn hits(step: u64, every: u64) -> bool {
    let every = every.max(1);
    step % every == every - 1
}

#[cfg(test)]
mod tests;
