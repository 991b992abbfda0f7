//! The second reading of text: as a Python literal, as Automodel does with every string of a recipe.
//!
//! `none` becomes null, `1e-8` a float, `"10"` an integer, `[1, 2]` a list. What is no literal stays text, and so does text of
//! more than a thousand characters.
use super::node::{Entry, Node, Value};
use crate::diagnostic::Span;

/// Longest text that is tried, in characters.
const LONGEST: usize = 1000;
/// Deepest nesting of brackets, as in CPython's parser.
const DEEPEST: usize = 200;

/// The value that `text` stands for, if it is a literal; parts of it get the span of the whole.
pub fn translate(text: &str, span: &Span) -> Value {
    match text {
        "none" | "None" => return Value::Null,
        "true" | "True" => return Value::Bool(true),
        "false" | "False" => return Value::Bool(false),
        _ if text.chars().count() > LONGEST => return Value::Text(text.into()),
        _ => {}
    }
    let mut parser = Parser { rest: text, span, depth: 0 };
    parser.document().unwrap_or_else(|| Value::Text(text.into()))
}

struct Parser<'a> {
    rest: &'a str,
    span: &'a Span,
    depth: usize,
}

impl Parser<'_> {
    /// One value or a tuple without parentheses, then nothing but a comment.
    fn document(&mut self) -> Option<Value> {
        let first = self.value()?;
        let value = if self.take(",") { self.items(first, "")? } else { first };
        self.skip_space();
        (self.rest.is_empty()).then_some(value)
    }

    /// The rest of a list after its first item and comma, up to `close` (empty: the end of the text).
    fn items(&mut self, first: Value, close: &str) -> Option<Value> {
        let mut items = vec![self.node(first)];
        loop {
            self.skip_space();
            if if close.is_empty() { self.rest.is_empty() } else { self.take(close) } {
                return Some(Value::List(items));
            }
            let item = self.value()?;
            items.push(self.node(item));
            if !self.take(",") {
                self.skip_space();
                let ends = if close.is_empty() { self.rest.is_empty() } else { self.take(close) };
                return ends.then_some(Value::List(items));
            }
        }
    }

    fn value(&mut self) -> Option<Value> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        self.skip_space();
        let value = match self.rest.chars().next()? {
            '[' => self.list(),
            '(' => self.tuple(),
            '{' => self.dictionary(),
            '\'' | '"' | 'r' | 'R' | 'u' | 'U' => self.strings(),
            '+' | '-' | '.' | '0'..='9' => self.number(),
            _ => self.name(),
        };
        self.depth -= 1;
        value
    }

    fn list(&mut self) -> Option<Value> {
        self.take("[");
        if self.take("]") {
            return Some(Value::List(Vec::new()));
        }
        let first = self.value()?;
        if self.take(",") {
            return self.items(first, "]");
        }
        self.take("]").then(|| Value::List(vec![self.node(first)]))
    }

    /// A tuple, or a value in parentheses.
    fn tuple(&mut self) -> Option<Value> {
        self.take("(");
        if self.take(")") {
            return Some(Value::List(Vec::new()));
        }
        let first = self.value()?;
        if self.take(",") {
            return self.items(first, ")");
        }
        self.take(")").then_some(first)
    }

    fn dictionary(&mut self) -> Option<Value> {
        self.take("{");
        let mut entries: Vec<Entry> = Vec::new();
        while !self.take("}") {
            let Value::Text(key) = self.value()? else { return None };
            if !self.take(":") {
                return None;
            }
            let value = self.value()?;
            let node = self.node(value);
            entries.retain(|entry| entry.key != key);
            entries.push(Entry { key, key_span: self.span.clone(), node });
            if !self.take(",") && !self.rest.trim_start().starts_with('}') {
                return None;
            }
        }
        Some(Value::Map(entries))
    }

    fn name(&mut self) -> Option<Value> {
        let end = self.rest.find(|it: char| !it.is_alphanumeric() && it != '_').unwrap_or(self.rest.len());
        let value = match &self.rest[..end] {
            "None" => Value::Null,
            "True" => Value::Bool(true),
            "False" => Value::Bool(false),
            _ => return None,
        };
        self.rest = &self.rest[end..];
        Some(value)
    }

    fn number(&mut self) -> Option<Value> {
        let negative = self.rest.starts_with('-');
        if negative || self.rest.starts_with('+') {
            self.rest = self.rest[1..].trim_start_matches([' ', '\t']);
        }
        let bytes = self.rest.as_bytes();
        let mut end = 0;
        while end < bytes.len() {
            let hexadecimal = self.rest.starts_with("0x") || self.rest.starts_with("0X");
            let exponent_sign = end > 0 && matches!(bytes[end - 1], b'e' | b'E') && !hexadecimal;
            let signs = exponent_sign && matches!(bytes[end], b'+' | b'-');
            let inside = bytes[end].is_ascii_alphanumeric() || matches!(bytes[end], b'.' | b'_');
            if !inside && !signs {
                break;
            }
            end += 1;
        }
        let value = number(&self.rest[..end], negative)?;
        self.rest = &self.rest[end..];
        Some(value)
    }

    /// Adjacent string literals, which Python joins.
    fn strings(&mut self) -> Option<Value> {
        let mut joined = self.string()?;
        loop {
            self.skip_space();
            if !self.rest.starts_with(['\'', '"']) {
                return Some(Value::Text(joined));
            }
            joined += &self.string()?;
        }
    }

    fn string(&mut self) -> Option<String> {
        let raw = self.rest.starts_with(['r', 'R']);
        if !self.rest.starts_with(['\'', '"']) {
            self.rest = &self.rest[1..];
        }
        let quote = ["'''", "\"\"\"", "'", "\""].into_iter().find(|quote| self.rest.starts_with(quote))?;
        self.rest = &self.rest[quote.len()..];
        let mut text = String::new();
        loop {
            if let Some(rest) = self.rest.strip_prefix(quote) {
                self.rest = rest;
                return Some(text);
            }
            let next = self.rest.chars().next()?;
            self.rest = &self.rest[next.len_utf8()..];
            match next {
                '\n' if quote.len() == 1 => return None,
                '\\' if raw => {
                    text.push('\\');
                    text.push(self.character()?);
                }
                '\\' => self.escape(&mut text)?,
                _ => text.push(next),
            }
        }
    }

    fn character(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    /// What follows a backslash.
    fn escape(&mut self, text: &mut String) -> Option<()> {
        let next = self.character()?;
        let plain = match next {
            '\n' => return Some(()),
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'v' => '\x0b',
            '\\' | '\'' | '"' => next,
            'x' => self.code(2)?,
            'u' => self.code(4)?,
            'U' => self.code(8)?,
            '0'..='7' => {
                let more = self.rest.bytes().take(2).take_while(|it| matches!(it, b'0'..=b'7')).count();
                let digits = format!("{next}{}", &self.rest[..more]);
                self.rest = &self.rest[more..];
                char::from_u32(u32::from_str_radix(&digits, 8).ok()?)?
            }
            'N' => return None,
            _ => {
                text.push('\\');
                next
            }
        };
        text.push(plain);
        Some(())
    }

    /// A character by its hexadecimal code of `digits` digits.
    fn code(&mut self, digits: usize) -> Option<char> {
        let code = self.rest.get(..digits).filter(|it| it.bytes().all(|it| it.is_ascii_hexdigit()))?;
        self.rest = &self.rest[digits..];
        char::from_u32(u32::from_str_radix(code, 16).ok()?)
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        if self.rest.starts_with('#') {
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            self.rest = &self.rest[end..];
            self.skip_space();
        }
    }

    fn node(&self, value: Value) -> Node {
        Node { value, span: self.span.clone() }
    }
}

/// A Python number without its sign.
fn number(text: &str, negative: bool) -> Option<Value> {
    let well_placed = !text.is_empty() && !text.starts_with('_') && !text.ends_with('_') && !text.contains("__");
    let lower = text.to_ascii_lowercase();
    let radix = [("0x", 16), ("0o", 8), ("0b", 2)].into_iter().find(|(prefix, _)| lower.starts_with(prefix));
    let digits = lower.replace('_', "");
    if !well_placed {
        return None;
    }
    if let Some((prefix, radix)) = radix {
        let magnitude = i64::from_str_radix(&digits[prefix.len()..], radix).ok()?;
        return Some(Value::Int(if negative { -magnitude } else { magnitude }));
    }
    if digits.bytes().all(|it| it.is_ascii_digit()) {
        let octal_of_old = digits.starts_with('0') && digits.bytes().any(|it| it != b'0');
        let magnitude: i64 = if octal_of_old { None } else { digits.parse().ok() }?;
        return Some(Value::Int(if negative { -magnitude } else { magnitude }));
    }
    let beside_point = text.contains("_.") || text.contains("._") || lower.contains("_e") || lower.contains("e_");
    let numeric = digits.bytes().all(|it| it.is_ascii_digit() || matches!(it, b'.' | b'e' | b'+' | b'-'));
    if beside_point || !numeric {
        return None;
    }
    let magnitude: f64 = digits.parse().ok()?;
    Some(Value::Float(if negative { -magnitude } else { magnitude }))
}

/// `text` as a Python string literal that [`translate`] reads back.
pub fn quote(text: &str) -> String {
    let mut quoted = String::from("'");
    for it in text.chars() {
        match it {
            '\\' => quoted += "\\\\",
            '\'' => quoted += "\\'",
            '\n' => quoted += "\\n",
            '\r' => quoted += "\\r",
            _ => quoted.push(it),
        }
    }
    quoted + "'"
}
