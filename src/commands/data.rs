//! `amc data`: what the training data looks like as tokens.
use crate::compiler::project::Project;
use amc_frontend::data::{Description, use_colour};
use amc_frontend::tokenizer::{Tokenizer, TokenizerOptions};
use anyhow::Result;
use std::io::{IsTerminal, Write, stdout};
use std::path::PathBuf;

/// Show samples with the supervised tokens marked, lengths, shapes and packing waste.
#[derive(clap::Args)]
pub struct Arguments {
    recipe: PathBuf,
    /// Change a key of the recipe.
    #[arg(long, value_name = "A.B=VALUE")]
    set: Vec<String>,
    /// Rows to show.
    #[arg(long, default_value_t = 3)]
    rows: usize,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let project = Project::read(&arguments.recipe, &arguments.set)?;
    let colour = use_colour(stdout().is_terminal());
    // Rows of tokens need no tokenizer, but read better with one.
    let own = match project.tokenizer {
        None => Tokenizer::load(&project.tokenizer_folder, &TokenizerOptions::default()).ok(),
        Some(_) => None,
    };
    let mut out = stdout().lock();
    for data in std::iter::once(&project.train).chain(&project.validation) {
        writeln!(out, "{}", data.name)?;
        let description = Description {
            prepared: &data.prepared,
            shapes: &data.shapes,
            tokenizer: project.tokenizer.as_ref().or(own.as_ref()),
            rows: arguments.rows,
            colour,
        };
        description.write(&mut out)?;
    }
    Ok(())
}
