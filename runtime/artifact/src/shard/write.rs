//! Writing a shard: rows one after another, then the index, the footer and the hash.
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::synthetic::synthetic_summary;
use super::{
    COLUMNS, ENTRY_BYTES, HASH_BYTES, HEAD_BYTES, MAGIC, Row, SHARD_EXTENSION, STORED, SYNTHETIC, ShardSummary,
    VERSION, check_row,
};

/// Writes a stored shard to any sink. Equal rows and vocabulary give equal bytes.
#[derive(Debug)]
pub struct ShardWriter<W: Write> {
    out: Hashing<W>,
    index: Vec<u8>,
    summary: ShardSummary,
}

impl<W: Write> ShardWriter<W> {
    /// Begins a shard whose tokens are below `vocabulary`.
    ///
    /// # Errors
    /// A vocabulary outside 1..=2^31, or a sink that fails.
    pub fn new(out: W, vocabulary: u64) -> Result<Self> {
        ensure!((1..=1 << 31).contains(&vocabulary), "vocabulary {vocabulary}, wanted 1 to 2^31");
        let mut out = Hashing { out, hasher: blake3::Hasher::new(), written: 0 };
        out.head(STORED)?;
        let summary = ShardSummary { rows: 0, tokens: 0, longest: 0, supervised: 0, vocabulary };
        Ok(ShardWriter { out, index: Vec::new(), summary })
    }

    /// Appends a row.
    ///
    /// # Errors
    /// A row that breaks an invariant of the format, or a sink that fails.
    pub fn push(&mut self, row: &Row<'_>) -> Result<()> {
        let length = row.tokens.len();
        let columns: [&[i32]; COLUMNS] = [row.tokens, row.labels, row.positions, row.segments];
        let at = self.summary.rows;
        ensure!(
            length > 0 && columns.iter().all(|column| column.len() == length),
            "row {at}: columns of {length} tokens"
        );
        ensure!(at < u64::from(u32::MAX) && u32::try_from(length).is_ok(), "row {at} of {length} tokens: too many");
        let supervised = check_row(row, self.summary.vocabulary).with_context(|| format!("row {at}"))?;
        self.index.extend_from_slice(&self.out.written.to_le_bytes());
        self.index.extend_from_slice(&(length as u32).to_le_bytes());
        self.index.extend_from_slice(&supervised.to_le_bytes());
        for column in columns {
            let bytes: Vec<u8> = column.iter().flat_map(|value| value.to_le_bytes()).collect();
            self.out.write(&bytes)?;
        }
        self.summary.rows += 1;
        self.summary.tokens += length as u64;
        self.summary.longest = self.summary.longest.max(length as u64);
        self.summary.supervised += u64::from(supervised);
        Ok(())
    }

    /// Ends the shard; returns what it holds and its hash.
    ///
    /// # Errors
    /// No rows, or a sink that fails.
    pub fn finish(mut self) -> Result<(ShardSummary, blake3::Hash)> {
        ensure!(self.summary.rows > 0, "no rows: a token shard holds at least one");
        debug_assert_eq!(self.index.len() as u64, self.summary.rows * ENTRY_BYTES as u64);
        let index_offset = self.out.written;
        self.out.write(&self.index)?;
        let hash = self.out.foot(&self.summary, 0, 0, index_offset)?;
        Ok((self.summary, hash))
    }
}

/// Writes a synthetic shard: `rows` rows of `length` random tokens below `vocabulary`.
///
/// # Errors
/// Sizes of zero or beyond 32 bits, or a sink that fails.
pub fn write_synthetic<W: Write>(
    out: W,
    rows: u64,
    length: u64,
    vocabulary: u64,
    seed: u64,
) -> Result<(ShardSummary, blake3::Hash)> {
    ensure!((1..=u64::from(u32::MAX)).contains(&rows), "{rows} rows, wanted 1 to 2^32 - 1");
    ensure!((1..1 << 31).contains(&length), "rows of {length} tokens, wanted 1 to 2^31 - 1");
    ensure!((1..=1 << 31).contains(&vocabulary), "vocabulary {vocabulary}, wanted 1 to 2^31");
    let summary = synthetic_summary(rows, vocabulary, length).context("more tokens than 64 bits count")?;
    let mut out = Hashing { out, hasher: blake3::Hasher::new(), written: 0 };
    out.head(SYNTHETIC)?;
    let hash = out.foot(&summary, seed, length, HEAD_BYTES as u64)?;
    Ok((summary, hash))
}

/// Where the shard with this hash lies below the folder of shards.
pub fn shard_path(folder: &Path, hash: &blake3::Hash) -> PathBuf {
    folder.join(format!("{}.{SHARD_EXTENSION}", hash.to_hex()))
}

/// A sink that hashes and counts what passes.
#[derive(Debug)]
struct Hashing<W> {
    out: W,
    hasher: blake3::Hasher,
    written: u64,
}

impl<W: Write> Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).context("writing a token shard")?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn head(&mut self, kind: u32) -> Result<()> {
        self.write(MAGIC)?;
        self.write(&VERSION.to_le_bytes())?;
        self.write(&kind.to_le_bytes())
    }

    fn foot(&mut self, summary: &ShardSummary, seed: u64, length: u64, index_offset: u64) -> Result<blake3::Hash> {
        let ShardSummary { rows, tokens, longest, supervised, vocabulary } = *summary;
        for number in [rows, tokens, longest, supervised, vocabulary, seed, length, index_offset] {
            self.write(&number.to_le_bytes())?;
        }
        let hash = self.hasher.finalize();
        let bytes: &[u8; HASH_BYTES] = hash.as_bytes();
        self.out.write_all(bytes).and_then(|()| self.out.flush()).context("writing a token shard")?;
        Ok(hash)
    }
}
