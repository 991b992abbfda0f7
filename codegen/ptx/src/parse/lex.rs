//! Characters to tokens. A token knows its line, because every later error names one.
use super::ParseError;

#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// Names, directives, registers and opcodes, dots and `::` included.
    Name(String),
    /// An integer, or the bits of a `0f`/`0d` constant.
    Number(Number),
    Text,
    Punctuation(char),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Integer(u64),
    Single(u32),
    Double(u64),
}

pub struct Lexeme {
    pub token: Token,
    pub line: u32,
}

/// The tokens of a whole module, comments left out.
///
/// # Errors
/// A character that PTX does not have, a number that does not fit.
pub fn lex(source: &str) -> Result<Vec<Lexeme>, ParseError> {
    let mut lexer = Lexer { rest: source, line: 1, lexemes: Vec::new() };
    while lexer.next()? {}
    Ok(lexer.lexemes)
}

struct Lexer<'s> {
    rest: &'s str,
    line: u32,
    lexemes: Vec<Lexeme>,
}

impl Lexer<'_> {
    fn next(&mut self) -> Result<bool, ParseError> {
        self.skip_blanks()?;
        let Some(first) = self.rest.chars().next() else { return Ok(false) };
        if first.is_ascii_digit() {
            self.number()?;
        } else if is_name(first) {
            let end = self.name_end();
            self.take(end, |text| Token::Name(text.to_owned()));
        } else if first == '"' {
            let end = self.rest[1..].find('"').ok_or_else(|| self.error("a string without its end"))? + 2;
            self.take(end, |_| Token::Text);
        } else if first.is_ascii_punctuation() {
            self.take(1, |_| Token::Punctuation(first));
        } else {
            return Err(self.error(&format!("the character {first:?}")));
        }
        Ok(true)
    }

    fn take(&mut self, bytes: usize, make: impl Fn(&str) -> Token) {
        let (text, rest) = self.rest.split_at(bytes);
        self.lexemes.push(Lexeme { token: make(text), line: self.line });
        self.rest = rest;
    }

    fn skip_blanks(&mut self) -> Result<(), ParseError> {
        loop {
            let comment = if self.rest.starts_with("//") {
                self.rest.find('\n').unwrap_or(self.rest.len())
            } else if self.rest.starts_with("/*") {
                self.rest.find("*/").ok_or_else(|| self.error("a comment without its end"))? + 2
            } else {
                self.rest.len() - self.rest.trim_start().len()
            };
            if comment == 0 {
                return Ok(());
            }
            self.line += self.rest[..comment].matches('\n').count() as u32;
            self.rest = &self.rest[comment..];
        }
    }

    /// A name holds `::` but ends before a single colon, which makes it a label.
    fn name_end(&self) -> usize {
        let bytes = self.rest.as_bytes();
        let mut end = 0;
        while end < bytes.len() {
            if is_name(bytes[end] as char) {
                end += 1;
            } else if bytes[end..].starts_with(b"::") {
                end += 2;
            } else {
                break;
            }
        }
        end
    }

    fn number(&mut self) -> Result<(), ParseError> {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(self.rest.len());
        let text = &self.rest[..end];
        let number = parse_number(text).ok_or_else(|| self.error(&format!("the number `{text}`")))?;
        self.take(end, |_| Token::Number(number));
        Ok(())
    }

    fn error(&self, found: &str) -> ParseError {
        ParseError { line: self.line, found: found.to_owned(), wanted: "PTX".to_owned() }
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%' | '.')
}

fn parse_number(text: &str) -> Option<Number> {
    let lower = text.to_ascii_lowercase();
    if let Some(bits) = lower.strip_prefix("0f") {
        return u32::from_str_radix(bits, 16).ok().map(Number::Single);
    }
    if let Some(bits) = lower.strip_prefix("0d") {
        return u64::from_str_radix(bits, 16).ok().map(Number::Double);
    }
    let digits = lower.trim_end_matches('u');
    let integer = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    integer.ok().map(Number::Integer)
}
