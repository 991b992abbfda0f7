//! JSON and JSON lines.
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::{Fields, Place, TableRow, kind};

/// Reads one object a line; empty lines count but hold no row.
pub(super) fn read_lines(path: &Path, needed: usize, rows: &mut Vec<TableRow>) -> Result<()> {
    let file = File::open(path).with_context(|| format!("{}: cannot be opened", path.display()))?;
    let name: Arc<Path> = Arc::from(path);
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let number = index + 1;
        let line =
            line.with_context(|| format!("{}, line {number}: not UTF-8 text that can be read", path.display()))?;
        let line = line.strip_prefix('\u{feff}').filter(|_| number == 1).unwrap_or(&line);
        if rows.len() >= needed {
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(line) {
            Ok(Value::Object(fields)) => rows.push(TableRow::new(fields, &name, Place::Line(number))),
            Ok(other) => bail!("{}, line {number}: {}, wanted an object", path.display(), kind(&other)),
            Err(error) => bail!(not_json(path, number, &error)),
        }
    }
    Ok(())
}

/// Reads a document: a list of rows, an object with such a list under `data` (SQuAD's forms, flat or nested), or, where
/// it is no single document, JSON lines.
pub(super) fn read(path: &Path, needed: usize, rows: &mut Vec<TableRow>) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read as UTF-8", path.display()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let document: Value = match serde_json::from_str(text) {
        Ok(document) => document,
        Err(error) if first_line_is_object(text) && error.line() > 1 => return read_lines(path, needed, rows),
        Err(error) => bail!(not_json(path, error.line(), &error)),
    };
    let items = match document {
        Value::Array(items) => items,
        Value::Object(mut fields) => match fields.remove("data") {
            Some(Value::Array(items)) => items,
            Some(other) => bail!("{}: `data` is {}, wanted a list of rows", path.display(), kind(&other)),
            None => vec![Value::Object(fields)],
        },
        other => bail!("{}: {} at the top, wanted a list of rows", path.display(), kind(&other)),
    };
    let name: Arc<Path> = Arc::from(path);
    let mut count = 0;
    for (index, item) in items.into_iter().enumerate() {
        let Value::Object(fields) = item else {
            bail!("{}, row {}: {}, wanted an object", path.display(), index + 1, kind(&item));
        };
        for fields in flatten_squad(fields) {
            count += 1;
            rows.push(TableRow::new(fields, &name, Place::Row(count)));
        }
        if rows.len() >= needed {
            break;
        }
    }
    Ok(())
}

fn first_line_is_object(text: &str) -> bool {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    matches!(serde_json::from_str(line), Ok(Value::Object(_)))
}

/// An article of SQuAD's official form becomes one row a question; any other row stays as it is.
fn flatten_squad(article: Fields) -> Vec<Fields> {
    let Some(Value::Array(paragraphs)) = article.get("paragraphs") else { return vec![article] };
    let mut rows = Vec::new();
    for paragraph in paragraphs {
        let questions = paragraph.get("qas").and_then(Value::as_array);
        for question in questions.into_iter().flatten() {
            let mut row = Fields::new();
            for (name, value) in [
                ("id", question.get("id")),
                ("title", article.get("title")),
                ("context", paragraph.get("context")),
                ("question", question.get("question")),
                ("answers", question.get("answers")),
            ] {
                row.insert(name.to_string(), value.cloned().unwrap_or(Value::Null));
            }
            rows.push(row);
        }
    }
    rows
}

fn not_json(path: &Path, line: usize, error: &serde_json::Error) -> anyhow::Error {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or_default();
    anyhow!("{}, line {line}, column {}: not JSON: {reason}", path.display(), error.column())
}
