//! Where the time of a run went: a table by kernel, and a trace of the last run of every program.
use crate::device::{Profile, ProgramTimes};
use amc_artifact::{Plan, Program};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

/// Rows of a table; all other kernels share one.
const ROWS: usize = 24;

/// Times of several launches, in milliseconds a run.
#[derive(Clone, Copy, Default)]
struct Row {
    launches: u64,
    wall: f64,
    busy: f64,
}

impl Row {
    fn plus(self, other: Row) -> Row {
        Row { launches: self.launches + other.launches, wall: self.wall + other.wall, busy: self.busy + other.busy }
    }

    /// `total` is the time of the whole program.
    fn line(&self, name: &str, total: f64, threads: usize) -> String {
        let percent = |part: f64, whole: f64| if whole > 0.0 { 100.0 * part / whole } else { 0.0 };
        let (share, busy) = (percent(self.wall, total), percent(self.busy, self.wall * threads as f64));
        format!("{:>10.3} {share:>6.1} {busy:>6.1} {:>8}  {name}\n", self.wall, self.launches)
    }
}

/// A table for every program that ran.
pub(crate) fn tables(plan: &Plan, profile: &Profile) -> String {
    let programs = plan.programs.iter().zip(profile.programs()).filter(|(_, times)| times.runs > 0);
    programs.map(|(program, times)| table(plan, program, times, profile.threads())).collect()
}

fn table(plan: &Plan, program: &Program, times: &ProgramTimes, threads: usize) -> String {
    let milliseconds = |nanoseconds: u64| nanoseconds as f64 * 1e-6 / times.runs as f64;
    let mut by_kernel: HashMap<&str, Row> = HashMap::new();
    for (launch, time) in program.launches.iter().zip(&times.launches) {
        let row = by_kernel.entry(&plan.kernels[launch.kernel as usize].symbol).or_default();
        *row = row.plus(Row { launches: 1, wall: milliseconds(time.wall), busy: milliseconds(time.busy) });
    }
    let mut rows: Vec<(&str, Row)> = by_kernel.into_iter().collect();
    rows.sort_by(|a, b| b.1.wall.total_cmp(&a.1.wall).then(a.0.cmp(b.0)));
    let sum = |rows: &[(&str, Row)]| rows.iter().fold(Row::default(), |sum, (_, row)| sum.plus(*row));
    let total = milliseconds(times.wall);
    let between = Row { wall: total - sum(&rows).wall, ..Row::default() };
    let others = sum(rows.get(ROWS..).unwrap_or(&[]));
    rows.truncate(ROWS);
    rows.extend((others.launches > 0).then_some(("(all others)", others)));
    rows.push(("(between launches)", between));
    let mut text = format!("{}: {} runs, {total:.1} ms each\n", program.name, times.runs);
    text += &format!("{:>10} {:>6} {:>6} {:>8}  kernel\n", "ms", "%", "busy %", "launches");
    rows.iter().for_each(|(name, row)| text += &row.line(name, total, threads));
    text
}

/// Writes the last run of every program as a trace that Perfetto and Chrome show, a track a thread.
pub(crate) fn write_trace(plan: &Plan, profile: &Profile, path: &Path) -> Result<()> {
    let mut events = Vec::new();
    for (program, times) in plan.programs.iter().zip(profile.programs()).filter(|(_, times)| times.runs > 0) {
        for (index, (launch, time)) in program.launches.iter().zip(&times.launches).enumerate() {
            let spans = time.last.iter().enumerate().filter(|(_, (begin, end))| begin < end);
            events.extend(spans.map(|(thread, &(begin, end))| -> Value {
                json!({
                    "name": plan.kernels[launch.kernel as usize].symbol,
                    "cat": program.name,
                    "ph": "X",
                    "ts": begin as f64 / 1e3,
                    "dur": (end - begin) as f64 / 1e3,
                    "pid": 0,
                    "tid": thread,
                    "args": {"launch": index, "computes": launch.label, "module": launch.module, "tasks": launch.tasks},
                })
            }));
        }
    }
    let text = json!({"displayTimeUnit": "ms", "traceEvents": events}).to_string();
    std::fs::write(path, text).with_context(|| format!("cannot write the trace {}", path.display()))
}
