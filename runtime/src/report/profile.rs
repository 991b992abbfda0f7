//! Where the time of a run went: a table by kernel, and a trace of the last run of every program.
use crate::device::{Profile, ProgramTimes};
use amc_artifact::{Forecast, Load, Plan, Program};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Rows of a table; all other kernels share one.
const ROWS: usize = 24;

/// Times of several launches, in milliseconds a run.
#[derive(Clone, Copy, Default)]
struct Row {
    launches: u64,
    wall: f64,
    /// Of all threads together.
    busy: f64,
    /// What `busy` was forecast to be.
    forecast: f64,
    /// What a run has to do.
    operations: f64,
    bytes: f64,
}

impl Row {
    fn plus(self, other: Row) -> Row {
        Row {
            launches: self.launches + other.launches,
            wall: self.wall + other.wall,
            busy: self.busy + other.busy,
            forecast: self.forecast + other.forecast,
            operations: self.operations + other.operations,
            bytes: self.bytes + other.bytes,
        }
    }

    /// `total` is the time of the whole program.
    fn line(&self, name: &str, total: f64, threads: usize) -> String {
        let percent = |part: f64, whole: f64| if whole > 0.0 { 100.0 * part / whole } else { 0.0 };
        let (share, busy) = (percent(self.wall, total), percent(self.busy, self.wall * threads as f64));
        let expected = match self.forecast > 0.0 {
            true => format!("{:>9.3} {:>5.2}", self.forecast / threads as f64, self.busy / self.forecast),
            false => String::new(),
        };
        let (wall, launches) = (self.wall, self.launches);
        let [operations, bytes] = [self.operations, self.bytes].map(|count| rate(count, wall));
        format!(
            "{wall:>10.3} {share:>6.1} {busy:>6.1} {launches:>8} {operations:>8} {bytes:>8} {expected:>15}  {name}\n"
        )
    }
}

/// So many in so many milliseconds, in billions a second; nothing where there are none.
fn rate(count: f64, milliseconds: f64) -> String {
    if count > 0.0 && milliseconds > 0.0 { format!("{:.0}", count / milliseconds / 1e6) } else { String::new() }
}

/// A table for every program that ran; the ratio is of what was measured to what was forecast. Operations and bytes are what
/// the batches that `loads` describe, by program, left to do.
pub(crate) fn tables(
    plan: &Plan,
    profile: &Profile,
    forecast: Option<&Forecast>,
    loads: &BTreeMap<String, Load>,
) -> String {
    let full = Load::default();
    let programs = plan.programs.iter().zip(profile.programs()).enumerate().filter(|(_, (_, times))| times.runs > 0);
    programs
        .map(|(index, (program, times))| {
            let expected = forecast.map(|forecast| (forecast.programs[index], &forecast.launches[index][..]));
            let load = loads.get(&program.name).unwrap_or(&full);
            table(plan, (program, load), times, profile.threads(), expected)
        })
        .collect()
}

/// `expected` are the forecast seconds of the program, and of one thread for each launch.
fn table(
    plan: &Plan,
    (program, load): (&Program, &Load),
    times: &ProgramTimes,
    threads: usize,
    expected: Option<(f64, &[f64])>,
) -> String {
    let milliseconds = |nanoseconds: u64| nanoseconds as f64 * 1e-6 / times.runs as f64;
    let mut by_kernel: HashMap<&str, Row> = HashMap::new();
    for (i, (launch, time)) in program.launches.iter().zip(&times.launches).enumerate() {
        let kernel = &plan.kernels[launch.kernel as usize];
        let row = by_kernel.entry(&kernel.symbol).or_default();
        let forecast = expected.map_or(0.0, |(_, launches)| 1e3 * launches[i]);
        let (wall, busy) = (milliseconds(time.wall), milliseconds(time.busy));
        let share = load.share(kernel.work.varies, program.batch, program.seq);
        let [operations, bytes] = [kernel.work.operations, kernel.work.bytes].map(|count| share * count as f64);
        *row = row.plus(Row { launches: 1, wall, busy, forecast, operations, bytes });
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
    let mut text = format!("{}: {} runs, {total:.1} ms each", program.name, times.runs);
    if let Some((seconds, _)) = expected {
        text += &format!(", forecast {:.1} ms, ratio {:.2}", 1e3 * seconds, total / (1e3 * seconds));
    }
    let (ms, percent, busy, launches, operations, bytes) = ("ms", "%", "busy %", "launches", "Gop/s", "GB/s");
    let ratio = if expected.is_some() { "forecast ratio" } else { "" };
    text +=
        &format!("\n{ms:>10} {percent:>6} {busy:>6} {launches:>8} {operations:>8} {bytes:>8} {ratio:>15}  kernel\n");
    rows.iter().for_each(|(name, row)| text += &row.line(name, total, threads));
    text
}

/// Writes the last run of every program as a trace that Perfetto and Chrome show, a track a thread.
pub(crate) fn write_trace(plan: &Plan, profile: &Profile, forecast: Option<&Forecast>, path: &Path) -> Result<()> {
    let mut events = Vec::new();
    let programs = plan.programs.iter().zip(profile.programs()).enumerate();
    for (p, (program, times)) in programs.filter(|(_, (_, times))| times.runs > 0) {
        for (l, (launch, time)) in program.launches.iter().zip(&times.launches).enumerate() {
            // Of one thread that does all of it, in microseconds as all times of a trace.
            let expected = forecast.map(|forecast| 1e6 * forecast.launches[p][l]);
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
                    "args": {"launch": l, "computes": launch.label, "module": launch.module, "tasks": launch.tasks, "forecast": expected},
                })
            }));
        }
    }
    let text = json!({"displayTimeUnit": "ms", "traceEvents": events}).to_string();
    std::fs::write(path, text).with_context(|| format!("cannot write the trace {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_what_a_run_does() {
        let half = Row { launches: 1, wall: 1.0, busy: 2.0, forecast: 0.0, operations: 3e9, bytes: 5e6 };
        let line = half.plus(half).line("product", 4.0, 2);
        let words: Vec<&str> = line.split_whitespace().collect();
        // 6e9 operations and 1e7 bytes in 2 of 4 ms, in which both threads were at work.
        assert_eq!(words, ["2.000", "50.0", "100.0", "2", "3000", "5", "product"]);
        let idle = Row { wall: 1.0, ..Row::default() }.line("(between launches)", 4.0, 2);
        assert_eq!(idle.split_whitespace().collect::<Vec<_>>(), ["1.000", "25.0", "0.0", "0", "(between", "launches)"]);
    }
}
