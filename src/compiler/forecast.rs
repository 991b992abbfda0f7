//! How long a step of a project will take: on this machine, or on a GPU that reaches its peaks.
use super::emit::Destination;
use super::project::Project;
use super::recipe::threads;
use amc_artifact::{Forecast, Plan, Step, rates};
use anyhow::Result;

/// A forecast of a plan.
pub struct Timed {
    /// Seconds of a step.
    pub seconds: f64,
    /// Tokens of a step, as throughput counts them.
    pub tokens: f64,
    pub forecast: Forecast,
}

impl Timed {
    /// Of a plan whose code is for `destination`, with the data and the threads of the project's run; `None` where there are no
    /// rates.
    pub fn of(project: &Project, destination: &Destination, plan: &Plan) -> Result<Option<Timed>> {
        let threads = threads(project) as usize;
        let Some(rates) = rates::of_target(&destination.info(), threads) else { return Ok(None) };
        let step = Step::of(plan, &project.train.prepared.shard, &project.train.sampler)?;
        let forecast = Forecast::of(plan, &rates, threads, &step.loads);
        Ok(Some(Timed { seconds: forecast.step(plan, &step), tokens: step.tokens, forecast }))
    }
}
