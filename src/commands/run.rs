//! `amc run`: executes an artifact.
use amc_runtime::train::{Resume, RunOptions, train};
use anyhow::{Result, ensure};
use std::ffi::OsString;
use std::path::PathBuf;

/// Train with a compiled artifact.
#[derive(clap::Args)]
pub struct Arguments {
    /// The artifact that `amc compile` wrote.
    artifact: PathBuf,
    #[command(flatten)]
    options: Options,
}

/// How to run, shared with `amc finetune`.
#[derive(clap::Args)]
pub struct Options {
    /// Where to start: `auto` (the newest checkpoint, if there is one), `never`, or a checkpoint.
    #[arg(long, value_name = "auto|never|PATH")]
    resume: Option<Resume>,
    /// Stop after so many optimizer steps.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Threads that share the work; by default what the recipe says, else all cores. Results do not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// The model folder, where it is not the one that the recipe names.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Print where the time went by kernel, and write a trace of the last step, which Perfetto shows.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "trace.json")]
    profile: Option<PathBuf>,
}

impl Options {
    /// The words of a command line that mean these options.
    pub fn words(&self) -> Vec<OsString> {
        let resume = self.resume.as_ref().map(|resume| match resume {
            Resume::Auto => "auto".into(),
            Resume::Never => "never".into(),
            Resume::From(checkpoint) => checkpoint.into(),
        });
        let path = |path: &Option<PathBuf>| path.clone().map(PathBuf::into_os_string);
        let given: [(&str, Option<OsString>); 5] = [
            ("--resume=", resume),
            ("--steps=", self.steps.map(|steps| steps.to_string().into())),
            ("--threads=", self.threads.map(|threads| threads.to_string().into())),
            ("--model=", path(&self.model)),
            ("--profile=", path(&self.profile)),
        ];
        let word = |(name, value): (&str, Option<OsString>)| {
            let mut word = OsString::from(name);
            word.push(value?);
            Some(word)
        };
        given.into_iter().filter_map(word).collect()
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    start(&arguments.artifact, &arguments.options)
}

/// Runs the artifact `dir`.
pub fn start(dir: &std::path::Path, options: &Options) -> Result<()> {
    let shown = dir.display();
    ensure!(
        !dir.is_file(),
        "{shown} is a file, wanted the folder that `amc compile` wrote; `amc finetune llm -c {shown}` compiles and runs a recipe"
    );
    train(
        dir,
        RunOptions {
            resume: options.resume.clone(),
            steps: options.steps,
            threads: options.threads.map(usize::from),
            model: options.model.clone(),
            quiet: false,
            profile: options.profile.clone(),
            rates: None,
        },
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn words_mean_the_same_options() {
        let all = ["--resume=x y", "--steps=3", "--threads=2", "--model=-m", "--profile=trace.json"];
        for given in [&all[..], &["--resume=never", "--profile=t.json"], &["--resume=auto"], &[]] {
            let words = Command::parse_from([&["amc"], given].concat()).options.words();
            assert_eq!(words, given.iter().map(OsString::from).collect::<Vec<_>>());
        }
    }
}
