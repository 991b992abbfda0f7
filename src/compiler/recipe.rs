//! Compiles a project: its programs, the settings of its run, its artifact.
use super::budget::{Fitted, fitted};
use super::emit::{Destination, Papers, emit};
use super::project::{Data, Project};
use super::unit::{Dumps, unit};
use amc_artifact::{
    CheckpointConfig, Consolidated, Init, ModelConfig, OptimizerConfig, PeftExport, Plan, RunConfig, TrainData,
    ValidationData,
};
use amc_frontend::build::{Purpose, Request};
use amc_frontend::initial;
use amc_frontend::names::Names;
use amc_frontend::recipe::{self, Algorithm};
use amc_kernels::Vendor;
use amc_passes::pass::Recompute;
use amc_passes::plan::{Optimizer, Unit};
use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// The programs of a project: a training program a shape, an evaluation program a shape of the validation data. A
/// training program computes so much again.
pub fn units(project: &Project, most_rows: usize, recompute: Recompute, dumps: &mut Dumps) -> Result<Vec<Unit>> {
    let stored = if project.lora.is_some() { project.model.stored.clone() } else { project.model.trained() };
    let mut units = vec![];
    let mut program = |data: &Data, length: usize, train: bool| -> Result<()> {
        let batch = data.shapes.batch.min(most_rows);
        let name = format!("{}_{batch}x{length}", if train { "train" } else { "evaluate" });
        if units.iter().any(|unit: &Unit| unit.name == name) {
            return Ok(());
        }
        let request = Request {
            model: &project.model.model,
            stored: &stored,
            compute: project.model.compute,
            batch,
            seq: length,
            purpose: Purpose::Loss,
            // Validation runs without dropout, so its graph is built without it.
            lora: None,
            train_all: project.lora.is_none(),
        };
        let plain = project.lora.as_ref().map(|lora| amc_frontend::build::Lora { dropout: None, ..lora.clone() });
        let lora = if train { project.lora.as_ref() } else { plain.as_ref() };
        units.push(unit(&name, &Request { lora, ..request }, train.then_some(recompute), dumps)?);
        Ok(())
    };
    for length in &project.train.shapes.lengths {
        program(&project.train, *length, true)?;
    }
    for data in &project.validation {
        for length in &data.shapes.lengths {
            program(data, *length, false)?;
        }
    }
    Ok(units)
}

/// The optimizer's arithmetic.
pub fn optimizer(recipe: &recipe::Recipe) -> Optimizer {
    let optimizer = &recipe.optimizer;
    Optimizer {
        beta1: optimizer.betas[0] as f32,
        beta2: optimizer.betas[1] as f32,
        eps: optimizer.eps as f32,
        decoupled: optimizer.algorithm == Algorithm::AdamW,
    }
}

/// Compiles the project into the artifact `dir`.
///
/// # Errors
/// A plan over the memory budget; what code generation or writing reports.
pub fn compile(project: &Project, dir: &Path, destination: &Destination, mut dumps: Dumps) -> Result<Fitted> {
    let made_up = project.model.weights.is_none();
    ensure!(
        !made_up || matches!(destination, Destination::Null) || project.model.folder.is_dir(),
        "{}: {} is a file, which only `--target null` takes: a run wants a folder with config.json, which its checkpoints \
         carry",
        project.places.of(&["model", "config"]),
        project.model.folder.display()
    );
    let run = run_config(project)?;
    let mut fitted = fitted(project, destination, &mut dumps)?;
    if made_up {
        let values = initial::values(&project.model.model, &project.model.config)?;
        make_up(&mut fitted.assembled.plan, &values);
    }
    if let Some(update) = &fitted.assembled.update {
        dumps.files.insert("update/00-update.amc".into(), amc_ir::text::print(update));
    }
    let papers = Papers {
        run: Some(run),
        recipe: project.text.clone(),
        recipe_lock: project.recipe.lock_yaml(),
        ir: dumps.files,
    };
    let mut files = project.model.weight_files()?;
    if !made_up {
        files.push("config.json".into());
    }
    emit(dir, &fitted.assembled, destination, &project.model.folder, &files, papers)?;
    Ok(fitted)
}

/// Has the run draw what would come from a checkpoint.
fn make_up(plan: &mut Plan, values: &BTreeMap<String, Init>) {
    let weights = plan.weights.iter_mut().map(|weight| (&weight.name, &mut weight.init));
    let params = plan.params.iter_mut().map(|param| (&param.name, &mut param.init));
    for (name, init) in weights.chain(params).filter(|(_, init)| **init == Init::Checkpoint) {
        *init = values[name].clone();
    }
}

/// What code is generated for: `given` on the command line, else what the recipe says.
pub fn destination(project: &Project, given: Option<&str>) -> Result<Destination> {
    let destination = match given {
        Some(given) => Destination::parse(given).context("--target"),
        None => Destination::parse(&project.recipe.amc.target).with_context(|| project.places.of(&["amc", "target"])),
    }?;
    Ok(destination.with(vendor(&project.recipe), project.recipe.amc.tf32))
}

/// Which products of a GPU its vendor's library computes.
pub fn vendor(recipe: &recipe::Recipe) -> Vendor {
    match recipe.amc.vendor {
        recipe::Vendor::Auto => Vendor::Tuned,
        recipe::Vendor::Never => Vendor::Never,
        recipe::Vendor::Always => Vendor::Always,
    }
}

/// Threads of a run of this recipe on this machine.
pub fn threads(project: &Project) -> u64 {
    project.recipe.amc.threads.unwrap_or(amc_runtime::session::default_threads() as u64)
}

/// The settings of the project's run.
///
/// # Errors
/// What does not fit the length of the data, or names something that is not there.
pub fn run_config(project: &Project) -> Result<RunConfig> {
    let (recipe, places) = (&project.recipe, &project.places);
    let schedule = recipe
        .step_schedule(project.train.sampler.microbatches_per_epoch().into())
        .map_err(anyhow::Error::msg)
        .with_context(|| places.of(&["step_scheduler"]))?;
    let lr_schedule = recipe
        .lr_schedule(&schedule)
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("{}, over {} steps", places.of(&["lr_scheduler"]), schedule.total_steps()))?;
    warn_of_best_metric(project);
    warn_of_overrides(project);
    Ok(RunConfig {
        seed: recipe.seed,
        model: model_config(project),
        peft: recipe.peft.as_ref().map(|peft| peft_export(project, peft)).transpose()?,
        optimizer: OptimizerConfig {
            name: if recipe.optimizer.algorithm == Algorithm::AdamW { "AdamW" } else { "Adam" }.into(),
            beta1: recipe.optimizer.betas[0],
            beta2: recipe.optimizer.betas[1],
            eps: recipe.optimizer.eps,
        },
        max_norm: recipe.max_grad_norm,
        schedule,
        lr_schedule,
        override_lr_schedule: false,
        train: TrainData { shard: hash(&project.train), sampler: project.train.sampler },
        validation: project
            .validation
            .iter()
            .map(|data| ValidationData { name: data.name.clone(), shard: hash(data) })
            .collect(),
        checkpoint: CheckpointConfig {
            enabled: recipe.checkpoint.enabled,
            dir: recipe.checkpoint.checkpoint_dir.clone(),
            consolidated: match recipe.checkpoint.save_consolidated {
                recipe::Consolidated::Final => Consolidated::Final,
                recipe::Consolidated::Every => Consolidated::Every,
                recipe::Consolidated::Never => Consolidated::Never,
            },
            best_metric: recipe.checkpoint.best_metric_key.clone(),
            keep: recipe.checkpoint.max_recent_checkpoints,
            restore_from: recipe.checkpoint.restore_from.clone(),
        },
        initial_adapter: recipe.amc.initial_adapter.clone(),
        preemption_signals: recipe
            .step_scheduler
            .preemption_signals
            .iter()
            .map(|s| signal(s))
            .collect::<Result<_>>()?,
        threads: recipe.amc.threads,
    })
}

/// Of several validation sets, one ranks the checkpoints, or none does.
fn warn_of_best_metric(project: &Project) {
    let (checkpoint, sets) = (&project.recipe.checkpoint, &project.validation);
    let known = sets.iter().any(|set| set.name == checkpoint.best_metric_key);
    if sets.len() > 1 && checkpoint.enabled && !known {
        eprintln!(
            "warning: {}: no validation set is called `{}`, so LOWEST_VAL is not kept; there are {}",
            project.places.of(&["checkpoint", "best_metric_key"]),
            checkpoint.best_metric_key,
            sets.iter().map(|set| set.name.as_str()).collect::<Vec<_>>().join(", ")
        );
    }
}

/// An adapter's files have no place for the changes to `config.json` that it was trained with.
fn warn_of_overrides(project: &Project) {
    let overrides = &project.recipe.model.config_overrides;
    let (Some(_), [(first, _), ..]) = (&project.recipe.peft, overrides.as_slice()) else { return };
    eprintln!(
        "warning: {}: an adapter cannot record changes to its model's config.json: whatever loads it has to make these as \
         well: {}",
        project.places.of(&["model", first]),
        overrides.iter().map(|(key, value)| format!("`{key}` = {value}")).collect::<Vec<_>>().join(", ")
    );
}

/// The hash of a dataset's shard, as its file name has it.
pub fn hash(data: &Data) -> String {
    data.prepared.shard.path().file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The number of a signal on Linux.
fn signal(name: &str) -> Result<i32> {
    match name {
        "SIGHUP" => Ok(1),
        "SIGINT" => Ok(2),
        "SIGUSR1" => Ok(10),
        "SIGUSR2" => Ok(12),
        "SIGALRM" => Ok(14),
        "SIGTERM" => Ok(15),
        other => other.parse().ok().filter(|n| (1..64).contains(n)).with_context(|| {
            format!("step_scheduler.preemption_signal: `{other}` is no signal; wanted SIGTERM, SIGINT, SIGHUP, SIGALRM, SIGUSR1 or SIGUSR2")
        }),
    }
}

fn model_config(project: &Project) -> ModelConfig {
    let model = &project.model.model;
    let names = Names::new(model);
    let present = |folder: &Path, all: &[&str]| -> Vec<String> {
        all.iter().filter(|name| folder.join(name).is_file()).map(|name| name.to_string()).collect()
    };
    let adapter: usize = project.lora.as_ref().map_or(0, |lora| {
        let adapted = names.modules().into_iter().filter(|module| lora.modules.contains(&module.name));
        adapted.map(|module| lora.rank * (module.inputs + module.outputs)).sum()
    });
    let parameters: usize = names.tensors().values().map(|shape| shape.iter().product::<usize>()).sum();
    ModelConfig {
        name: project.model_name.clone(),
        revision: project.recipe.model.revision.clone(),
        config_overrides: project.model.config.replaced(),
        vocabulary: model.vocab as u64,
        config_files: present(&project.model.folder, &["config.json", "generation_config.json"]),
        tokenizer: project.recipe.tokenizer.as_ref().and_then(|it| it.pretrained_model_name_or_path.clone()),
        tokenizer_files: present(&project.tokenizer_folder, TOKENIZER_FILES),
        tied: if model.tied { vec![format!("{}.weight", model.paths.head)] } else { vec![] },
        parameters: (parameters + adapter) as u64,
    }
}

/// Files that a tokenizer may have.
const TOKENIZER_FILES: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
];

fn peft_export(project: &Project, peft: &recipe::PeftConfig) -> Result<PeftExport> {
    let modules = project.lora.as_ref().map(|lora| lora.modules.iter().cloned().collect()).unwrap_or_default();
    let alpha = match peft.alpha.fract() == 0.0 && peft.alpha.abs() < 1e15 {
        true => (peft.alpha as i64).into(),
        false => serde_json::Number::from_f64(peft.alpha).context("peft.alpha is no number")?,
    };
    let position = match peft.dropout_position {
        recipe::DropoutPosition::Pre => "pre",
        recipe::DropoutPosition::Post => "post",
    };
    let init = match peft.lora_a_init {
        recipe::LoraInit::Xavier => "xavier",
        recipe::LoraInit::Kaiming => "kaiming",
    };
    let automodel = [
        ("target_modules", json!(peft.target_modules)),
        ("exclude_modules", json!(peft.exclude_modules)),
        ("match_all_linear", json!(peft.match_all_linear)),
        ("use_dora", json!(false)),
        ("dropout", json!(peft.dropout)),
        ("dropout_position", json!(position)),
        ("lora_A_init", json!(init)),
        ("lora_dtype", peft.lora_dtype.map_or(Value::Null, |dtype| json!(dtype.name()))),
    ];
    let automodel: Map<String, Value> = automodel.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
    Ok(PeftExport { rank: peft.dim, alpha, target_modules: modules, automodel })
}
