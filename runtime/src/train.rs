//! The training loop.
//!
//! One optimizer step: its microbatches add to the gradients, each token loss weighted by 1 / (supervised tokens of all
//! microbatches of the step); then one update clips, steps and zeroes. Data order, learning rate and random numbers are
//! functions of (seed, step), so the step number is all that a resumed run has to know beside its tensors.
mod expected;
mod resume;
mod start;

pub use start::train;

use crate::checkpoint::{Signature, Snapshot, State, Store};
use crate::data::{Buffers, DataSet};
use crate::host::Moment;
use crate::programs::{BatchPrograms, UpdateProgram, UpdateScalars};
use crate::report::{self, Journal, Reporter, StepRecord, ValidationRecord};
use crate::session::Session;
use amc_artifact::philox::Stream;
use amc_artifact::{Epoch, LrSchedule, Rates, RunConfig};
use anyhow::{Context, Result};
use expected::Expected;
use serde_json::{Map, Value, json};
use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

const GIB: f64 = (1u64 << 30) as f64;

/// What to resume from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resume {
    /// The newest checkpoint, or the start where there is none.
    Auto,
    /// From the start; an error where the checkpoint directory holds checkpoints.
    Never,
    /// `LATEST`, `LOWEST_VAL`, the name of a checkpoint, or a path.
    From(String),
}

impl FromStr for Resume {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Resume, Infallible> {
        Ok(match text {
            "auto" => Resume::Auto,
            "never" => Resume::Never,
            path => Resume::From(path.into()),
        })
    }
}

/// How to run an artifact.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Where not given, what the recipe says, or [`Resume::Auto`].
    pub resume: Option<Resume>,
    /// Stop after this many steps, counted from the start of training; the learning rate does not notice.
    pub steps: Option<u64>,
    /// Threads that share the work; all cores where not given. Results do not depend on it.
    pub threads: Option<usize>,
    /// The model folder, where it is not the one that the recipe names.
    pub model: Option<PathBuf>,
    /// No log and no progress bar.
    pub quiet: bool,
    /// Measure every launch, print where the time went, and write a trace of the last step to this file.
    pub profile: Option<PathBuf>,
    /// What the run is forecast with.
    pub rates: Option<Rates>,
}

/// The folders of a run.
#[derive(Clone, Debug)]
pub struct Places {
    /// Where tokenizer and configuration files come from; `None` where there is no model folder.
    pub model: Option<PathBuf>,
    pub shards: PathBuf,
    pub checkpoints: PathBuf,
}

/// What a run did.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Summary {
    /// Optimizer steps since the start of training.
    pub completed_steps: u64,
    /// Losses of the steps of this run.
    pub losses: Vec<f64>,
    /// Losses of the last validation, by name of the set.
    pub validation: Vec<(String, f64)>,
    /// The last checkpoint that this run wrote.
    pub checkpoint: Option<PathBuf>,
    /// Peak memory, and what was planned: of the process, or of the GPU.
    pub peak_bytes: u64,
    pub planned_bytes: u64,
    /// Wall time from the start of the loop to its end, and to the end of its first step.
    pub seconds: f64,
    pub first_step_seconds: f64,
    /// Tokens of all steps as throughput counts them.
    pub tokens: u64,
}

/// Everything that the loop holds.
pub struct Trainer<'a> {
    session: Session,
    run: &'a RunConfig,
    recipe: &'a str,
    model_folder: Option<PathBuf>,
    train: BatchPrograms,
    evaluate: BatchPrograms,
    update: UpdateProgram,
    data: DataSet,
    validation: Vec<(String, DataSet, Journal)>,
    journal: Journal,
    /// `None` where checkpoints are switched off.
    store: Option<Store<'a>>,
    lr_schedule: LrSchedule,
    buffers: Buffers,
    epoch: Option<(u64, Epoch)>,
    reporter: Reporter,
    stop: Arc<AtomicBool>,
    /// Steps done when this run began.
    first_step: u64,
    /// Steps done when it is to end.
    limit: u64,
    planned_bytes: u64,
    profile: Option<PathBuf>,
    expected: Expected,
}

/// What one optimizer step did.
struct Step {
    loss: f64,
    grad_norm: f64,
    tokens: u64,
    label_tokens: u64,
    /// Seconds that its programs were forecast to take, and that they took with what is done between them.
    expected: f64,
    seconds: f64,
}

impl Trainer<'_> {
    /// Trains to the end, to the limit, or until a signal.
    pub fn run(mut self) -> Result<Summary> {
        let mut summary = Summary { completed_steps: self.first_step, ..Summary::default() };
        self.reporter.start_at(self.first_step);
        let begin = Instant::now();
        let mut before = begin;
        let mut times = Vec::new();
        for step in self.first_step..self.limit {
            let done = self.step(step)?;
            let now = Instant::now();
            self.record_step(step, &done, (now - before).as_secs_f64())?;
            before = now;
            if step == self.first_step {
                summary.first_step_seconds = (now - begin).as_secs_f64();
                if self.profile.is_some() && step + 1 < self.limit {
                    // The first step touches all memory for the first time.
                    self.session.start_profile()?;
                    self.expected.forget();
                }
            } else {
                times.push((done.seconds, done.expected));
            }
            summary.completed_steps = step + 1;
            summary.losses.push(done.loss);
            summary.tokens += done.tokens;
            if self.after_step(step, done.loss, &mut summary)? {
                break;
            }
        }
        summary.seconds = begin.elapsed().as_secs_f64();
        (summary.peak_bytes, summary.planned_bytes) = (self.session.peak_memory(), self.planned_bytes);
        self.reporter.finish();
        self.conclude(&summary);
        self.compare(&times);
        self.report_profile()?;
        Ok(summary)
    }

    /// Steps, time and memory of the run, beside the memory that was planned.
    fn conclude(&self, summary: &Summary) {
        let steps = summary.losses.len();
        if steps > 0 {
            self.reporter.info(&format!(
                "{steps} steps in {:.1} s ({:.1} s the first), {:.2} tokens/s, peak memory {:.3} GiB of {:.3} GiB planned",
                summary.seconds,
                summary.first_step_seconds,
                summary.tokens as f64 / summary.seconds.max(f64::MIN_POSITIVE),
                summary.peak_bytes as f64 / GIB,
                summary.planned_bytes as f64 / GIB
            ));
        }
    }

    /// The forecast beside what steps took, the first one left out.
    fn compare(&self, times: &[(f64, f64)]) {
        let Some(forecast) = self.expected.forecast(self.session.plan()) else { return };
        if times.is_empty() || !self.expected.calibrated() {
            return;
        }
        let median = |part: fn(&(f64, f64)) -> f64| {
            let mut all: Vec<f64> = times.iter().map(part).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let (actual, expected) = (median(|time| time.0), median(|time| time.1));
        let ratio = median(|time| time.0 / time.1);
        self.reporter.info(&format!(
            "a step was forecast to take {expected:.3} s ({}) and took {actual:.3} s, medians of {} without the \
             first: ratio {ratio:.3}",
            forecast.certainty(),
            times.len(),
        ));
    }

    /// Where the time went, if that was asked for.
    fn report_profile(&self) -> Result<()> {
        let (Some(path), Some(profile)) = (&self.profile, self.session.profile()) else { return Ok(()) };
        let forecast = self.expected.forecast(self.session.plan());
        let forecast = forecast.as_ref();
        self.reporter.info(&report::profile::tables(self.session.plan(), profile, forecast, self.expected.loads()));
        if let Some(forecast) = forecast {
            self.reporter.info(&format!("forecasts are {}", forecast.certainty()));
        }
        report::profile::write_trace(self.session.plan(), profile, forecast, path)
    }

    /// Validates and saves where it is time; says whether to stop.
    fn after_step(&mut self, step: u64, loss: f64, summary: &mut Summary) -> Result<bool> {
        let schedule = &self.run.schedule;
        let stopping = self.stop.load(Ordering::Relaxed);
        let ends = stopping || step + 1 == self.limit;
        let save = schedule.saves_at(step) || ends;
        let validate = schedule.validates_at(step) || (schedule.validate_at_checkpoints && save);
        let fresh = validate && !stopping && !self.validation.is_empty();
        if fresh {
            summary.validation = self.validate(step)?;
        }
        if save {
            let losses = if fresh { summary.validation.as_slice() } else { &[] };
            summary.checkpoint = self.save(step, loss, losses)?.or(summary.checkpoint.take());
        }
        if stopping && step + 1 < self.limit {
            self.reporter.warn("a signal asked to stop: this step is saved, run again to go on");
        }
        Ok(stopping)
    }

    fn step(&mut self, step: u64) -> Result<Step> {
        let number = self.run.schedule.epoch(step);
        if self.epoch.as_ref().is_none_or(|(current, _)| *current != number) {
            self.epoch = Some((number, self.run.train.sampler.epoch(number)));
        }
        let (_, epoch) = self.epoch.as_ref().context("the epoch was just set")?;
        let index = (step % self.run.schedule.steps_per_epoch()) as usize;
        let label_tokens: u64 = epoch.step(index).map(|rows| self.data.supervised(rows)).sum();
        let loss_scale = if label_tokens > 0 { (1.0 / label_tokens as f64) as f32 } else { 0.0 };
        let (mut loss, mut tokens, mut expected) = (0.0, 0, 0.0);
        let begin = Instant::now();
        for (microbatch, rows) in epoch.step(index).enumerate() {
            let program = self.train.fit(rows.len(), self.data.longest(rows))?;
            let seed = dropout_seed(self.run.seed, step, microbatch as u64);
            loss += program.run(&mut self.session, &mut self.buffers, &self.data, rows, loss_scale, seed)?;
            tokens += self.buffers.counted_tokens(program.rows, program.sequence);
            expected += self.expected.batch(self.session.plan(), program, &self.buffers);
        }
        let scalars = self.scalars(step);
        let grad_norm = self.update.run(&mut self.session, &scalars)?;
        expected += self.expected.always(self.session.plan(), self.update.index());
        Ok(Step { loss, grad_norm, tokens, label_tokens, expected, seconds: begin.elapsed().as_secs_f64() })
    }

    fn scalars(&self, step: u64) -> UpdateScalars {
        let correction = |beta: f64| (1.0 - beta.powf((step + 1) as f64)) as f32;
        let optimizer = &self.run.optimizer;
        UpdateScalars {
            learning_rate: self.lr_schedule.learning_rate(step) as f32,
            weight_decay: self.lr_schedule.weight_decay(step) as f32,
            bias_corrections: [correction(optimizer.beta1), correction(optimizer.beta2)],
            max_norm: self.run.max_norm as f32,
        }
    }

    /// Mean token loss of every validation set.
    fn validate(&mut self, step: u64) -> Result<Vec<(String, f64)>> {
        let mut losses = Vec::with_capacity(self.validation.len());
        for (name, data, journal) in &mut self.validation {
            let (mut sum, mut label_tokens) = (0.0, 0);
            let mut rows = 0..data.rows();
            while !rows.is_empty() {
                let next = rows.end.min(rows.start + self.evaluate.most_rows() as u32);
                let batch: Vec<u32> = (rows.start..next).collect();
                rows.start = next;
                let program = self.evaluate.fit(batch.len(), data.longest(&batch))?;
                // The scale is 1 and the division comes last, so that the mean does not depend on the batches.
                sum += program.run(&mut self.session, &mut self.buffers, data, &batch, 1.0, [0; 2])?;
                label_tokens += data.supervised(&batch);
            }
            let record = ValidationRecord {
                step: self.run.schedule.number(step),
                epoch: self.run.schedule.epoch(step),
                timestamp: Moment::now().iso(),
                val_loss: if label_tokens > 0 { sum / label_tokens as f64 } else { 0.0 },
                lr: self.lr_schedule.learning_rate(step + 1),
                num_label_tokens: label_tokens,
                mem: self.session.peak_memory() as f64 / GIB,
            };
            self.reporter.validation(name, &record);
            journal.append(&record)?;
            losses.push((name.clone(), record.val_loss));
        }
        Ok(losses)
    }

    fn record_step(&mut self, step: u64, done: &Step, seconds: f64) -> Result<()> {
        let tps = done.tokens as f64 / seconds.max(f64::MIN_POSITIVE);
        let record = StepRecord {
            step: self.run.schedule.number(step),
            epoch: self.run.schedule.epoch(step),
            timestamp: Moment::now().iso(),
            loss: done.loss,
            grad_norm: done.grad_norm,
            lr: self.lr_schedule.learning_rate(step + 1),
            mem: self.session.peak_memory() as f64 / GIB,
            tps,
            tps_per_gpu: tps,
            mfu: 0.0,
            num_tokens_per_step: done.tokens,
            num_label_tokens: done.label_tokens,
        };
        self.reporter.step(&record);
        self.journal.append(&record)
    }

    /// Saves a checkpoint, where they are not switched off.
    fn save(&self, step: u64, loss: f64, validation: &[(String, f64)]) -> Result<Option<PathBuf>> {
        let Some(store) = &self.store else { return Ok(None) };
        let schedule = &self.run.schedule;
        let name = schedule.checkpoint_name(step);
        self.reporter.info(&format!("Saving checkpoint to {}", store.dir().join(&name).display()));
        self.journal.sync()?;
        self.validation.iter().try_for_each(|(_, _, journal)| journal.sync())?;
        let signature = Signature::of(self.session.plan(), self.run);
        let mut state = State::new(step + 1, schedule.epoch(step), signature, self.lr_schedule.clone());
        state.validation_loss = self.ranking_loss(validation);
        let snapshot = Snapshot {
            session: &self.session,
            run: self.run,
            recipe: self.recipe,
            model_folder: self.model_folder.as_deref(),
            state,
            losses: losses_json(loss, validation),
            last: step + 1 == self.limit,
        };
        store.save(&name, snapshot).map(Some)
    }

    /// The loss of the only validation set, or of the one that the recipe names.
    fn ranking_loss(&self, validation: &[(String, f64)]) -> Option<f64> {
        match validation {
            [(_, loss)] => Some(*loss),
            several => several.iter().find(|(name, _)| *name == self.run.checkpoint.best_metric).map(|(_, loss)| *loss),
        }
    }
}

/// `losses.json`: the validation loss is a number for the only unnamed set, else a number by name.
fn losses_json(loss: f64, validation: &[(String, f64)]) -> Value {
    let mut losses = Map::from_iter([("train_loss".to_string(), json!(loss))]);
    match validation {
        [] => {}
        [(name, value)] if name == "default" => {
            losses.insert("val_loss".into(), json!(value));
        }
        named => {
            let by_name = named.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            losses.insert("val_loss".into(), Value::Object(by_name));
        }
    }
    Value::Object(losses)
}

/// The dropout seed of a microbatch: two words that depend on (seed, step, microbatch) alone.
fn dropout_seed(seed: u64, step: u64, microbatch: u64) -> [u32; 2] {
    let [a, b, _, _] = Stream::new(seed, &format!("dropout {step}")).block(microbatch);
    [a, b]
}
