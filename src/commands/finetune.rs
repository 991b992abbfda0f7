//! `amc finetune llm -c recipe.yaml`: Automodel's command. Compiles where the artifact is stale, then runs it.
use crate::commands::{compile, run};
use crate::compiler::project::Project;
use crate::compiler::recipe;
use amc_artifact::{Artifact, hash_bytes};
use anyhow::Result;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compile a recipe if its artifact is stale, then run it.
#[derive(clap::Args)]
pub struct Arguments {
    #[arg(value_enum)]
    domain: Domain,
    #[arg(short, long, value_name = "RECIPE")]
    config: PathBuf,
    /// Change a key of the recipe.
    #[arg(long, value_name = "A.B=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    options: run::Options,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Domain {
    Llm,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let Domain::Llm = arguments.domain;
    let compiling = compile::Arguments::plain(arguments.config.clone(), arguments.set.clone());
    let project = Project::read(&arguments.config, &arguments.set)?;
    let dir = compiling.directory()?;
    if is_stale(&dir, &project) {
        compile::compile(&compiling, &project)?;
    } else {
        writeln!(std::io::stdout(), "{}: up to date", dir.display())?;
    }
    run_afresh(&dir, &arguments.options)
}

/// Becomes `amc run`, so that the memory that compiling took is given back and the peak that is printed is the run's own.
fn run_afresh(dir: &Path, options: &run::Options) -> Result<()> {
    if let Ok(program) = std::env::current_exe() {
        // This returns only where it failed, say because the program was replaced meanwhile.
        let _ = Command::new(program).arg("run").args(options.words()).arg("--").arg(dir).exec();
    }
    run::start(dir, options)
}

/// Whether the artifact is missing, broken, or made from other inputs or by another compiler.
fn is_stale(dir: &Path, project: &Project) -> bool {
    let Ok(artifact) = Artifact::open(dir) else { return true };
    let Some(run) = &artifact.run else { return true };
    let same_data = run.train.shard == recipe::hash(&project.train)
        && run.validation.iter().map(|v| v.shard.clone()).eq(project.validation.iter().map(recipe::hash));
    let same_model = artifact.header.model_files.iter().all(|file| file.verify(&project.model.folder).is_ok());
    let same_recipe = artifact.header.recipe == hash_bytes(project.recipe.lock_yaml().as_bytes());
    let same_target = recipe::destination(project, None).is_ok_and(|it| it.info() == artifact.header.target);
    !(same_data && same_model && same_recipe && same_target && artifact.header.compiler == env!("CARGO_PKG_VERSION"))
}
