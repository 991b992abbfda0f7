//! Measures how fast this machine runs amc's kernels: small models are compiled and trained like any other, so that every
//! launch has the neighbours, the caches and the threads of a real step.
//!
//! The programs take turns, round after round, so that a machine that drifts does so for all of them. Of every kernel the
//! median round counts. The error is what fits without a program say about that program, and how its rounds scatter.
pub mod fit;
pub mod models;

use super::emit::{Destination, Papers, emit};
use super::model;
use super::unit::{Dumps, unit};
use amc_artifact::{Artifact, Forecast, Plan, Port, Program, Rates, Source, Storage, stages};
use amc_frontend::build::{Dropout, Lora, Purpose, Request};
use amc_frontend::names::Names;
use amc_ir::{DType, Init};
use amc_passes::pass::Recompute;
use amc_passes::plan::{Optimizer, assemble};
use amc_runtime::session::{ProgramId, Session, SessionOptions};
use anyhow::{Context, Result, bail};
use fit::{Point, Sample, fit, non_negative};
use models::{Shape, Training};
use std::collections::BTreeMap;
use std::path::Path;

const RANK: usize = 8;

/// A compiled program pair: a microbatch, and the update.
struct Subject {
    /// What is trained, and how.
    name: String,
    session: Session,
    plan: Plan,
    vocabulary: usize,
    threads: usize,
    _folder: tempfile::TempDir,
    /// By round.
    rounds: Vec<Round>,
}

/// What a step took: seconds of one thread for every launch of every program, and seconds of the programs.
struct Round {
    launches: Vec<Vec<f64>>,
    programs: Vec<f64>,
}

/// Measures for so many rounds after one that does not count; `said` is told what goes on.
///
/// # Errors
/// A model that cannot be compiled or written.
pub fn calibrate(
    shapes: &[(Shape, &[Training])],
    rounds: usize,
    threads: usize,
    day: String,
    mut said: impl FnMut(&str) -> Result<()>,
) -> Result<Rates> {
    let mut subjects = vec![];
    for (shape, trainings) in shapes {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        shape.write(folder.path())?;
        for training in *trainings {
            subjects.push(Subject::compile(shape, training, folder.path(), threads)?);
        }
    }
    said(&format!("{} programs compiled, {rounds} rounds to measure", subjects.len()))?;
    for round in 0..=rounds {
        for subject in &mut subjects {
            let measured = subject.round()?;
            // Memory is touched for the first time in the first round.
            if round > 0 {
                subject.rounds.push(measured);
            }
        }
    }
    rates(&subjects, day, said)
}

impl Subject {
    fn compile(shape: &Shape, training: &Training, folder: &Path, threads: usize) -> Result<Subject> {
        let model = model::load(folder, &[], Some(training.compute), true)?;
        let dropout = training.dropout.then_some(Dropout { p: 0.1, on_input: true });
        let layers = Names::new(&model.model).modules().into_iter().map(|module| module.name);
        let modules = layers.filter(|name| name.ends_with("_proj")).collect();
        let init = Init::XavierNormal;
        let lora = Lora { modules, rank: RANK, scale: 1.0, init, dtype: Some(DType::F32), dropout };
        let stored = if training.lora { model.stored.clone() } else { model.trained() };
        let request = Request {
            model: &model.model,
            stored: &stored,
            compute: model.compute,
            batch: shape.rows,
            seq: shape.tokens,
            purpose: Purpose::Loss,
            lora: training.lora.then_some(&lora),
            train_all: !training.lora,
        };
        let unit = unit("train", &request, Some(Recompute::default()), &mut Dumps::default())?;
        let destination = Destination::parse("cpu")?;
        let optimizer = Optimizer { beta1: 0.9, beta2: 0.999, eps: 1e-8, decoupled: true };
        let assembled = assemble(&[unit], Some(optimizer), destination.machine().as_ref(), 0);
        let temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
        let dir = temporary.path().join("artifact");
        emit(&dir, &assembled, &destination, folder, &model.weight_files()?, Papers::default())?;
        let options = SessionOptions { threads: Some(threads), model: Some(folder.into()) };
        let mut session = Session::open(&Artifact::open(&dir)?, &options)?;
        session.initialise(0)?;
        let plan = assembled.plan;
        let way = if training.lora { "LoRA" } else { "all weights" };
        let name = format!("{} wide, {}x{}, {way}, {:?}", shape.hidden, shape.rows, shape.tokens, training.compute);
        Ok(Subject { name, session, plan, vocabulary: shape.vocabulary, threads, _folder: temporary, rounds: vec![] })
    }

    /// One step, measured.
    fn round(&mut self) -> Result<Round> {
        self.session.start_profile()?;
        let programs: Vec<(ProgramId, Program)> =
            self.session.programs().map(|(id, program)| (id, program.clone())).collect();
        for (id, program) in &programs {
            for port in &program.inputs {
                self.fill(*id, program, port)?;
            }
            self.session.run(*id)?;
        }
        let profile = self.session.profile().context("nothing was measured")?;
        let seconds = |nanoseconds: u64| nanoseconds as f64 * 1e-9;
        let times = profile.programs();
        let launches = times.iter().map(|times| times.launches.iter().map(|l| seconds(l.busy)).collect()).collect();
        Ok(Round { launches, programs: times.iter().map(|times| seconds(times.wall)).collect() })
    }

    /// Gives an input values such as a run gives it; nothing is learned.
    fn fill(&mut self, id: ProgramId, program: &Program, port: &Port) -> Result<()> {
        let count: usize = port.shape.iter().product::<u64>() as usize;
        if port.storage == Storage::F32 {
            let value = match port.name.as_str() {
                "loss_scale" => 1.0 / (program.batch * program.seq) as f32,
                "learning_rate" | "weight_decay" => 0.0,
                "bias_correction1" | "bias_correction2" | "max_norm" => 1.0,
                other => bail!("the input `{other}` is not known"),
            };
            return self.session.write(id, &port.name, &vec![value; count]);
        }
        let value = |index: usize| match port.name.as_str() {
            "tokens" | "labels" => (index * 7919 % self.vocabulary) as i32,
            "positions" => (index % program.seq.max(1) as usize) as i32,
            _ => 1,
        };
        let values: Vec<i32> = (0..count).map(value).collect();
        self.session.write(id, &port.name, &values)
    }

    /// Of every kernel of every program, what its launches take in the median round.
    fn samples(&self) -> Vec<Sample> {
        let mut samples = vec![];
        for (p, program) in self.plan.programs.iter().enumerate() {
            let mut kernels: Vec<u32> = program.launches.iter().map(|launch| launch.kernel).collect();
            kernels.sort_unstable();
            kernels.dedup();
            for kernel in kernels {
                let of: Vec<usize> =
                    (0..program.launches.len()).filter(|i| program.launches[*i].kernel == kernel).collect();
                let sum = |round: &Round| of.iter().map(|i| round.launches[p][*i]).sum::<f64>();
                let work = &self.plan.kernels[kernel as usize].work;
                samples.push(Sample {
                    family: work.family.clone(),
                    operations: work.operations as f64,
                    bytes: work.bytes as f64,
                    seconds: median(self.rounds.iter().map(sum)) / of.len() as f64,
                    launches: of.len() as f64,
                });
            }
        }
        samples
    }

    /// Seconds of a step in every round.
    fn steps(&self) -> Vec<f64> {
        self.rounds.iter().map(|round| round.programs.iter().sum()).collect()
    }

    /// The work of a step's stages and their number, and the seconds of the step beyond its work, in the median round.
    fn waits(&self) -> Point {
        let parts = |round: &Round| -> (f64, f64) {
            let lists = self.plan.programs.iter().zip(&round.launches);
            let parts = lists.map(|(program, seconds)| stages(&program.launches, seconds, self.threads));
            parts.fold((0.0, 0.0), |sum, (work, count)| (sum.0 + work, sum.1 + count as f64))
        };
        let step = |round: &Round| round.programs.iter().sum::<f64>();
        let work = median(self.rounds.iter().map(|round| parts(round).0));
        let count = self.rounds.first().map_or(0.0, |round| parts(round).1);
        let beyond = median(self.rounds.iter().map(|round| (step(round) - parts(round).0).max(0.0)));
        Point { of: [work, count, 0.0], wanted: beyond, weight: 1.0 / median(self.rounds.iter().map(step)).powi(2) }
    }
}

fn rates(subjects: &[Subject], day: String, mut said: impl FnMut(&str) -> Result<()>) -> Result<Rates> {
    let [idle, wait, _] = non_negative(&subjects.iter().map(Subject::waits).collect::<Vec<_>>());
    let samples: Vec<Vec<Sample>> = subjects.iter().map(Subject::samples).collect();
    let families = fit(&samples.concat());
    let mut rates = Rates { source: Source::Measured(day), error: 0.0, idle, wait, overlap: false, families };
    let mut variance = 0.0;
    for (index, subject) in subjects.iter().enumerate() {
        let others = samples.iter().enumerate().filter(|(i, _)| *i != index).flat_map(|(_, samples)| samples.clone());
        let mut of_others = rates.clone();
        of_others.families.extend(fit(&others.collect::<Vec<_>>()));
        let Deviation { step, forecast, scatter } = Deviation::of(subject, &of_others);
        variance += ((forecast / step - 1.0).powi(2) + scatter.powi(2)) / subjects.len() as f64;
        let (step, forecast, scatter) = (1e3 * step, 1e3 * forecast, 100.0 * scatter);
        said(&format!("{}: {step:.1} ms (± {scatter:.1} %), by the others' rates {forecast:.1} ms", subject.name))?;
    }
    rates.error = 2.0 * variance.sqrt();
    Ok(rates)
}

/// What a step of a subject took and was forecast to take, in seconds.
struct Deviation {
    /// The median.
    step: f64,
    forecast: f64,
    /// Standard deviation of the rounds, relative; from the median deviation, which single disturbed rounds do not move.
    scatter: f64,
}

impl Deviation {
    fn of(subject: &Subject, rates: &Rates) -> Deviation {
        let steps = subject.steps();
        let step = median(steps.iter().copied());
        let forecast = Forecast::of(&subject.plan, rates, subject.threads, &BTreeMap::new()).programs.iter().sum();
        Deviation { step, forecast, scatter: 1.4826 * median(steps.iter().map(|s| (s / step - 1.0).abs())) }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: Shape =
        Shape { hidden: 32, intermediate: 48, heads: 2, kv_heads: 1, vocabulary: 64, bias: true, rows: 2, tokens: 16 };

    #[test]
    fn every_family_that_runs_gets_a_rate() {
        let ways = [
            Training { lora: true, dropout: true, compute: DType::Bf16 },
            Training { lora: false, dropout: false, compute: DType::F32 },
        ];
        let rates = calibrate(&[(TINY, &ways)], 3, 2, "2026-11-24".into(), |_| Ok(())).unwrap();
        let named = ["attention", "attention_grad", "dropout", "norm", "optimizer", "rope", "cross_entropy"];
        for family in named {
            let rate = rates.families.get(family).unwrap_or_else(|| panic!("{family}: {rates:?}"));
            assert!(rate.operation + rate.byte + rate.launch > 0.0, "{family}: {rate:?}");
        }
        assert!(rates.families.keys().any(|family| family.starts_with("product")), "{rates:?}");
        assert!(rates.measured() && rates.error.is_finite() && rates.wait >= 0.0 && rates.idle >= 0.0, "{rates:?}");
    }

    #[test]
    fn medians() {
        assert_eq!([vec![], vec![3.0, 1.0, 2.0], vec![4.0, 1.0]].map(|v| median(v.into_iter())), [0.0, 2.0, 2.5]);
    }
}
