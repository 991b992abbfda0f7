//! The recipe as a tree of values that remember where they stood.
use crate::diagnostic::Span;

/// A value and the text it came from.
#[derive(Clone, Debug)]
pub struct Node {
    pub value: Value,
    pub span: Span,
}

/// A YAML value after PyYAML's rules.
#[derive(Clone, Debug)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One `key: value` of a mapping. Keys of one mapping differ.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub key_span: Span,
    pub node: Node,
}

impl Node {
    /// The entries of a mapping; none for everything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The value under `key` of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// Whether this is `null`, `~`, `none` or nothing.
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// What an error says was found.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "null".into(),
            Value::Bool(value) => format!("`{value}`"),
            Value::Int(value) => format!("the integer {value}"),
            Value::Float(value) => format!("the number {value:?}"),
            Value::Text(text) if text.parse::<i128>().is_ok() => "an integer out of range".into(),
            Value::Text(_) => "text".into(),
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Map(_) => "a mapping".into(),
        }
    }

    /// The value as JSON; a float that JSON cannot hold becomes null.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::Text(value) => value.as_str().into(),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => {
                serde_json::Value::Object(entries.iter().map(|it| (it.key.clone(), it.node.to_json())).collect())
            }
        }
    }
}
