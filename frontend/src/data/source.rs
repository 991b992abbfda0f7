//! Which files a dataset consists of, and which of their rows are wanted.
use std::path::PathBuf;

use anyhow::{Result, bail};

use super::locate::locate;
use super::split::{Split, SplitPart};
use super::table::Table;
use super::{column_mapped, squad};
use crate::hub::Hub;
use crate::recipe::{Dataset, TokenOptions};

/// The files of each part of a split.
#[derive(Debug)]
pub(super) struct Source {
    parts: Vec<(SplitPart, Vec<PathBuf>)>,
    /// Columns that rows must have.
    columns: Vec<String>,
}

impl Source {
    /// Finds the files of a dataset that has rows.
    ///
    /// # Errors
    /// A split that cannot be understood, or a dataset that cannot be found.
    pub fn find(dataset: &Dataset, hub: &Hub) -> Result<Self> {
        let (names, split, config, options, columns) = match dataset {
            Dataset::Squad(squad) => {
                (vec![&squad.dataset_name], squad.split.as_str(), None, Some(&squad.tokens), squad::COLUMNS.to_vec())
            }
            Dataset::ColumnMapped(mapped) => (
                mapped.path_or_dataset_id.iter().collect(),
                mapped.split.as_deref().unwrap_or("train"),
                mapped.name.as_deref(),
                Some(&mapped.tokens),
                column_mapped::columns(&mapped.columns),
            ),
            Dataset::TokenFile(file) => {
                let limit = file.limit_dataset_samples.map(usize::try_from).transpose()?;
                let parts = Split::parse("train", limit)?.parts;
                let files = vec![PathBuf::from(&file.path)];
                let parts = parts.into_iter().map(|part| (part, files.clone())).collect();
                return Ok(Source { parts, columns: vec!["input_ids".to_string()] });
            }
            Dataset::MockIterable(_) => bail!("mock data has no rows to be read"),
        };
        let limit = options.and_then(|options: &TokenOptions| options.limit_dataset_samples);
        let mut parts = Vec::new();
        for part in Split::parse(split, limit.map(usize::try_from).transpose()?)?.parts {
            let mut files = Vec::new();
            for name in &names {
                files.extend(locate(name, &part.name, config, hub)?);
            }
            parts.push((part, files));
        }
        Ok(Source { parts, columns: columns.into_iter().map(str::to_string).collect() })
    }

    /// Every file, in the order of reading.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.parts.iter().flat_map(|(_, files)| files)
    }

    /// Reads the rows that are wanted.
    ///
    /// # Errors
    /// A file that cannot be read; no rows; a column that none of them has.
    pub fn read(&self) -> Result<Table> {
        let mut table = Table::default();
        for (part, files) in &self.parts {
            let mut rows = Table::read(files, part.rows_needed())?;
            let range = part.range(rows.rows.len());
            table.rows.extend(rows.rows.drain(range));
            table.files.extend_from_slice(files);
        }
        table.require(&self.columns.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(table)
    }
}
