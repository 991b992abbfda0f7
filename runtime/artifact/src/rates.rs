//! The rates of this machine: measured ones in amc's cache, a file a machine, and built-in ones where there are none.
mod built_in;
mod nominal;

use crate::{Rate, Rates, Source, TargetInfo, TargetKind, rates_folder};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What rates depend on, beside amc's version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// The processor's name for itself.
    pub processor: String,
    /// Features that the code uses, as the artifact has them.
    pub features: Vec<String>,
    pub threads: u64,
}

/// A file of rates.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    amc: String,
    machine: Host,
    measured: String,
    error: f64,
    idle: f64,
    wait: f64,
    families: BTreeMap<String, Rate>,
}

impl Host {
    /// This machine, running code with those features on so many threads.
    pub fn here(features: &[String], threads: usize) -> Host {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let processor = name.map_or("unknown", |(_, name)| name.trim()).to_string();
        Host { processor, features: features.to_vec(), threads: threads as u64 }
    }

    /// The file of its rates in a folder.
    pub fn path(&self, folder: &Path) -> PathBuf {
        let key =
            format!("{}\n{}\n{}\n{}", env!("CARGO_PKG_VERSION"), self.processor, self.features.join(","), self.threads);
        folder.join(format!("{}.json", &blake3::hash(key.as_bytes()).to_hex()[..16]))
    }
}

/// What code for a target runs at: on this machine with so many threads, or at the peaks of a GPU; `None` where there is no code, or
/// the GPU's peaks are not known.
pub fn of_target(target: &TargetInfo, threads: usize) -> Option<Rates> {
    match target.kind {
        TargetKind::Cpu => Some(of(&Host::here(&target.features, threads))),
        TargetKind::Cuda => nominal::of_gpu(&target.cpu),
        TargetKind::Null => None,
    }
}

/// The rates of a machine: measured ones, else built-in ones that say why.
pub fn of(machine: &Host) -> Rates {
    of_folder(&rates_folder(), machine)
}

fn of_folder(folder: &Path, machine: &Host) -> Rates {
    let why = match read(folder, machine) {
        Ok(Some(rates)) => return rates,
        Ok(None) => "not calibrated: run `amc doctor --calibrate`".to_string(),
        Err(error) => format!("not calibrated, {error:#}: run `amc doctor --calibrate` again"),
    };
    built_in::of(&machine.features, why)
}

/// The measured rates of a machine; `None` where there are none.
///
/// # Errors
/// A file that cannot be read, is not of the right form, or is of another machine or version.
pub fn read(folder: &Path, machine: &Host) -> Result<Option<Rates>> {
    let path = machine.path(folder);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    parse(&text, machine).map(Some).with_context(|| format!("{} cannot be used", path.display()))
}

fn parse(text: &[u8], machine: &Host) -> Result<Rates> {
    let file: File = serde_json::from_slice(text).context("it does not hold rates")?;
    ensure!(file.machine == *machine, "it is of {:?}, this is {machine:?}", file.machine);
    let version = env!("CARGO_PKG_VERSION");
    ensure!(file.amc == version, "amc {} made it, this is {version}", file.amc);
    ensure!(!file.families.is_empty(), "it names no family of kernels");
    let sane = |seconds: f64| (0.0..1.0).contains(&seconds);
    for (name, rate) in &file.families {
        ensure!([rate.operation, rate.byte, rate.launch].into_iter().all(sane), "`{name}` has the rate {rate:?}");
    }
    ensure!(
        sane(file.wait) && sane(file.idle) && file.error.is_finite() && file.error >= 0.0,
        "its error is {}",
        file.error
    );
    let source = Source::Measured(file.measured);
    Ok(Rates { source, error: file.error, idle: file.idle, wait: file.wait, overlap: false, families: file.families })
}

/// Stores the rates of a machine, measured on a day, in amc's cache; returns the file's path.
///
/// # Errors
/// The folder or the file cannot be written.
pub fn store(machine: &Host, day: &str, rates: &Rates) -> Result<PathBuf> {
    let path = machine.path(&rates_folder());
    write(&path, machine, day, rates).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn write(path: &Path, machine: &Host, day: &str, rates: &Rates) -> Result<()> {
    let file = File {
        amc: env!("CARGO_PKG_VERSION").into(),
        machine: machine.clone(),
        measured: day.into(),
        error: rates.error,
        idle: rates.idle,
        wait: rates.wait,
        families: rates.families.clone(),
    };
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    std::fs::write(&temporary, serde_json::to_vec_pretty(&file)?)?;
    Ok(std::fs::rename(&temporary, path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(threads: u64) -> Host {
        Host { processor: "some".into(), features: vec!["avx2".into()], threads }
    }

    fn rates() -> Rates {
        let families =
            BTreeMap::from([("product".to_string(), Rate { operation: 1e-11, byte: 0.1 + 0.2, launch: 0.0 })]);
        let source = Source::Measured("2026-11-24".into());
        Rates { source, error: 0.1, idle: 0.02, wait: 3e-6, overlap: false, families }
    }

    #[test]
    fn rates_are_read_as_they_were_written_and_only_on_their_machine() {
        let folder = tempfile::tempdir().unwrap();
        let path = machine(2).path(folder.path());
        write(&path, &machine(2), "2026-11-24", &rates()).unwrap();
        assert_eq!(read(folder.path(), &machine(2)).unwrap(), Some(rates()));
        assert_eq!(of_folder(folder.path(), &machine(2)), rates());
        assert_eq!(read(folder.path(), &machine(4)).unwrap(), None);
        assert_eq!(of_folder(folder.path(), &machine(4)).describe(), "not calibrated: run `amc doctor --calibrate`");
        std::fs::copy(&path, machine(4).path(folder.path())).unwrap();
        let error = format!("{:#}", read(folder.path(), &machine(4)).unwrap_err());
        assert!(error.contains("cannot be used: it is of Host") && error.contains("threads: 2"), "{error}");
    }

    #[test]
    fn broken_files_are_named_and_do_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let path = machine(2).path(folder.path());
        write(&path, &machine(2), "2026-11-24", &rates()).unwrap();
        let good = std::fs::read_to_string(&path).unwrap();
        let negative = good.replace("1e-11", "-1e-11");
        let mut empty: serde_json::Value = serde_json::from_str(&good).unwrap();
        empty["families"] = serde_json::json!({});
        let empty = empty.to_string();
        let newer = good.replace(&format!("\"amc\": \"{}\"", env!("CARGO_PKG_VERSION")), "\"amc\": \"99\"");
        for (text, wanted) in [
            ("{", "it does not hold rates"),
            (&good[..good.len() / 2], "it does not hold rates"),
            (&negative, "`product` has the rate"),
            (&newer, "amc 99 made it"),
            (&empty, "it names no family"),
        ] {
            std::fs::write(&path, text).unwrap();
            let why = of_folder(folder.path(), &machine(2)).describe();
            assert!(why.contains(wanted) && why.contains(path.to_str().unwrap()), "{why}");
            assert!(!of_folder(folder.path(), &machine(2)).measured());
        }
    }
}
