//! Environment variables in text, then the second reading as Python literals.
//!
//! `${VAR}`, `${VAR,default}`, `${oc.env:VAR}`, `${oc.env:VAR,default}`, `$VAR` and `$a.b` (dots belong to the name). What a
//! variable brings in is not searched again. Spans keep pointing at the text as written, so values of variables never show in
//! messages.
use super::literal::translate;
use super::node::{Node, Value};
use crate::diagnostic::Diagnostic;
use regex::{Captures, Regex};
use std::sync::LazyLock;

/// Where variables come from.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

static REFERENCE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\$\{([^}]+)\}|\$([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)").expect("a constant pattern")
});

/// Resolves every text below `node` in place; reports each unset variable.
pub fn resolve(node: &mut Node, environment: Environment, found: &mut Vec<Diagnostic>) {
    match &mut node.value {
        Value::Text(text) => match substitute(text, environment) {
            Ok(text) => node.value = translate(&text, &node.span),
            Err(name) => found.push(
                Diagnostic::error(format!("the environment variable `{name}` is not set"))
                    .at(&node.span, "needed here")
                    .help(format!("set it, or give a default: ${{{name},default}}")),
            ),
        },
        Value::List(items) => items.iter_mut().for_each(|item| resolve(item, environment, found)),
        Value::Map(entries) => entries.iter_mut().for_each(|entry| resolve(&mut entry.node, environment, found)),
        _ => {}
    }
}

/// `text` with its variables filled in, or the name of one that is not set.
fn substitute(text: &str, environment: Environment) -> Result<String, String> {
    let mut result = String::new();
    let mut done = 0;
    for captures in REFERENCE.captures_iter(text) {
        let Some(whole) = captures.get(0) else { continue };
        let (name, default) = name_and_default(&captures);
        let value = environment(name).or_else(|| default.map(str::to_string)).ok_or_else(|| name.to_string())?;
        result += &text[done..whole.start()];
        result += &value;
        done = whole.end();
    }
    Ok(result + &text[done..])
}

fn name_and_default<'a>(captures: &Captures<'a>) -> (&'a str, Option<&'a str>) {
    let Some(braced) = captures.get(1) else { return (captures.get(2).map_or("", |name| name.as_str()), None) };
    let inner = braced.as_str().trim();
    let inner = inner.strip_prefix("oc.env:").unwrap_or(inner).trim();
    match inner.split_once(',') {
        Some((name, default)) => (name.trim(), Some(default.trim())),
        None => (inner, None),
    }
}

/// `text` such that interpolation gives it back unchanged.
pub fn protect(text: &str) -> String {
    if REFERENCE.is_match(text) { text.replace('$', "${AMC_DOLLAR,$}") } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form() {
        let environment = |name: &str| match name {
            "HOME" => Some("/users/ada".to_string()),
            "a.b" => Some("dotted".to_string()),
            "COST" => Some("$HOME".to_string()),
            _ => None,
        };
        for (text, wanted) in [
            ("${HOME}/x", "/users/ada/x"),
            ("${NONE,some, text}", "some, text"),
            ("${oc.env:HOME}", "/users/ada"),
            ("${oc.env:NONE,d}", "d"),
            ("$HOME/$a.b.", "/users/ada/dotted."),
            ("$5 and ${}", "$5 and ${}"),
            ("$COST", "$HOME"),
        ] {
            assert_eq!(substitute(text, &environment).as_deref(), Ok(wanted), "{text}");
        }
        assert_eq!(substitute("x${MISSING}", &environment), Err("MISSING".into()));
    }

    #[test]
    fn protected_text_comes_back() {
        for text in ["${HOME}", "a $HOME b$", "$$x", "plain $ 5"] {
            assert_eq!(substitute(&protect(text), &|_| None).as_deref(), Ok(text));
        }
    }
}
