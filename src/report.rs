//! `report.html`: an artifact as one page that needs nothing else. Timeline, memory, roofline, kernels, and the links
//! between recipe, modules, graph and launches.
//!
//! Invariants:
//! - Rust says what is; the page's script only arranges it. All facts reach the page as one JSON value.
//! - Equal artifacts, profiles and rates of the machine give equal bytes.
//! - No text of an artifact becomes markup: the JSON holds no `<`, and the script sets text, never HTML.
mod data;
mod forecast;
mod graph;
mod page;
mod recipe;
mod trace;
mod yaml;

use amc_artifact::Artifact;
use anyhow::{Context, Result};
use std::path::Path;
use trace::Trace;

/// The page of an artifact; with `profile`, a trace that `amc run --profile` wrote, measured times lie beside the forecast.
///
/// # Errors
/// A file of the artifact cannot be read, or the profile is not of a run of this artifact.
pub fn html(artifact: &Artifact, profile: Option<&Path>) -> Result<String> {
    let trace = match profile {
        None => None,
        Some(path) => {
            let text = std::fs::read(path).with_context(|| format!("cannot read the profile {}", path.display()))?;
            let trace = Trace::parse(&text, &artifact.plan);
            Some(trace.with_context(|| format!("profile {}", path.display()))?)
        }
    };
    let lock = artifact.dir.join("recipe.lock.yaml");
    let lock = std::fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    let phases = graph::phases(artifact)?;
    let facts = data::Facts { artifact, lock: &lock, phases: &phases, trace: trace.as_ref() };
    Ok(page::page(&facts.title(), &facts.json()?))
}
