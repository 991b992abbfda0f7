//! Recipes: NeMo-Automodel-style YAML, read into plain structs.
//!
//! The way of a recipe: text → tree with spans ([`yaml`], by PyYAML's rules) → overrides → environment variables and Python
//! literals → typed sections, one file each.
//!
//! Invariants:
//! - What a [`Recipe`] holds is complete: every default is filled in. [`Recipe::lock_yaml`] writes it out, and reading that
//!   gives an equal recipe.
//! - A key that is not understood never passes in silence.
//! - All mistakes are reported, each with its place.
mod checkpoint;
mod dataloader;
mod dataset;
mod distributed;
mod interpolate;
mod literal;
mod lock;
mod model;
mod node;
mod optimizer;
mod overrides;
mod peft;
mod places;
mod reader;
mod scalar;
mod schedule;
mod settings;
pub mod targets;
mod top;
mod yaml;

pub use checkpoint::{Checkpoint, Consolidated};
pub use dataloader::{Collate, DataLoader, PackedSequence};
pub use dataset::{
    ColumnMapped, Columns, Dataset, MockIterable, Padding, Squad, TokenFile, TokenOptions, TokenizerConfig,
    ValidationSet,
};
pub use interpolate::Environment;
pub use model::{Model, ModelSource, TorchDtype};
pub use optimizer::{Algorithm, Loss, Optimizer};
pub use overrides::automodel_options;
pub use peft::{DropoutPosition, LoraInit, Matcher, PeftConfig};
pub use places::Places;
pub use schedule::{LrScheduler, StepScheduler};
pub use settings::{Settings, Vendor};

use crate::diagnostic::{Diagnostic, Source, Span};
use amc_artifact::{LrSchedule, StepSchedule};
use node::{Node, Value};
use reader::Log;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// Which form the recipe has. They differ in names of steps, in texts of datasets and in a few defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// With a `recipe` key: Automodel as of 2026.
    Head,
    /// Without one: the guides of September 2025.
    S25,
}

/// A fine-tuning run, every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    pub dialect: Dialect,
    /// Whether `recipe` names the benchmark class, which trains in the same way.
    pub benchmark: bool,
    pub seed: u64,
    pub model: Model,
    /// Where the tokenizer comes from; `None`: from the model.
    pub tokenizer: Option<TokenizerConfig>,
    /// Adapters; `None`: all weights are trained.
    pub peft: Option<PeftConfig>,
    pub dataset: Dataset,
    pub validation_datasets: Vec<ValidationSet>,
    pub dataloader: DataLoader,
    pub validation_dataloader: DataLoader,
    pub packed_sequence: Option<PackedSequence>,
    pub loss: Loss,
    pub optimizer: Optimizer,
    /// `None`: a constant rate.
    pub lr_scheduler: Option<LrScheduler>,
    pub step_scheduler: StepScheduler,
    /// Largest L2 norm of the gradient.
    pub max_grad_norm: f64,
    pub checkpoint: Checkpoint,
    pub amc: Settings,
}

impl Recipe {
    /// The steps of a run whose loader yields this many microbatches in an epoch.
    ///
    /// # Errors
    /// An empty epoch.
    pub fn step_schedule(&self, microbatches_per_epoch: u64) -> Result<StepSchedule, String> {
        self.step_scheduler.schedule(microbatches_per_epoch, self.dialect)
    }

    /// Learning rate and weight decay over these steps.
    ///
    /// # Errors
    /// A warm-up that the run is too short for, and the like.
    pub fn lr_schedule(&self, steps: &StepSchedule) -> Result<LrSchedule, String> {
        match &self.lr_scheduler {
            Some(scheduler) => scheduler.schedule(steps, self.dialect),
            None => Ok(LrSchedule::constant(self.optimizer.lr, self.optimizer.weight_decay)),
        }
    }

    /// Rows of a training microbatch.
    pub fn rows_per_microbatch(&self) -> u64 {
        rows(&self.dataloader, &self.dataset)
    }

    /// Microbatches of an epoch over this many examples (or packs, or batches where the dataset yields them).
    pub fn microbatches_per_epoch(&self, examples: u64) -> u64 {
        match self.dataloader.batch_size {
            None => examples,
            Some(size) if self.dataloader.drop_last => examples / size.max(1),
            Some(size) => examples.div_ceil(size.max(1)),
        }
    }

    /// The recipe with every default written out: the content of `recipe.lock.yaml`.
    pub fn lock_yaml(&self) -> String {
        lock::write(self)
    }
}

fn rows(loader: &DataLoader, dataset: &Dataset) -> u64 {
    let of_dataset = if let Dataset::MockIterable(mock) = dataset { mock.batch_size } else { 1 };
    loader.batch_size.unwrap_or(1).saturating_mul(of_dataset)
}

/// Reads the recipe at `path`, with overrides `a.b=v` and environment variables applied. Warnings come with it.
///
/// # Errors
/// Every mistake of the recipe, warnings among them, in the order of the file.
pub fn load(
    path: &Path,
    overrides: &[String],
    environment: Environment,
) -> Result<(Recipe, Vec<Diagnostic>), Vec<Diagnostic>> {
    let name = path.display().to_string();
    let bytes = read_bounded(path).map_err(|error| {
        vec![Diagnostic::error(format!("cannot read the recipe {name}: {error}")).help("give the path of a YAML file")]
    })?;
    match String::from_utf8(bytes) {
        Ok(text) => load_text(&name, text, overrides, environment),
        Err(error) => Err(vec![not_utf8(&name, &error)]),
    }
}

/// [`load`] for a recipe that is in memory; `name` is what messages call it.
///
/// # Errors
/// As [`load`].
pub fn load_text(
    name: &str,
    text: String,
    overrides: &[String],
    environment: Environment,
) -> Result<(Recipe, Vec<Diagnostic>), Vec<Diagnostic>> {
    let source = Arc::new(Source { name: name.into(), text });
    let log = Log::default();
    let recipe = tree(&source, overrides, environment, &log).and_then(|root| read(&root, &log));
    match recipe {
        Some(recipe) if !log.has_errors() => Ok((recipe, log.take(&source))),
        _ => Err(log.take(&source)),
    }
}

/// The file, or a little more of it than a recipe may have.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(yaml::LARGEST_FILE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn not_utf8(name: &str, error: &std::string::FromUtf8Error) -> Diagnostic {
    let valid = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
    let source = Arc::new(Source { name: name.into(), text });
    Diagnostic::error("the recipe is not UTF-8 text")
        .at(&Span::new(&source, valid, valid + 1), format!("byte {valid} belongs to no character"))
}

/// The tree with overrides and variables applied.
fn tree(source: &Arc<Source>, overrides: &[String], environment: Environment, log: &Log) -> Option<Node> {
    let mut root = yaml::parse(source).map_err(|error| log.push(*error)).ok()?;
    if !matches!(root.value, Value::Map(_)) {
        log.error(&root.span, "a recipe is a mapping of sections", format!("found {}", root.describe()));
        return None;
    }
    for text in overrides {
        if let Err(error) = overrides::apply(&mut root, text) {
            log.push(*error);
        }
    }
    let Value::Map(entries) = &mut root.value else { return None };
    let mut unset = Vec::new();
    for entry in entries.iter_mut().filter(|entry| !top::is_unread(&entry.key)) {
        interpolate::resolve(&mut entry.node, environment, &mut unset);
    }
    unset.into_iter().for_each(|error| log.push(error));
    Some(root)
}

/// Reads every section, whatever the others hold, so that all mistakes are found.
fn read(root: &Node, log: &Log) -> Option<Recipe> {
    let dialect = top::dialect(root);
    top::check(root, log);
    let class = top::read_recipe(root, log);
    let seed = optimizer::read_seed(root, log);
    let model = model::read(root, log);
    let peft = peft::read(root, dialect, log);
    let dataset = dataset::read(root, dialect, log);
    let tokenizer = dataset.as_ref().and_then(|(_, tokenizer)| tokenizer.clone());
    let validation_datasets = dataset::read_validation(root, dialect, &tokenizer, log);
    let step_scheduler = schedule::read_steps(root, dialect, log);
    let local = step_scheduler.local_batch_size;
    let dataloader = dataloader::read("dataloader", root, local, log);
    let validation_dataloader = dataloader::read("validation_dataloader", root, local, log);
    let packed_sequence = dataloader::read_packed(root, dialect, log);
    let loss = optimizer::read_loss(root, log);
    let optimizer = optimizer::read(root, log);
    let lr_scheduler = optimizer.as_ref().and_then(|optimizer| schedule::read_rate(root, optimizer, log));
    let max_grad_norm = optimizer::read_clip(root, log);
    let checkpoint = checkpoint::read(root, log);
    let amc = settings::read(root, log);
    distributed::check(root, log);
    let (dataset, _) = dataset?;
    dataloader::check_batch_size(root, &dataloader, &dataset, local, dialect, log);
    Some(Recipe {
        dialect,
        benchmark: class == Some(targets::Target::Benchmark),
        seed,
        model: model?,
        tokenizer,
        peft,
        dataset,
        validation_datasets,
        dataloader,
        validation_dataloader,
        packed_sequence,
        loss: loss?,
        optimizer: optimizer?,
        lr_scheduler,
        step_scheduler,
        max_grad_norm,
        checkpoint,
        amc,
    })
}
