//! Chat templates: Jinja as Hugging Face tokenizers use it, to text and to the spans that the assistant wrote.
//!
//! The environment is that of `apply_chat_template`: `trim_blocks`, `lstrip_blocks`, loop controls, Python's string
//! methods, `raise_exception`, `tojson` as `json.dumps` writes it, and `{% generation %}` blocks. `strftime_now` is
//! left undefined, so that the same data gives the same tokens on any day; templates that test for it take their fixed
//! date.
mod json;

use anyhow::{Context, Result, anyhow, bail, ensure};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State};
use serde_json::Map;

/// A message: `role`, `content`, and what else the template reads.
pub type Message = Map<String, serde_json::Value>;

/// Unicode noncharacters, which no text may contain, stand in the output where a generation block begins and ends.
const BEGIN: char = '\u{FDD0}';
const END: char = '\u{FDD1}';
const BEGIN_TEMPLATE: &str = "generation-begin";
const END_TEMPLATE: &str = "generation-end";
const MAIN_TEMPLATE: &str = "chat-template";
const NO_SYSTEM: &str = "System role not supported";

/// A message of plain text.
pub fn message(role: &str, content: &str) -> Message {
    Message::from_iter([("role".to_string(), role.into()), ("content".to_string(), content.into())])
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    marks_generation: bool,
    /// Lines, counted from 1, that ask for the date.
    dated: Vec<usize>,
}

/// A conversation as text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rendered {
    pub text: String,
    /// What stood in `{% generation %}` blocks, as ranges of characters (not bytes) of `text`.
    pub assistant: Vec<(usize, usize)>,
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// A syntax error, with its line.
    pub fn new(source: &str) -> Result<Self> {
        ensure!(!source.contains([BEGIN, END]), "the chat template contains the noncharacter U+FDD0 or U+FDD1");
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(print_as_python);
        environment.add_filter("tojson", json::tojson);
        environment.add_test("iterable", is_iterable);
        environment.add_function("raise_exception", |text: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, text))
        });
        environment.add_template(BEGIN_TEMPLATE, "\u{FDD0}").map_err(explain)?;
        environment.add_template(END_TEMPLATE, "\u{FDD1}").map_err(explain)?;
        environment.add_template_owned(MAIN_TEMPLATE, mark_generation_blocks(source)).map_err(explain)?;
        let dated =
            (1..).zip(source.lines()).filter(|(_, line)| line.contains("strftime_now")).map(|(i, _)| i).collect();
        Ok(ChatTemplate { environment, marks_generation: has_generation_tag(source), dated })
    }

    /// Whether `{% generation %}` blocks tell which text the assistant wrote.
    pub fn marks_generation(&self) -> bool {
        self.marks_generation
    }

    /// Renders a conversation. Entries that are null are left out; a template that refuses a system message gets it
    /// merged into the first message of the user.
    ///
    /// # Errors
    /// No messages, more than one system message, or what the template itself refuses.
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&serde_json::Value>,
        add_generation_prompt: bool,
        special_tokens: &[(String, String)],
    ) -> Result<Rendered> {
        ensure!(!messages.is_empty(), "a chat template needs at least one message");
        let systems = messages.iter().filter(|message| is_role(message, "system")).count();
        ensure!(systems <= 1, "{systems} system messages in one conversation, but only one is supported");
        let render = |messages: &[Message]| self.render_once(messages, tools, add_generation_prompt, special_tokens);
        let rendered = match render(messages) {
            Err(error) if systems == 1 && error.detail().is_some_and(|text| text.contains(NO_SYSTEM)) => {
                render(&merge_system(messages))
            }
            other => other,
        };
        split_marks(&rendered.map_err(|error| self.explain(error))?)
    }

    fn explain(&self, error: Error) -> anyhow::Error {
        match error.line().filter(|line| self.dated.contains(line)) {
            None => explain(error),
            Some(line) => anyhow!(
                "chat template, line {line}: needs the date of today (strftime_now), on which data must not depend; give \
                 the dataset a `chat_template` with the date written out"
            ),
        }
    }

    fn render_once(
        &self,
        messages: &[Message],
        tools: Option<&serde_json::Value>,
        add_generation_prompt: bool,
        special_tokens: &[(String, String)],
    ) -> Result<String, Error> {
        let messages: Vec<Message> = messages
            .iter()
            .map(|message| message.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect())
            .collect();
        let mut context: Vec<(String, Value)> =
            special_tokens.iter().map(|(name, token)| (name.clone(), Value::from(token.as_str()))).collect();
        context.push(("messages".to_string(), Value::from(Serde(&messages))));
        context.push(("tools".to_string(), tools.map_or(Value::from(()), |tools| Value::from(Serde(tools)))));
        context.push(("documents".to_string(), Value::from(())));
        context.push(("add_generation_prompt".to_string(), Value::from(add_generation_prompt)));
        self.environment.get_template(MAIN_TEMPLATE)?.render(Value::from_pairs(context))
    }
}

/// Python's notion: `None` is not iterable, an undefined value is, as an empty one.
fn is_iterable(value: &Value) -> bool {
    use ValueKind::{Iterable, Map, Seq, String, Undefined};
    matches!(value.kind(), Seq | Map | String | Iterable | Undefined)
}

fn is_role(message: &Message, role: &str) -> bool {
    message.get("role").and_then(|value| value.as_str()) == Some(role)
}

/// Puts the text of the system message before that of the first user message, or makes it one.
fn merge_system(messages: &[Message]) -> Vec<Message> {
    let text = |message: &Message| message.get("content").and_then(|c| c.as_str()).unwrap_or_default().to_string();
    let system = messages.iter().find(|message| is_role(message, "system")).map(text).unwrap_or_default();
    let mut merged: Vec<Message> = messages.iter().filter(|message| !is_role(message, "system")).cloned().collect();
    match merged.iter_mut().find(|message| is_role(message, "user")) {
        Some(user) => {
            let joined = format!("{system}\n{}", text(user));
            user.insert("content".to_string(), joined.into());
        }
        None => merged.insert(0, message("user", &system)),
    }
    merged
}

/// Prints a value as Python would: `None`, `True`, `False`. A list or mapping would print as Python's `repr`, which
/// nothing should depend on, so it is an error.
fn print_as_python(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    let text = match value.kind() {
        ValueKind::None => "None",
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        ValueKind::Seq | ValueKind::Map => {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("prints a {} as it is; write it with | tojson", value.kind()),
            ));
        }
        _ => return minijinja::escape_formatter(out, state, value),
    };
    minijinja::escape_formatter(out, state, &Value::from(text))
}

fn explain(error: Error) -> anyhow::Error {
    let line = error.line().map(|line| format!(", line {line}")).unwrap_or_default();
    let text = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
    anyhow!("chat template{line}: {text}")
}

/// The tag at the start of `text`, if it is `{% NAME %}` with optional `-` or `+` and spaces: (left sign, right sign,
/// bytes).
fn tag<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str, usize)> {
    let sign = |text: &'a str| if text.starts_with(['-', '+']) { text.split_at(1) } else { ("", text) };
    let (left, rest) = sign(text.strip_prefix("{%")?);
    let (right, rest) = sign(rest.trim_start().strip_prefix(name)?.trim_start());
    let rest = rest.strip_prefix("%}")?;
    Some((left, right, text.len() - rest.len()))
}

/// Whether a `{% generation %}` tag with spaces on both sides occurs: `\{%-?\s+generation\s+-?%\}`, which is what
/// decides in NeMo Automodel.
fn has_generation_tag(source: &str) -> bool {
    source.match_indices("{%").any(|(at, _)| {
        tag(&source[at..], "generation").is_some_and(|(left, right, length)| {
            let inside = &source[at + 2 + left.len()..at + length - 2 - right.len()];
            left != "+"
                && right != "+"
                && inside.starts_with(char::is_whitespace)
                && inside.ends_with(char::is_whitespace)
        })
    })
}

/// Replaces generation tags by tags that print the marks. All that is written are block tags, with the signs of the tag
/// that stood there, so that the white space around it is treated the same; `with` gives the block the scope of its own
/// it had.
fn mark_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let (text, length) = if let Some((left, right, length)) = tag(rest, "generation") {
            (format!("{{%{left} with %}}{{% include \"{BEGIN_TEMPLATE}\" {right}%}}"), length)
        } else if let Some((left, right, length)) = tag(rest, "endgeneration") {
            (format!("{{%{left} include \"{END_TEMPLATE}\" %}}{{% endwith {right}%}}"), length)
        } else {
            ("{%".to_string(), 2)
        };
        out.push_str(&text);
        rest = &rest[length..];
    }
    out.push_str(rest);
    out
}

/// Takes the marks out of a rendered text, and notes where they stood.
fn split_marks(marked: &str) -> Result<Rendered> {
    let mut text = String::with_capacity(marked.len());
    let (mut assistant, mut begin, mut characters) = (Vec::new(), None, 0);
    for character in marked.chars() {
        match (character, begin) {
            (BEGIN, None) => begin = Some(characters),
            (END, Some(from)) => {
                assistant.push((from, characters));
                begin = None;
            }
            (BEGIN | END, _) => {
                bail!("generation blocks are nested, or a message contains the noncharacter U+FDD0 or U+FDD1")
            }
            _ => {
                text.push(character);
                characters += 1;
            }
        }
    }
    ensure!(begin.is_none(), "a generation block does not end");
    Ok(Rendered { text, assistant })
}

/// Resolves the recipe's `chat_template`: Jinja itself, or the path of a file with it, alone or under the key
/// `chat_template` of a JSON object.
///
/// # Errors
/// A path to a file that cannot be read.
pub fn resolve_source(template: &str) -> Result<String> {
    if template.contains("{%") || template.contains("{{") {
        return Ok(template.to_string());
    }
    let text = std::fs::read_to_string(template).with_context(|| {
        format!("chat_template: {template:?} is neither Jinja (no {{% or {{{{) nor a readable file")
    })?;
    let json: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let inner = json.as_ref().and_then(|json| json.get("chat_template")).and_then(|value| value.as_str());
    Ok(inner.map_or(text.clone(), str::to_string))
}

#[cfg(test)]
mod tests;
