//! `amc doctor`: what this machine offers, and what is missing.
#[cfg(feature = "compiler")]
use amc_artifact::rates::Host;
use anyhow::Result;
use std::io::Write;

/// Cores that others may keep busy while a machine is measured.
#[cfg(feature = "compiler")]
const DISTURBED: f64 = 0.1;

/// Steps of every program that calibration measures.
#[cfg(feature = "compiler")]
const ROUNDS: usize = 9;

/// Look at this machine.
#[derive(clap::Args)]
pub struct Arguments {
    /// Measure how fast it runs amc's kernels, for forecasts; takes about a minute, and wants the machine for itself.
    #[arg(long)]
    calibrate: bool,
    /// Threads that runs will have; by default all cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let threads = arguments.threads.map_or_else(amc_runtime::session::default_threads, usize::from);
    let mut out = std::io::stdout().lock();
    if arguments.calibrate {
        calibrate(threads, &mut out)?;
    }
    writeln!(out, "amc        {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "threads    {}", amc_runtime::session::default_threads())?;
    if let Some(total) = memory() {
        writeln!(out, "memory     {:.1} GiB, {:.1} GiB free", total.0, total.1)?;
    }
    match amc_runtime::device::cuda::summary() {
        Ok(gpu) => {
            writeln!(out, "gpu        {gpu}")?;
            match amc_runtime::device::cuda::products() {
                Ok(library) => writeln!(out, "products   {library}")?,
                Err(error) => writeln!(out, "products   none: {error:#}")?,
            }
            match amc_runtime::device::cuda::collectives() {
                Ok(library) => writeln!(out, "nccl       {library}")?,
                Err(error) => writeln!(out, "nccl       none: {error:#}")?,
            }
        }
        Err(error) => writeln!(out, "gpu        none: {error:#}")?,
    }
    compiler(threads, &mut out)
}

#[cfg(feature = "compiler")]
fn calibrate(threads: usize, out: &mut impl Write) -> Result<()> {
    use crate::compiler::calibrate::{calibrate, models::SHAPES};
    let day = amc_runtime::Moment::now().day();
    let before = amc_runtime::others_seconds();
    let begin = std::time::Instant::now();
    let rates = calibrate(SHAPES, ROUNDS, threads, day.clone(), |said| Ok(writeln!(out, "{said}")?))?;
    if let (Some(before), Some(after)) = (before, amc_runtime::others_seconds()) {
        let cores = (after - before) / begin.elapsed().as_secs_f64();
        if cores > DISTURBED {
            writeln!(
                out,
                "warning: others kept {cores:.1} cores busy meanwhile; calibrate again when this machine is quiet"
            )?;
        }
    }
    let features = crate::compiler::emit::Destination::parse("cpu")?.info().features;
    let path = amc_artifact::rates::store(&Host::here(&features, threads), &day, &rates)?;
    Ok(writeln!(out, "{}: written", path.display())?)
}

#[cfg(not(feature = "compiler"))]
fn calibrate(_threads: usize, _out: &mut impl Write) -> Result<()> {
    anyhow::bail!("--calibrate: this build has no compiler, which makes the kernels that are measured")
}

#[cfg(feature = "compiler")]
fn compiler(threads: usize, out: &mut impl Write) -> Result<()> {
    match amc_codegen::host_target() {
        Ok(t) => {
            writeln!(out, "cpu        {} ({} f32 lanes{})", t.cpu, t.lanes, if t.has_bf16() { ", bf16" } else { "" })?
        }
        Err(error) => writeln!(out, "cpu        NOT SUPPORTED: {error}")?,
    }
    match amc_codegen::linker() {
        Ok(linker) => writeln!(out, "linker     {}", linker.display())?,
        Err(error) => writeln!(out, "linker     MISSING: {error}")?,
    }
    let hub = amc_frontend::hub::Hub::from_environment();
    writeln!(out, "hub cache  {}{}", hub.cache.display(), if hub.offline { " (offline)" } else { "" })?;
    match crate::compiler::emit::Destination::parse("cpu") {
        Ok(cpu) => rates(&Host::here(&cpu.info().features, threads), out),
        Err(_) => Ok(()),
    }
}

/// The rates of this machine, a line a family.
#[cfg(feature = "compiler")]
fn rates(machine: &Host, out: &mut impl Write) -> Result<()> {
    let rates = amc_artifact::rates::of(machine);
    let (error, threads) = (100.0 * rates.error, machine.threads);
    writeln!(out, "rates      {}; ± {error:.0} % with {threads} threads; of one thread:", rates.describe())?;
    let per_nanosecond = |seconds: f64, unit: &str| match seconds {
        0.0 => String::new(),
        _ => format!("{:.1} {unit}", 1e-9 / seconds),
    };
    for (family, rate) in &rates.families {
        let (operations, bytes) = (per_nanosecond(rate.operation, "GFLOP/s"), per_nanosecond(rate.byte, "GB/s"));
        let launch = 1e6 * rate.launch;
        writeln!(out, "  {family:<18} {operations:>15} {bytes:>12} {launch:>8.1} us a launch")?;
    }
    let (idle, wait) = (100.0 * rates.idle, 1e6 * rates.wait);
    Ok(writeln!(out, "  waiting            {idle:>26.1} % {wait:>10.1} us a stage")?)
}

#[cfg(not(feature = "compiler"))]
fn compiler(_threads: usize, out: &mut impl Write) -> Result<()> {
    Ok(writeln!(out, "compiler   not in this build: it runs artifacts only")?)
}

/// Total and available memory in GiB, where the system tells.
fn memory() -> Option<(f64, f64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kib| kib / (1 << 20) as f64)
    };
    Some((field("MemTotal:")?, field("MemAvailable:")?))
}
