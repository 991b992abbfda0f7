//! The `amc` command: parses, dispatches to a file per sub-command, prints the error chain.
use amc::commands;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// An ahead-of-time compiler for fine-tuning language models.
#[derive(Parser)]
#[command(name = "amc", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[cfg(feature = "compiler")]
    Compile(commands::compile::Arguments),
    Run(commands::run::Arguments),
    #[cfg(feature = "compiler")]
    Finetune(commands::finetune::Arguments),
    #[cfg(feature = "compiler")]
    Check(commands::check::Arguments),
    Show(commands::show::Arguments),
    #[cfg(feature = "compiler")]
    Opt(commands::opt::Arguments),
    #[cfg(feature = "compiler")]
    Data(commands::data::Arguments),
    #[cfg(feature = "compiler")]
    Generate(commands::generate::Arguments),
    Merge(commands::merge::Arguments),
    #[cfg(feature = "compiler")]
    Verify(commands::verify::Arguments),
    Doctor(commands::doctor::Arguments),
}

fn main() -> ExitCode {
    let result = match Cli::parse_from(commands::arguments()).command {
        #[cfg(feature = "compiler")]
        Command::Compile(arguments) => commands::compile::run(&arguments),
        Command::Run(arguments) => commands::run::run(&arguments),
        #[cfg(feature = "compiler")]
        Command::Finetune(arguments) => commands::finetune::run(&arguments),
        #[cfg(feature = "compiler")]
        Command::Check(arguments) => commands::check::run(&arguments),
        Command::Show(arguments) => commands::show::run(&arguments),
        #[cfg(feature = "compiler")]
        Command::Opt(arguments) => commands::opt::run(&arguments),
        #[cfg(feature = "compiler")]
        Command::Data(arguments) => commands::data::run(&arguments),
        #[cfg(feature = "compiler")]
        Command::Generate(arguments) => commands::generate::run(&arguments),
        Command::Merge(arguments) => commands::merge::run(&arguments),
        #[cfg(feature = "compiler")]
        Command::Verify(arguments) => commands::verify::run(&arguments),
        Command::Doctor(arguments) => commands::doctor::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `amc show … | head` is no mistake.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}
