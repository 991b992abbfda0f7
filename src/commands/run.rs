//! `amc run`: executes an artifact.
use amc_runtime::train::{Resume, RunOptions, train};
use anyhow::Result;
use std::path::PathBuf;

/// Train with a compiled artifact.
#[derive(clap::Args)]
pub struct Arguments {
    /// The artifact that `amc compile` wrote.
    artifact: PathBuf,
    #[command(flatten)]
    options: Options,
}

/// How to run, shared with `amc finetune`.
#[derive(clap::Args)]
pub struct Options {
    /// Where to start: `auto` (the newest checkpoint, if there is one), `never`, or a checkpoint.
    #[arg(long, value_name = "auto|never|PATH")]
    resume: Option<Resume>,
    /// Stop after so many optimizer steps.
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// The model folder, where it is not the one that the recipe names.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    start(&arguments.artifact, &arguments.options)
}

/// Runs the artifact `dir`.
pub fn start(dir: &std::path::Path, options: &Options) -> Result<()> {
    train(
        dir,
        RunOptions {
            resume: options.resume.clone(),
            steps: options.steps,
            threads: options.threads,
            model: options.model.clone(),
            quiet: false,
        },
    )?;
    Ok(())
}
