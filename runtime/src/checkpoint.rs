//! The checkpoint directory of a run.
//!
//! ```text
//! training.jsonl  validation.jsonl            one record a line
//! LATEST  LOWEST_VAL                          relative links
//! epoch_E_step_S/
//!   config.yaml losses.json step_scheduler.json state.json
//!   optim/optimizer.safetensors               exp_avg and exp_avg_sq of each parameter
//!   model/                                    see `export`
//! .lock                                       held while a run writes here
//! ```
//! Invariants, at any instant and after any crash:
//! - a folder named `epoch_E_step_S` is complete: it was written as `….reserving-PID`, synced, read back, compared with
//!   what was meant, and only then renamed;
//! - a link points at a complete folder;
//! - everything else (`….reserving-…`, `….deleting-…`, `.*.tmp`) is a leftover, which the next run removes.
mod export;
mod state;
mod tensors;
mod writer;

pub(crate) use export::check_carried;
pub use state::{STATE_FILE, Signature, State};
pub use tensors::restore;

use crate::disk::{self, Disk};
use crate::session::Session;
use amc_artifact::RunConfig;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use writer::Writer;

const LATEST: &str = "LATEST";
const LOWEST_VAL: &str = "LOWEST_VAL";
const LOCK: &str = ".lock";
const RESERVING: &str = ".reserving-";
const DELETING: &str = ".deleting-";

/// The directory, locked for this process.
pub struct Store<'d> {
    disk: &'d dyn Disk,
    dir: PathBuf,
    keep: Option<usize>,
    /// Checkpoints that were found damaged on opening, under their new names.
    aside: Vec<PathBuf>,
    /// The operating system unlocks it when the process ends, however it ends.
    _lock: File,
}

/// A complete checkpoint.
#[derive(Clone, Debug)]
pub struct Found {
    pub path: PathBuf,
    pub state: State,
}

/// Everything that a checkpoint is made of.
pub struct Snapshot<'a> {
    pub session: &'a Session,
    pub run: &'a RunConfig,
    /// The recipe as it was read.
    pub recipe: &'a str,
    /// Where the tokenizer and configuration files come from; `None` where there is no model folder.
    pub model_folder: Option<&'a Path>,
    pub state: State,
    pub losses: serde_json::Value,
    /// Whether this is the checkpoint of the last step.
    pub last: bool,
}

impl<'d> Store<'d> {
    /// Creates the directory where needed, locks it, and removes what a crash left behind.
    ///
    /// # Errors
    /// A directory that cannot be created or written, or that another run is using.
    pub fn open(disk: &'d dyn Disk, dir: &Path, keep: Option<usize>) -> Result<Store<'d>> {
        fs::create_dir_all(dir)
            .with_context(|| format!("cannot create checkpoint_dir {}: choose one that is writable", dir.display()))?;
        let path = dir.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.with_context(|| format!("cannot write to checkpoint_dir {}", dir.display()))?;
        if let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
            bail!("another run is using checkpoint_dir {}: wait for it, or choose another directory", dir.display());
        }
        let mut store = Store { disk, dir: dir.to_path_buf(), keep, aside: Vec::new(), _lock: lock };
        store.remove_leftovers()?;
        store.aside = store.check_names()?;
        Ok(store)
    }

    /// Nothing but checkpoints of ours may have the names that a run is going to give. One whose state cannot be read is
    /// damaged and set aside.
    fn check_names(&self) -> Result<Vec<PathBuf>> {
        let mut aside = Vec::new();
        for path in entries(&self.dir)?.into_iter().filter(|path| is_checkpoint_name(&file_name(path))) {
            ensure!(
                path.join(STATE_FILE).is_file(),
                "{} is not a checkpoint of amc: move it away, or choose another checkpoint_dir",
                path.display()
            );
            if State::read(&path).is_err() {
                aside.push(self.set_aside(&path)?);
            }
        }
        Ok(aside)
    }

    /// Checkpoints that were found damaged on opening, under their new names.
    pub fn aside(&self) -> &[PathBuf] {
        &self.aside
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn disk(&self) -> &'d dyn Disk {
        self.disk
    }

    /// Complete checkpoints, oldest step first.
    pub fn complete(&self) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for path in entries(&self.dir)? {
            if is_checkpoint_name(&file_name(&path)) {
                let state = State::read(&path)?;
                found.push(Found { path, state });
            }
        }
        found.sort_by_key(|found| found.state.completed_steps);
        Ok(found)
    }

    /// The checkpoint that a person names: `LATEST`, `LOWEST_VAL`, a name in this directory, or a path.
    pub fn named(&self, name: &str) -> Result<Found> {
        let inside = self.dir.join(name);
        let path = if inside.exists() { inside } else { PathBuf::from(name) };
        let path = fs::canonicalize(&path).with_context(|| {
            format!("there is no checkpoint {name}, neither in {} nor as a path", self.dir.display())
        })?;
        let unfinished = file_name(&path).contains(RESERVING) || path.join(".incomplete").exists();
        ensure!(!unfinished, "{} is incomplete: its writing was interrupted", path.display());
        Ok(Found { state: State::read(&path)?, path })
    }

    /// Writes a checkpoint, reads it back, publishes it under `name`, and moves the links.
    pub fn save(&self, name: &str, snapshot: Snapshot) -> Result<PathBuf> {
        let path = self.dir.join(name);
        ensure!(!path.exists(), "{} exists already", path.display());
        let reserved = self.dir.join(format!("{name}{RESERVING}{}", std::process::id()));
        let state = match self.write(&reserved, snapshot) {
            Ok(state) => state,
            Err(error) => {
                // Gives the space back; the first error is the one to report.
                let _ = self.disk.remove(&reserved);
                return Err(error.context(format!("cannot save the checkpoint {}", path.display())));
            }
        };
        self.disk.rename(&reserved, &path)?;
        self.settle(&Found { path: path.clone(), state })?;
        Ok(path)
    }

    /// Points the links at the newest checkpoint and removes old ones. Also what a run does on resuming, since a crash may
    /// have come between the publication of a checkpoint and this.
    pub fn settle(&self, newest: &Found) -> Result<()> {
        let name = PathBuf::from(file_name(&newest.path));
        disk::repoint(self.disk, &name, &self.dir.join(LATEST))?;
        if self.is_lowest(newest.state.validation_loss) {
            disk::repoint(self.disk, &name, &self.dir.join(LOWEST_VAL))?;
        }
        self.prune()
    }

    /// Sets a damaged checkpoint aside, so that its name is free again.
    pub fn set_aside(&self, damaged: &Path) -> Result<PathBuf> {
        let aside = damaged.with_file_name(format!("{}.unreadable", file_name(damaged)));
        self.disk.remove(&aside)?;
        self.disk.rename(damaged, &aside)?;
        Ok(aside)
    }

    fn write(&self, folder: &Path, snapshot: Snapshot) -> Result<State> {
        self.disk.create_dir(folder)?;
        let mut writer = Writer::new(self.disk, folder);
        writer.add("config.yaml", |out| Ok(out.write_all(snapshot.recipe.as_bytes())?))?;
        writer.add_json("losses.json", &snapshot.losses)?;
        let state = &snapshot.state;
        let scheduler = serde_json::json!({ "step": state.completed_steps, "epoch": state.epoch });
        writer.add_json("step_scheduler.json", &scheduler)?;
        tensors::write_optimizer(&mut writer, snapshot.session, state)?;
        export::write_model(&mut writer, &snapshot)?;
        let files = writer.verify()?;
        let state = State { files, ..snapshot.state };
        let mut last = Writer::new(self.disk, folder);
        last.add_json(STATE_FILE, &state)?;
        last.verify()?;
        Ok(state)
    }

    fn is_lowest(&self, loss: Option<f64>) -> bool {
        let Some(loss) = loss.filter(|loss| loss.is_finite()) else { return false };
        let before = State::read(&self.dir.join(LOWEST_VAL)).ok().and_then(|state| state.validation_loss);
        before.is_none_or(|before| loss < before)
    }

    fn prune(&self) -> Result<()> {
        let Some(keep) = self.keep else { return Ok(()) };
        let complete = self.complete()?;
        let pointed = [LATEST, LOWEST_VAL].map(|link| fs::read_link(self.dir.join(link)).unwrap_or_default());
        for old in complete.iter().rev().skip(keep) {
            let name = file_name(&old.path);
            if pointed.iter().all(|target| target.as_os_str() != name.as_str()) {
                let doomed = self.dir.join(format!("{name}{DELETING}{}", std::process::id()));
                self.disk.rename(&old.path, &doomed)?;
                self.disk.remove(&doomed)?;
            }
        }
        Ok(())
    }

    fn remove_leftovers(&self) -> Result<()> {
        for path in entries(&self.dir)? {
            let name = file_name(&path);
            let half = name.contains(RESERVING) || name.contains(DELETING);
            if (half && name.starts_with("epoch_")) || (name.starts_with('.') && name.ends_with(".tmp")) {
                self.disk.remove(&path)?;
            }
        }
        Ok(())
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("cannot read checkpoint_dir {}", dir.display());
    let entries = fs::read_dir(dir).with_context(context)?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>().with_context(context)?;
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// `epoch_E_step_S` with two numbers.
fn is_checkpoint_name(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let parts = name.strip_prefix("epoch_").and_then(|rest| rest.split_once("_step_"));
    parts.is_some_and(|(epoch, step)| number(epoch) && number(step))
}
