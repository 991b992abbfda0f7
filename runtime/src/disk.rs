//! Every change that a run makes to its checkpoint directory goes through [`Disk`], one durable operation at a time.
//!
//! Invariants:
//! - When an operation returns, it survives a power cut: files and the folders that name them are synced.
//! - Nothing is changed in place: what has a final name is whole, because it was renamed there.
//!
//! It is a trait so that a test can stop a run after any operation and look at what a crash would leave behind.
use anyhow::{Context, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::Path;

/// Fills a file that is being written.
pub type Fill<'a> = &'a mut dyn FnMut(&mut dyn Write) -> Result<()>;

/// Durable changes to a file system.
pub trait Disk {
    /// Creates a folder; its parent exists.
    fn create_dir(&self, path: &Path) -> Result<()>;
    /// Writes a file that does not exist yet.
    fn write(&self, path: &Path, fill: Fill) -> Result<()>;
    /// Renames a file or folder within one parent; a file in the way is replaced.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Makes a symbolic link; nothing of that name exists.
    fn link(&self, target: &Path, link: &Path) -> Result<()>;
    /// Removes a file, a link, or a folder with what is in it; no error where nothing is there.
    fn remove(&self, path: &Path) -> Result<()>;
}

/// The file system of this machine.
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> Result<()> {
        fs::create_dir(path).with_context(|| format!("cannot create {}", path.display()))?;
        sync_parent(path)
    }

    fn write(&self, path: &Path, fill: Fill) -> Result<()> {
        let context = || format!("cannot write {}", path.display());
        let file = OpenOptions::new().write(true).create_new(true).open(path).with_context(context)?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        fill(&mut out).with_context(context)?;
        let file = out.into_inner().map_err(|error| error.into_error()).with_context(context)?;
        file.sync_all().with_context(context)?;
        sync_parent(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))?;
        sync_parent(to)
    }

    fn link(&self, target: &Path, link: &Path) -> Result<()> {
        std::os::unix::fs::symlink(target, link).with_context(|| format!("cannot make the link {}", link.display()))?;
        sync_parent(link)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let removed = match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
            Ok(()) => sync_parent(path),
        }
    }
}

/// Replaces the contents of a small file in one step.
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = temporary(path);
    disk.remove(&temporary)?;
    disk.write(&temporary, &mut |out| Ok(out.write_all(bytes)?))?;
    disk.rename(&temporary, path)
}

/// Points a symbolic link elsewhere in one step.
pub fn repoint(disk: &dyn Disk, target: &Path, link: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|old| old == target) {
        return Ok(());
    }
    let temporary = temporary(link);
    disk.remove(&temporary)?;
    disk.link(target, &temporary)?;
    disk.rename(&temporary, link)
}

/// The name that a file has while it is being replaced.
fn temporary(path: &Path) -> std::path::PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp"))
}

fn sync_parent(path: &Path) -> Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent).and_then(|parent| parent.sync_all()).with_context(|| format!("cannot sync {}", parent.display()))
}
