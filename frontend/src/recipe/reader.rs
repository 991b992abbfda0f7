//! Typed reading of a section: every key that is asked for is known, every other key is an error.
//!
//! Invariants:
//! - Reading never stops at a mistake: it is logged with its place and a default takes the value's place, so that one run
//!   reports all mistakes.
//! - The keys of a section are named once, where they are read.
use super::node::{Node, Value};
use super::targets::{self, Kind, Target};
use crate::diagnostic::{Diagnostic, Severity, Source, Span, nearest};
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// Most errors, and most warnings, of one recipe.
const MOST_MESSAGES: usize = 50;

/// What was found wrong so far.
#[derive(Default)]
pub struct Log {
    diagnostics: RefCell<Vec<Diagnostic>>,
}

impl Log {
    /// Adds a message, unless it is there already or there are enough of its kind.
    pub fn push(&self, diagnostic: Diagnostic) {
        if !self.is_full(diagnostic.severity) && !self.diagnostics.borrow().contains(&diagnostic) {
            self.diagnostics.borrow_mut().push(diagnostic);
        }
    }

    /// Whether further messages of this kind are dropped.
    pub fn is_full(&self, severity: Severity) -> bool {
        self.diagnostics.borrow().iter().filter(|it| it.severity == severity).count() >= MOST_MESSAGES
    }

    pub fn error(&self, span: &Span, message: impl Into<String>, label: impl Into<String>) {
        self.push(Diagnostic::error(message).at(span, label));
    }

    pub fn warning(&self, span: &Span, message: impl Into<String>, label: impl Into<String>) {
        self.push(Diagnostic::warning(message).at(span, label));
    }

    pub fn has_errors(&self) -> bool {
        self.diagnostics.borrow().iter().any(|it| it.severity == Severity::Error)
    }

    /// Everything so far: what points into `source` in its order, then the rest.
    pub fn take(&self, source: &Arc<Source>) -> Vec<Diagnostic> {
        let mut diagnostics = self.diagnostics.take();
        let place =
            |it: &Diagnostic| it.place.as_ref().map(|(span, _)| (!Arc::ptr_eq(&span.source, source), span.start));
        diagnostics.sort_by_key(|it| place(it).unwrap_or((true, usize::MAX)));
        diagnostics
    }
}

/// One mapping of the recipe.
pub struct Section<'a> {
    /// Dotted name, as in `dataset.tokenizer`.
    pub name: String,
    pub span: Span,
    pub log: &'a Log,
    node: Option<&'a Node>,
    asked: RefCell<Vec<&'static str>>,
    /// Set where the target is not known, so that nobody can say which keys it takes.
    ignores_rest: Cell<bool>,
}

impl<'a> Section<'a> {
    /// The section under `name`; what is there instead of a mapping is an error. `None` where it is missing or null.
    pub fn open(name: &str, node: Option<&'a Node>, log: &'a Log) -> Option<Section<'a>> {
        let node = node.filter(|node| !node.is_null())?;
        if !matches!(node.value, Value::Map(_)) {
            log.error(&node.span, format!("`{name}` must be a mapping"), format!("found {}", node.describe()));
            return None;
        }
        Some(Section { node: Some(node), ..Section::empty(name, &node.span, log) })
    }

    /// A section whose keys all have their defaults; errors point at `span`.
    pub fn empty(name: &str, span: &Span, log: &'a Log) -> Section<'a> {
        let (asked, ignores_rest) = (RefCell::default(), Cell::new(false));
        Section { name: name.into(), span: span.clone(), log, node: None, asked, ignores_rest }
    }

    /// The section, or one with defaults only.
    pub fn open_or_empty(name: &str, root: &'a Node, log: &'a Log) -> Section<'a> {
        let start = Span::new(&root.span.source, 0, 0);
        Section::open(name, root.get(name), log).unwrap_or_else(|| Section::empty(name, &start, log))
    }

    /// The value under `key`, null included.
    pub fn raw(&self, key: &'static str) -> Option<&'a Node> {
        self.asked.borrow_mut().push(key);
        self.node?.get(key)
    }

    /// The value under `key`; null counts as missing.
    pub fn get(&self, key: &'static str) -> Option<&'a Node> {
        self.raw(key).filter(|node| !node.is_null())
    }

    /// Whether `key` is there and null.
    pub fn is_null(&self, key: &'static str) -> bool {
        self.raw(key).is_some_and(Node::is_null)
    }

    /// Keys that Automodel reads and that change nothing here.
    pub fn ignore(&self, keys: &[&'static str]) {
        self.asked.borrow_mut().extend(keys);
    }

    /// Takes every other key without a word, where the target is not known.
    pub fn ignore_rest(&self) {
        self.ignores_rest.set(true);
    }

    /// The section below this one.
    pub fn section(&self, key: &'static str) -> Option<Section<'a>> {
        Section::open(&self.dotted(key), self.get(key), self.log)
    }

    pub fn text(&self, key: &'static str) -> Option<String> {
        self.typed(key, "text", |value| match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// Text, or a list of texts.
    pub fn texts(&self, key: &'static str) -> Vec<String> {
        let texts = self.typed(key, "text or a list of texts", |value| match value {
            Value::Text(text) => Some(vec![text.clone()]),
            Value::List(items) => items.iter().map(text_of).collect(),
            _ => None,
        });
        texts.unwrap_or_default()
    }

    pub fn flag(&self, key: &'static str, default: bool) -> bool {
        let flag = self.typed(key, "true or false", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        });
        flag.unwrap_or(default)
    }

    /// An integer of at least `least`.
    pub fn integer(&self, key: &'static str, least: u64) -> Option<u64> {
        let wanted =
            if least == 1 { "an integer greater than 0".into() } else { format!("an integer of at least {least}") };
        self.typed(key, &wanted, |value| match value {
            Value::Int(number) => u64::try_from(*number).ok().filter(|number| *number >= least),
            _ => None,
        })
    }

    /// An integer from `least` to `most`, which is more than anybody needs.
    pub fn integer_within(&self, key: &'static str, least: u64, most: u64) -> Option<u64> {
        self.typed(key, &format!("an integer from {least} to {most}"), |value| match value {
            Value::Int(number) => u64::try_from(*number).ok().filter(|number| (least..=most).contains(number)),
            _ => None,
        })
    }

    /// A finite number that `fits`; `wanted` says which ones do.
    pub fn number(&self, key: &'static str, wanted: &str, fits: impl Fn(f64) -> bool) -> Option<f64> {
        self.typed(key, wanted, |value| number_of(value).filter(|number| fits(*number)))
    }

    /// One of the texts of `choices`; `true` and `false` may be among them.
    pub fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let find = |text: &str| choices.iter().find(|(name, _)| *name == text).map(|(_, it)| *it);
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        self.typed(key, &format!("one of {}", names.join(", ")), |value| match value {
            Value::Text(text) => find(text),
            Value::Bool(flag) => find(if *flag { "true" } else { "false" }),
            _ => None,
        })
    }

    /// The value under `key` as `read` understands it; null and missing give `None`, other values an error.
    pub fn typed<T>(&self, key: &'static str, wanted: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let node = self.get(key)?;
        let result = read(&node.value);
        if result.is_none() {
            self.wrong(key, node, wanted);
        }
        result
    }

    /// Logs that the value under `key` is not what was wanted.
    pub fn wrong(&self, key: &str, node: &Node, wanted: &str) {
        let null = matches!(&node.value, Value::Text(text) if text == "null");
        let how = if null { "; null is written `none` here" } else { "" };
        let label = format!("found {}, wanted {wanted}{how}", node.describe());
        self.log.error(&node.span, format!("wrong value for `{}`", self.dotted(key)), label);
    }

    /// Logs that amc cannot do what the value under `key` asks for.
    pub fn unsupported(&self, key: &str, node: &Node, what: &str) {
        self.log.error(
            &node.span,
            format!("amc does not support {what} yet"),
            format!("asked for by `{}`", self.dotted(key)),
        );
    }

    /// A key whose only supported setting is `false` (or 0, or an empty list).
    pub fn refuse_if_set(&self, key: &'static str, what: &str) {
        let Some(node) = self.get(key) else { return };
        let off = match &node.value {
            Value::Bool(flag) => !flag,
            Value::Int(number) => *number == 0,
            Value::Float(number) => *number == 0.0,
            Value::List(items) => items.is_empty(),
            _ => false,
        };
        if !off {
            self.unsupported(key, node, what);
        }
    }

    /// What `_target_` names; logs a missing, unknown or unsupported one.
    pub fn target(&self, kind: Kind, required: bool) -> Option<Target> {
        match self.get("_target_") {
            Some(node) => resolve_target(&self.name, kind, node, self.log),
            None if required => {
                let known = targets::supported(kind).join(", ");
                let message = format!("`{}` has no `_target_`", self.name);
                self.log.push(Diagnostic::error(message).at(&self.span, "wanted here").help(format!("known: {known}")));
                None
            }
            None => None,
        }
    }

    /// Logs every key that nobody asked for.
    pub fn finish(self) {
        let asked = self.asked.borrow();
        for entry in self.node.map(Node::entries).unwrap_or_default() {
            if self.ignores_rest.get() || self.log.is_full(Severity::Error) {
                return;
            }
            if !asked.contains(&entry.key.as_str()) {
                self.log.push(unknown_key(&self.name, &entry.key, &entry.key_span, &asked));
            }
        }
    }

    /// The entries that nobody asked for.
    pub fn others(&self) -> impl Iterator<Item = &'a super::node::Entry> {
        let asked = self.asked.borrow().clone();
        let entries = self.node.map(Node::entries).unwrap_or_default();
        entries.iter().filter(move |entry| !asked.contains(&entry.key.as_str()))
    }

    /// `key` with the name of the section before it.
    pub fn dotted(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }
}

/// What other tools call the same thing.
const OTHER_NAMES: [(&str, &str); 14] = [
    ("learning_rate", "lr"),
    ("r", "dim"),
    ("rank", "dim"),
    ("lora_alpha", "alpha"),
    ("lora_dropout", "dropout"),
    ("adam_epsilon", "eps"),
    ("epochs", "num_epochs"),
    ("num_train_epochs", "num_epochs"),
    ("warmup_steps", "lr_warmup_steps"),
    ("save_steps", "ckpt_every_steps"),
    ("eval_steps", "val_every_steps"),
    ("max_length", "seq_length"),
    ("max_seq_length", "seq_length"),
    ("output_dir", "checkpoint_dir"),
];

fn unknown_key(section: &str, key: &str, span: &Span, asked: &[&'static str]) -> Diagnostic {
    let mut known: Vec<&str> = asked.to_vec();
    known.sort_unstable();
    known.dedup();
    let other_name =
        OTHER_NAMES.iter().find(|(name, ours)| *name == key && known.contains(ours)).map(|(_, ours)| *ours);
    let label = match other_name.or_else(|| nearest(key, known.iter().copied())) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "not known here".into(),
    };
    let help = format!("`{section}` takes: {}", known.join(", "));
    Diagnostic::error(format!("unknown key `{key}` in `{section}`")).at(span, label).help(help)
}

/// What the dotted name in `node` stands for in a section of this kind; logs an unknown or unsupported one.
pub fn resolve_target(section: &str, kind: Kind, node: &Node, log: &Log) -> Option<Target> {
    let Value::Text(name) = &node.value else {
        let label = format!("found {}, wanted a dotted name", node.describe());
        log.error(&node.span, format!("wrong `_target_` in `{section}`"), label);
        return None;
    };
    match targets::find(kind, name) {
        Some(Target::Unsupported(reason)) => {
            let known = targets::supported(kind).join(", ");
            let error =
                Diagnostic::error(format!("amc does not support {reason} yet")).at(&node.span, "asked for here");
            log.push(if known.is_empty() { error } else { error.help(format!("supported: {known}")) });
            None
        }
        Some(target) => Some(target),
        None => {
            let label = match targets::nearest_name(kind, name) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "not known here".into(),
            };
            let known = targets::supported(kind).join(", ");
            let message = format!("`{section}` names an unknown target");
            log.push(Diagnostic::error(message).at(&node.span, label).help(format!("supported: {known}")));
            None
        }
    }
}

fn text_of(node: &Node) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}

/// Integers and floats; not infinities or NaN.
pub fn number_of(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Int(number) => *number as f64,
        Value::Float(number) => *number,
        _ => return None,
    };
    number.is_finite().then_some(number)
}
