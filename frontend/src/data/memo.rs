//! Remembers which shard came of which inputs, so that data is tokenised once.
//!
//! The key covers all that decides the outcome: the dataset's section, the dialect, the seed, packing, the tokenizer's
//! files, the bytes of every data file, and this program itself. What is remembered is only a name: the shard is
//! checked against its own hash when it is opened, and anything that does not fit is forgotten.
use std::fmt::Debug;
use std::fs::File;
use std::path::{Path, PathBuf};

use amc_artifact::{Shard, shard_path};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{Prepared, Report};

/// Names what came of some inputs.
#[derive(Debug)]
pub(super) struct Memo {
    file: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    shard: String,
    report: Report,
}

impl Memo {
    /// The memo of some settings and files, kept in the folder of shards.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn new<'a>(folder: &Path, settings: &dyn Debug, files: impl Iterator<Item = &'a PathBuf>) -> Result<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{settings:?}").as_bytes());
        let program = std::env::current_exe().context("finding this program's file")?;
        for path in std::iter::once(program).chain(files.cloned()) {
            let file = File::open(&path).with_context(|| format!("{}: cannot be opened", path.display()))?;
            let content = blake3::Hasher::new().update_reader(file).map(|hasher| hasher.finalize());
            hasher.update(content.with_context(|| format!("{}: cannot be read", path.display()))?.as_bytes());
        }
        Ok(Memo { file: folder.join(format!("{}.json", hasher.finalize().to_hex())) })
    }

    /// What came of the inputs before, if it is still there and whole.
    pub fn recall(&self) -> Option<Prepared> {
        let text = std::fs::read_to_string(&self.file).ok()?;
        let remembered: Remembered = serde_json::from_str(&text).ok()?;
        let hash = blake3::Hash::from_hex(&remembered.shard).ok()?;
        let shard = Shard::open(&shard_path(self.file.parent()?, &hash)).ok()?;
        (shard.hash() == hash).then_some(Prepared { shard, report: remembered.report })
    }

    /// Remembers what came of the inputs. A memo that cannot be written costs time, not correctness.
    pub fn remember(&self, prepared: &Prepared) {
        let remembered = Remembered { shard: prepared.shard.hash().to_hex().to_string(), report: prepared.report };
        if let Ok(text) = serde_json::to_string(&remembered) {
            let temporary = self.file.with_extension(format!("{}.tmp", std::process::id()));
            let _ = std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, &self.file));
        }
    }
}
