//! Batches from token shards, without allocation once opened.
use amc_artifact::{Batch, Shard, counted_tokens, shard_path};
use anyhow::{Context, Result, ensure};
use std::path::Path;

/// A data set whose tokens fit the model.
pub(crate) struct DataSet {
    pub shard: Shard,
}

impl DataSet {
    /// Opens the shard with that hash below a folder of shards.
    ///
    /// # Errors
    /// No such shard, one whose content is not what its name says, or one with a token that the model does not have.
    pub fn open(folder: &Path, hash: &str, vocabulary: u64) -> Result<DataSet> {
        let parsed = blake3::Hash::from_hex(hash).with_context(|| format!("{hash:?} is not the hash of a shard"))?;
        let path = shard_path(folder, &parsed);
        ensure!(
            path.exists(),
            "the token shard {} is not there: run `amc compile` again, which prepares the data",
            path.display()
        );
        let shard = Shard::open(&path)?;
        ensure!(
            content_hash(&path)? == *parsed.as_bytes(),
            "{} holds another shard than its name says: delete it and run `amc compile` again",
            path.display()
        );
        let tokens = shard.summary().vocabulary;
        ensure!(
            tokens <= vocabulary,
            "{} has token ids up to {}, the model has {vocabulary}: compile with the model's own tokenizer",
            path.display(),
            tokens - 1
        );
        Ok(DataSet { shard })
    }

    /// Rows of the data set.
    pub fn rows(&self) -> u32 {
        self.shard.summary().rows as u32
    }

    /// Tokens of the longest of some rows.
    pub fn longest(&self, rows: &[u32]) -> usize {
        rows.iter().map(|&row| self.shard.length(row)).max().unwrap_or(0)
    }

    /// Supervised tokens of some rows.
    pub fn supervised(&self, rows: &[u32]) -> u64 {
        rows.iter().map(|&row| u64::from(self.shard.supervised(row))).sum()
    }
}

/// The hash that a shard ends with.
fn content_hash(path: &Path) -> Result<[u8; 32]> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::open(path)?;
    let end = file.metadata()?.len();
    let mut hash = [0; 32];
    file.read_exact_at(&mut hash, end.saturating_sub(32)).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hash)
}

/// Host memory of the largest batch.
pub(crate) struct Buffers {
    pub tokens: Vec<i32>,
    pub labels: Vec<i32>,
    pub positions: Vec<i32>,
    pub segments: Vec<i32>,
}

impl Buffers {
    /// For batches of up to that many tokens, padding included.
    pub fn new(tokens: usize) -> Buffers {
        let empty = || vec![0; tokens];
        Buffers { tokens: empty(), labels: empty(), positions: empty(), segments: empty() }
    }

    /// Fills the first `batch * sequence` places: the rows in order, the rest padding.
    pub fn fill(&mut self, data: &DataSet, rows: &[u32], batch: usize, sequence: usize) -> Result<()> {
        let places = batch * sequence;
        let mut view = Batch {
            tokens: &mut self.tokens[..places],
            labels: &mut self.labels[..places],
            positions: &mut self.positions[..places],
            segments: &mut self.segments[..places],
        };
        data.shard.fill(rows, sequence, &mut view)
    }

    /// Tokens of the filled rows, as throughput counts them.
    pub fn counted_tokens(&self, batch: usize, sequence: usize) -> u64 {
        counted_tokens(&self.labels[..batch * sequence], sequence)
    }
}
