//! Datasets: from a recipe to a token shard and the shapes of a run.
//!
//! The way: files ([`source`], [`locate`]) → rows ([`table`]) → samples ([`format`], by [`squad`] or [`column_mapped`])
//! → rows of a shard ([`pack`], or each sample alone) → a file named by its content's hash. All of it happens ahead of
//! time; a run reads shards.
//!
//! Tokens, labels and packing are NeMo Automodel's, in the dialect of the recipe. What differs on purpose: a slice in
//! `split` also cuts local files; padding is always on the right; mock data comes from a counter-based generator of our
//! own, as torch's global generator cannot be reproduced.
mod column_mapped;
mod describe;
mod format;
mod locate;
mod memo;
mod numpy;
mod pack;
mod parallel;
mod sample;
mod shapes;
mod source;
mod split;
mod squad;
mod table;
mod token_file;

use std::path::{Path, PathBuf};

use amc_artifact::{Shard, ShardWriter, shard_path, write_synthetic};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use memo::Memo;
use source::Source;

pub use describe::{Description, use_colour};
pub use format::{Format, padding_id};
pub use locate::locate;
pub use pack::{Packs, pack};
pub use sample::{Sample, SampleRow};
pub use shapes::{GRANULARITY, MOST_SHAPES, ShapeSet};
pub use split::Split;
pub use table::{Table, TableRow};

use crate::chat_template::{ChatTemplate, resolve_source};
use crate::hub::Hub;
use crate::recipe::{ColumnMapped, Dataset, Dialect, MockIterable, PackedSequence, Padding, Squad, TokenOptions};
use crate::tokenizer::Tokenizer;

/// Most tokens of a dataset whose rows are padded to one length.
const MOST_PADDED: u64 = 1 << 30;

/// What a dataset is prepared with, besides its own section of the recipe.
#[derive(Clone, Copy, Debug)]
pub struct Preparation<'a> {
    pub dialect: Dialect,
    /// The recipe's seed.
    pub seed: u64,
    /// Needed for text: not for mock data, nor for token files.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Packs rows; for training data only.
    pub packed: Option<&'a PackedSequence>,
    /// The `chat_template` of the training data, which also serves validation data without one.
    pub inherited_template: Option<&'a str>,
    pub hub: &'a Hub,
    /// The folder that keeps shards, such as [`amc_artifact::shard_folder`].
    pub shards: &'a Path,
}

/// A dataset ready to be trained on.
#[derive(Debug)]
pub struct Prepared {
    pub shard: Shard,
    pub report: Report,
}

/// What came of the rows of a dataset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Rows of the dataset, after slices and limits.
    pub examples: usize,
    /// Rows without a token to learn, for which the next row stands.
    pub replaced: usize,
    /// Rows without a token to learn that were kept.
    pub unsupervised: usize,
    /// Rows left out of the packs because they are longer than one.
    pub too_long: usize,
}

/// The `chat_template` that a dataset's section of the recipe sets.
pub fn template_of(dataset: &Dataset) -> Option<&str> {
    match dataset {
        Dataset::Squad(squad) => squad.chat_template.as_deref(),
        Dataset::ColumnMapped(_) | Dataset::MockIterable(_) | Dataset::TokenFile(_) => None,
    }
}

/// Reads, tokenises, masks and packs a dataset, and writes its shard. Equal inputs give an equal file.
///
/// # Errors
/// A dataset that cannot be found or read; a row that cannot be formatted; no rows; no token to learn; a full disk.
pub fn prepare(dataset: &Dataset, how: &Preparation<'_>) -> Result<Prepared> {
    match dataset {
        Dataset::MockIterable(mock) => prepare_mock(mock, how),
        Dataset::Squad(_) | Dataset::ColumnMapped(_) | Dataset::TokenFile(_) => prepare_rows(dataset, how),
    }
}

fn prepare_mock(mock: &MockIterable, how: &Preparation<'_>) -> Result<Prepared> {
    let rows = mock.num_samples.saturating_mul(mock.batch_size);
    let mut bytes = Vec::new();
    let (_, hash) = write_synthetic(&mut bytes, rows, mock.seq_len, mock.vocab_size, how.seed).context("mock data")?;
    let shard = keep(how.shards, |file| std::io::Write::write_all(file, &bytes).map(|()| hash).map_err(Into::into))?;
    Ok(Prepared { shard, report: Report { examples: rows as usize, ..Report::default() } })
}

fn prepare_rows(dataset: &Dataset, how: &Preparation<'_>) -> Result<Prepared> {
    let source = Source::find(dataset, how.hub)?;
    let tokenizer_files = how.tokenizer.map(Tokenizer::files).unwrap_or_default();
    let options = how.tokenizer.map(Tokenizer::options);
    let templates = (template_source(dataset, how)?, options);
    let settings = (dataset, how.dialect, how.seed, how.packed, templates);
    let memo = Memo::new(how.shards, &settings, source.files().chain(&tokenizer_files))?;
    if let Some(prepared) = memo.recall() {
        return Ok(prepared);
    }
    let (samples, report) = samples_of(dataset, &source, how)?;
    let prepared = write_rows(dataset, samples, report, how)?;
    memo.remember(&prepared);
    Ok(prepared)
}

fn write_rows(dataset: &Dataset, samples: Vec<Sample>, mut report: Report, how: &Preparation<'_>) -> Result<Prepared> {
    let rows = match how.packed {
        Some(packed) => {
            let order = packing_order(dataset, samples.len(), how);
            let ordered: Vec<&Sample> = order.into_iter().map(|i| &samples[i]).collect();
            let size = usize::try_from(packed.packed_sequence_size)?;
            let most = packed.max_packs.map(usize::try_from).transpose()?;
            let pad_id = how.tokenizer.filter(|_| how.dialect == Dialect::Head).and_then(Tokenizer::pad_id);
            let packs = pack(&ordered, size, most, pad_id.unwrap_or(0) as i32, how.dialect)?;
            report.too_long = packs.too_long;
            packs.rows
        }
        None => {
            let rows = samples.into_iter().enumerate();
            rows.map(|(i, sample)| sample.into_row().with_context(|| format!("example {}", i + 1)))
                .collect::<Result<_>>()?
        }
    };
    let largest = rows.iter().flat_map(|row| row.tokens.iter().chain(&row.labels)).max();
    let vocabulary = largest.map_or(1, |token| *token as u64 + 1);
    let shard = keep(how.shards, |file| {
        let mut writer = ShardWriter::new(std::io::BufWriter::new(file), vocabulary)?;
        rows.iter().try_for_each(|row| writer.push(&row.view()))?;
        Ok(writer.finish()?.1)
    })?;
    ensure!(
        shard.summary().supervised > 0,
        "no row of the dataset has a token to learn: are the answers empty, or cut off?"
    );
    Ok(Prepared { shard, report })
}

/// Makes a sample of every row of a dataset that has rows.
///
/// # Errors
/// As for [`prepare`].
pub fn samples(dataset: &Dataset, how: &Preparation<'_>) -> Result<(Vec<Sample>, Report)> {
    samples_of(dataset, &Source::find(dataset, how.hub)?, how)
}

fn samples_of(dataset: &Dataset, source: &Source, how: &Preparation<'_>) -> Result<(Vec<Sample>, Report)> {
    let table = source.read()?;
    if let Dataset::Squad(Squad { tokens, .. }) | Dataset::ColumnMapped(ColumnMapped { tokens, .. }) = dataset {
        check_padding(table.rows.len(), tokens)?;
    }
    let mut replaced = 0;
    let samples = match dataset {
        Dataset::Squad(squad) => with_format(dataset, how, &squad.tokens, |format| {
            format.start_of_turn = squad.start_of_turn_token.clone();
            parallel::map(&table.rows, |row| squad::format(row, format))
        })?,
        Dataset::ColumnMapped(mapped) => {
            let mut samples = with_format(dataset, how, &mapped.tokens, |format| {
                format.answer_only = mapped.answer_only_loss_mask;
                parallel::map(&table.rows, |row| column_mapped::format(row, mapped, format))
            })?;
            if how.dialect == Dialect::Head {
                replaced = column_mapped::replace_unsupervised(&mut samples)?;
            }
            samples
        }
        Dataset::TokenFile(_) => parallel::map(&table.rows, token_file::read)?,
        Dataset::MockIterable(_) => bail!("mock data has no rows to be read"),
    };
    let unsupervised = samples.iter().filter(|sample| sample.supervised() == 0).count();
    let report = Report { examples: samples.len(), replaced, unsupervised, too_long: 0 };
    Ok((samples, report))
}

/// Refuses padding that would fill the memory: every row is padded before any is written.
fn check_padding(rows: usize, options: &TokenOptions) -> Result<()> {
    let length = options.seq_length.filter(|_| options.padding == Padding::MaxLength).unwrap_or(0);
    ensure!(
        rows as u64 * length <= MOST_PADDED,
        "padding to `seq_length` makes {rows} rows of {length} tokens, more than {MOST_PADDED} in all; lower `seq_length`, \
         or leave the padding to the batches"
    );
    Ok(())
}

/// The chat template of the recipe: the dataset's own, else the inherited one.
fn template_source(dataset: &Dataset, how: &Preparation<'_>) -> Result<Option<String>> {
    template_of(dataset).or(how.inherited_template).map(resolve_source).transpose()
}

/// Calls `work` with the format of a dataset, whose chat template is the recipe's, else the tokenizer's.
fn with_format<R>(
    dataset: &Dataset,
    how: &Preparation<'_>,
    options: &TokenOptions,
    work: impl FnOnce(&mut Format<'_>) -> Result<R>,
) -> Result<R> {
    let tokenizer =
        how.tokenizer.context("this dataset needs a tokenizer, but the recipe's model comes without one")?;
    let source = template_source(dataset, how)?;
    let own = source.map(|source| ChatTemplate::new(&source).context("the recipe's chat_template")).transpose()?;
    let mut format = Format::new(tokenizer, how.dialect, options)?;
    format.template = own.as_ref().or(format.template);
    work(&mut format)
}

/// The order in which samples are packed: their own, but in September 2025 SQuAD was a `datasets.Dataset`, which is
/// shuffled before it is packed.
fn packing_order(dataset: &Dataset, samples: usize, how: &Preparation<'_>) -> Vec<usize> {
    match (dataset, how.dialect) {
        (Dataset::Squad(_), Dialect::S25) => numpy::permutation(samples, how.seed),
        _ => (0..samples).collect(),
    }
}

/// Writes a file through `write` and keeps it under the name that its hash gives; then opens it, which checks it.
fn keep(folder: &Path, write: impl FnOnce(&mut std::fs::File) -> Result<blake3::Hash>) -> Result<Shard> {
    let wanted = || format!("{}: token shards cannot be written; AMC_CACHE names another folder", folder.display());
    std::fs::create_dir_all(folder).with_context(wanted)?;
    let temporary = folder.join(format!(".{}-{:?}.tmp", std::process::id(), std::thread::current().id()));
    let written = (|| -> Result<PathBuf> {
        let mut file = std::fs::File::create(&temporary)?;
        let hash = write(&mut file)?;
        file.sync_all()?;
        let path = shard_path(folder, &hash);
        std::fs::rename(&temporary, &path)?;
        Ok(path)
    })();
    if written.is_err() {
        // Nothing is lost if the unfinished file cannot be removed: its name is used again by this process alone.
        let _ = std::fs::remove_file(&temporary);
    }
    Shard::open(&written.with_context(wanted)?)
}
