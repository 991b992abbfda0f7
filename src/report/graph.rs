//! The graph's text after each phase, as the artifact keeps it.
use amc_artifact::Artifact;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// The graph of a program after one phase.
pub struct Phase {
    /// Such as `fuse`.
    pub name: String,
    pub text: String,
}

/// The phases of every program of the plan, in order; empty where the artifact keeps no graph of a program.
///
/// # Errors
/// A folder or file cannot be read.
pub fn phases(artifact: &Artifact) -> Result<Vec<Vec<Phase>>> {
    artifact.plan.programs.iter().map(|program| read(&artifact.dir.join("ir").join(&program.name))).collect()
}

fn read(folder: &Path) -> Result<Vec<Phase>> {
    if !folder.is_dir() {
        return Ok(vec![]);
    }
    let context = || format!("cannot read {}", folder.display());
    let entries: std::io::Result<Vec<_>> = fs::read_dir(folder).with_context(context)?.collect();
    let mut files: Vec<_> = entries.with_context(context)?.into_iter().map(|entry| entry.path()).collect();
    files.sort();
    let phase = |path: &std::path::PathBuf| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let name = stem.split_once('-').map_or(&*stem, |(_, name)| name).to_string();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Phase { name, text })
    };
    files.iter().map(phase).collect()
}
