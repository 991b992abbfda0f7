//! `amc check`: everything short of code generation.
use crate::commands::compile::{forecast, summary};
use crate::compiler::budget::fitted;
use crate::compiler::project::Project;
use crate::compiler::recipe;
use crate::compiler::unit::Dumps;
use anyhow::Result;
use std::io::Write;
use std::path::PathBuf;

/// Check a recipe: read everything it names, build and plan its programs, write nothing.
#[derive(clap::Args)]
pub struct Arguments {
    recipe: PathBuf,
    /// Change a key of the recipe.
    #[arg(long, value_name = "A.B=VALUE")]
    set: Vec<String>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let project = Project::read(&arguments.recipe, &arguments.set)?;
    let destination = recipe::destination(&project, None)?;
    recipe::run_config(&project)?;
    let fitted = fitted(&project, &destination, &mut Dumps::default())?;
    let mut out = std::io::stdout().lock();
    summary(&project, &fitted, &mut out)?;
    forecast(&project, &fitted, &destination, &mut out)?;
    Ok(writeln!(out, "{}: no mistakes found", arguments.recipe.display())?)
}
