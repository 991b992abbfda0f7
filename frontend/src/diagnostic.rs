//! Messages for people: what is wrong, where it stands, what was wanted.
//!
//! Invariants:
//! - A span always lies within its source, on character boundaries; [`Span::new`] clamps.
//! - Rendering needs only the lines of the span, so it is cheap for any size of source.
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use std::fmt;
use std::sync::Arc;

/// Longest source line that is shown whole; of longer ones only the position is printed.
const LONGEST_LINE: usize = 400;

/// A text that diagnostics can point into.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// What stands before `:line:column`, mostly the path as the user wrote it.
    pub name: String,
    pub text: String,
}

/// A byte range of a [`Source`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub source: Arc<Source>,
    pub start: usize,
    pub end: usize,
}

impl Span {
    /// The range `start..end` of `source`, moved onto character boundaries inside it.
    pub fn new(source: &Arc<Source>, start: usize, end: usize) -> Span {
        let floor = |at: usize| (0..=at.min(source.text.len())).rev().find(|&at| source.text.is_char_boundary(at));
        let start = floor(start).unwrap_or(0);
        Span { source: source.clone(), start, end: floor(end).unwrap_or(0).max(start) }
    }

    /// The text that the span covers, as it stands in the source.
    pub fn text(&self) -> &str {
        &self.source.text[self.start..self.end]
    }

    /// Line and column of the start, both counted from one, the column in characters.
    pub fn line_and_column(&self) -> (usize, usize) {
        let before = &self.source.text[..self.start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// How bad it is: an error stops the compiler, a warning does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// One sentence that stands alone.
    pub message: String,
    /// Where, and what to write under the marked text (may be empty).
    pub place: Option<(Span, String)>,
    /// What to do about it.
    pub help: Vec<String>,
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Error, message: message.into(), place: None, help: Vec::new() }
    }

    /// A warning without a place.
    pub fn warning(message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(message) }
    }

    /// The same, pointing at `span`, with `label` under it.
    pub fn at(self, span: &Span, label: impl Into<String>) -> Diagnostic {
        Diagnostic { place: Some((span.clone(), label.into())), ..self }
    }

    /// The same with one more line of advice.
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help.push(help.into());
        self
    }

    /// The message as plain text: title, `file:line:column`, the marked line, advice.
    pub fn render(&self) -> String {
        let message = shortened(&self.message);
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(message.as_str()));
        if let Some((span, label)) = &self.place {
            group = with_place(group, span, label);
        }
        for help in &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        Renderer::plain().render(&[group])
    }
}

/// At most a few lines of `text`, which may hold what somebody wrote.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST_LINE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

/// Adds the first line of the span, or only its position where that line is too long to show.
fn with_place<'a>(group: Group<'a>, span: &'a Span, label: &'a str) -> Group<'a> {
    let text = &span.source.text;
    let (line, column) = span.line_and_column();
    let line_start = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[span.start..].find('\n').map_or(text.len(), |at| span.start + at);
    if line_end - line_start > LONGEST_LINE {
        let origin = Origin::path(span.source.name.as_str()).line(line).char_column(column);
        let group = group.element(origin);
        return if label.is_empty() { group } else { group.element(Level::NOTE.message(label)) };
    }
    let marked = span.start - line_start..span.end.min(line_end) - line_start;
    let mut annotation = AnnotationKind::Primary.span(marked);
    if !label.is_empty() {
        annotation = annotation.label(label);
    }
    group.element(
        Snippet::source(&text[line_start..line_end])
            .path(span.source.name.as_str())
            .line_start(line)
            .annotation(annotation),
    )
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.render())
    }
}

impl std::error::Error for Diagnostic {}

/// The name among `known` that a misspelt `name` was probably meant to be.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > LONGEST_LINE {
        return None;
    }
    let allowed = (name.chars().count() / 3).max(1);
    let distance = |other: &&str| strsim::damerau_levenshtein(&name.to_lowercase(), &other.to_lowercase());
    known.into_iter().map(|other| (distance(&other), other)).filter(|(far, _)| *far <= allowed).min().map(|(_, it)| it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_at_the_marked_text() {
        let source = Arc::new(Source { name: "r.yaml".into(), text: "a: 1\nlr: schnell\n".into() });
        let span = Span::new(&source, 9, 16);
        let shown = Diagnostic::error("wrong value for `lr`").at(&span, "found text").help("write 1e-5").render();
        assert_eq!(
            shown,
            "error: wrong value for `lr`\n --> r.yaml:2:5\n  |\n2 | lr: schnell\n  |     ^^^^^^^ found text\n  |\n  = help: write 1e-5"
        );
    }

    #[test]
    fn long_lines_show_only_the_position() {
        let source = Arc::new(Source { name: "r.yaml".into(), text: format!("a: {}", "x".repeat(100_000)) });
        let shown = Diagnostic::error("too long").at(&Span::new(&source, 3, 100_003), "here").render();
        assert!(shown.len() < 200, "{shown}");
        assert!(shown.contains("r.yaml:1:4"), "{shown}");
    }

    #[test]
    fn spans_never_leave_the_source() {
        let source = Arc::new(Source { name: "r".into(), text: "ä".into() });
        let span = Span::new(&source, 1, 99);
        assert_eq!((span.start, span.end), (0, 2));
    }

    #[test]
    fn nearest_name() {
        assert_eq!(nearest("betaz", ["betas", "eps"]), Some("betas"));
        assert_eq!(nearest("wholly_different", ["betas", "eps"]), None);
    }
}
