//! YAML text to a tree of [`Node`]s.
//!
//! Invariants:
//! - Work and memory are bounded whatever the text: its size, its nesting and the values that aliases expand to have limits.
//! - Exactly one document; keys are text and differ within a mapping.
use super::node::{Entry, Node, Value};
use super::scalar::resolve_plain;
use crate::diagnostic::{Diagnostic, Source, Span};
use granit_parser::{Event, Parser, ScalarStyle, Tag, options};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Largest recipe, in bytes.
pub const LARGEST_FILE: usize = 4 << 20;
/// Deepest nesting of lists and mappings.
const DEEPEST: usize = 64;
/// Most values, those that aliases stand for included.
const MOST_VALUES: usize = 100_000;

type Outcome<T> = Result<T, Box<Diagnostic>>;

/// Parses the only document of `source`.
///
/// # Errors
/// The first mistake, with its place: broken YAML, a second document, a key twice, an unknown tag, or a limit exceeded.
pub fn parse(source: &Arc<Source>) -> Outcome<Node> {
    if source.text.len() > LARGEST_FILE {
        let message = format!("{} is too large: a recipe has at most {LARGEST_FILE} bytes", source.name);
        return Err(Box::new(Diagnostic::error(message)));
    }
    let limits = options! { flow_nesting_limit: DEEPEST, block_nesting_limit: DEEPEST, emit_comments: false };
    let mut builder = Builder::new(source);
    for next in Parser::new_from_str_with_options(&source.text, limits) {
        let (event, place) = next.map_err(|error| {
            let at = error.marker().byte_offset().unwrap_or(source.text.len());
            Box::new(Diagnostic::error("the recipe is not valid YAML").at(&Span::new(source, at, at + 1), error.info()))
        })?;
        let range = place.byte_range().unwrap_or(0..0);
        builder.event(event, Span::new(source, range.start, range.end))?;
    }
    let nothing = Span::new(source, 0, 0);
    let empty = || Box::new(Diagnostic::error("the recipe is empty").at(&nothing, "wanted `key: value` lines"));
    builder.root.ok_or_else(empty)
}

/// A collection whose end has not been seen yet.
enum Open {
    List { items: Vec<Node> },
    Map { entries: Vec<Entry>, seen: HashMap<String, Span>, key: Option<(String, Span, bool)>, merged: Vec<Entry> },
}

struct Frame {
    open: Open,
    span: Span,
    anchor: usize,
    /// How many values there were before this one.
    values_before: usize,
}

struct Builder<'a> {
    source: &'a Arc<Source>,
    root: Option<Node>,
    stack: Vec<Frame>,
    /// Finished values by anchor, and how many values each holds.
    anchors: HashMap<usize, (Node, usize)>,
    values: usize,
    documents: usize,
}

impl<'a> Builder<'a> {
    fn new(source: &'a Arc<Source>) -> Builder<'a> {
        Builder { source, root: None, stack: Vec::new(), anchors: HashMap::new(), values: 0, documents: 0 }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Outcome<()> {
        match event {
            Event::DocumentStart(..) => self.document(&span),
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_deref(), &span)?;
                self.count(1, &span)?;
                self.finish(Node { value, span }, anchor, 1, style == ScalarStyle::Plain)
            }
            Event::SequenceStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), "seq", &span)?;
                self.open(Open::List { items: Vec::new() }, span, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), "map", &span)?;
                let (seen, merged) = (HashMap::new(), Vec::new());
                self.open(Open::Map { entries: Vec::new(), seen, key: None, merged }, span, anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(&span),
            Event::Alias(anchor) => self.alias(anchor, span),
            _ => Ok(()),
        }
    }

    fn document(&mut self, span: &Span) -> Outcome<()> {
        self.documents += 1;
        if self.documents > 1 {
            return fail(span, "the file holds more than one YAML document", "the second one starts here");
        }
        Ok(())
    }

    fn open(&mut self, open: Open, span: Span, anchor: usize) -> Outcome<()> {
        if self.stack.len() >= DEEPEST {
            return fail(&span, &format!("the recipe is nested more than {DEEPEST} deep"), "here");
        }
        self.count(1, &span)?;
        self.stack.push(Frame { open, span, anchor, values_before: self.values - 1 });
        Ok(())
    }

    fn close(&mut self, end: &Span) -> Outcome<()> {
        let Some(Frame { open, span, anchor, values_before }) = self.stack.pop() else { return Ok(()) };
        let value = match open {
            Open::List { items } => Value::List(items),
            Open::Map { entries, seen, merged, .. } => Value::Map(with_merged(entries, &seen, merged)),
        };
        let whole = Span::new(self.source, span.start, end.end.max(span.start));
        self.finish(Node { value, span: whole }, anchor, self.values - values_before, false)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Outcome<()> {
        let Some((_, size)) = self.anchors.get(&anchor) else {
            return fail(&span, "this alias stands inside the value that it names", "refers to itself");
        };
        self.count(*size, &span)?;
        let (node, size) = self.anchors[&anchor].clone();
        self.finish(node, 0, size, false)
    }

    fn count(&mut self, more: usize, span: &Span) -> Outcome<()> {
        self.values = self.values.saturating_add(more);
        if self.values > MOST_VALUES {
            return fail(
                span,
                &format!("the recipe stands for more than {MOST_VALUES} values"),
                "too many from here on",
            );
        }
        Ok(())
    }

    /// Hands a finished value to the collection that is open, as item, key or value.
    fn finish(&mut self, node: Node, anchor: usize, size: usize, plain: bool) -> Outcome<()> {
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.stack.last_mut().map(|frame| &mut frame.open) {
            None => self.root = Some(node),
            Some(Open::List { items }) => items.push(node),
            Some(Open::Map { entries, seen, key, merged }) => match key.take() {
                None => *key = Some(mapping_key(node, plain, seen)?),
                Some((_, _, true)) => merge(node, merged)?,
                Some((key, key_span, false)) => entries.push(Entry { key, key_span, node }),
            },
        }
        Ok(())
    }
}

fn fail<T>(span: &Span, message: &str, label: &str) -> Outcome<T> {
    Err(Box::new(Diagnostic::error(message).at(span, label)))
}

/// The key's text, its place, and whether it is the merge key `<<`.
fn mapping_key(node: Node, plain: bool, seen: &mut HashMap<String, Span>) -> Outcome<(String, Span, bool)> {
    let key = match &node.value {
        Value::Text(text) => text.clone(),
        Value::List(_) | Value::Map(_) => return fail(&node.span, "a mapping key must be text", "found a collection"),
        _ => node.span.text().to_string(),
    };
    if plain && key == "<<" {
        return Ok((key, node.span, true));
    }
    if let Some(first) = seen.insert(key.clone(), node.span.clone()) {
        let (line, column) = first.line_and_column();
        let label = format!("already given in line {line}, column {column}");
        return fail(&node.span, &format!("the key `{key}` stands twice in one mapping"), &label);
    }
    Ok((key, node.span, false))
}

/// Adds what `<<: value` brings; of several mappings the earlier ones win.
fn merge(node: Node, merged: &mut Vec<Entry>) -> Outcome<()> {
    match node.value {
        Value::Map(entries) => merged.extend(entries),
        Value::List(items) if items.iter().all(|item| matches!(item.value, Value::Map(_))) => {
            for item in items {
                merge(item, merged)?;
            }
        }
        _ => return fail(&node.span, "`<<` merges mappings only", "wanted a mapping or a list of mappings"),
    }
    Ok(())
}

/// The merged entries that no other key overrides, then the mapping's own.
fn with_merged(entries: Vec<Entry>, seen: &HashMap<String, Span>, merged: Vec<Entry>) -> Vec<Entry> {
    let mut taken: HashSet<String> = seen.keys().cloned().collect();
    let mut all: Vec<Entry> = merged.into_iter().filter(|entry| taken.insert(entry.key.clone())).collect();
    all.extend(entries);
    all
}

fn refuse_tag(tag: Option<&Tag>, allowed: &str, span: &Span) -> Outcome<()> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema_tag(allowed) => {
            fail(span, &format!("the YAML tag `{}` is not supported", tag.original()), "remove the tag")
        }
        _ => Ok(()),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, span: &Span) -> Outcome<Value> {
    let Some(tag) = tag else {
        return Ok(if style == ScalarStyle::Plain { resolve_plain(text) } else { Value::Text(text.into()) });
    };
    let value = resolve_plain(text);
    let fits = match tag.core_suffix() {
        Some("str") => return Ok(Value::Text(text.into())),
        Some("int") => matches!(value, Value::Int(_)),
        Some("float") => matches!(value, Value::Float(_)),
        Some("bool") => matches!(value, Value::Bool(_)),
        Some("null") => matches!(value, Value::Null),
        _ => return refuse_tag(Some(tag), "", span).map(|()| Value::Null),
    };
    if fits { Ok(value) } else { fail(span, &format!("this is no `{}`", tag.original()), "does not fit its tag") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str) -> Outcome<Node> {
        parse(&Arc::new(Source { name: "test.yaml".into(), text: text.into() }))
    }

    fn message(text: &str) -> String {
        parse_text(text).expect_err("must be refused").render()
    }

    #[test]
    fn spans_point_at_values() {
        let node = parse_text("a:\n  b: [1, two]\n").unwrap();
        let list = node.get("a").and_then(|a| a.get("b")).unwrap();
        assert_eq!(list.span.text(), "[1, two]");
        let Value::List(items) = &list.value else { panic!("not a list") };
        assert_eq!(items[1].span.line_and_column(), (2, 10));
    }

    #[test]
    fn merge_keys_and_aliases() {
        let node = parse_text("base: &b {x: 1, y: 2}\nmore: {<<: *b, y: 3}\nsame: *b\n").unwrap();
        assert_eq!(node.get("more").unwrap().to_json().to_string(), r#"{"x":1,"y":3}"#);
        assert_eq!(node.get("same").unwrap().to_json().to_string(), r#"{"x":1,"y":2}"#);
    }

    #[test]
    fn duplicate_keys_and_documents() {
        assert!(message("a: 1\nb: 2\na: 3\n").contains("already given in line 1, column 1"));
        assert!(message("a: 1\n---\nb: 2\n").contains("more than one YAML document"));
        assert!(message("").contains("empty"));
        assert!(message("a: !!python/object:os.system x\n").contains("not supported"));
        assert!(message("a: &x [*x]\n").contains("itself"));
    }

    #[test]
    fn hostile_text_is_refused_quickly() {
        let started = std::time::Instant::now();
        let nine = |name: &str, of: &str| format!("{name}: &{name} [{}]\n", [of; 9].join(", "));
        let mut laughs = String::from("a: &a lol\n");
        for pair in ["ab", "bc", "cd", "de", "ef", "fg", "gh", "hi", "ij"] {
            laughs += &nine(&pair[1..], &format!("*{}", &pair[..1]));
        }
        assert!(message(&laughs).contains("more than 100000 values"));
        assert!(message(&"[".repeat(100_000)).contains("not valid YAML"));
        assert!(message(&"{a: ".repeat(100_000)).contains("not valid YAML"));
        assert!(message(&(0..5000).map(|depth| " ".repeat(depth) + "a:\n").collect::<String>()).len() > 10);
        assert!(message(&"- ".repeat(100_000)).len() > 10);
        assert!(message("a:\n\t- b\n").contains("not valid YAML"));
        assert!(message(&"x".repeat(LARGEST_FILE + 1)).contains("at most"));
        let _ = parse_text(&"&a ".repeat(10_000));
        let _ = parse_text(&"? ".repeat(10_000));
        let _ = parse_text(&"!".repeat(10_000));
        let _ = parse_text("\u{0}\u{feff}%YAML 9.9\n--- >\n");
        assert!(started.elapsed().as_secs() < 5, "took {:?}", started.elapsed());
    }
}
