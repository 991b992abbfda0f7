//! Where the keys of a recipe stand, for mistakes that show only once the model and the data are read.
use super::node::{Entry, Node};
use super::{overrides, yaml};
use crate::diagnostic::Source;
use std::sync::Arc;

/// The keys of a recipe with their places.
#[derive(Debug, Default)]
pub struct Places {
    root: Option<Node>,
}

impl Places {
    /// The places of a recipe's text, which messages call `name`, and of the overrides that apply to it.
    pub fn new(name: &str, text: &str, changes: &[String]) -> Places {
        let source = Arc::new(Source { name: name.into(), text: text.into() });
        let mut root = yaml::parse(&source).ok();
        if let Some(root) = &mut root {
            for change in changes {
                // A change that cannot be read was reported with the recipe.
                let _ = overrides::apply(root, change);
            }
        }
        Places { root }
    }

    /// How a message begins that is about the value under `keys`: its place, or that of the last of the keys that is there,
    /// and its name.
    pub fn of(&self, keys: &[&str]) -> String {
        let name = keys.join(".");
        match self.entry(keys) {
            Some(entry) if entry.node.span.source.name == overrides::NAME => {
                format!("--set {}", entry.node.span.source.text)
            }
            Some(entry) => {
                let (line, column) = entry.key_span.line_and_column();
                format!("{}:{line}:{column}: `{name}`", entry.key_span.source.name)
            }
            None => format!("`{name}`"),
        }
    }

    /// [`Places::of`] a key of the validation set that is called `set`.
    pub fn of_validation(&self, set: &str, key: &str) -> String {
        let entries = self.root.as_ref().map(Node::entries).unwrap_or_default();
        let section = entries.iter().find(|entry| super::dataset::validation_name(&entry.key) == Some(set));
        self.of(&[section.map_or("validation_dataset", |entry| &entry.key), key])
    }

    fn entry(&self, keys: &[&str]) -> Option<&Entry> {
        let mut found = None;
        let mut node = self.root.as_ref();
        for key in keys {
            let Some(entry) = node.and_then(|node| node.entries().iter().find(|entry| entry.key == *key)) else {
                break;
            };
            (found, node) = (Some(entry), Some(&entry.node));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_keys() {
        let text = "model:\n  name: x\nvalidation_dataset_hard:\n  path: y\n";
        let places = Places::new("r.yaml", text, &["data.path=z".into(), "model.name=y".into()]);
        assert_eq!(places.of(&["model", "name"]), "--set model.name=y");
        let places = Places::new("r.yaml", text, &["data.path=z".into()]);
        assert_eq!(places.of(&["model", "name"]), "r.yaml:2:3: `model.name`");
        assert_eq!(places.of(&["model", "dtype"]), "r.yaml:1:1: `model.dtype`");
        assert_eq!(places.of(&["peft"]), "`peft`");
        assert_eq!(places.of(&["data", "path"]), "--set data.path=z");
        assert_eq!(places.of_validation("hard", "path"), "r.yaml:4:3: `validation_dataset_hard.path`");
        assert_eq!(Places::new("r.yaml", "a: [", &[]).of(&["a"]), "`a`");
    }
}
