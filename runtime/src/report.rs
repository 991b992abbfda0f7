//! What a run says: log lines on stdout, a progress bar on stderr, one JSON record a line in the checkpoint directory.
//!
//! Log lines and records have the form of NeMo Automodel. Records are written through at once, so a killed run loses none.
//! Times are UTC.
mod journal;
mod number;
pub(crate) mod profile;

pub(crate) use journal::Journal;

use crate::host::Moment;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use number::{exponent, fixed};
use serde::Serialize;
use std::io::Write;

/// A record of `training.jsonl`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct StepRecord {
    pub step: u64,
    pub epoch: u64,
    pub timestamp: String,
    pub loss: f64,
    pub grad_norm: f64,
    /// After the scheduler moved on.
    pub lr: f64,
    /// Peak memory of the process in GiB.
    pub mem: f64,
    pub tps: f64,
    pub tps_per_gpu: f64,
    /// Always 0: CPUs have no peak in Automodel's table.
    pub mfu: f64,
    pub num_tokens_per_step: u64,
    pub num_label_tokens: u64,
}

/// A record of `validation.jsonl`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ValidationRecord {
    pub step: u64,
    pub epoch: u64,
    pub timestamp: String,
    pub val_loss: f64,
    pub lr: f64,
    pub num_label_tokens: u64,
    pub mem: f64,
}

impl StepRecord {
    fn line(&self) -> String {
        format!(
            "step {} | epoch {} | loss {} | grad_norm {} | lr {} | mem {} GiB | tps {}({}/gpu) | num_label_tokens {}",
            self.step,
            self.epoch,
            fixed(self.loss, 4),
            fixed(self.grad_norm, 4),
            exponent(self.lr),
            fixed(self.mem, 2),
            fixed(self.tps, 2),
            fixed(self.tps_per_gpu, 2),
            self.num_label_tokens
        )
    }
}

impl ValidationRecord {
    fn line(&self, name: &str) -> String {
        format!(
            "[val] name \"{name}\" | step {} | epoch {} | loss {} | lr {} | num_label_tokens {}",
            self.step,
            self.epoch,
            fixed(self.val_loss, 4),
            exponent(self.lr),
            self.num_label_tokens
        )
    }
}

/// Where a run talks to.
pub struct Reporter {
    quiet: bool,
    bar: ProgressBar,
}

impl Reporter {
    /// For a run of that many steps; the bar is hidden where stderr is not a terminal.
    pub fn new(quiet: bool, steps: u64) -> Reporter {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(steps), target);
        let style = ProgressStyle::with_template("{bar:32} {pos}/{len} steps, {elapsed} gone, {eta} left {msg}");
        Reporter { quiet, bar: bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())) }
    }

    /// A line of the log.
    pub fn info(&self, message: &str) {
        self.say("INFO", message);
    }

    /// A line of the log that asks for attention.
    pub fn warn(&self, message: &str) {
        self.say("WARNING", message);
    }

    /// A finished step.
    pub fn step(&self, record: &StepRecord) {
        self.info(&record.line());
        self.bar.set_message(format!("loss {}", fixed(record.loss, 4)));
        self.bar.inc(1);
    }

    /// A finished validation.
    pub fn validation(&self, name: &str, record: &ValidationRecord) {
        self.info(&record.line(name));
    }

    /// The bar starts at a step that is done already.
    pub fn start_at(&self, step: u64) {
        self.bar.set_position(step);
        self.bar.reset_eta();
    }

    /// Leaves the bar as it stands.
    pub fn finish(&self) {
        self.bar.abandon();
    }

    fn say(&self, level: &str, message: &str) {
        if !self.quiet {
            let stamp = Moment::now().log_stamp();
            // A log that nobody reads any more (`amc run | head`) does not stop the training.
            self.bar.suspend(|| drop(writeln!(std::io::stdout(), "{stamp} | {level} | amc.train | {message}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_automodels_form() {
        let step = StepRecord {
            step: 9,
            epoch: 0,
            timestamp: String::new(),
            loss: 1.23456,
            grad_norm: 0.5,
            lr: 1e-5,
            mem: 1.005,
            tps: 900.126,
            tps_per_gpu: 900.126,
            mfu: 0.0,
            num_tokens_per_step: 100,
            num_label_tokens: 40,
        };
        let wanted = "step 9 | epoch 0 | loss 1.2346 | grad_norm 0.5000 | lr 1.00e-05 | mem 1.00 GiB | \
                      tps 900.13(900.13/gpu) | num_label_tokens 40";
        assert_eq!(step.line(), wanted);
        let validation = ValidationRecord {
            step: 9,
            epoch: 0,
            timestamp: String::new(),
            val_loss: f64::NAN,
            lr: 0.0,
            num_label_tokens: 4,
            mem: 0.0,
        };
        let wanted = "[val] name \"default\" | step 9 | epoch 0 | loss nan | lr 0.00e+00 | num_label_tokens 4";
        assert_eq!(validation.line("default"), wanted);
    }
}
