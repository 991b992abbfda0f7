//! Where a run begins: at the start, or behind a checkpoint.
use super::Resume;
use crate::checkpoint::{Found, Signature, Store};
use crate::report::Reporter;
use amc_artifact::RunConfig;
use anyhow::{Result, bail};

/// The checkpoint to go on from; `None` to begin at the start. Its files are verified.
///
/// # Errors
/// A named checkpoint that is missing, damaged or of another model; checkpoints of later steps, which the run would have to
/// overwrite.
pub(super) fn choose(
    store: &Store,
    resume: Option<&Resume>,
    run: &RunConfig,
    signature: &Signature,
    reporter: &Reporter,
) -> Result<Option<Found>> {
    let found = match (resume, &run.checkpoint.restore_from) {
        (Some(Resume::Never), _) => None,
        (Some(Resume::From(name)), _) | (None, Some(name)) => Some(named(store, name, signature, reporter)?),
        (Some(Resume::Auto), _) | (None, None) => newest(store, signature, reporter)?,
    };
    let completed = found.as_ref().map_or(0, |found| found.state.completed_steps);
    let later = store.complete()?.into_iter().find(|other| other.state.completed_steps > completed);
    if let Some(later) = later {
        let whose = if later.state.signature == *signature { "" } else { " (of another model)" };
        let begin = if completed == 0 { "the start".into() } else { format!("step {completed}") };
        bail!(
            "the run would begin at {begin}, but {}{whose} is there already: resume from it, remove it and those after it, \
             or choose another checkpoint_dir",
            later.path.display()
        );
    }
    Ok(found)
}

/// A checkpoint that a person chose: what differs is said, and what cannot be loaded is an error later.
fn named(store: &Store, name: &str, signature: &Signature, reporter: &Reporter) -> Result<Found> {
    let found = store.named(name)?;
    found.state.verify(&found.path)?;
    if found.state.signature != *signature {
        reporter.warn(&format!(
            "{} is a checkpoint of {:?}, this run is of {signature:?}",
            found.path.display(),
            found.state.signature
        ));
    }
    Ok(found)
}

/// The newest checkpoint of this model that is whole; damaged ones are set aside.
fn newest(store: &Store, signature: &Signature, reporter: &Reporter) -> Result<Option<Found>> {
    for found in store.complete()?.into_iter().rev() {
        let path = found.path.display();
        if found.state.signature != *signature {
            reporter.warn(&format!("{path} is of another model and is not resumed from"));
            return Ok(None);
        }
        match found.state.verify(&found.path) {
            Ok(()) => {
                store.settle(&found)?;
                return Ok(Some(found));
            }
            Err(error) => {
                let aside = store.set_aside(&found.path)?;
                reporter.warn(&format!("{error:#}; it was renamed to {}", aside.display()));
            }
        }
    }
    Ok(None)
}
