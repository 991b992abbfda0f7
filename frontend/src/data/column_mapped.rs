//! ColumnMappedTextInstruction: rows whose columns the recipe maps to context, question and answer.
use anyhow::{Context, Result, ensure};

use super::format::Format;
use super::sample::Sample;
use super::table::TableRow;
use crate::chat_template::message;
use crate::recipe::{ColumnMapped, Columns};

/// The columns of the data that the mapping names.
pub(super) fn columns(columns: &Columns) -> Vec<&str> {
    [&columns.context, &columns.question].into_iter().flatten().chain([&columns.answer]).map(String::as_str).collect()
}

/// Formats a row: as a chat where the recipe asks for that and the tokenizer has a template, else plain.
pub(super) fn format(row: &TableRow, dataset: &ColumnMapped, format: &Format<'_>) -> Result<Sample> {
    let optional = |column: &Option<String>| column.as_ref().map_or(Ok(None), |column| row.text(column));
    let (context, question) = (optional(&dataset.columns.context)?, optional(&dataset.columns.question)?);
    let answer = row.required_text(&dataset.columns.answer)?;
    let sample = if dataset.use_hf_chat_template && format.template.is_some() {
        format.chat(&[
            message("system", context.unwrap_or_default()),
            message("user", question.unwrap_or_default()),
            message("assistant", answer),
        ])
    } else {
        let prompt: String = [context, question].into_iter().flatten().map(|text| format!("{text} ")).collect();
        ensure!(prompt.chars().count() > 1, "{row}: neither context nor question holds text");
        format.prompt_completion(&prompt, answer)
    };
    sample.with_context(|| row.to_string())
}

/// Replaces every sample without a target by the next one that has some, going round at the end.
///
/// Returns how many were replaced.
///
/// # Errors
/// No sample has a target.
pub(super) fn replace_unsupervised(samples: &mut [Sample]) -> Result<usize> {
    let usable: Vec<bool> = samples.iter().map(|sample| sample.supervised() > 0).collect();
    let first = usable.iter().position(|usable| *usable);
    let first = first.context("every row came out without a token to learn: are the answers empty, or cut off?")?;
    let (mut next, mut replaced) = (first, 0);
    for i in (0..samples.len()).rev() {
        if usable[i] {
            next = i;
        } else {
            samples[i] = samples[next].clone();
            replaced += 1;
        }
    }
    Ok(replaced)
}
