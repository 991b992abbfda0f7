//! All facts of the page as one JSON value; lists by column, texts once, so that plans of many thousand launches stay small.
use super::forecast::Expected;
use super::graph::Phase;
use super::recipe::Links;
use super::trace::{Span, Trace};
use amc_artifact::{Arg, Artifact, Param, Port, Program, WeightTensor};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

/// What the page is made of.
pub struct Facts<'a> {
    pub artifact: &'a Artifact,
    /// recipe.lock.yaml.
    pub lock: &'a str,
    /// Of every program of the plan.
    pub phases: &'a [Vec<Phase>],
    pub trace: Option<&'a Trace>,
}

/// Texts that are named by their index.
#[derive(Default)]
struct Table<'a> {
    texts: Vec<&'a str>,
    index: HashMap<&'a str, usize>,
}

impl<'a> Table<'a> {
    fn add(&mut self, text: &'a str) -> usize {
        *self.index.entry(text).or_insert_with(|| {
            self.texts.push(text);
            self.texts.len() - 1
        })
    }
}

impl Facts<'_> {
    /// What the page is about: the model's name, without the folders above it.
    pub fn title(&self) -> String {
        let name = self.artifact.run.as_ref().map_or("artifact", |run| run.model.name.as_str());
        Path::new(name).file_name().map_or(name.into(), |name| name.to_string_lossy().into_owned())
    }

    /// The JSON that `page/program.js` reads.
    ///
    /// # Errors
    /// The manifest says nothing of a program's memory.
    pub fn json(&self) -> Result<Value> {
        let Artifact { header, plan, run, .. } = self.artifact;
        let expected = Expected::of(self.artifact);
        let seconds = expected.as_ref().map(|it| it.kernels(self.artifact));
        let links = Links::new(&self.artifact.recipe, self.lock, plan);
        let kernels = plan.kernels.iter().enumerate().map(|(index, kernel)| {
            let work = &kernel.work;
            json!([
                kernel.symbol,
                work.family,
                work.operations,
                work.bytes,
                seconds.as_ref().map_or(0.0, |it| it[index])
            ])
        });
        let programs: Result<Vec<Value>> = (plan.programs.iter().zip(self.phases).enumerate())
            .map(|(index, (program, phases))| {
                let mut value = self.program(program, phases, &links)?;
                value["scale"] = expected.as_ref().map_or(0.0, |it| it.scale(index)).into();
                Ok(value)
            })
            .collect();
        Ok(json!({
            "title": self.title(),
            "compiler": header.compiler,
            "target": format!("{:?} {}", header.target.kind, header.target.cpu).trim().to_lowercase(),
            "parameters": run.as_ref().map(|run| run.model.parameters),
            "forecast": expected.as_ref().map(Expected::json),
            "arena": plan.arena_bytes,
            "scratch": plan.scratch_bytes,
            "kernels": kernels.collect::<Vec<_>>(),
            "weights": plan.weights.iter().map(weight).collect::<Vec<_>>(),
            "params": plan.params.iter().map(param).collect::<Vec<_>>(),
            "recipe": links.json(),
            "programs": programs?,
        }))
    }

    fn program(&self, program: &Program, phases: &[Phase], links: &Links) -> Result<Value> {
        let plan = &self.artifact.plan;
        let memory = self.artifact.header.memory.iter().find(|memory| memory.phase == program.name);
        let memory = memory.with_context(|| format!("manifest.json has no memory of program {}", program.name))?;
        let (mut labels, mut modules) = (Table::default(), Table::default());
        let (mut reasons, mut reason_of) = (vec![], HashMap::new());
        let mut reason = |rules: Vec<usize>| {
            *reason_of.entry(rules.clone()).or_insert_with(|| {
                reasons.push(rules);
                reasons.len() - 1
            })
        };
        let launches: Vec<Value> = (program.launches.iter())
            .map(|launch| {
                let args: Vec<Value> = launch.args.iter().map(arg).collect();
                let reason = reason(links.of(plan, program, launch));
                json!([
                    launch.kernel,
                    launch.tasks,
                    labels.add(&launch.label),
                    modules.add(&launch.module),
                    reason,
                    args
                ])
            })
            .collect();
        let buffers: Vec<Value> = (program.buffers.iter())
            .map(|b| json!([labels.add(&b.label), modules.add(&b.module), b.offset, b.bytes, b.first, b.last]))
            .collect();
        let phases = phases.iter().map(|phase| json!({"name": phase.name, "text": phase.text}));
        let spans = self.trace.and_then(|trace| trace.programs.get(&program.name));
        Ok(json!({
            "name": program.name,
            "kind": program.kind,
            "batch": program.batch,
            "seq": program.seq,
            "state": memory.state,
            "activations": memory.activations,
            "inputs": program.inputs.iter().map(port).collect::<Vec<_>>(),
            "outputs": program.outputs.iter().map(port).collect::<Vec<_>>(),
            "labels": labels.texts,
            "modules": modules.texts,
            "reasons": reasons,
            "launches": launches,
            "buffers": buffers,
            "phases": phases.collect::<Vec<_>>(),
            "spans": spans.map(|spans| spans.iter().map(span).collect::<Vec<_>>()),
        }))
    }
}

/// A place in the arena is its offset; in a frozen tensor, the tensor and the offset; in the constants, -1 and the offset.
fn arg(arg: &Arg) -> Value {
    match arg {
        Arg::Arena(offset) => json!(offset),
        Arg::Weight { tensor, offset } => json!([tensor, offset]),
        Arg::Constant(offset) => json!([-1, offset]),
    }
}

fn port(port: &Port) -> Value {
    json!([port.name, port.storage, port.shape, port.offset])
}

fn weight(weight: &WeightTensor) -> Value {
    json!([weight.name, weight.storage, weight.shape, weight.shape.iter().product::<u64>() * weight.storage.bytes()])
}

fn param(param: &Param) -> Value {
    let elements: u64 = param.shape.iter().product();
    let offsets = [param.value_offset, param.grad_offset, param.exp_avg_offset, param.exp_avg_sq_offset];
    json!([param.name, param.storage, param.shape, param.init, elements * param.storage.bytes(), elements * 4, offsets])
}

fn span(span: &Span) -> Value {
    json!([span.launch, span.thread, span.begin, span.end])
}
