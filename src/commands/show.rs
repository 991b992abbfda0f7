//! `amc show`: what an artifact holds.
use amc_artifact::{Arg, Artifact, Begins, Kernel, Matrix, Program, TensorMap, VendorProduct};
use amc_runtime::disk::RealDisk;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

/// Print parts of an artifact.
#[derive(clap::Args)]
pub struct Arguments {
    artifact: PathBuf,
    #[arg(value_enum, default_value = "summary")]
    what: What,
    /// The program to print; `ir` wants it where several have a graph.
    #[arg(long)]
    program: Option<String>,
    /// The phase of the graph to print (`ir`), such as `fuse`.
    #[arg(long)]
    phase: Option<String>,
    /// Where to write the page (`report`); by default report.html in the artifact.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A trace of `amc run --profile`, whose times the page (`report`) shows beside the forecast.
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum What {
    /// Sizes, shapes, inputs.
    Summary,
    /// The graph as text.
    Ir,
    /// Every launch in order.
    Plan,
    /// Bytes by program, and where things are.
    Memory,
    /// Kernels, and how often each is launched.
    Kernels,
    /// Trained parameters.
    Params,
    /// A page for the browser with all of it: timeline, memory, roofline, graph, recipe.
    Report,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let paged = arguments.output.is_some() || arguments.profile.is_some();
    ensure!(!paged || arguments.what == What::Report, "--output and --profile are for `amc show DIR report`");
    let artifact = Artifact::open(&arguments.artifact)?;
    let mut out = std::io::stdout().lock();
    match arguments.what {
        What::Summary => summary(&artifact, &mut out),
        What::Ir => ir(&artifact, arguments, &mut out),
        What::Plan => programs(&artifact, arguments)?.into_iter().try_for_each(|p| plan(&artifact, p, &mut out)),
        What::Memory => memory(&artifact, &mut out),
        What::Kernels => kernels(&artifact, &mut out),
        What::Params => params(&artifact, &mut out),
        What::Report => report(&artifact, arguments, &mut out),
    }
}

fn report(artifact: &Artifact, arguments: &Arguments, out: &mut impl Write) -> Result<()> {
    let page = crate::report::html(artifact, arguments.profile.as_deref())?;
    let path = arguments.output.clone().unwrap_or_else(|| artifact.dir.join("report.html"));
    amc_runtime::disk::replace(&RealDisk, &path, page.as_bytes())?;
    Ok(writeln!(out, "{}: open it in a browser", path.display())?)
}

fn programs<'a>(artifact: &'a Artifact, arguments: &Arguments) -> Result<Vec<&'a Program>> {
    let all = &artifact.plan.programs;
    let Some(name) = &arguments.program else { return Ok(all.iter().collect()) };
    let known: Vec<&str> = all.iter().map(|p| p.name.as_str()).collect();
    match all.iter().find(|p| p.name == *name) {
        Some(program) => Ok(vec![program]),
        None => bail!("no program is called `{name}`; there are {}", known.join(", ")),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}

fn summary(artifact: &Artifact, out: &mut impl Write) -> Result<()> {
    let (header, plan) = (&artifact.header, &artifact.plan);
    writeln!(out, "compiler   amc {}", header.compiler)?;
    writeln!(out, "target     {:?} {} {}", header.target.kind, header.target.cpu, header.target.features.join(" "))?;
    if !header.libraries.is_empty() {
        writeln!(out, "libraries  {}", header.libraries.join(" "))?;
    }
    if let Some(run) = &artifact.run {
        writeln!(out, "model      {} ({} parameters)", run.model.name, run.model.parameters)?;
        writeln!(out, "optimizer  {}", run.optimizer.name)?;
    }
    let trained: u64 = plan.params.iter().map(|p| p.shape.iter().product::<u64>()).sum();
    writeln!(out, "trained    {trained} parameters in {} tensors", plan.params.len())?;
    writeln!(out, "frozen     {} tensors", plan.weights.len())?;
    writeln!(out, "arena      {}", mebibytes(plan.arena_bytes))?;
    writeln!(out, "kernels    {}", plan.kernels.len())?;
    for program in &plan.programs {
        let shape = if program.batch > 0 { format!("{} x {}", program.batch, program.seq) } else { String::new() };
        writeln!(out, "program    {:<20} {shape:<12} {} launches", program.name, program.launches.len())?;
    }
    Ok(())
}

fn ir(artifact: &Artifact, arguments: &Arguments, out: &mut impl Write) -> Result<()> {
    let root = artifact.dir.join("ir");
    let mut programs = programs(artifact, arguments)?;
    programs.retain(|program| root.join(&program.name).is_dir());
    let folder = match programs[..] {
        [program] => root.join(&program.name),
        [] => bail!("{} holds no graph of that program", root.display()),
        [..] => {
            let names: Vec<&str> = programs.iter().map(|p| p.name.as_str()).collect();
            bail!("several programs have a graph: choose one with --program, of {}", names.join(", "))
        }
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    files.sort();
    let phase_of = |path: &PathBuf| {
        let stem = path.file_stem()?.to_string_lossy().into_owned();
        stem.split_once('-').map(|(_, phase)| phase.to_string())
    };
    let wanted = match &arguments.phase {
        None => files.last(),
        Some(_) => files.iter().find(|path| phase_of(path) == arguments.phase),
    };
    let Some(path) = wanted else {
        let phases: Vec<String> = files.iter().filter_map(phase_of).collect();
        bail!("{} holds no graph of that phase; the phases are {}", folder.display(), phases.join(", "))
    };
    writeln!(out, "// {}", path.strip_prefix(&root).unwrap_or(path).display())?;
    Ok(out.write_all(&std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?)?)
}

fn plan(artifact: &Artifact, program: &Program, out: &mut impl Write) -> Result<()> {
    writeln!(out, "program {} {} x {}", program.name, program.batch, program.seq)?;
    for port in &program.inputs {
        writeln!(out, "  input  {} {:?}{:?} @ {:#x}", port.name, port.storage, port.shape, port.offset)?;
    }
    for (i, launch) in program.launches.iter().enumerate() {
        let kernel = &artifact.plan.kernels[launch.kernel as usize];
        let arg = |(i, arg): (usize, &Arg)| match kernel.map(i) {
            None => operand(artifact, arg),
            Some(map) => format!("{} {}", operand(artifact, arg), described(map)),
        };
        let args: Vec<String> = launch.args.iter().enumerate().map(arg).collect();
        let (tasks, label, module) = (launch.tasks, &launch.label, &launch.module);
        let (symbol, product) = (&kernel.symbol, kernel.vendor_product().map(product).unwrap_or_default());
        let begins = begins(&launch.begins);
        writeln!(out, "  {i:5} {symbol} x {tasks}{begins} ({}){product}  // {label}  {module}", args.join(", "))?;
    }
    for port in &program.outputs {
        writeln!(out, "  output {} {:?}{:?} @ {:#x}", port.name, port.storage, port.shape, port.offset)?;
    }
    Ok(())
}

/// What a launch waits for, other than those before it in its stream.
fn begins(begins: &Begins) -> String {
    match begins {
        Begins::Beside => String::new(),
        Begins::BehindAll => " behind all".to_string(),
        Begins::InStream { stream, behind } if behind.is_empty() => format!(" in stream {stream}"),
        Begins::InStream { stream, behind } => format!(" in stream {stream} behind {behind:?}"),
    }
}

/// How a kernel sees an operand that it copies by the GPU's tensor memory accelerator.
fn described(map: &TensorMap) -> String {
    let TensorMap { storage, rows, columns, stride, box_rows, .. } = map;
    format!("map {storage:?}[{rows}, {columns}] / {stride} in boxes of [{box_rows}, {}]", map.box_columns())
}

/// What the vendor's library is told of a product.
fn product(product: &VendorProduct) -> String {
    let matrix = |Matrix { storage, rows, columns, stride }| format!("{storage:?}[{rows}, {columns}] / {stride}");
    let factor = |stored, transposed| if transposed { format!("{}ᵀ", matrix(stored)) } else { matrix(stored) };
    let (a, b) = (factor(product.a(), product.a.transposed), factor(product.b(), product.b.transposed));
    let (result, beta, workspace) = (matrix(product.result()), u8::from(product.adds), product.workspace_bytes);
    format!(" = {a} · {b} -> {result}, alpha 1, beta {beta}, workspace {workspace}")
}

fn operand(artifact: &Artifact, arg: &Arg) -> String {
    match arg {
        Arg::Arena(offset) => format!("{offset:#x}"),
        Arg::Constant(offset) => format!("constant {offset:#x}"),
        Arg::Weight { tensor, offset } => {
            let name = &artifact.plan.weights[*tensor as usize].name;
            if *offset == 0 { name.clone() } else { format!("{name} + {offset:#x}") }
        }
    }
}

fn memory(artifact: &Artifact, out: &mut impl Write) -> Result<()> {
    writeln!(out, "arena {} bytes, scratch {} bytes a thread", artifact.plan.arena_bytes, artifact.plan.scratch_bytes)?;
    for m in &artifact.header.memory {
        writeln!(
            out,
            "{:<20} state {}, activations {}, weights {}",
            m.phase,
            mebibytes(m.state),
            mebibytes(m.activations),
            mebibytes(m.weights)
        )?;
    }
    Ok(())
}

fn kernels(artifact: &Artifact, out: &mut impl Write) -> Result<()> {
    let mut counts: BTreeMap<(u32, &str), usize> = BTreeMap::new();
    for program in &artifact.plan.programs {
        for launch in &program.launches {
            *counts.entry((launch.kernel, &program.name)).or_default() += 1;
        }
    }
    for ((kernel, program), count) in counts {
        let Kernel { symbol, work, .. } = &artifact.plan.kernels[kernel as usize];
        let (operations, bytes) = (work.operations as f64 / 1e6, work.bytes as f64 / 1e6);
        writeln!(out, "{symbol:<64} {count:5} x in {program}, each {operations:.3} M operations, {bytes:.3} MB")?;
    }
    Ok(())
}

fn params(artifact: &Artifact, out: &mut impl Write) -> Result<()> {
    for p in &artifact.plan.params {
        writeln!(out, "{:<80} {:?}{:?} {:?} @ {:#x}", p.name, p.storage, p.shape, p.init, p.value_offset)?;
    }
    Ok(())
}
