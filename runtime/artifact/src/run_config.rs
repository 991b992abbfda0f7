//! `run.json`: everything that the training loop follows, decided when compiling.
use crate::{LrSchedule, Sampler, StepSchedule};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// The settings of a training run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Of initial values and dropout; the order of data has a seed of its own.
    pub seed: u64,
    pub model: ModelConfig,
    /// How an adapter is described beside its tensors; `None` for full fine-tuning.
    pub peft: Option<PeftExport>,
    pub optimizer: OptimizerConfig,
    /// Largest L2 norm of the gradient; infinite for no clipping.
    #[serde(with = "infinite")]
    pub max_norm: f64,
    pub schedule: StepSchedule,
    pub lr_schedule: LrSchedule,
    /// Whether the schedule of this recipe wins over the one in a checkpoint that is resumed.
    pub override_lr_schedule: bool,
    pub train: TrainData,
    pub validation: Vec<ValidationData>,
    pub checkpoint: CheckpointConfig,
    /// A PEFT folder whose matrices a run that does not resume starts from, instead of from random ones.
    pub initial_adapter: Option<String>,
    /// Signals (by number) on which the run finishes its step, saves and ends.
    pub preemption_signals: Vec<i32>,
    /// Threads unless the command line says otherwise; `None`: all cores.
    pub threads: Option<u64>,
}

/// The model that a run starts from.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Folder or Hub id, as the recipe has it.
    pub name: String,
    /// Branch, tag or commit of a Hub id; its main branch where not given.
    pub revision: Option<String>,
    /// Keys of `config.json` that the recipe replaces.
    pub config_overrides: serde_json::Map<String, serde_json::Value>,
    /// Tokens are below this.
    pub vocabulary: u64,
    /// Files of the model folder that go with a full model: `config.json`, `generation_config.json`.
    pub config_files: Vec<String>,
    /// Where the tokenizer is; `None`: in the model folder.
    pub tokenizer: Option<String>,
    /// Files of the tokenizer's folder, which go with every checkpoint.
    pub tokenizer_files: Vec<String>,
    /// Checkpoint tensors that are copies of others and are not written: a tied head.
    pub tied: Vec<String>,
    /// Parameters of the whole model, adapter included.
    pub parameters: u64,
}

/// How PEFT and Automodel describe an adapter.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeftExport {
    pub rank: u64,
    /// A JSON number, so that a whole alpha is written as the integer that PEFT wants.
    pub alpha: serde_json::Number,
    /// Full names of the adapted modules, sorted.
    pub target_modules: Vec<String>,
    /// Contents of `automodel_peft_config.json`: the recipe's section without dim and alpha.
    pub automodel: serde_json::Map<String, serde_json::Value>,
}

/// What the loop must know of the optimizer; the arithmetic is in the compiled update.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// As the log shows it, such as `AdamW`.
    pub name: String,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
}

/// The data that is trained on.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainData {
    /// Hash of the token shard.
    pub shard: String,
    pub sampler: Sampler,
}

/// A data set that is only evaluated.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationData {
    /// `default` for the only, unnamed one.
    pub name: String,
    /// Hash of the token shard.
    pub shard: String,
}

/// When and how checkpoints are written.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    pub enabled: bool,
    /// As the recipe has it, relative to where the run is started.
    pub dir: String,
    pub consolidated: Consolidated,
    /// The validation set whose loss ranks checkpoints where there are several.
    pub best_metric: String,
    /// How many of the newest checkpoints stay; all where not given.
    pub keep: Option<u64>,
    /// What to resume from where the command line does not say.
    pub restore_from: Option<String>,
}

/// At which checkpoints a full model is written in the form that others load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consolidated {
    Final,
    Every,
    Never,
}

impl RunConfig {
    /// Checks what the training loop relies on.
    pub fn check(&self) -> Result<()> {
        self.schedule.check().map_err(anyhow::Error::msg)?;
        self.lr_schedule.check().map_err(anyhow::Error::msg)?;
        let (yielded, drawn) = (self.schedule.microbatches_per_epoch, self.train.sampler.microbatches_per_epoch());
        ensure!(
            yielded == u64::from(drawn),
            "the schedule counts {yielded} microbatches an epoch, the sampler {drawn}"
        );
        let (steps, groups) = (self.schedule.accumulation, self.train.sampler.accumulation);
        ensure!(steps == u64::from(groups), "the schedule accumulates {steps} microbatches, the sampler {groups}");
        ensure!(self.max_norm > 0.0, "clip_grad_norm.max_norm is {}, wanted more than 0", self.max_norm);
        for (index, set) in self.validation.iter().enumerate() {
            let twice = self.validation[..index].iter().any(|other| other.name == set.name);
            ensure!(!twice, "two validation sets are named `{}`", set.name);
            let plain = !set.name.is_empty() && !set.name.contains(['/', '\0']);
            ensure!(plain, "the validation set's name {:?} cannot be part of a file name", set.name);
        }
        Ok(())
    }
}

/// JSON has no infinity: `null` stands for it.
mod infinite {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        value.is_finite().then_some(*value).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
    }
}
