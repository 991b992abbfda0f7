//! The directory that `amc compile` writes and `amc run` opens.
//!
//! ```text
//! manifest.json       versions, target, inputs, memory; a hash of each file below
//! plan.bin            the Plan, in postcard's encoding
//! run.json            the RunConfig; absent where there is nothing to train
//! recipe.yaml         the recipe as it was read
//! recipe.lock.yaml    the recipe with every default written out
//! kernels/kernels.so  the code, or for a GPU kernels.ptx; absent for the null target
//! ir/*                the graph as text after each phase
//! report.html         what `amc show DIR report` wrote; not listed, and gone when the artifact is compiled again
//! ```
//! Invariants: a directory of that name is either complete or absent, also after a crash; what `open` returns has hashes
//! that match and a plan that is valid.
use crate::manifest::{Header, Manifest, SCHEMA, TargetKind, ensure_plain_relative, hash_bytes, hash_file};
use crate::{Plan, RunConfig};
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

const MANIFEST: &str = "manifest.json";
const PLAN: &str = "plan.bin";
const RUN: &str = "run.json";
const RECIPE: &str = "recipe.yaml";
const RECIPE_LOCK: &str = "recipe.lock.yaml";

/// The file with the code, where there is any.
fn kernels_file(kind: TargetKind) -> Option<&'static str> {
    match kind {
        TargetKind::Cpu => Some("kernels/kernels.so"),
        TargetKind::Cuda => Some("kernels/kernels.ptx"),
        TargetKind::Null => None,
    }
}

/// Everything that goes into an artifact.
pub struct Contents {
    pub header: Header,
    pub plan: Plan,
    pub run: Option<RunConfig>,
    /// The recipe as it was read.
    pub recipe: String,
    /// The recipe with every default written out.
    pub recipe_lock: String,
    /// The shared object, or PTX; `None` for the null target.
    pub kernels: Option<Vec<u8>>,
    /// Text of the graph by file name, such as `02-train.amc`.
    pub ir: BTreeMap<String, String>,
}

/// An opened artifact.
#[derive(Clone, Debug)]
pub struct Artifact {
    pub dir: PathBuf,
    pub header: Header,
    pub plan: Plan,
    pub run: Option<RunConfig>,
    pub recipe: String,
}

impl Artifact {
    /// Writes the directory whole: into a temporary sibling, synced, then renamed. An artifact that stood there before is
    /// replaced at that moment and not earlier; anything else that stood there is left alone, with an error.
    pub fn write(dir: &Path, contents: &Contents) -> Result<()> {
        Artifact::check_target(dir)?;
        let target = target_path(dir)?;
        let temporary = sibling(&target, "new");
        let done = write_files(&temporary, contents).and_then(|()| put_in_place(&temporary, &target));
        if done.is_err() {
            // Best effort: the first error is the one to report.
            let _ = fs::remove_dir_all(&temporary);
        }
        done.with_context(|| format!("cannot write the artifact {}", dir.display()))
    }

    /// Whether an artifact may be written to `dir`: nothing is there, or another artifact. Found out before the work is done.
    pub fn check_target(dir: &Path) -> Result<()> {
        let target = target_path(dir)?;
        ensure_replaceable(&target)?;
        let parent = target.parent().context("the artifact's path has no parent")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))
    }

    /// Opens a directory, checks every hash and validates the plan.
    pub fn open(dir: &Path) -> Result<Artifact> {
        open(dir).with_context(|| format!("cannot open the artifact {}", dir.display()))
    }

    /// The file with the kernels; `None` for the null target.
    pub fn kernels_path(&self) -> Option<PathBuf> {
        kernels_file(self.header.target.kind).map(|file| self.dir.join(file))
    }

    /// The training loop's settings; an error where the artifact has none.
    pub fn run_config(&self) -> Result<&RunConfig> {
        self.run.as_ref().with_context(|| format!("{} holds nothing to train", self.dir.display()))
    }
}

/// The manifest of an artifact, whose other files are not looked at. Tells whether an artifact is stale.
pub fn read_manifest(dir: &Path) -> Result<Manifest> {
    let path = dir.join(MANIFEST);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("{} is missing: not an artifact; `amc compile` makes one", path.display())
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let value: serde_json::Value =
        serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    let schema = value.get("schema").and_then(|schema| schema.as_u64());
    ensure!(
        schema == Some(SCHEMA.into()),
        "{} has schema {}, this amc reads {SCHEMA}: run `amc compile` again",
        path.display(),
        schema.map_or("none".to_string(), |schema| schema.to_string())
    );
    serde_json::from_value(value)
        .with_context(|| format!("{} has not the form of a manifest: run `amc compile` again", path.display()))
}

/// Whether two artifacts hold the same bytes; the error names the first file that differs.
pub fn compare(a: &Path, b: &Path) -> Result<()> {
    let (first, second) = (read_manifest(a)?, read_manifest(b)?);
    ensure!(first.header == second.header, "manifest.json differs: {:?} and {:?}", first.header, second.header);
    for (name, hash) in &first.files {
        ensure!(second.files.get(name) == Some(hash), "{name} differs");
    }
    let added = second.files.keys().find(|name| !first.files.contains_key(*name));
    ensure!(added.is_none(), "{} is only in {}", added.map_or("", |name| name), b.display());
    Ok(())
}

fn open(dir: &Path) -> Result<Artifact> {
    let manifest = read_manifest(dir)?;
    for (name, wanted) in &manifest.files {
        ensure_plain_relative(name)?;
        let (found, _) = hash_file(&dir.join(name))?;
        ensure!(found == *wanted, "{name} has hash {found}, the manifest says {wanted}: run `amc compile` again");
    }
    let listed = |name: &str| match manifest.files.contains_key(name) {
        true => Ok(()),
        false => bail!("the manifest does not list {name}: run `amc compile` again"),
    };
    for name in [PLAN, RECIPE, RECIPE_LOCK] {
        listed(name)?;
    }
    if let Some(kernels) = kernels_file(manifest.header.target.kind) {
        listed(kernels)?;
    }
    let plan = decode_plan(&read(dir, PLAN)?)?;
    let run = match manifest.files.contains_key(RUN) {
        true => Some(serde_json::from_slice(&read(dir, RUN)?).context("run.json has not the form of a run")?),
        false => None,
    };
    let recipe = String::from_utf8(read(dir, RECIPE)?).context("recipe.yaml is not UTF-8")?;
    Ok(Artifact { dir: dir.to_path_buf(), header: manifest.header, plan, run, recipe })
}

/// Reads a plan and validates it.
fn decode_plan(bytes: &[u8]) -> Result<Plan> {
    let (plan, rest) = postcard::take_from_bytes::<Plan>(bytes).context("plan.bin is not a plan")?;
    ensure!(rest.is_empty(), "plan.bin has {} bytes too many", rest.len());
    plan.validate()?;
    Ok(plan)
}

fn read(dir: &Path, name: &str) -> Result<Vec<u8>> {
    fs::read(dir.join(name)).with_context(|| format!("cannot read {name}"))
}

fn write_files(dir: &Path, contents: &Contents) -> Result<()> {
    contents.plan.validate()?;
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove the leftover {}", dir.display()))?;
    }
    fs::create_dir(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut writer = Writer { dir, files: BTreeMap::new() };
    writer.add(PLAN, &postcard::to_stdvec(&contents.plan)?)?;
    if let Some(run) = &contents.run {
        writer.add(RUN, &json(run)?)?;
    }
    writer.add(RECIPE, contents.recipe.as_bytes())?;
    writer.add(RECIPE_LOCK, contents.recipe_lock.as_bytes())?;
    let kind = contents.header.target.kind;
    match (&contents.kernels, kernels_file(kind)) {
        (Some(kernels), Some(file)) => writer.add(file, kernels)?,
        (None, None) => {}
        (given, _) => bail!("target {kind:?} with{} code", if given.is_some() { "" } else { "out" }),
    }
    for (name, text) in &contents.ir {
        writer.add(&format!("ir/{name}"), text.as_bytes())?;
    }
    let manifest =
        Manifest { schema: SCHEMA, header: contents.header.clone(), files: std::mem::take(&mut writer.files) };
    writer.add(MANIFEST, &json(&manifest)?)?;
    sync_dir(dir)
}

/// Adds files below a directory and remembers their hashes.
struct Writer<'a> {
    dir: &'a Path,
    files: BTreeMap<String, String>,
}

impl Writer<'_> {
    fn add(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        ensure_plain_relative(name)?;
        let path = self.dir.join(name);
        let context = || format!("cannot write {}", path.display());
        let parent = path.parent().unwrap_or(self.dir);
        fs::create_dir_all(parent).with_context(context)?;
        let mut file = File::create_new(&path).with_context(context)?;
        file.write_all(bytes).with_context(context)?;
        file.sync_all().with_context(context)?;
        self.files.insert(name.to_string(), hash_bytes(bytes));
        sync_dir(parent)
    }
}

fn json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

/// The absolute path to rename to, so that `.` and trailing slashes have a name and a parent.
fn target_path(dir: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(dir).with_context(|| format!("cannot resolve {}", dir.display()))?;
    ensure!(absolute.file_name().is_some(), "{} cannot be an artifact", dir.display());
    Ok(absolute)
}

fn ensure_replaceable(target: &Path) -> Result<()> {
    if !target.exists() {
        return Ok(());
    }
    ensure!(target.is_dir(), "{} is a file; name a directory for the artifact", target.display());
    let mut entries = fs::read_dir(target).with_context(|| format!("cannot read {}", target.display()))?;
    let ours = target.join(MANIFEST).exists() || entries.next().is_none();
    ensure!(ours, "{} holds other files; name an empty or new directory for the artifact", target.display());
    Ok(())
}

fn sibling(target: &Path, what: &str) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.{what}-{}", std::process::id()))
}

/// Renames the finished directory to its name; an older one is swapped out in the same instant and then removed.
fn put_in_place(finished: &Path, target: &Path) -> Result<()> {
    let parent = target.parent().context("the artifact's path has no parent")?;
    if !target.exists() {
        fs::rename(finished, target)?;
        return sync_dir(parent);
    }
    if renameat_with(CWD, finished, CWD, target, RenameFlags::EXCHANGE).is_err() {
        // Some network file systems cannot exchange; there the name is absent for a moment.
        let old = sibling(target, "old");
        fs::rename(target, &old)?;
        fs::rename(finished, target)?;
        fs::rename(&old, finished)?;
    }
    sync_dir(parent)?;
    fs::remove_dir_all(finished)?;
    Ok(())
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|file| file.sync_all()).with_context(|| format!("cannot sync {}", dir.display()))
}
