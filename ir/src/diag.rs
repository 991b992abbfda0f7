//! Error texts: the place, what was found, what was wanted, and the lines around it.
use std::fmt;

/// An error in a text, with the line it stands on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// Line, counted from 1.
    pub line: usize,
    pub message: String,
    /// The line and up to ten lines around it.
    pub window: String,
}

impl Diagnostic {
    /// An error on `line` (from 1) of `source`.
    pub fn at(source: &str, line: usize, message: impl Into<String>) -> Diagnostic {
        let first = line.saturating_sub(5).max(1);
        let mut window = String::new();
        for (i, text) in source.lines().enumerate().skip(first - 1).take(10) {
            let mark = if i + 1 == line { '>' } else { ' ' };
            window += &format!("{mark}{:5} | {text}\n", i + 1);
        }
        Diagnostic { line, message: message.into(), window }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "line {}: {}\n{}", self.line, self.message, self.window)
    }
}

impl std::error::Error for Diagnostic {}

/// "no op is called `rms_nrm`; the nearest is `rms_norm`".
pub fn unknown<'a>(kind: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    match known.min_by_key(|candidate| distance(name, candidate)) {
        Some(near) if distance(name, near) <= 3 => format!("no {kind} is called `{name}`; the nearest is `{near}`"),
        _ => format!("no {kind} is called `{name}`"),
    }
}

/// Levenshtein's edit distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let next = if ca == cb { diagonal } else { 1 + diagonal.min(row[j]).min(row[j + 1]) };
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}
