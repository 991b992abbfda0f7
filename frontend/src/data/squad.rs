//! SQuAD: a question about a context, and its answer.
use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::format::Format;
use super::sample::Sample;
use super::table::{TableRow, kind};
use crate::chat_template::message;
use crate::recipe::Dialect;

/// The columns that rows need. The answers may also stand in a flat column, `answers.text`.
pub(super) const COLUMNS: [&str; 2] = ["context", "question"];

/// Formats a row: plain where the tokenizer has no chat template, else a chat.
pub(super) fn format(row: &TableRow, format: &Format<'_>) -> Result<Sample> {
    let (context, question, answer) = read(row)?;
    let sample = match format.template {
        None => format.prompt_completion(&prompt(context, question), answer.unwrap_or_default()),
        Some(_) => {
            let Some(answer) = answer else {
                bail!("{row}: no answer, but a chat needs one; leave such rows out, or use no chat template")
            };
            format.chat(&match format.dialect {
                Dialect::Head => vec![message("user", &prompt(context, question)), message("assistant", answer)],
                Dialect::S25 => {
                    vec![message("system", context), message("user", question), message("assistant", answer)]
                }
            })
        }
    };
    sample.with_context(|| row.to_string())
}

/// The text before the answer; it ends in a space.
fn prompt(context: &str, question: &str) -> String {
    format!("Context: {context} Question: {question} Answer: ")
}

/// Context, question, and the first answer without white space around it, if there is any.
fn read(row: &TableRow) -> Result<(&str, &str, Option<&str>)> {
    let context = row.required_text("context")?;
    let question = row.required_text("question")?;
    let answers = row.fields.get("answers").unwrap_or(&Value::Null);
    let texts = match (row.fields.get("answers.text"), answers) {
        (Some(texts), _) => texts,
        (None, Value::Object(answers)) => answers.get("text").unwrap_or(&Value::Null),
        (None, other) => other,
    };
    let first = match texts {
        Value::Null => None,
        Value::Array(texts) => texts.first(),
        text => Some(text),
    };
    let answer = match first {
        None => None,
        Some(Value::String(text)) => Some(text),
        Some(Value::Object(answer)) => match answer.get("text") {
            Some(Value::String(text)) => Some(text),
            _ => bail!("{row}: an answer without `text`"),
        },
        Some(other) => bail!("{row}: an answer is {}, wanted text", kind(other)),
    };
    Ok((context, question, answer.map(|text| strip(text))))
}

/// Python's `str.strip`, which also takes the separators U+001C to U+001F for white space.
fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}
