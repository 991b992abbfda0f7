//! Rows of a dataset before they are tokenised: JSON, JSON lines and Parquet files as one table.
//!
//! Every row knows the file and the place in it that it came from, for errors.
mod json;
mod parquet;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use serde_json::{Map, Value};

/// The values of a row by column.
pub type Fields = Map<String, Value>;

/// A row and where it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct TableRow {
    pub fields: Fields,
    file: Arc<Path>,
    place: Place,
}

/// Where in a file, counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Line(usize),
    Row(usize),
}

/// The rows of some files, in order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Table {
    pub rows: Vec<TableRow>,
    pub files: Vec<PathBuf>,
}

impl Table {
    /// Reads files one after another; stops once there are `needed` rows.
    ///
    /// # Errors
    /// A file that cannot be read or parsed, with the line where that is known.
    pub fn read(files: &[PathBuf], needed: Option<usize>) -> Result<Self> {
        let needed = needed.unwrap_or(usize::MAX);
        let mut rows = Vec::new();
        for path in files {
            if rows.len() >= needed {
                break;
            }
            read_file(path, needed, &mut rows)?;
        }
        rows.truncate(needed);
        Ok(Table { rows, files: files.to_vec() })
    }

    /// Every column that some row has, in order of first appearance.
    pub fn columns(&self) -> Vec<&str> {
        let mut columns: Vec<&str> = Vec::new();
        for row in &self.rows {
            for name in row.fields.keys() {
                if !columns.contains(&name.as_str()) {
                    columns.push(name);
                }
            }
        }
        columns
    }

    /// Checks that there are rows, and that each of `wanted` is a column of at least one.
    ///
    /// # Errors
    /// No rows; or a missing column, with those that there are.
    pub fn require(&self, wanted: &[&str]) -> Result<()> {
        let files = self.files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        ensure!(!self.rows.is_empty(), "{files}: no rows; a dataset needs at least one");
        let columns = self.columns();
        for name in wanted {
            if !columns.contains(name) {
                bail!("{files}: no column `{name}`; the columns are {}", quoted(&columns));
            }
        }
        Ok(())
    }
}

impl TableRow {
    fn new(fields: Fields, file: &Arc<Path>, place: Place) -> Self {
        TableRow { fields, file: Arc::clone(file), place }
    }

    /// The text of a column; none where it is null or missing.
    ///
    /// # Errors
    /// A value of another type.
    pub fn text(&self, column: &str) -> Result<Option<&str>> {
        match self.fields.get(column) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => bail!("{self}: column `{column}` is {}, wanted text", kind(other)),
        }
    }

    /// The text of a column that must be there.
    ///
    /// # Errors
    /// A value of another type, null, or none.
    pub fn required_text(&self, column: &str) -> Result<&str> {
        match self.text(column)? {
            Some(text) => Ok(text),
            None => bail!("{self}: column `{column}` is null or missing, wanted text"),
        }
    }
}

impl fmt::Display for TableRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Line(line) => write!(f, "{}, line {line}", self.file.display()),
            Place::Row(row) => write!(f, "{}, row {row}", self.file.display()),
        }
    }
}

fn read_file(path: &Path, needed: usize, rows: &mut Vec<TableRow>) -> Result<()> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
    match extension.as_str() {
        "parquet" => parquet::read(path, needed, rows),
        "jsonl" | "ndjson" => json::read_lines(path, needed, rows),
        "json" => json::read(path, needed, rows),
        _ => bail!("{}: wanted a file that ends in .json, .jsonl, .ndjson or .parquet", path.display()),
    }
}

/// What a JSON value is, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Names in backticks, joined by commas.
pub(super) fn quoted(names: &[&str]) -> String {
    if names.is_empty() {
        return "(none)".to_string();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
