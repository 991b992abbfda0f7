//! How much the backward pass computes again, so that a run stays within `amc.memory_budget`.
use super::emit::Destination;
use super::project::Project;
use super::recipe::{optimizer, threads, units};
use super::unit::Dumps;
use amc_artifact::Plan;
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
    /// The plan without a budget, where this one had to give way to it.
    pub unbounded: Option<Plan>,
}

/// Plans the project with as little computed again as the budget allows: the least number of steps whose plan fits, each
/// plan laid out in full.
///
/// # Errors
/// A budget that no plan keeps to, with the largest microbatch that does.
pub fn fitted(project: &Project, destination: &Destination, dumps: &mut Dumps) -> Result<Fitted> {
    let rows = project.train.shapes.batch;
    let budget = project.recipe.amc.memory_budget;
    let first = plan(project, destination, (rows, 0), Packing::Within(budget.unwrap_or(u64::MAX)), dumps)?;
    let Some(budget) = budget else { return Ok(first) };
    let planner = Planner { project, destination, budget };
    if planner.bytes_of(&first)? <= budget {
        return Ok(first);
    }
    let found = planner.some_fit(rows)?;
    let Some(mut fits) = found.steps else { return planner.refuse(&first, found.least) };
    let mut exceeds = 0;
    while fits - exceeds > 1 {
        let middle = exceeds + (fits - exceeds) / 2;
        if planner.bytes(rows, middle)? <= budget {
            fits = middle;
        } else {
            exceeds = middle;
        }
    }
    let fitted = plan(project, destination, (rows, fits), Packing::Never, dumps)?;
    Ok(Fitted { unbounded: Some(first.assembled.plan), ..fitted })
}

/// Whether frozen matrices are packed once, so that launches need not.
enum Packing {
    Never,
    /// As far as the run then takes so many bytes at most, and not too much more than without.
    Within(u64),
}

/// Part of the bytes of a run that packed copies may add to them: for that, a step of SmolLM2's LoRA in bf16 becomes 2 to 3 %
/// faster on Zen 5.
const PACKED_PART: u64 = 4;

/// Plans for microbatches of at most `rows` rows, with so many steps computed again.
fn plan(
    project: &Project,
    destination: &Destination,
    (rows, steps): (usize, usize),
    packing: Packing,
    dumps: &mut Dumps,
) -> Result<Fitted> {
    let machine = destination.machine();
    let recompute = Recompute { wanted: steps, late: machine.recomputes_late(), ..Recompute::default() };
    let units = units(project, rows, recompute, dumps)?;
    let assemble = |packed| assemble(&units, Some(optimizer(&project.recipe)), machine.as_ref(), packed);
    let mut assembled = assemble(0);
    if let Packing::Within(most) = packing {
        let bytes = planned_bytes(&assembled, threads(project))?;
        let packed = assemble((bytes / PACKED_PART).min(most.saturating_sub(bytes)));
        if planned_bytes(&packed, threads(project))? <= most {
            assembled = packed;
        }
    }
    let most = units.iter().map(|unit| unit.recompute).max_by_key(|recompute| recompute.possible);
    Ok(Fitted { assembled, recompute: most.unwrap_or_default(), unbounded: None })
}

/// Bytes that a run takes in all.
pub fn planned_bytes(assembled: &Assembled, threads: u64) -> Result<u64> {
    Ok(RunMemory::of(&assembled.plan, threads as usize)?.total())
}

/// What is tried to keep to a budget.
struct Planner<'a> {
    project: &'a Project,
    destination: &'a Destination,
    /// Bytes.
    budget: u64,
}

/// Whether computing again helps.
struct Found {
    /// The fewest bytes of the plans that were tried.
    least: u64,
    /// A number of steps whose plan fits, if one was found.
    steps: Option<usize>,
}

impl Planner<'_> {
    fn bytes_of(&self, fitted: &Fitted) -> Result<u64> {
        planned_bytes(&fitted.assembled, threads(self.project))
    }

    fn quietly(&self, rows: usize, steps: usize) -> Result<Fitted> {
        plan(self.project, self.destination, (rows, steps), Packing::Never, &mut Dumps::default())
    }

    fn bytes(&self, rows: usize, steps: usize) -> Result<u64> {
        self.bytes_of(&self.quietly(rows, steps)?)
    }

    /// Looks for a plan within the budget, from all steps down to none.
    fn some_fit(&self, rows: usize) -> Result<Found> {
        let nothing_again = self.quietly(rows, 0)?;
        let mut least = self.bytes_of(&nothing_again)?;
        for part in (0..=PARTS).rev() {
            let steps = nothing_again.recompute.possible * part / PARTS;
            let bytes = self.bytes(rows, steps)?;
            least = least.min(bytes);
            if bytes <= self.budget {
                return Ok(Found { least, steps: Some(steps) });
            }
        }
        Ok(Found { least, steps: None })
    }

    /// The most rows, fewer than the recipe's, whose microbatch fits.
    fn most_rows(&self) -> Result<usize> {
        let (mut fits, mut exceeds) = (0, self.project.train.shapes.batch);
        while exceeds - fits > 1 {
            let middle = fits + (exceeds - fits) / 2;
            match self.some_fit(middle)?.steps {
                Some(_) => fits = middle,
                None => exceeds = middle,
            }
        }
        Ok(fits)
    }

    /// `least` is what a run takes that computes as much again as helps.
    fn refuse(&self, first: &Fitted, least: u64) -> Result<Fitted> {
        let (wanted, budget, rows) = (self.bytes_of(first)?, self.budget, self.project.train.shapes.batch);
        let activations = first.assembled.memory.iter().map(|m| m.bytes).max().unwrap_or(0);
        let [wanted, activations, least, budget] =
            [wanted, activations, least, budget].map(|bytes| format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64));
        let advice = match self.most_rows()? {
            0 => "no smaller microbatch fits: shorten the rows, or raise the budget".into(),
            most => format!("a local_batch_size of {most} fits"),
        };
        let place = self.project.places.of(&["amc", "memory_budget"]);
        bail!(
            "{place}: the run takes {wanted} ({activations} of them for a microbatch of {rows} rows), and {least} \
             where activations are computed again; the budget is {budget}; {advice}"
        )
    }
}
