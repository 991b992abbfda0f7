//! How much the backward pass computes again, so that a run stays within `amc.memory_budget`.
use super::emit::Destination;
use super::project::Project;
use super::recipe::{optimizer, threads, units};
use super::unit::Dumps;
use amc_artifact::memory::RunMemory;
use amc_passes::pass::Recompute;
use amc_passes::plan::{Assembled, assemble};
use anyhow::{Result, bail};

/// Parts of all possible steps that are tried where all of them together do not fit: to compute everything again takes
/// room too.
const PARTS: usize = 8;

/// A plan that keeps to the budget.
pub struct Fitted {
    pub assembled: Assembled,
    /// Of the training program that computes most again.
    pub recompute: Recompute,
}

/// Plans the project with as little computed again as the budget allows: the least number of steps whose plan fits, each
/// plan laid out in full.
///
/// # Errors
/// A budget that no plan keeps to.
pub fn fitted(project: &Project, destination: &Destination, dumps: &mut Dumps) -> Result<Fitted> {
    let first = plan(project, destination, 0, dumps)?;
    let Some(budget) = project.recipe.amc.memory_budget else { return Ok(first) };
    let bytes = |fitted: &Fitted| planned_bytes(&fitted.assembled, threads(project));
    if bytes(&first)? <= budget {
        return Ok(first);
    }
    let possible = first.recompute.possible;
    let quiet = |steps: usize| plan(project, destination, steps, &mut Dumps::default());
    let mut least = bytes(&first)?;
    let mut fits = None;
    for part in (1..=PARTS).rev() {
        let steps = possible * part / PARTS;
        least = least.min(bytes(&quiet(steps)?)?);
        if least <= budget {
            fits = Some(steps);
            break;
        }
    }
    let Some(mut fits) = fits else { return refuse(project, &first.assembled, least, budget) };
    let mut exceeds = 0;
    while fits - exceeds > 1 {
        let middle = exceeds + (fits - exceeds) / 2;
        if bytes(&quiet(middle)?)? <= budget {
            fits = middle;
        } else {
            exceeds = middle;
        }
    }
    plan(project, destination, fits, dumps)
}

fn plan(project: &Project, destination: &Destination, steps: usize, dumps: &mut Dumps) -> Result<Fitted> {
    let units = units(project, steps, dumps)?;
    let assembled = assemble(&units, Some(optimizer(&project.recipe)), &destination.target());
    let most = units.iter().map(|unit| unit.recompute).max_by_key(|recompute| recompute.possible);
    Ok(Fitted { assembled, recompute: most.unwrap_or_default() })
}

/// Bytes that a run takes in all.
pub fn planned_bytes(assembled: &Assembled, threads: u64) -> Result<u64> {
    Ok(RunMemory::of(&assembled.plan, threads as usize)?.total())
}

/// `least` is what a run takes that computes as much again as helps.
fn refuse(project: &Project, assembled: &Assembled, least: u64, budget: u64) -> Result<Fitted> {
    let wanted = planned_bytes(assembled, threads(project))?;
    let activations = assembled.memory.iter().map(|m| m.bytes).max().unwrap_or(0);
    let fixed = wanted - activations;
    let batch = project.train.shapes.batch as u64;
    // What is left of the activations shrinks with the microbatch.
    let fitting = budget.saturating_sub(fixed) * batch / least.saturating_sub(fixed).max(1);
    let advice = match fitting {
        0 => "no smaller microbatch fits: shorten the rows, or raise the budget".into(),
        n => format!("a local_batch_size of {n} should fit"),
    };
    let place = project.places.of(&["amc", "memory_budget"]);
    bail!(
        "{place}: the run takes {wanted} bytes ({activations} of them for a microbatch of {batch} rows), and {least} where \
         activations are computed again; the budget is {budget}; {advice}"
    )
}
