//! A file of JSON records, one a line.
use crate::disk::{self, Disk};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// A journal that is appended to.
pub struct Journal {
    path: PathBuf,
    file: File,
}

/// What every record has.
#[derive(Deserialize)]
struct Numbered {
    step: u64,
}

impl Journal {
    /// Opens a journal, keeping of what is there the leading whole records of steps below `end`: the rest is of steps that
    /// a resumed run does again, or was cut off by a crash.
    pub fn open(disk: &dyn Disk, path: &Path, end: u64) -> Result<Journal> {
        let context = || format!("cannot open {}", path.display());
        let old = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            other => other.with_context(context)?,
        };
        let kept = kept_bytes(&old, end);
        if kept < old.len() {
            disk::replace(disk, path, &old[..kept])?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).with_context(context)?;
        Ok(Journal { path: path.to_path_buf(), file })
    }

    /// Appends a record; it is with the operating system when this returns.
    pub fn append<T: Serialize>(&mut self, record: &T) -> Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        self.file.write_all(&line).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Makes all records survive a power cut.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().with_context(|| format!("cannot sync {}", self.path.display()))
    }
}

fn kept_bytes(old: &[u8], end: u64) -> usize {
    let lines = old.split_inclusive(|&byte| byte == b'\n');
    let whole = |line: &&[u8]| {
        line.ends_with(b"\n") && serde_json::from_slice::<Numbered>(line).is_ok_and(|record| record.step < end)
    };
    lines.take_while(whole).map(<[u8]>::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_is_cut_off() {
        let text = b"{\"step\":0}\n{\"step\":1}\n{\"step\":2}\n{\"st";
        assert_eq!(kept_bytes(text, 0), 0);
        assert_eq!(kept_bytes(text, 2), 22);
        assert_eq!(kept_bytes(text, 9), 33);
        assert_eq!(kept_bytes(b"{\"step\":0}", 9), 0);
        assert_eq!(kept_bytes(b"garbage\n{\"step\":0}\n", 9), 0);
    }
}
