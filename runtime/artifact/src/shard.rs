//! Token shards: a dataset, tokenised and masked ahead of time, in one memory-mapped file.
//!
//! ```text
//! "AMCSHARD"  version u32  kind u32                        16 bytes
//! rows:    of each row its tokens, labels, positions, segments, each `length` i32
//! index:   of each row (offset u64, length u32, supervised u32)
//! footer:  rows, tokens, longest, supervised, vocabulary, seed, row length, offset of the index, each u64
//! hash:    BLAKE3 of everything before it                  32 bytes
//! ```
//! All numbers are little-endian. A *stored* shard has rows and an index; a *synthetic* shard has neither, and its rows
//! are random tokens computed when they are asked for. The file's name is its hash, so equal data is equal bytes under
//! one name.
//!
//! Invariants, checked by [`Shard::open`], whatever wrote the file:
//! - a row has at least one token, and its four columns have one length;
//! - `0 <= token < vocabulary`; a label is such a token or [`IGNORED`]; `0 <= position < length`;
//! - segments (document ids) are 1, 1, …, 2, 2, …, then 0 for padding to the end; a label stands only on a nonzero
//!   segment.
mod synthetic;
mod write;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use memmap2::Mmap;

use synthetic::{synthetic_row, synthetic_summary};
pub use write::{ShardWriter, shard_path, write_synthetic};

/// The label of a position without a target.
pub const IGNORED: i32 = -100;
/// The extension of a shard's file.
pub const SHARD_EXTENSION: &str = "amcshard";

const MAGIC: &[u8; 8] = b"AMCSHARD";
const VERSION: u32 = 1;
const STORED: u32 = 0;
const SYNTHETIC: u32 = 1;
const HEAD_BYTES: usize = 16;
const ENTRY_BYTES: usize = 16;
const FOOTER_BYTES: usize = 64;
const HASH_BYTES: usize = 32;
const COLUMNS: usize = 4;

/// One row: a sample, or several packed ones. All slices have one length.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    pub tokens: &'a [i32],
    /// Already the target of each position; [`IGNORED`] where there is none.
    pub labels: &'a [i32],
    /// Restart at 0 with every document.
    pub positions: &'a [i32],
    /// 1, 2, … per document, 0 for padding.
    pub segments: &'a [i32],
}

/// Where [`Shard::fill`] writes a batch: four arrays of `rows * sequence` elements, row after row.
#[derive(Debug)]
pub struct Batch<'a> {
    pub tokens: &'a mut [i32],
    pub labels: &'a mut [i32],
    pub positions: &'a mut [i32],
    pub segments: &'a mut [i32],
}

/// What a shard holds, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardSummary {
    pub rows: u64,
    /// Tokens of all rows, the padding within rows included.
    pub tokens: u64,
    /// Tokens of the longest row.
    pub longest: u64,
    /// Positions with a label.
    pub supervised: u64,
    /// No token or label is as large as this.
    pub vocabulary: u64,
}

/// An open shard.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    map: Mmap,
    summary: ShardSummary,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Stored { index_offset: usize },
    Synthetic { seed: u64, length: usize },
}

struct Entry {
    offset: usize,
    length: usize,
    supervised: u32,
}

impl Shard {
    /// Opens and checks a shard: its hash, its index, and every number in it.
    ///
    /// # Errors
    /// A file that is not a whole, unchanged shard of this version, or one that breaks an invariant of the format.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_checked(path).with_context(|| {
            format!(
                "token shard {}: cannot be used; delete it and prepare the data again (amc compile)",
                path.display()
            )
        })
    }

    fn open_checked(path: &Path) -> Result<Self> {
        let file = File::open(path).context("cannot be opened")?;
        // SAFETY: the file is named by the hash of its content and only ever renamed into place whole, never changed.
        // Were another process to write to it nevertheless, reads would return other integers, all of which are
        // bounds-checked where they are used; were it cut short, the process would end with a bus error.
        let map = unsafe { Mmap::map(&file) }.context("cannot be mapped into memory")?;
        let smallest = HEAD_BYTES + FOOTER_BYTES + HASH_BYTES;
        ensure!(map.len() >= smallest, "{} bytes long, but a shard has at least {smallest}: truncated?", map.len());
        ensure!(&map[..8] == MAGIC, "does not begin with {:?}: not a token shard", "AMCSHARD");
        let version = u32_at(&map, 8);
        ensure!(version == VERSION, "format version {version}, but this amc reads version {VERSION}");
        let hashed = map.len() - HASH_BYTES;
        let hash = blake3::hash(&map[..hashed]);
        ensure!(hash.as_bytes()[..] == map[hashed..], "its content does not match its hash: truncated or changed");
        let footer: Vec<u64> = (0..8).map(|i| u64_at(&map, hashed - FOOTER_BYTES + i * 8)).collect();
        let summary = ShardSummary {
            rows: footer[0],
            tokens: footer[1],
            longest: footer[2],
            supervised: footer[3],
            vocabulary: footer[4],
        };
        ensure!(summary.rows > 0 && summary.rows <= u64::from(u32::MAX), "{} rows, wanted 1 to 2^32 - 1", summary.rows);
        ensure!((1..=1 << 31).contains(&summary.vocabulary), "vocabulary {}, wanted 1 to 2^31", summary.vocabulary);
        let body = match u32_at(&map, 12) {
            STORED => stored_body(&map, &summary, footer[7])?,
            SYNTHETIC => synthetic_body(&map, &summary, footer[5], footer[6])?,
            kind => bail!("kind {kind}, wanted {STORED} (stored) or {SYNTHETIC} (synthetic)"),
        };
        let shard = Shard { path: path.to_path_buf(), map, summary, body };
        shard.check_rows()?;
        Ok(shard)
    }

    /// What the shard holds.
    pub fn summary(&self) -> &ShardSummary {
        &self.summary
    }

    /// The hash of all before it, with which the file ends and after which it is named.
    pub fn hash(&self) -> blake3::Hash {
        let hash = self.map[self.map.len() - HASH_BYTES..].first_chunk();
        hash.map_or_else(|| blake3::hash(&[]), |bytes| blake3::Hash::from_bytes(*bytes))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tokens of row `row`.
    ///
    /// # Panics
    /// If `row` is not below the number of rows.
    pub fn length(&self, row: u32) -> usize {
        match self.body {
            Body::Stored { index_offset } => self.entry(index_offset, row).length,
            Body::Synthetic { length, .. } => length,
        }
    }

    /// Positions of row `row` that have a label.
    ///
    /// # Panics
    /// If `row` is not below the number of rows.
    pub fn supervised(&self, row: u32) -> u32 {
        match self.body {
            Body::Stored { index_offset } => self.entry(index_offset, row).supervised,
            Body::Synthetic { length, .. } => length as u32 - 1,
        }
    }

    /// Positions of row `row` that are text, not padding.
    ///
    /// # Panics
    /// If `row` is not below the number of rows.
    pub fn content(&self, row: u32) -> usize {
        match self.body {
            Body::Stored { index_offset } => {
                let Entry { offset, length, .. } = self.entry(index_offset, row);
                let segments = &self.map[offset + 3 * length * 4..offset + 4 * length * 4];
                segments.as_chunks::<4>().0.iter().filter(|raw| **raw != [0; 4]).count()
            }
            Body::Synthetic { length, .. } => length,
        }
    }

    /// Writes `rows` into the first places of a batch of rows of `sequence` tokens; what is left of a row, and whole
    /// rows beyond them, becomes padding (token 0, position 0, segment 0, label [`IGNORED`]).
    ///
    /// # Errors
    /// A row that the shard lacks, that is longer than `sequence`, or that has no place in the batch.
    pub fn fill(&self, rows: &[u32], sequence: usize, batch: &mut Batch<'_>) -> Result<()> {
        let places = batch.tokens.len();
        let sizes = [batch.labels.len(), batch.positions.len(), batch.segments.len()];
        ensure!(sizes == [places; 3], "a batch of {places} tokens has {sizes:?} labels, positions and segments");
        ensure!(
            rows.len().checked_mul(sequence).is_some_and(|wanted| wanted <= places),
            "{} rows of {sequence} tokens do not fit into a batch of {places} tokens",
            rows.len()
        );
        batch.tokens.fill(0);
        batch.positions.fill(0);
        batch.segments.fill(0);
        batch.labels.fill(IGNORED);
        for (place, row) in rows.iter().enumerate() {
            let found = self.summary.rows;
            ensure!(u64::from(*row) < found, "row {row} of {}, which has {found} rows", self.path.display());
            let length = self.length(*row);
            ensure!(
                length <= sequence,
                "row {row} of {} has {length} tokens, more than {sequence}",
                self.path.display()
            );
            let range = place * sequence..place * sequence + length;
            self.copy(
                *row,
                [
                    &mut batch.tokens[range.clone()],
                    &mut batch.labels[range.clone()],
                    &mut batch.positions[range.clone()],
                    &mut batch.segments[range],
                ],
            );
        }
        Ok(())
    }

    fn entry(&self, index_offset: usize, row: u32) -> Entry {
        assert!(u64::from(row) < self.summary.rows, "row {row} of {}", self.summary.rows);
        entry_at(&self.map, index_offset, row as usize)
    }

    fn copy(&self, row: u32, columns: [&mut [i32]; COLUMNS]) {
        match self.body {
            Body::Synthetic { seed, .. } => synthetic_row(seed, self.summary.vocabulary, row, columns),
            Body::Stored { index_offset } => {
                let Entry { offset, length, .. } = self.entry(index_offset, row);
                for (i, column) in columns.into_iter().enumerate() {
                    let bytes = &self.map[offset + i * length * 4..offset + (i + 1) * length * 4];
                    for (value, raw) in column.iter_mut().zip(bytes.as_chunks().0) {
                        *value = i32::from_le_bytes(*raw);
                    }
                }
            }
        }
    }

    fn check_rows(&self) -> Result<()> {
        let Body::Stored { .. } = self.body else { return Ok(()) };
        let mut buffer = vec![0i32; self.summary.longest as usize * COLUMNS];
        let (mut tokens, mut supervised) = (0u64, 0u64);
        for row in 0..self.summary.rows as u32 {
            let length = self.length(row);
            let mut columns = buffer.chunks_exact_mut(length);
            let [Some(a), Some(b), Some(c), Some(d)] = std::array::from_fn(|_| columns.next()) else {
                bail!("row {row} has {length} tokens, more than the {} of the longest row", self.summary.longest)
            };
            self.copy(row, [a, b, c, d]);
            let row_view = Row { tokens: a, labels: b, positions: c, segments: d };
            let counted = check_row(&row_view, self.summary.vocabulary).with_context(|| format!("row {row}"))?;
            ensure!(counted == self.supervised(row), "row {row} has {counted} labels, but the index says otherwise");
            tokens += length as u64;
            supervised += u64::from(counted);
        }
        ensure!(tokens == self.summary.tokens, "{tokens} tokens, but its footer says {}", self.summary.tokens);
        ensure!(
            supervised == self.summary.supervised,
            "{supervised} labels, its footer says {}",
            self.summary.supervised
        );
        Ok(())
    }
}

fn stored_body(map: &[u8], summary: &ShardSummary, index_offset: u64) -> Result<Body> {
    let end = map.len() - HASH_BYTES - FOOTER_BYTES;
    let index_bytes = summary.rows as usize * ENTRY_BYTES;
    let index_offset = usize::try_from(index_offset).unwrap_or(usize::MAX);
    ensure!(
        index_offset >= HEAD_BYTES && index_offset.checked_add(index_bytes) == Some(end),
        "an index of {} rows at byte {index_offset} does not end where the footer begins ({end})",
        summary.rows
    );
    let (mut expected, mut longest) = (HEAD_BYTES, 0);
    for row in 0..summary.rows as usize {
        let Entry { offset, length, .. } = entry_at(map, index_offset, row);
        ensure!(length > 0, "row {row} has no tokens");
        ensure!(offset == expected, "row {row} is at byte {offset}, wanted {expected}, where the row before it ends");
        expected += length * 4 * COLUMNS;
        ensure!(
            expected <= index_offset,
            "row {row} of {length} tokens at byte {offset} runs into the index at {index_offset}"
        );
        longest = longest.max(length);
    }
    ensure!(expected == index_offset, "{} bytes between the last row and the index", index_offset - expected);
    ensure!(longest as u64 == summary.longest, "longest row {longest}, but its footer says {}", summary.longest);
    Ok(Body::Stored { index_offset })
}

fn synthetic_body(map: &[u8], summary: &ShardSummary, seed: u64, length: u64) -> Result<Body> {
    ensure!(map.len() == HEAD_BYTES + FOOTER_BYTES + HASH_BYTES, "a synthetic shard of {} bytes", map.len());
    let expected = synthetic_summary(summary.rows, summary.vocabulary, length);
    ensure!(
        (1..1 << 31).contains(&length) && expected == Some(*summary),
        "a synthetic shard of rows of {length} tokens whose footer says {summary:?}"
    );
    Ok(Body::Synthetic { seed, length: length as usize })
}

/// Checks the invariants of a row, and counts its labels.
fn check_row(row: &Row<'_>, vocabulary: u64) -> Result<u32> {
    let length = row.tokens.len();
    let is_token = |value: i32| value >= 0 && (value as u64) < vocabulary;
    let (mut document, mut supervised) = (0, 0);
    for i in 0..length {
        ensure!(is_token(row.tokens[i]), "token {} at {i}, wanted 0 to {}", row.tokens[i], vocabulary - 1);
        let position = row.positions[i];
        ensure!(position >= 0 && (position as usize) < length, "position {position} at {i} of {length} tokens");
        let (segment, before) = (row.segments[i], if i == 0 { 1 } else { row.segments[i - 1] });
        let follows = segment == before || (segment == document + 1 && before != 0) || (segment == 0 && i > 0);
        ensure!(follows, "segment {segment} at {i} after segment {before}: wanted 1, 1, …, 2, 2, …, 0");
        document = document.max(segment);
        if row.labels[i] != IGNORED {
            ensure!(
                is_token(row.labels[i]),
                "label {} at {i}, wanted {IGNORED} or 0 to {}",
                row.labels[i],
                vocabulary - 1
            );
            ensure!(segment != 0, "label {} at {i}, which is padding", row.labels[i]);
            supervised += 1;
        }
    }
    Ok(supervised)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |raw| u32::from_le_bytes(*raw))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |raw| u64::from_le_bytes(*raw))
}

fn entry_at(map: &[u8], index_offset: usize, row: usize) -> Entry {
    let at = index_offset + row * ENTRY_BYTES;
    Entry {
        offset: usize::try_from(u64_at(map, at)).unwrap_or(usize::MAX),
        length: u32_at(map, at + 8) as usize,
        supervised: u32_at(map, at + 12),
    }
}

#[cfg(test)]
mod tests;
