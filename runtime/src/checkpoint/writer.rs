//! Writes the files of a checkpoint and proves that they can be read back.
use crate::disk::Disk;
use amc_artifact::hash_file;
use anyhow::{Result, ensure};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Adds files below a folder and remembers the hash of what was meant to be written.
pub struct Writer<'a> {
    disk: &'a dyn Disk,
    root: &'a Path,
    folders: BTreeSet<PathBuf>,
    files: BTreeMap<String, String>,
}

impl<'a> Writer<'a> {
    /// For a folder that exists.
    pub fn new(disk: &'a dyn Disk, root: &'a Path) -> Writer<'a> {
        Writer { disk, root, folders: BTreeSet::from([root.to_path_buf()]), files: BTreeMap::new() }
    }

    /// The path of a file of this checkpoint.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Writes the file `name` (a relative path, its folders are made).
    pub fn add(&mut self, name: &str, mut fill: impl FnMut(&mut dyn Write) -> Result<()>) -> Result<()> {
        let path = self.root.join(name);
        self.create_folders(path.parent().unwrap_or(self.root))?;
        let mut hasher = blake3::Hasher::new();
        self.disk.write(&path, &mut |out| fill(&mut Tee { out, hasher: &mut hasher }))?;
        self.files.insert(name.to_string(), hasher.finalize().to_hex().to_string());
        Ok(())
    }

    /// Writes a value as JSON with an indent of two.
    pub fn add_json<T: Serialize>(&mut self, name: &str, value: &T) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        self.add(name, |out| Ok(out.write_all(&text)?))
    }

    /// Copies a file.
    pub fn add_copy(&mut self, name: &str, source: &Path) -> Result<()> {
        let bytes = std::fs::read(source)?;
        self.add(name, |out| Ok(out.write_all(&bytes)?))
    }

    /// Reads every file back, compares it with what was meant, and returns the hashes.
    pub fn verify(self) -> Result<BTreeMap<String, String>> {
        for (name, meant) in &self.files {
            let (found, _) = hash_file(&self.root.join(name))?;
            ensure!(found == *meant, "{} does not read back as it was written", self.root.join(name).display());
        }
        Ok(self.files)
    }

    fn create_folders(&mut self, folder: &Path) -> Result<()> {
        if !self.folders.contains(folder) {
            self.create_folders(folder.parent().unwrap_or(self.root))?;
            self.disk.create_dir(folder)?;
            self.folders.insert(folder.to_path_buf());
        }
        Ok(())
    }
}

struct Tee<'a> {
    out: &'a mut dyn Write,
    hasher: &'a mut blake3::Hasher,
}

impl Write for Tee<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
