//! How long a step of a project will take on this machine.
use super::emit::Destination;
use super::project::Project;
use super::recipe::threads;
use amc_artifact::rates::{self, Host};
use amc_artifact::{Forecast, Plan};
use std::collections::BTreeMap;

/// What an optimizer step does, averaged over the first epoch.
pub struct Step {
    /// Microbatches by program.
    pub runs: BTreeMap<String, f64>,
    /// Tokens that predict another, as throughput counts them.
    pub tokens: f64,
}

/// A forecast of a plan, and the seconds of a step.
pub struct Timed {
    pub seconds: f64,
    pub forecast: Forecast,
}

impl Step {
    pub fn of(project: &Project) -> Step {
        let (data, sampler) = (&project.train, &project.train.sampler);
        let (shard, batch) = (&data.prepared.shard, data.shapes.batch);
        let each = 1.0 / f64::from(sampler.steps_per_epoch().max(1));
        let mut step = Step { runs: BTreeMap::new(), tokens: 0.0 };
        for rows in sampler.epoch(0).microbatches() {
            let longest = rows.iter().map(|row| shard.length(*row)).max().unwrap_or(0);
            let length = data.shapes.length_for(longest).unwrap_or(longest);
            *step.runs.entry(format!("train_{batch}x{length}")).or_default() += each;
            // The last token of a row predicts nothing.
            let counted = rows.iter().map(|row| shard.content(*row).saturating_sub(1)).sum::<usize>();
            step.tokens += counted as f64 * each;
        }
        step
    }

    /// The forecast of a plan whose code is for `destination`, with the threads of the project's run.
    pub fn time(&self, project: &Project, destination: &Destination, plan: &Plan) -> Timed {
        let threads = threads(project) as usize;
        let rates = rates::of(&Host::here(&destination.info().features, threads));
        let forecast = Forecast::of(plan, &rates, threads);
        Timed { seconds: forecast.step(plan, &self.runs), forecast }
    }
}
