//! How long launches should take on this machine, and the roof that its rates are.
use amc_artifact::rates::{self, Host};
use amc_artifact::{Artifact, Forecast, Rates, Shard, Step, TargetKind, shard_folder, shard_path};
use amc_runtime::session::default_threads;
use serde_json::{Value, json};

/// Families whose kernels wait for memory and for nothing else: their best rate is the bandwidth.
const MEMORY_BOUND: &[&str] = &["rows", "norm", "pointwise", "optimizer"];

/// What is expected of a machine.
pub struct Expected {
    rates: Rates,
    threads: usize,
    forecast: Forecast,
}

impl Expected {
    /// Of this machine, or of a GPU's peaks, with batches like those of the artifact's data where amc's cache has it, else with full
    /// ones; `None` where the code is for a device that has no rates.
    pub fn of(artifact: &Artifact) -> Option<Expected> {
        let target = &artifact.header.target;
        let threads = artifact.run.as_ref().and_then(|run| run.threads).map_or_else(default_threads, |it| it as usize);
        let rates = match target.kind {
            TargetKind::Null => rates::of(&Host::here(&target.features, threads)),
            TargetKind::Cpu | TargetKind::Cuda => rates::of_target(target, threads)?,
        };
        let threads = if rates.nominal() { 1 } else { threads };
        let step = step(artifact).unwrap_or_default();
        let forecast = Forecast::of(&artifact.plan, &rates, threads, &step.loads);
        Some(Expected { rates, threads, forecast })
    }

    /// Seconds of one thread for a launch of every kernel of the plan; 0 where none is launched.
    pub fn kernels(&self, artifact: &Artifact) -> Vec<f64> {
        let mut seconds = vec![0.0; artifact.plan.kernels.len()];
        for (program, times) in artifact.plan.programs.iter().zip(&self.forecast.launches) {
            for (launch, time) in program.launches.iter().zip(times) {
                seconds[launch.kernel as usize] = *time;
            }
        }
        seconds
    }

    /// Seconds that a program takes for each second of one thread in its launches.
    pub fn scale(&self, program: usize) -> f64 {
        let sum: f64 = self.forecast.launches[program].iter().sum();
        if sum > 0.0 { self.forecast.programs[program] / sum } else { 0.0 }
    }

    /// Where the rates come from, and the most that they allow in a second; no roof where there are none.
    pub fn json(&self) -> Value {
        let best = |part: fn(&amc_artifact::Rate) -> f64, counts: fn(&str) -> bool| {
            let families = self.rates.families.iter().filter(|(name, _)| counts(name));
            let least = families.map(|(_, rate)| part(rate)).filter(|it| *it > 0.0).reduce(f64::min);
            least.map(|seconds| self.threads as f64 / seconds)
        };
        let operations = best(|rate| rate.operation, |_| true);
        let bytes = best(|rate| rate.byte, |family| MEMORY_BOUND.contains(&family));
        let roof = operations.zip(bytes).map(|(operations, bytes)| json!({"operations": operations, "bytes": bytes}));
        let threads = (!self.forecast.nominal).then_some(self.threads);
        json!({"certainty": self.forecast.certainty(), "threads": threads, "roof": roof})
    }
}

/// What steps hold; `None` where the data is not in amc's cache, or is not what it was.
fn step(artifact: &Artifact) -> Option<Step> {
    let train = &artifact.run.as_ref()?.train;
    let hash = train.shard.parse().ok()?;
    let shard = Shard::open(&shard_path(&shard_folder(), &hash)).ok()?;
    Step::of(&artifact.plan, &shard, &train.sampler).ok()
}
