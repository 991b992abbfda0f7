//! `amc doctor`: what this machine offers, and what is missing.
use anyhow::Result;
use std::io::Write;

/// Look at this machine.
#[derive(clap::Args)]
pub struct Arguments {}

pub fn run(_arguments: &Arguments) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "amc        {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "threads    {}", amc_runtime::session::default_threads())?;
    if let Some(total) = memory() {
        writeln!(out, "memory     {:.1} GiB, {:.1} GiB free", total.0, total.1)?;
    }
    match amc_runtime::device::cuda::summary() {
        Ok(gpu) => writeln!(out, "gpu        {gpu}")?,
        Err(error) => writeln!(out, "gpu        none: {error:#}")?,
    }
    compiler(&mut out)
}

#[cfg(feature = "compiler")]
fn compiler(out: &mut impl Write) -> Result<()> {
    match amc_codegen::host_target() {
        Ok(t) => writeln!(out, "cpu        {} ({} f32 lanes{})", t.cpu, t.lanes, if t.bf16 { ", bf16" } else { "" })?,
        Err(error) => writeln!(out, "cpu        NOT SUPPORTED: {error}")?,
    }
    match amc_codegen::linker() {
        Ok(linker) => writeln!(out, "linker     {}", linker.display())?,
        Err(error) => writeln!(out, "linker     MISSING: {error}")?,
    }
    let hub = amc_frontend::hub::Hub::from_environment();
    writeln!(out, "hub cache  {}{}", hub.cache.display(), if hub.offline { " (offline)" } else { "" })?;
    Ok(())
}

#[cfg(not(feature = "compiler"))]
fn compiler(out: &mut impl Write) -> Result<()> {
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
