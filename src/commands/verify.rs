//! `amc verify`: rebuilds an artifact from its inputs and compares every byte.
use crate::compiler::emit::Destination;
use crate::compiler::project::Project;
use crate::compiler::recipe;
use crate::compiler::unit::Dumps;
use amc_artifact::{Artifact, compare};
use anyhow::{Context, Result};
use std::io::Write;
use std::path::PathBuf;

/// Rebuild an artifact from the recipe that it holds and compare.
#[derive(clap::Args)]
pub struct Arguments {
    artifact: PathBuf,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let artifact = Artifact::open(&arguments.artifact)?;
    let temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
    let locked = arguments.artifact.join("recipe.lock.yaml");
    let mut project = Project::read(&locked, &[])?;
    project.text = artifact.recipe.clone();
    let destination =
        Destination::named(&artifact.header.target)?.with(recipe::vendor(&project.recipe), project.recipe.amc.tf32);
    let rebuilt = temporary.path().join("artifact");
    recipe::compile(&project, &rebuilt, &destination, Dumps::default())?;
    compare(&arguments.artifact, &rebuilt)?;
    Ok(writeln!(std::io::stdout(), "{}: the same bytes again", arguments.artifact.display())?)
}
