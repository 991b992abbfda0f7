//! `amc opt`: text in, text out, through named passes.
use amc_ir::{Binding, Bindings, View, text};
use amc_passes::pass::{self, Context};
use amc_passes::pipeline;
use anyhow::{Context as _, Result, bail};
use std::io::{Read, Write};

/// Run passes over a module in text form.
#[derive(clap::Args)]
pub struct Arguments {
    /// Passes in order; `amc opt --list` names them.
    #[arg(long = "pass", value_name = "NAME")]
    passes: Vec<String>,
    /// Print every pass with what it does.
    #[arg(long)]
    list: bool,
    /// Parameters of the entry function that are trained, for `autodiff`.
    #[arg(long, value_name = "PARAM")]
    train: Vec<String>,
    /// A file, or - for standard input.
    #[arg(default_value = "-")]
    file: String,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if arguments.list {
        for phase in pipeline::PIPELINE {
            writeln!(out, "{}: {}", phase.name, phase.doc)?;
            for pass in phase.passes {
                writeln!(out, "  {:<16} {}", pass.name, pass.doc)?;
            }
        }
        return Ok(());
    }
    let source = read(&arguments.file)?;
    write!(out, "{}", optimise(&source, &arguments.passes, &arguments.train).with_context(|| arguments.file.clone())?)?;
    Ok(())
}

/// The text of `source` after the passes called `names`.
pub fn optimise(source: &str, names: &[String], trained: &[String]) -> Result<String> {
    let mut module = text::parse(source)?;
    if let Err(error) = amc_ir::verify::verify(&module) {
        bail!("{error}");
    }
    let mut bindings = Bindings::default();
    for name in trained {
        let Some(param) = module.entry().params.iter().find(|p| p.name == *name) else {
            bail!("--train {name}: @{} has no parameter of that name", module.entry().name);
        };
        let rows = param.ty.shape.first().copied().unwrap_or(1);
        bindings.params.insert(name.clone(), Binding::Trainable(View { tensor: name.clone(), start: 0, rows }));
    }
    let mut context = Context::new(bindings, !trained.is_empty());
    context.recompute.late = true;
    for name in names {
        let all = || pipeline::PIPELINE.iter().flat_map(|phase| phase.passes).map(|pass| pass.name);
        let Some(pass) = pipeline::find(name) else { bail!(amc_ir::diag::unknown("pass", name, all())) };
        pass::run("opt", pass, &mut module, &mut context);
    }
    Ok(text::print(&module))
}

fn read(file: &str) -> Result<String> {
    if file != "-" {
        return std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"));
    }
    let mut source = String::new();
    std::io::stdin().read_to_string(&mut source).context("cannot read standard input")?;
    Ok(source)
}
