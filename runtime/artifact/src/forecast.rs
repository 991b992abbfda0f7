//! How long a plan takes: from what its launches have to do, and the rates of a machine.
//!
//! A launch keeps threads at work for `operations · a + bytes · b` and a time that does not depend on its size. Launches
//! that do not wait for each other are a stage: it takes its work divided by the threads, or as long as the thread with
//! most tasks of one of its launches, and waits: a part of that, and a time for each stage. All times are seconds. Artifacts hold no rates, so a forecast is made
//! where it is printed, and the same artifact is the same everywhere.
mod load;

use crate::{Begins, Launch, Plan, Program, ProgramKind, Work};
pub use load::{Load, Step, counted_tokens};
use std::collections::BTreeMap;

/// What launches of one family of kernels cost: seconds of one thread.
#[derive(Clone, Copy, PartialEq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// For each operation.
    pub operation: f64,
    /// For each byte.
    pub byte: f64,
    /// For each launch, whatever its size.
    pub launch: f64,
}

impl Rate {
    /// Seconds of one thread that does all of a launch, of which so much has to be done; `overlap` says whether it computes while it
    /// moves bytes.
    pub fn seconds(&self, work: &Work, share: f64, overlap: bool) -> f64 {
        let (computing, moving) = (work.operations as f64 * self.operation, work.bytes as f64 * self.byte);
        share * if overlap { computing.max(moving) } else { computing + moving } + self.launch
    }
}

/// What all stages of a program take but for waits, and how many there are, from the thread seconds of its launches.
pub fn stages(launches: &[Launch], seconds: &[f64], threads: usize) -> (f64, usize) {
    let (mut done, mut count) = (0.0, 0);
    let (mut sum, mut longest) = (0.0, 0.0_f64);
    for (launch, seconds) in launches.iter().zip(seconds) {
        if launch.begins == Begins::BehindAll || count == 0 {
            done += longest.max(sum / threads.max(1) as f64);
            (sum, longest, count) = (0.0, 0.0, count + 1);
        }
        sum += seconds;
        longest = longest.max(seconds * busiest_share(launch.tasks, threads));
    }
    (done + longest.max(sum / threads.max(1) as f64), count)
}

/// The part of a launch that the thread with most tasks does. Threads take over each other's tasks, so it is seldom more
/// than its share rounded up to whole tasks.
fn busiest_share(tasks: u32, threads: usize) -> f64 {
    let rounds = (tasks as usize).div_ceil(threads.max(1));
    if tasks == 0 { 0.0 } else { rounds as f64 / f64::from(tasks) }
}

/// How fast a machine runs amc's kernels with a certain number of threads.
#[derive(Clone, PartialEq, Debug)]
pub struct Rates {
    pub source: Source,
    /// Of a step's forecast, relative, two standard deviations.
    pub error: f64,
    /// Seconds that threads wait for the last one, for each second of a program's work.
    pub idle: f64,
    /// Seconds that a stage takes, whatever its work.
    pub wait: f64,
    /// Whether the longer of a launch's operations and bytes counts, rather than their sum.
    pub overlap: bool,
    pub families: BTreeMap<String, Rate>,
}

/// Where rates come from.
#[derive(Clone, PartialEq, Debug)]
pub enum Source {
    /// Measured on this machine; the day.
    Measured(String),
    /// Of a machine like it, and why not of this one.
    BuiltIn(String),
    /// Published peaks of a machine, which it is; of all of it, not of a thread.
    Nominal(String),
}

impl Rates {
    /// Whether they are of this machine.
    pub fn measured(&self) -> bool {
        matches!(self.source, Source::Measured(_))
    }

    /// Whether they are published peaks, so that forecasts are the least that anything can take.
    pub fn nominal(&self) -> bool {
        matches!(self.source, Source::Nominal(_))
    }

    /// `calibrated 2026-11-24`, or what to do about it.
    pub fn describe(&self) -> String {
        match &self.source {
            Source::Measured(day) => format!("calibrated {day}"),
            Source::BuiltIn(why) => why.clone(),
            Source::Nominal(machine) => format!("nominal, not measured: {machine}"),
        }
    }

    /// What a family without a rate is taken for: in everything as slow as the slowest.
    fn slowest(&self) -> Rate {
        let most = |part: fn(&Rate) -> f64| self.families.values().map(part).fold(0.0, f64::max);
        Rate { operation: most(|rate| rate.operation), byte: most(|rate| rate.byte), launch: most(|rate| rate.launch) }
    }
}

/// How long the programs of a plan will take.
#[derive(Clone, PartialEq, Debug)]
pub struct Forecast {
    /// Seconds of one thread for every launch of every program.
    pub launches: Vec<Vec<f64>>,
    /// Seconds of a run of every program.
    pub programs: Vec<f64>,
    /// Relative: that of the rates, and all of the time that families without a rate are taken to need.
    pub error: f64,
    /// Families of the plan that have no rate.
    pub unrated: Vec<String>,
    /// Where the rates come from, in words.
    pub source: String,
    /// Whether the rates are published peaks, and times the least that is possible.
    pub nominal: bool,
}

impl Forecast {
    /// Of a plan that runs on so many threads, programs with batches like those, full ones where there are none.
    pub fn of(plan: &Plan, rates: &Rates, threads: usize, loads: &BTreeMap<String, Load>) -> Forecast {
        let full = Load::default();
        let work = |launch: &Launch| &plan.kernels[launch.kernel as usize].work;
        let rate = |launch: &Launch| rates.families.get(&work(launch).family);
        let mut forecast = Forecast {
            launches: vec![],
            programs: vec![],
            error: 0.0,
            unrated: vec![],
            source: rates.describe(),
            nominal: rates.nominal(),
        };
        for program in &plan.programs {
            let (launches, seconds) =
                Forecast::of_program(plan, program, rates, threads, loads.get(&program.name).unwrap_or(&full));
            // No step packs.
            let in_steps = if program.kind == ProgramKind::Pack { &[][..] } else { &program.launches };
            let unrated = in_steps.iter().zip(&launches).filter(|(launch, _)| rate(launch).is_none());
            let guessed: f64 = unrated.clone().map(|(_, seconds)| seconds).sum();
            forecast.error = forecast.error.max(guessed / launches.iter().sum::<f64>().max(f64::MIN_POSITIVE));
            forecast.unrated.extend(unrated.map(|(launch, _)| work(launch).family.clone()));
            forecast.programs.push(seconds);
            forecast.launches.push(launches);
        }
        forecast.error += rates.error;
        forecast.unrated.sort_unstable();
        forecast.unrated.dedup();
        forecast
    }

    /// Seconds of one thread for every launch of a program whose batches are like those, and of a run of it.
    pub fn of_program(plan: &Plan, program: &Program, rates: &Rates, threads: usize, load: &Load) -> (Vec<f64>, f64) {
        let slowest = rates.slowest();
        let seconds = |launch: &Launch| {
            let work = &plan.kernels[launch.kernel as usize].work;
            let share = load.share(work.varies, program.batch, program.seq);
            rates.families.get(&work.family).unwrap_or(&slowest).seconds(work, share, rates.overlap)
        };
        let launches: Vec<f64> = program.launches.iter().map(seconds).collect();
        let threads = if rates.nominal() { 1 } else { threads };
        let (work, stages) = stages(&program.launches, &launches, threads);
        (launches, work * (1.0 + rates.idle) + stages as f64 * rates.wait)
    }

    /// Seconds of an optimizer step: the programs that run in it, and one update.
    pub fn step(&self, plan: &Plan, step: &Step) -> f64 {
        let times = |program: &Program| match program.kind {
            ProgramKind::Update => 1.0,
            _ => step.runs.get(&program.name).copied().unwrap_or(0.0),
        };
        plan.programs.iter().zip(&self.programs).map(|(program, seconds)| times(program) * seconds).sum()
    }

    /// `± 8 %; calibrated 2026-11-24`, with the families that have no rate.
    pub fn certainty(&self) -> String {
        let guessed = match self.unrated.is_empty() {
            true => String::new(),
            false => format!("; no rate for {}", self.unrated.join(", ")),
        };
        let error = if self.nominal { String::new() } else { format!("± {:.0} %; ", 100.0 * self.error) };
        format!("{error}{}{guessed}", self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Code, IGNORED, Kernel, Varies};

    fn plan() -> Plan {
        let work =
            |family: &str, operations, bytes| Work { family: family.into(), operations, bytes, varies: Varies::Labels };
        let kernel = |symbol: &str, work| Kernel { code: Code::Cpu, symbol: symbol.into(), work };
        let launch = |kernel, tasks, begins| Launch {
            kernel,
            tasks,
            args: vec![],
            label: String::new(),
            begins,
            module: String::new(),
        };
        let program = |name: &str, kind, launches| Program {
            name: name.into(),
            kind,
            batch: 1,
            seq: 8,
            inputs: vec![],
            outputs: vec![],
            launches,
            buffers: vec![],
        };
        Plan {
            kernels: vec![kernel("product", work("product", 1000, 10)), kernel("new", work("new", 100, 100))],
            programs: vec![
                program(
                    "train",
                    ProgramKind::Train,
                    vec![
                        launch(0, 4, Begins::Beside),
                        launch(0, 1, Begins::BehindAll),
                        launch(1, 2, Begins::BehindAll),
                    ],
                ),
                program(
                    "update",
                    ProgramKind::Update,
                    vec![launch(0, 3, Begins::Beside), launch(0, 3, Begins::Beside)],
                ),
            ],
            ..Plan::default()
        }
    }

    fn rates(families: &[(&str, Rate)]) -> Rates {
        let families = families.iter().map(|(name, rate)| (name.to_string(), *rate)).collect();
        Rates {
            source: Source::Measured("2026-11-24".into()),
            error: 0.05,
            idle: 0.0,
            wait: 0.5,
            overlap: false,
            families,
        }
    }

    #[test]
    fn launches_take_what_the_busiest_thread_takes() {
        let rate = Rate { operation: 0.01, byte: 0.1, launch: 2.0 };
        // 1000 operations and 10 bytes are 13 s of one thread with the launch.
        let known = rates(&[("product", rate), ("new", Rate { operation: 0.0, byte: 0.02, launch: 0.0 })]);
        let full = BTreeMap::new();
        let overlapping = Rates { overlap: true, ..known.clone() };
        assert_eq!(Forecast::of(&plan(), &overlapping, 1, &full).launches[0], [12.0, 12.0, 2.0]);
        let nominal = Rates { source: Source::Nominal("a machine".into()), wait: 0.0, ..overlapping };
        let nominal = Forecast::of(&plan(), &nominal, 8, &full);
        assert_eq!(
            (nominal.programs, nominal.source),
            (vec![26.0, 24.0], "nominal, not measured: a machine".to_string())
        );
        let forecast = Forecast::of(&plan(), &known, 2, &full);
        assert_eq!(forecast.launches, [vec![13.0, 13.0, 2.0], vec![13.0, 13.0]]);
        // A single task is one thread's; two launches of three tasks that need not wait keep both threads busy.
        assert_eq!(forecast.programs, [6.5 + 13.0 + 1.0 + 3.0 * 0.5, 13.0 + 0.5]);
        let one = Forecast::of(&plan(), &known, 1, &full);
        assert_eq!(one.programs, [28.0 + 1.5, 26.0 + 0.5]);
        let idle = Forecast::of(&plan(), &Rates { idle: 0.25, ..known.clone() }, 1, &full);
        assert_eq!(idle.programs, [35.0 + 1.5, 32.5 + 0.5]);
        assert_eq!((forecast.error, forecast.unrated.len()), (0.05, 0));
        let step = Step { runs: BTreeMap::from([("train".to_string(), 3.0)]), ..Step::default() };
        assert_eq!(forecast.step(&plan(), &step), 3.0 * forecast.programs[0] + forecast.programs[1]);
        let mut half = Load::default();
        half.add(&[1, IGNORED, 1, IGNORED, 1, IGNORED, 1, IGNORED], &[1; 8], 8);
        assert_eq!(
            Forecast::of(&plan(), &known, 2, &BTreeMap::from([("train".to_string(), half)])).launches[0],
            [7.5, 7.5, 1.0]
        );
        assert_eq!(forecast.certainty(), "± 5 %; calibrated 2026-11-24");
        assert_eq!([(0, 2), (1, 2), (5, 2), (3, 8)].map(|(t, n)| busiest_share(t, n)), [0.0, 1.0, 0.6, 1.0 / 3.0]);
    }

    #[test]
    fn a_family_without_a_rate_is_named_and_counts_as_slow_and_unsure() {
        let known = rates(&[("product", Rate { operation: 0.01, byte: 0.1, launch: 2.0 })]);
        let forecast = Forecast::of(&plan(), &known, 2, &BTreeMap::new());
        // 100 · 0.01 + 100 · 0.1 and the launch.
        assert_eq!(forecast.launches[0][2], 13.0);
        assert_eq!(forecast.error, 1.0 / 3.0 + 0.05);
        assert_eq!(forecast.certainty(), "± 38 %; calibrated 2026-11-24; no rate for new");
    }
}
