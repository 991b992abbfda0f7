//! Changes to a recipe from the command line.
use super::literal::translate;
use super::node::{Entry, Node, Value};
use crate::diagnostic::{Diagnostic, Source, Span};
use std::sync::Arc;

/// Most parts of a dotted key.
const DEEPEST: usize = 16;

/// What Automodel's command line says: where the recipe is, and `a.b=v` overrides in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    pub recipe: Option<String>,
    pub overrides: Vec<String>,
}

/// Reads `-c PATH`, `--config PATH`, `--config=PATH`, `--a.b=v`, `--a.b v` and `--a.b` (true). A token after `--a.b` is its value
/// unless it starts with `--`; other tokens are skipped.
///
/// # Errors
/// `--config` without a path.
pub fn automodel_arguments(tokens: &[String]) -> Result<Arguments, String> {
    let mut arguments = Arguments::default();
    let mut rest = tokens.iter().peekable();
    while let Some(token) = rest.next() {
        if token == "-c" || token == "--config" {
            arguments.recipe = Some(rest.next().ok_or(format!("{token} needs the path of a recipe"))?.clone());
        } else if let Some(path) = token.strip_prefix("--config=") {
            arguments.recipe = Some(path.into());
        } else if token.starts_with("--") {
            let key = token.trim_start_matches('-');
            let value = if key.contains('=') { None } else { Some(rest.next_if(|next| !next.starts_with("--"))) };
            arguments.overrides.push(match value {
                None => key.to_string(),
                Some(value) => format!("{key}={}", value.map_or("True", |it| it)),
            });
        }
    }
    Ok(arguments)
}

/// Sets `a.b=v` in the tree: mappings on the way are made, other values there are replaced.
///
/// # Errors
/// Text without `=`, or with a key that has an empty part or too many.
pub fn apply(root: &mut Node, text: &str) -> Result<(), Box<Diagnostic>> {
    let source = Arc::new(Source { name: "override".into(), text: text.into() });
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

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_string).collect()
    }

    #[test]
    fn command_lines() {
        let read = |text| automodel_arguments(&words(text));
        let all = read("finetune llm -c r.yaml --a.b=1 --lr -1 --flag --x y z").unwrap();
        assert_eq!(all.recipe.as_deref(), Some("r.yaml"));
        assert_eq!(all.overrides, ["a.b=1", "lr=-1", "flag=True", "x=y"]);
        assert_eq!(read("--config=p").unwrap().recipe.as_deref(), Some("p"));
        assert!(read("--config").is_err());
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
