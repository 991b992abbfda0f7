//! `amc.datasets.TokenFile`: rows that are tokens already, a JSON object a line.
use amc_artifact::IGNORED;
use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::sample::Sample;
use super::table::{TableRow, kind};

/// Reads `input_ids`, and `labels`: the target of each position, or -100. Without labels, each token is the target of
/// the one before it.
pub(super) fn read(row: &TableRow) -> Result<Sample> {
    let Some(tokens) = integers(row, "input_ids")? else { bail!("{row}: no `input_ids`, wanted a list of token ids") };
    ensure!(!tokens.is_empty(), "{row}: `input_ids` is empty");
    let labels = match integers(row, "labels")? {
        Some(labels) => labels,
        None => tokens[1..].iter().copied().chain([IGNORED]).collect(),
    };
    ensure!(labels.len() == tokens.len(), "{row}: {} labels for {} tokens", labels.len(), tokens.len());
    if let Some(wrong) = tokens.iter().find(|token| **token < 0) {
        bail!("{row}: `input_ids` holds {wrong}, which is no token");
    }
    if let Some(wrong) = labels.iter().find(|label| **label < 0 && **label != IGNORED) {
        bail!("{row}: `labels` holds {wrong}, wanted a token or {IGNORED}");
    }
    Ok(Sample { content: tokens.len(), tokens, labels })
}

fn integers(row: &TableRow, column: &str) -> Result<Option<Vec<i32>>> {
    let list = match row.fields.get(column) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(other) => bail!("{row}: `{column}` is {}, wanted a list of integers", kind(other)),
    };
    let integer = |value: &Value| match value.as_i64().and_then(|number| i32::try_from(number).ok()) {
        Some(number) => Ok(number),
        None => bail!("{row}: `{column}` holds {value}, wanted integers of 32 bits"),
    };
    list.iter().map(integer).collect::<Result<_>>().map(Some)
}
