//! Changes to a recipe from the command line.
use super::literal::translate;
use super::node::{Entry, Node, Value};
use crate::diagnostic::{Diagnostic, Source, Span};
use std::sync::Arc;

/// What the text of an override is called as a source.
pub(super) const NAME: &str = "override";
/// Most parts of a dotted key.
const DEEPEST: usize = 16;

/// Automodel's command line has overrides as options of their own: `--a.b=v`, `--a.b v` and `--a.b` (true). Each becomes
/// `--set a.b=v`. A token after `--a.b` is its value unless it starts with `--`; options without a dot stay as they are.
pub fn automodel_options(tokens: Vec<String>) -> Vec<String> {
    let mut options = Vec::new();
    let mut rest = tokens.into_iter().peekable();
    while let Some(token) = rest.next() {
        let key = token.strip_prefix("--").map(|token| token.split('=').next().unwrap_or(token).to_string());
        match key.filter(|key| key.contains('.')) {
            None => options.push(token),
            Some(key) => {
                let value = if token.contains('=') { None } else { Some(rest.next_if(|next| !next.starts_with("--"))) };
                let change = match value {
                    None => token[2..].to_string(),
                    Some(value) => format!("{key}={}", value.as_deref().unwrap_or("True")),
                };
                options.extend(["--set".into(), change]);
            }
        }
    }
    options
}

/// Sets `a.b=v` in the tree: mappings on the way are made, other values there are replaced.
///
/// # Errors
/// Text without `=`, or with a key that has an empty part or too many.
pub fn apply(root: &mut Node, text: &str) -> Result<(), Box<Diagnostic>> {
    let source = Arc::new(Source { name: NAME.into(), text: text.into() });
    let whole = Span::new(&source, 0, text.len());
    let wanted = || Diagnostic::error("an override is written `section.key=value`").at(&whole, "found this");
    let (path, value) = text.split_once('=').ok_or_else(|| Box::new(wanted()))?;
    if path.split('.').any(|part| part.trim().is_empty()) || path.split('.').count() > DEEPEST {
        return Err(Box::new(wanted()));
    }
    let span = Span::new(&source, path.len() + 1, text.len());
    let span = if span.start == span.end { whole } else { span };
    let mut node = root;
    for part in path.split('.').map(str::trim) {
        node = child(node, part, &Span::new(&source, 0, path.len()));
    }
    *node = Node { value: translate(value, &span), span };
    Ok(())
}

/// The value under `key`, made where it is missing.
fn child<'a>(node: &'a mut Node, key: &str, key_span: &Span) -> &'a mut Node {
    if !matches!(node.value, Value::Map(_)) {
        *node = Node { value: Value::Map(Vec::new()), span: key_span.clone() };
    }
    let Value::Map(entries) = &mut node.value else { unreachable!("made a mapping above") };
    let at = entries.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
        let node = Node { value: Value::Null, span: key_span.clone() };
        entries.push(Entry { key: key.into(), key_span: key_span.clone(), node });
        entries.len() - 1
    });
    &mut entries[at].node
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::yaml::parse;

    #[test]
    fn command_lines() {
        let read = |text: &str| automodel_options(text.split(' ').map(str::to_string).collect()).join(" ");
        let all = read("finetune llm -c r.yaml --a.b=1 --opt.lr -1 --x.flag --steps 3 --x.y z w");
        let wanted = "finetune llm -c r.yaml --set a.b=1 --set opt.lr=-1 --set x.flag=True --steps 3 --set x.y=z w";
        assert_eq!(all, wanted);
        assert_eq!(read("--config=a.yaml --set a.b=c.d"), "--config=a.yaml --set a.b=c.d");
    }

    #[test]
    fn sets_and_makes() {
        let source = Arc::new(Source { name: "r".into(), text: "a: {b: 1}\nc: 2\n".into() });
        let mut root = parse(&source).unwrap();
        for text in ["a.b=1e-3", "c.d=none", "e.f.g=[1, 2]", "a.x=a=b"] {
            apply(&mut root, text).unwrap();
        }
        let wanted = r#"{"a":{"b":0.001,"x":"a=b"},"c":{"d":null},"e":{"f":{"g":[1,2]}}}"#;
        assert_eq!(root.to_json().to_string(), wanted);
        assert!(apply(&mut root, "nothing").is_err());
        assert!(apply(&mut root, "a..b=1").is_err());
        assert!(apply(&mut root, &("a.".repeat(50_000) + "a=1")).is_err());
    }
}
