//! `amc run`: executes an artifact.
use amc_runtime::train::{Resume, RunOptions, train};
use anyhow::{Result, ensure};
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
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Threads that share the work; by default what the recipe says, else all cores. Results do not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// The model folder, where it is not the one that the recipe names.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Print where the time went by kernel, and write a trace of the last step, which Perfetto shows.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "trace.json")]
    profile: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    start(&arguments.artifact, &arguments.options)
}

/// Runs the artifact `dir`.
pub fn start(dir: &std::path::Path, options: &Options) -> Result<()> {
    let shown = dir.display();
    ensure!(
        !dir.is_file(),
        "{shown} is a file, wanted the folder that `amc compile` wrote; `amc finetune llm -c {shown}` compiles and runs a recipe"
    );
    train(
        dir,
        RunOptions {
            resume: options.resume.clone(),
            steps: options.steps,
            threads: options.threads.map(usize::from),
            model: options.model.clone(),
            quiet: false,
            profile: options.profile.clone(),
        },
    )?;
    Ok(())
}
