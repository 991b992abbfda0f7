//! Measured times of launches, from the trace that `amc run --profile` writes.
use amc_artifact::Plan;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;

/// A span of one launch on one thread, in nanoseconds since the first span of its program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    pub launch: usize,
    pub thread: u64,
    pub begin: u64,
    pub end: u64,
}

/// The last run of every program that ran, by name of the program.
pub struct Trace {
    pub programs: BTreeMap<String, Vec<Span>>,
}

impl Trace {
    /// Reads a trace and checks that it is one of this plan.
    ///
    /// # Errors
    /// No trace of amc, or one of another plan; says which event does not fit.
    pub fn parse(text: &[u8], plan: &Plan) -> Result<Trace> {
        let value: Value = serde_json::from_slice(text).context("not JSON")?;
        let events = value.get("traceEvents").and_then(Value::as_array).context("no list `traceEvents`")?;
        let mut programs: BTreeMap<String, Vec<Span>> = BTreeMap::new();
        for (index, event) in events.iter().enumerate() {
            let (program, span) = span(event, plan).with_context(|| format!("event {index}"))?;
            programs.entry(program).or_default().push(span);
        }
        for spans in programs.values_mut() {
            let zero = spans.iter().map(|span| span.begin).min().unwrap_or(0);
            spans.iter_mut().for_each(|span| (span.begin, span.end) = (span.begin - zero, span.end - zero));
        }
        Ok(Trace { programs })
    }
}

fn span(event: &Value, plan: &Plan) -> Result<(String, Span)> {
    let text = |key: &str| event.get(key).and_then(Value::as_str).with_context(|| format!("`{key}` is no text"));
    let nanoseconds = |key: &str| {
        let micro = event.get(key).and_then(Value::as_f64).filter(|it| (0.0..1e15).contains(it));
        Ok::<u64, anyhow::Error>((micro.with_context(|| format!("`{key}` is no time"))? * 1e3).round() as u64)
    };
    let (name, symbol) = (text("cat")?, text("name")?);
    let launch = event.pointer("/args/launch").and_then(Value::as_u64).context("`args.launch` is no number")? as usize;
    let program = plan.programs.iter().find(|program| program.name == name);
    let planned = program.and_then(|program| program.launches.get(launch));
    let planned = planned.map(|planned| plan.kernels[planned.kernel as usize].symbol.as_str());
    ensure!(
        planned == Some(symbol),
        "launch {launch} of {name} ran {symbol}, the artifact has {} there: the run was of another artifact",
        planned.unwrap_or("nothing")
    );
    let thread = event.get("tid").and_then(Value::as_u64).context("`tid` is no number")?;
    let begin = nanoseconds("ts")?;
    Ok((name.into(), Span { launch, thread, begin, end: begin + nanoseconds("dur")? }))
}
