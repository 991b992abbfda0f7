//! From an artifact to a trainer that is ready to step.
use super::expected::Expected;
use super::{Places, RunOptions, Trainer, resume};
use crate::checkpoint::{self, Found, Signature, Store};
use crate::data::{Buffers, DataSet};
use crate::disk::{Disk, RealDisk};
use crate::host::{Moment, host_name};
use crate::programs::{BatchPrograms, UpdateProgram};
use crate::report::{Journal, Reporter};
use crate::session::{Session, SessionOptions, default_threads, model_folder};
use crate::train::{GIB, Resume, Summary};
use crate::weights::convert;
use amc_artifact::safetensors::SafetensorsFile;
use amc_artifact::{Artifact, LrSchedule, ProgramKind, RunConfig, TargetKind, rates, shard_folder};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Runs an artifact: loads it, resumes where a checkpoint says, trains, saves.
///
/// # Errors
/// Whatever keeps the run from starting is found before the first step: a damaged artifact, a missing or changed model, a
/// CPU without the instructions, a missing shard, a checkpoint directory that cannot be written.
pub fn train(artifact_dir: &Path, options: RunOptions) -> Result<Summary> {
    let artifact = Artifact::open(artifact_dir)?;
    let run = artifact.run_config()?;
    let threads = options.threads.or(run.threads.map(|threads| threads as usize));
    let target = &artifact.header.target;
    let count = threads.unwrap_or_else(default_threads);
    let rates = rates::of_target(target, count);
    let options = RunOptions { threads, rates, ..options };
    let session_options = SessionOptions { threads: options.threads, model: options.model.clone() };
    let session = Session::open(&artifact, &session_options)?;
    let model = match artifact.header.target.kind {
        TargetKind::Cpu | TargetKind::Cuda => Some(model_folder(&artifact, &session_options)?),
        TargetKind::Null => None,
    };
    let places = Places { model, shards: shard_folder(), checkpoints: PathBuf::from(&run.checkpoint.dir) };
    Trainer::start(session, run, &artifact.recipe, places, &RealDisk, &options)?.run()
}

impl<'a> Trainer<'a> {
    /// Checks everything, brings the parameters to where the run begins, and opens the journals.
    pub fn start(
        mut session: Session,
        run: &'a RunConfig,
        recipe: &'a str,
        places: Places,
        disk: &'a dyn Disk,
        options: &RunOptions,
    ) -> Result<Trainer<'a>> {
        run.check()?;
        let limit = run.schedule.total_steps().min(options.steps.unwrap_or(u64::MAX));
        let reporter = Reporter::new(options.quiet, limit);
        introduce(&reporter, &session, run);
        if let Some(folder) = &places.model {
            checkpoint::check_carried(run, folder)?;
        }
        let train = BatchPrograms::bind(&session, ProgramKind::Train, true)?;
        let evaluate = BatchPrograms::bind(&session, ProgramKind::Evaluate, !run.validation.is_empty())?;
        let update = UpdateProgram::bind(&session)?;
        let (data, sets) = open_data(run, &places.shards, &train, &evaluate)?;
        let dir = places.checkpoints;
        // The directory is locked and cleaned for the journals' sake even where no checkpoints are written.
        let store = Store::open(disk, &dir, run.checkpoint.keep.map(|keep| keep as usize))?;
        for path in store.aside() {
            reporter.warn(&format!("a checkpoint whose state cannot be read was renamed to {}", path.display()));
        }
        let (first_step, lr_schedule) = begin(&mut session, run, &store, options, &reporter)?;
        let end = first_step + run.schedule.first_number;
        let journal = Journal::open(disk, &dir.join("training.jsonl"), end)?;
        let open = |(name, data): (String, DataSet)| {
            let path = dir.join(validation_file(&name));
            Journal::open(disk, &path, end).map(|journal| (name, data, journal))
        };
        let validation = sets.into_iter().map(open).collect::<Result<Vec<_>>>()?;
        if first_step >= limit {
            reporter.info(&format!("All {limit} steps are done already"));
        }
        let planned_bytes = session.planned_memory().total();
        if options.profile.is_some() {
            session.start_profile()?;
            if session.profile().is_none() {
                reporter.warn(
                    "--profile: the artifact's target is null, which computes nothing: there is nothing to measure",
                );
            }
        }
        let threads = options.threads.unwrap_or_else(default_threads);
        let expected = Expected::new(options.rates.clone(), threads);
        Ok(Trainer {
            session,
            run,
            recipe,
            model_folder: places.model,
            buffers: Buffers::new(train.most_tokens().max(evaluate.most_tokens())),
            train,
            evaluate,
            update,
            data,
            validation,
            journal,
            store: run.checkpoint.enabled.then_some(store),
            lr_schedule,
            epoch: None,
            reporter,
            stop: listen(&run.preemption_signals)?,
            first_step,
            limit,
            planned_bytes,
            profile: options.profile.clone(),
            expected,
        })
    }
}

/// Brings the parameters to where the run begins; returns the steps done and the schedule to follow.
fn begin(
    session: &mut Session,
    run: &RunConfig,
    store: &Store,
    options: &RunOptions,
    reporter: &Reporter,
) -> Result<(u64, LrSchedule)> {
    let signature = Signature::of(session.plan(), run);
    let found = match (run.checkpoint.enabled, &options.resume) {
        (true, resume) => resume::choose(store, resume.as_ref(), run, &signature, reporter)?,
        (false, Some(Resume::From(name))) => bail!("checkpoint.enabled is false: cannot resume from {name}"),
        (false, _) => None,
    };
    let Some(Found { path, state }) = found else {
        session.initialise(run.seed)?;
        if let Some(folder) = &run.initial_adapter {
            start_from_adapter(session, Path::new(folder)).context("amc.initial_adapter")?;
        }
        return Ok((0, run.lr_schedule.clone()));
    };
    reporter.info(&format!("Loading checkpoint from {}", path.display()));
    checkpoint::restore(session, run, &path).with_context(|| format!("cannot resume from {}", path.display()))?;
    if run.override_lr_schedule || state.lr_schedule == run.lr_schedule {
        return Ok((state.completed_steps, run.lr_schedule.clone()));
    }
    reporter.info("The learning rate follows the checkpoint's schedule, not the recipe's");
    Ok((state.completed_steps, state.lr_schedule))
}

/// Fills every parameter from the adapter in `folder`.
fn start_from_adapter(session: &mut Session, folder: &Path) -> Result<()> {
    let file = SafetensorsFile::open(&folder.join("adapter_model.safetensors"))?;
    let params = session.plan().params.clone();
    let (found, wanted) = (file.tensors().len(), params.len());
    ensure!(found == wanted, "{} holds {found} tensors, the run trains {wanted}", folder.display());
    for param in params {
        let view = file.tensor(&param.name)?;
        ensure!(view.shape == param.shape, "`{}` is {:?}, wanted {:?}", param.name, view.shape, param.shape);
        let mut at = param.value_offset;
        convert(&view, param.storage, |piece| {
            session.write_bytes(at, piece)?;
            at += piece.len() as u64;
            Ok(())
        })?;
    }
    Ok(())
}

/// Opens all data sets and checks that every batch has a program.
fn open_data(
    run: &RunConfig,
    folder: &Path,
    train: &BatchPrograms,
    evaluate: &BatchPrograms,
) -> Result<(DataSet, Vec<(String, DataSet)>)> {
    let data = DataSet::open(folder, &run.train.shard, run.model.vocabulary).context("the training data")?;
    let sampler = &run.train.sampler;
    ensure!(sampler.rows == data.rows(), "the sampler is for {} rows, the data has {}", sampler.rows, data.rows());
    train.fit(sampler.local_batch_size as usize, data.shard.summary().longest as usize)?;
    let mut sets = Vec::new();
    for set in &run.validation {
        let data = DataSet::open(folder, &set.shard, run.model.vocabulary)
            .with_context(|| format!("the validation set `{}`", set.name))?;
        evaluate.fit(1, data.shard.summary().longest as usize)?;
        sets.push((set.name.clone(), data));
    }
    Ok((data, sets))
}

/// `validation.jsonl`, with the name of the set where it has one.
fn validation_file(name: &str) -> String {
    match name {
        "default" => "validation.jsonl".into(),
        name => format!("validation_{name}.jsonl"),
    }
}

/// A flag that the signals raise; a second one ends the process as if nobody listened.
fn listen(signals: &[i32]) -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for &signal in signals {
        let context = || format!("cannot listen to signal {signal} (step_scheduler.preemption_signal)");
        signal_hook::flag::register_conditional_default(signal, flag.clone()).with_context(context)?;
        signal_hook::flag::register(signal, flag.clone()).with_context(context)?;
    }
    Ok(flag)
}

/// What the run is, before it begins.
fn introduce(reporter: &Reporter, session: &Session, run: &RunConfig) {
    let plan = session.plan();
    let user = std::env::var("USER").unwrap_or_else(|_| "unknown".into());
    reporter.info(&format!(
        "Experiment_details:\n- Timestamp: {}\n- User: {user}\n- Host: {}\n- World size: 1\n- Backend: {}\n- Model \
         name: {}",
        Moment::now().iso(),
        host_name(),
        session.device(),
        run.model.name
    ));
    let trainable: u64 = plan.params.iter().map(|param| param.shape.iter().product::<u64>()).sum();
    let share = 100.0 * trainable as f64 / run.model.parameters.max(1) as f64;
    reporter.info(&format!(
        "Model summary:\nTrainable parameters: {}\nTotal parameters: {}\nTrainable parameters percentage: {share:.2}%",
        thousands(trainable),
        thousands(run.model.parameters)
    ));
    let optimizer = &run.optimizer;
    reporter.info(&format!(
        "{} (betas {} and {}, eps {:e}), {} steps of {} x {} rows",
        optimizer.name,
        optimizer.beta1,
        optimizer.beta2,
        optimizer.eps,
        run.schedule.total_steps(),
        run.schedule.accumulation,
        run.train.sampler.local_batch_size
    ));
    let memory = session.planned_memory();
    let gib = |bytes: u64| bytes as f64 / GIB;
    reporter.info(&format!(
        "Planned memory: {:.3} GiB ({:.3} for the step, {:.3} of frozen weights, {:.3} for the program itself)",
        gib(memory.total()),
        gib(memory.device),
        gib(memory.weights),
        gib(memory.process)
    ));
}

/// `1234567` as `1,234,567`.
fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas() {
        assert_eq!([0, 999, 1000, 1234567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(validation_file("default"), "validation.jsonl");
        assert_eq!(validation_file("math"), "validation_math.jsonl");
    }
}
