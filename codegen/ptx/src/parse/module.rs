//! Directives: versions, variables, entries with their parameters and launch bounds.
use super::{
    Entry, Module, Parameter, ParseError, Space, Variable, body,
    lex::{Lexeme, Number, Token},
};

pub fn parse(lexemes: Vec<Lexeme>) -> Result<Module, ParseError> {
    let mut cursor = Cursor { lexemes, at: 0 };
    let mut module = Module { target: String::new(), variables: Vec::new(), entries: Vec::new() };
    while let Some(name) = cursor.next_name()? {
        directive(&mut cursor, &mut module, &name)?;
    }
    Ok(module)
}

fn directive(cursor: &mut Cursor, module: &mut Module, name: &str) -> Result<(), ParseError> {
    match name {
        ".version" => cursor.skip(2),
        ".address_size" => match cursor.integer()? {
            64 => {}
            other => return Err(cursor.error(&format!("addresses of {other} bits"), "64")),
        },
        ".target" => {
            module.target = cursor.name()?;
            while cursor.accept(',') {
                cursor.name()?;
            }
        }
        ".visible" | ".extern" | ".weak" | ".common" => {}
        ".entry" => module.entries.push(entry(cursor)?),
        ".global" | ".const" | ".shared" => module.variables.push(variable(cursor, name)?),
        ".file" => while !cursor.line_ends() {},
        other => return Err(cursor.error(&format!("`{other}`"), "a variable or an entry")),
    }
    Ok(())
}

/// The rest of a variable's declaration, after its state space.
pub fn variable(cursor: &mut Cursor, space: &str) -> Result<Variable, ParseError> {
    let space = match space {
        ".global" => Space::Global,
        ".const" => Space::Constant,
        ".shared" => Space::Shared,
        ".local" => Space::Local,
        other => return Err(cursor.error(&format!("a variable in `{other}`"), "global, const, shared or local")),
    };
    let (align, element) = align_and_type(cursor)?;
    let name = cursor.name()?;
    let mut bytes = element;
    if cursor.accept('[') {
        bytes = if cursor.accept(']') { 0 } else { element * cursor.integer_then(']')? };
    }
    let initial = if cursor.accept('=') { initial(cursor, element)? } else { Vec::new() };
    cursor.expect(';')?;
    Ok(Variable { space, name, align, bytes, initial })
}

fn initial(cursor: &mut Cursor, element: u64) -> Result<Vec<u8>, ParseError> {
    let list = cursor.accept('{');
    let mut bytes = Vec::new();
    loop {
        let negative = cursor.accept('-');
        let value = match cursor.number()? {
            Number::Integer(value) if negative => value.wrapping_neg(),
            Number::Integer(value) | Number::Double(value) => value,
            Number::Single(bits) => u64::from(bits),
        };
        bytes.extend_from_slice(&value.to_le_bytes()[..element as usize]);
        if !list || !cursor.accept(',') {
            break;
        }
    }
    if list {
        cursor.expect('}')?;
    }
    Ok(bytes)
}

/// `.align N` (optional) and a type, as (alignment, bytes of an element); `.ptr .global .align N` is skipped.
fn align_and_type(cursor: &mut Cursor) -> Result<(u64, u64), ParseError> {
    let (mut align, mut element) = (None, None);
    while matches!(cursor.peek(), Some(Token::Name(name)) if name.starts_with('.')) {
        match cursor.name()?.as_str() {
            ".align" if element.is_none() => align = Some(cursor.integer()?),
            ".align" => cursor.skip(1),
            ".ptr" | ".global" | ".shared" | ".const" | ".local" | ".attribute" => {}
            name => element = Some(type_bytes(name).ok_or_else(|| cursor.error(&format!("`{name}`"), "a type"))?),
        }
    }
    let element = element.ok_or_else(|| cursor.error("no type", "a type such as .b32"))?;
    Ok((align.unwrap_or(element), element))
}

fn type_bytes(name: &str) -> Option<u64> {
    match name.trim_start_matches(['.', 'b', 'u', 's', 'f']) {
        "8" => Some(1),
        "16" => Some(2),
        "32" => Some(4),
        "64" => Some(8),
        _ => None,
    }
}

fn entry(cursor: &mut Cursor) -> Result<Entry, ParseError> {
    let line = cursor.line();
    let name = cursor.name()?;
    let parameters = if cursor.accept('(') { parameters(cursor)? } else { Vec::new() };
    let mut entry = Entry {
        name,
        line,
        parameters,
        max_threads: None,
        required_threads: None,
        cluster: None,
        least_blocks: None,
        variables: Vec::new(),
        registers: Default::default(),
        statements: Vec::new(),
    };
    while !cursor.accept('{') {
        bound(cursor, &mut entry)?;
    }
    body::parse(cursor, &mut entry)?;
    Ok(entry)
}

fn bound(cursor: &mut Cursor, entry: &mut Entry) -> Result<(), ParseError> {
    match cursor.name()?.as_str() {
        ".maxntid" => entry.max_threads = Some(triple(cursor)?),
        ".reqntid" => entry.required_threads = Some(triple(cursor)?),
        ".reqnctapercluster" => entry.cluster = Some(triple(cursor)?),
        ".minnctapersm" => entry.least_blocks = Some(triple(cursor)?[0]),
        ".maxnctapersm" | ".maxnreg" | ".maxclusterrank" => cursor.skip(1),
        ".explicitcluster" | ".noreturn" | ".blocksareclusters" => {}
        other => return Err(cursor.error(&format!("`{other}`"), "a launch bound or `{`")),
    }
    Ok(())
}

fn triple(cursor: &mut Cursor) -> Result<[u32; 3], ParseError> {
    let mut values = [1; 3];
    for (i, value) in values.iter_mut().enumerate() {
        if i > 0 && !cursor.accept(',') {
            break;
        }
        *value = cursor.integer()? as u32;
    }
    Ok(values)
}

fn parameters(cursor: &mut Cursor) -> Result<Vec<Parameter>, ParseError> {
    let mut parameters: Vec<Parameter> = Vec::new();
    if cursor.accept(')') {
        return Ok(parameters);
    }
    loop {
        match cursor.name()?.as_str() {
            ".param" => {}
            other => return Err(cursor.error(&format!("`{other}`"), "`.param`")),
        }
        let scalar_align = cursor.declares_alignment();
        let (align, element) = align_and_type(cursor)?;
        let align = if scalar_align { align } else { element };
        let name = cursor.name()?;
        let bytes = if cursor.accept('[') { element * cursor.integer_then(']')? } else { element };
        let end = parameters.last().map_or(0, |last| last.offset + last.bytes);
        parameters.push(Parameter { name, bytes, align, offset: end.next_multiple_of(align.max(1)) });
        if !cursor.accept(',') {
            cursor.expect(')')?;
            return Ok(parameters);
        }
    }
}

/// A position in the tokens.
pub struct Cursor {
    lexemes: Vec<Lexeme>,
    at: usize,
}

impl Cursor {
    pub fn peek(&self) -> Option<&Token> {
        self.lexemes.get(self.at).map(|lexeme| &lexeme.token)
    }

    pub fn line(&self) -> u32 {
        self.lexemes.get(self.at.min(self.lexemes.len().saturating_sub(1))).map_or(0, |lexeme| lexeme.line)
    }

    pub fn skip(&mut self, tokens: usize) {
        self.at += tokens;
    }

    pub fn accept(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(&Token::Punctuation(wanted));
        self.at += usize::from(found);
        found
    }

    pub fn expect(&mut self, wanted: char) -> Result<(), ParseError> {
        if self.accept(wanted) { Ok(()) } else { Err(self.error(&self.found(), &format!("`{wanted}`"))) }
    }

    pub fn name(&mut self) -> Result<String, ParseError> {
        match self.peek() {
            Some(Token::Name(name)) => {
                let name = name.clone();
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.error(&self.found(), "a name")),
        }
    }

    /// The next name, or none at the end of the file; single semicolons between directives are skipped.
    pub fn next_name(&mut self) -> Result<Option<String>, ParseError> {
        while self.accept(';') {}
        if self.peek().is_none() { Ok(None) } else { self.name().map(Some) }
    }

    pub fn number(&mut self) -> Result<Number, ParseError> {
        match self.peek() {
            Some(Token::Number(number)) => {
                let number = *number;
                self.at += 1;
                Ok(number)
            }
            _ => Err(self.error(&self.found(), "a number")),
        }
    }

    pub fn integer(&mut self) -> Result<u64, ParseError> {
        match self.number()? {
            Number::Integer(value) => Ok(value),
            _ => Err(self.error("a floating-point number", "an integer")),
        }
    }

    pub fn integer_then(&mut self, end: char) -> Result<u64, ParseError> {
        let value = self.integer()?;
        self.expect(end)?;
        Ok(value)
    }

    pub fn found(&self) -> String {
        match self.peek() {
            None => "the end of the file".to_owned(),
            Some(Token::Name(name)) => format!("`{name}`"),
            Some(Token::Number(_)) => "a number".to_owned(),
            Some(Token::Text) => "a string".to_owned(),
            Some(Token::Punctuation(c)) => format!("`{c}`"),
        }
    }

    pub fn error(&self, found: &str, wanted: &str) -> ParseError {
        ParseError { line: self.line(), found: found.to_owned(), wanted: wanted.to_owned() }
    }

    /// Advances by a token; true once it was the last of its line.
    fn line_ends(&mut self) -> bool {
        let line = self.line();
        self.at += 1;
        self.lexemes.get(self.at).is_none_or(|lexeme| lexeme.line != line)
    }

    /// Whether `.align` comes before the type: an array's alignment, not that of what a pointer points to.
    fn declares_alignment(&self) -> bool {
        self.peek() == Some(&Token::Name(".align".to_owned()))
    }
}
