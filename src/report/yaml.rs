//! On which lines of a YAML text every key stands.
use granit_parser::{Event, Parser};

/// A key of a mapping with its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyLines {
    /// Dotted, such as `model.torch_dtype`; positions in lists are left out.
    pub path: String,
    /// Counted from 1: the key's line, and the last line on which something of its value stands.
    pub first: usize,
    pub last: usize,
}

/// The keys in the order in which they stand. A text that is no YAML has those before its first mistake.
pub fn key_lines(text: &str) -> Vec<KeyLines> {
    let mut reader = Reader { text, keys: vec![], open: vec![], end: 0 };
    for next in Parser::new_from_str(text) {
        let Ok((event, span)) = next else { break };
        reader.event(&event, span.byte_range().unwrap_or(0..0));
    }
    reader.keys
}

/// A mapping or list whose end has not been seen.
enum Open {
    List,
    /// With the index of the key whose value comes next.
    Map {
        key: Option<usize>,
    },
}

struct Reader<'a> {
    text: &'a str,
    keys: Vec<KeyLines>,
    open: Vec<Open>,
    /// Behind the last scalar, in bytes.
    end: usize,
}

impl Reader<'_> {
    fn event(&mut self, event: &Event, range: std::ops::Range<usize>) {
        match event {
            Event::Scalar(name, ..) => self.scalar(name, range),
            Event::Alias(_) => {
                self.end = range.end;
                self.value_done();
            }
            Event::SequenceStart(..) => self.open.push(Open::List),
            Event::MappingStart(..) => self.open.push(Open::Map { key: None }),
            Event::SequenceEnd | Event::MappingEnd => {
                self.open.pop();
                self.value_done();
            }
            _ => {}
        }
    }

    fn scalar(&mut self, name: &str, range: std::ops::Range<usize>) {
        if let Some(Open::Map { key: None }) = self.open.last() {
            let parent = self.open.iter().rev().find_map(|open| match open {
                Open::Map { key } => key.map(|key| self.keys[key].path.as_str()),
                Open::List => None,
            });
            let path = parent.map_or(name.to_string(), |parent| format!("{parent}.{name}"));
            let first = self.line(range.start);
            self.keys.push(KeyLines { path, first, last: first });
            let index = self.keys.len() - 1;
            self.open.pop();
            self.open.push(Open::Map { key: Some(index) });
            return;
        }
        self.end = self.text[..range.end.min(self.text.len())].trim_end().len().max(range.start);
        self.value_done();
    }

    /// The value of the innermost mapping's key, if that is where we are, ends at `end`.
    fn value_done(&mut self) {
        let line = self.line(self.end);
        if let Some(Open::Map { key }) = self.open.last_mut()
            && let Some(key) = key.take()
        {
            let lines = &mut self.keys[key];
            lines.last = lines.first.max(line);
        }
    }

    fn line(&self, byte: usize) -> usize {
        1 + self.text.as_bytes()[..byte.min(self.text.len())].iter().filter(|b| **b == b'\n').count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_know_their_lines() {
        let text =
            "# é\na: 1\n\nb:\n  c: {d: x,\n    e: [1, 2]}\n  f:\n    - g: |\n        one\n        two\n\n# end\nh:\n";
        let found = key_lines(text);
        let found: Vec<_> = found.iter().map(|k| (k.path.as_str(), k.first, k.last)).collect();
        let wanted = [
            ("a", 2, 2),
            ("b", 4, 10),
            ("b.c", 5, 6),
            ("b.c.d", 5, 5),
            ("b.c.e", 6, 6),
            ("b.f", 7, 10),
            ("b.f.g", 8, 10),
            ("h", 13, 13),
        ];
        assert_eq!(found, wanted);
    }
}
