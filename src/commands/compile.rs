//! `amc compile`: recipe to artifact.
use crate::compiler::budget::{Fitted, fitted, planned_bytes};
use crate::compiler::emit::Destination;
use crate::compiler::forecast::Timed;
use crate::compiler::project::Project;
use crate::compiler::recipe;
use crate::compiler::unit::Dumps;
use amc_artifact::Artifact;
use amc_passes::pass::Recompute;
use amc_passes::pipeline::PIPELINE;
use anyhow::{Context, Result, bail};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Compile a recipe into an artifact.
#[derive(clap::Args)]
pub struct Arguments {
    pub recipe: PathBuf,
    /// The artifact's folder; by default `artifacts/` and the recipe's name.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Change a key of the recipe.
    #[arg(long, value_name = "A.B=VALUE")]
    pub set: Vec<String>,
    /// What code is generated for: cpu, cpu:avx2, cpu:NAME, cuda:sm_80, cuda:sm_90a, or null; by default what the recipe says.
    #[arg(long)]
    pub target: Option<String>,
    /// Leave no product to the GPU's vendor, whose library a run then does without; the same as --set amc.vendor=never.
    #[arg(long)]
    no_vendor: bool,
    /// Also write the graph after each phase into this folder.
    #[arg(long, value_name = "DIR")]
    dump_ir: Option<PathBuf>,
    /// Print the graph after this pass.
    #[arg(long, value_name = "PASS")]
    print_after: Option<String>,
    /// Stop after this phase; no artifact is written.
    #[arg(long, value_name = "PHASE")]
    stop_after: Option<String>,
    /// Print what each pass did.
    #[arg(short, long)]
    verbose: bool,
}

impl Arguments {
    /// Arguments for compiling `recipe` with overrides alone.
    pub fn plain(recipe: PathBuf, set: Vec<String>) -> Arguments {
        Arguments {
            recipe,
            output: None,
            set,
            target: None,
            no_vendor: false,
            dump_ir: None,
            print_after: None,
            stop_after: None,
            verbose: false,
        }
    }

    /// The artifact's folder.
    pub fn directory(&self) -> Result<PathBuf> {
        if let Some(output) = &self.output {
            return Ok(output.clone());
        }
        let stem = self.recipe.file_stem().with_context(|| format!("{} has no name", self.recipe.display()))?;
        Ok(Path::new("artifacts").join(stem))
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    check_names(arguments)?;
    let vendor = arguments.no_vendor.then(|| "amc.vendor=never".to_string());
    let overrides: Vec<String> = arguments.set.iter().cloned().chain(vendor).collect();
    let project = Project::read(&arguments.recipe, &overrides)?;
    compile(arguments, &project)
}

/// Compiles a project that was read already.
pub fn compile(arguments: &Arguments, project: &Project) -> Result<()> {
    let start = Instant::now();
    let destination = recipe::destination(project, arguments.target.as_deref())?;
    let mut dumps = Dumps {
        print_after: arguments.print_after.clone(),
        stop_after: arguments.stop_after.clone(),
        verbose: arguments.verbose,
        ..Dumps::default()
    };
    if arguments.stop_after.is_some() {
        let recompute = Recompute { late: destination.machine().recomputes_late(), ..Recompute::default() };
        recipe::units(project, usize::MAX, recompute, &mut dumps)?;
        return write_dumps(arguments, &dumps);
    }
    let dir = arguments.directory()?;
    Artifact::check_target(&dir).with_context(|| format!("artifact {}", dir.display()))?;
    if arguments.dump_ir.is_some() {
        fitted(project, &destination, &mut dumps)?;
        write_dumps(arguments, &dumps)?;
        dumps.files.clear();
        dumps.print_after = None;
    }
    let fitted = recipe::compile(project, &dir, &destination, dumps)?;
    let mut out = std::io::stdout().lock();
    summary(project, &fitted, &mut out)?;
    forecast(project, &fitted, &destination, &mut out)?;
    Ok(writeln!(out, "{}: compiled in {:.1} s", dir.display(), start.elapsed().as_secs_f64())?)
}

/// What was compiled, a line each.
pub fn summary(project: &Project, fitted: &Fitted, out: &mut impl Write) -> Result<()> {
    let (assembled, recompute) = (&fitted.assembled, &fitted.recompute);
    let plan = &assembled.plan;
    let mebibytes = |bytes: u64| bytes as f64 / (1 << 20) as f64;
    let trained: u64 = plan.params.iter().map(|p| p.shape.iter().product::<u64>()).sum();
    writeln!(out, "{}: {trained} trained parameters", project.model_name)?;
    for data in std::iter::once(&project.train).chain(&project.validation) {
        let shapes: Vec<String> = data.shapes.lengths.iter().map(|l| format!("{}x{l}", data.shapes.batch)).collect();
        let rows = data.prepared.shard.summary().rows;
        let (shapes, waste) = (shapes.join(" "), 100.0 * data.shapes.waste);
        writeln!(out, "{}: {rows} rows, shapes {shapes}, {waste:.1} % padding", data.name)?;
    }
    for memory in &assembled.memory {
        let ratio = memory.bytes as f64 / memory.lower_bound.max(1) as f64;
        let size = mebibytes(memory.bytes);
        writeln!(out, "{}: {size:.1} MiB of activations, {ratio:.3} x the lower bound", memory.program)?;
    }
    if recompute.wanted > 0 {
        let operations = recompute.operations / 1e9;
        let (wanted, possible) = (recompute.wanted.min(recompute.possible), recompute.possible);
        writeln!(
            out,
            "within the budget by computing {operations:.1} G operations again ({wanted} of {possible} steps)"
        )?;
    }
    let bytes = mebibytes(planned_bytes(assembled, recipe::threads(project))?);
    let vendors = plan.kernels.iter().filter(|kernel| kernel.vendor_product().is_some()).count();
    let vendors = if vendors > 0 { format!(" ({vendors} of them cuBLASLt's)") } else { String::new() };
    Ok(writeln!(out, "{} kernels{vendors}, {bytes:.1} MiB in all", plan.kernels.len())?)
}

/// How long a step will take on this machine, or on a GPU at the least, and how much of that is the budget's doing.
pub fn forecast(project: &Project, fitted: &Fitted, destination: &Destination, out: &mut impl Write) -> Result<()> {
    let timed = |plan| Timed::of(project, destination, plan);
    let Some(Timed { seconds, tokens, forecast }) = timed(&fitted.assembled.plan)? else { return Ok(()) };
    let speed = tokens / seconds;
    let (least, most) = if forecast.nominal { (" at the least", " at the most") } else { ("", "") };
    let certainty = forecast.certainty();
    writeln!(out, "forecast: {seconds:.3} s a step{least}, {speed:.1} tokens/s{most} ({certainty})")?;
    let Some(unbounded) = fitted.unbounded.as_ref().map(timed).transpose()?.flatten() else { return Ok(()) };
    let slower = 100.0 * (seconds / unbounded.seconds - 1.0);
    Ok(writeln!(out, "forecast: {slower:.1} % slower than without the budget")?)
}

fn check_names(arguments: &Arguments) -> Result<()> {
    let phases = || PIPELINE.iter().map(|phase| phase.name);
    let passes = || PIPELINE.iter().flat_map(|phase| phase.passes).map(|pass| pass.name);
    if let Some(name) = arguments.stop_after.as_deref().filter(|name| !phases().any(|p| p == *name)) {
        bail!("--stop-after: {}", amc_ir::diag::unknown("phase", name, phases()));
    }
    if let Some(name) = arguments.print_after.as_deref().filter(|name| !passes().any(|p| p == *name)) {
        bail!("--print-after: {}", amc_ir::diag::unknown("pass", name, passes()));
    }
    Ok(())
}

fn write_dumps(arguments: &Arguments, dumps: &Dumps) -> Result<()> {
    let Some(folder) = &arguments.dump_ir else { return Ok(()) };
    for (name, text) in &dumps.files {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
