//! One program: a forward graph built for a shape and taken through the pipeline.
use amc_artifact::ProgramKind;
use amc_frontend::build::{Purpose, Request, build};
use amc_passes::pass::{Context, Recompute};
use amc_passes::pipeline;
use amc_passes::plan::Unit;
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::io::Write;

/// What to keep of the graph on its way.
#[derive(Default)]
pub struct Dumps {
    /// Text by file name, such as `train_512/02-train.amc`.
    pub files: BTreeMap<String, String>,
    /// Print the graph after this pass.
    pub print_after: Option<String>,
    /// Go no further than this phase.
    pub stop_after: Option<String>,
    /// Print what each pass did.
    pub verbose: bool,
}

/// Builds the program `name`. With `train` it has gradients, and computes so much of its forward pass again.
///
/// # Errors
/// A request that the builder refuses.
pub fn unit(name: &str, request: &Request, train: Option<Recompute>, dumps: &mut Dumps) -> Result<Unit> {
    let built = build(request)?;
    let mut module = built.module;
    dumps.files.insert(format!("{name}/00-forward.amc"), amc_ir::text::print(&module));
    let mut context = Context::new(built.bindings, train.is_some());
    context.recompute = train.unwrap_or_default();
    let mut last = "";
    let mut number = 0;
    let stop = dumps.stop_after.clone();
    let mut printed = Ok(());
    pipeline::run(&mut module, &mut context, stop.as_deref(), |report, module| {
        if report.phase != last {
            (last, number) = (report.phase, number + 1);
        }
        dumps.files.insert(format!("{name}/{number:02}-{}.amc", report.phase), amc_ir::text::print(module));
        if dumps.print_after.as_deref() == Some(report.pass) {
            let text = amc_ir::text::print(module);
            printed = writeln!(std::io::stdout(), "// {name} after {}\n{text}", report.pass);
        }
        if dumps.verbose {
            eprintln!("{name}: {} {:?} {:?}", report.pass, report.time, report.fired);
        }
    });
    printed.context("printing the graph")?;
    let (kind, outputs) = match (request.purpose, train.is_some()) {
        (Purpose::Loss, true) => (ProgramKind::Train, "loss"),
        (Purpose::Loss, false) => (ProgramKind::Evaluate, "loss"),
        (Purpose::Logits, _) => (ProgramKind::Logits, "logits"),
        (Purpose::Decode { .. }, _) => (ProgramKind::Decode, "logits"),
    };
    Ok(Unit {
        name: name.into(),
        kind,
        batch: request.batch,
        seq: request.seq,
        module,
        bindings: context.bindings,
        outputs: vec![outputs.into()],
        recompute: context.recompute,
    })
}
