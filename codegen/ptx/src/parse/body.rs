//! Statements of a function: registers in nested scopes, labels, instructions and their operands.
use super::{
    Address, Entry, Guard, Instruction, Operand, ParseError, Register, Statement,
    lex::{Number, Token},
    module::{Cursor, variable},
};
use std::collections::HashMap;

/// Parses up to and with the closing brace of `entry`.
pub fn parse(cursor: &mut Cursor, entry: &mut Entry) -> Result<(), ParseError> {
    let mut body = Body { cursor, entry, scopes: vec![HashMap::new()] };
    while !body.scopes.is_empty() {
        body.statement()?;
    }
    Ok(())
}

struct Body<'a> {
    cursor: &'a mut Cursor,
    entry: &'a mut Entry,
    scopes: Vec<HashMap<String, Register>>,
}

impl Body<'_> {
    fn statement(&mut self) -> Result<(), ParseError> {
        if self.cursor.accept(';') {
            return Ok(());
        }
        if self.cursor.accept('{') {
            self.scopes.push(HashMap::new());
            return Ok(());
        }
        if self.cursor.accept('}') {
            self.scopes.pop();
            return Ok(());
        }
        let line = self.cursor.line();
        let guard = if self.cursor.accept('@') { Some(self.guard()?) } else { None };
        let name = self.cursor.name()?;
        if guard.is_none() && self.cursor.accept(':') {
            return self.label(name);
        }
        match name.as_str() {
            ".reg" => self.registers(),
            ".shared" | ".local" | ".global" | ".const" => {
                let variable = variable(self.cursor, &name)?;
                self.entry.variables.push(variable);
                Ok(())
            }
            ".loc" | ".pragma" => self.skip_statement(&name, line),
            _ => self.instruction(guard, name, line),
        }
    }

    fn guard(&mut self) -> Result<Guard, ParseError> {
        let negated = self.cursor.accept('!');
        let name = self.cursor.name()?;
        match self.register(&name) {
            Some(Register::Predicate(predicate)) => Ok(Guard { predicate, negated }),
            _ => Err(self.cursor.error(&format!("`{name}`"), "a predicate")),
        }
    }

    fn label(&mut self, name: String) -> Result<(), ParseError> {
        if self.cursor.peek() != Some(&Token::Name(".branchtargets".to_owned())) {
            self.entry.statements.push(Statement::Label(name));
            return Ok(());
        }
        self.cursor.skip(1);
        let mut targets = vec![self.cursor.name()?];
        while self.cursor.accept(',') {
            targets.push(self.cursor.name()?);
        }
        self.cursor.expect(';')?;
        self.entry.statements.push(Statement::Targets(name, targets));
        Ok(())
    }

    /// `.loc` ends with its line, `.pragma` with a semicolon.
    fn skip_statement(&mut self, name: &str, line: u32) -> Result<(), ParseError> {
        while self.cursor.peek().is_some() {
            if name == ".loc" && self.cursor.line() != line || name == ".pragma" && self.cursor.accept(';') {
                return Ok(());
            }
            self.cursor.skip(1);
        }
        Err(self.cursor.error("the end of the file", "`}`"))
    }

    /// `.reg .b32 %r<12>;` or `.reg .pred p, q;`
    fn registers(&mut self) -> Result<(), ParseError> {
        let class = self.cursor.name()?;
        loop {
            let name = self.cursor.name()?;
            if self.cursor.accept('<') {
                for i in 0..self.cursor.integer_then('>')? {
                    self.declare(&class, format!("{name}{i}"))?;
                }
            } else {
                self.declare(&class, name)?;
            }
            if !self.cursor.accept(',') {
                return self.cursor.expect(';');
            }
        }
    }

    fn declare(&mut self, class: &str, name: String) -> Result<(), ParseError> {
        let counts = &mut self.entry.registers;
        let take = |count: &mut u32| {
            *count += 1;
            *count - 1
        };
        let register = match class {
            ".pred" => Register::Predicate(take(&mut counts.predicates)),
            ".b16" | ".u16" | ".s16" | ".f16" => Register::Half(take(&mut counts.words)),
            ".b32" | ".u32" | ".s32" | ".f32" => Register::Word(take(&mut counts.words)),
            ".b64" | ".u64" | ".s64" | ".f64" => Register::Double(take(&mut counts.doubles)),
            other => return Err(self.cursor.error(&format!("registers of type `{other}`"), "16, 32 or 64 bits")),
        };
        let scope = self.scopes.last_mut().expect("a declaration stands in a scope");
        scope.insert(name, register);
        Ok(())
    }

    fn register(&self, name: &str) -> Option<Register> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name)).copied()
    }

    fn instruction(&mut self, guard: Option<Guard>, opcode: String, line: u32) -> Result<(), ParseError> {
        let mut operands = Vec::new();
        while !self.cursor.accept(';') {
            operands.push(self.operand()?);
            if !self.cursor.accept(',') {
                self.cursor.expect(';')?;
                break;
            }
        }
        self.entry.statements.push(Statement::Instruction(Instruction { guard, opcode, operands, line }));
        Ok(())
    }

    fn operand(&mut self) -> Result<Operand, ParseError> {
        if self.cursor.accept('{') {
            return self.list('}').map(Operand::Vector);
        }
        if self.cursor.accept('[') {
            return self.address();
        }
        let first = self.simple()?;
        if self.cursor.accept('|') {
            return Ok(Operand::Pair(Box::new(first), Box::new(self.simple()?)));
        }
        Ok(first)
    }

    fn list(&mut self, end: char) -> Result<Vec<Operand>, ParseError> {
        let mut items = vec![self.simple()?];
        while self.cursor.accept(',') {
            items.push(self.simple()?);
        }
        self.cursor.expect(end)?;
        Ok(items)
    }

    fn address(&mut self) -> Result<Operand, ParseError> {
        let base = self.simple()?;
        let signed = self.cursor.accept('+') || self.cursor.peek() == Some(&Token::Punctuation('-'));
        let offset = if signed { self.signed()? } else { 0 };
        let mut coordinates = Vec::new();
        if self.cursor.accept(',') {
            self.cursor.expect('{')?;
            coordinates = self.list('}')?;
        }
        self.cursor.expect(']')?;
        Ok(Operand::Address(Box::new(Address { base, offset, coordinates })))
    }

    fn signed(&mut self) -> Result<i64, ParseError> {
        let negative = self.cursor.accept('-');
        let value = self.cursor.integer()? as i64;
        Ok(if negative { value.wrapping_neg() } else { value })
    }

    fn simple(&mut self) -> Result<Operand, ParseError> {
        if self.cursor.peek() == Some(&Token::Punctuation('-')) {
            return self.signed().map(|value| Operand::Integer(value as u64));
        }
        if matches!(self.cursor.peek(), Some(Token::Number(_))) {
            return Ok(match self.cursor.number()? {
                Number::Integer(value) => Operand::Integer(value),
                Number::Single(bits) => Operand::Single(bits),
                Number::Double(bits) => Operand::Double(bits),
            });
        }
        let name = self.cursor.name()?;
        Ok(match self.register(&name) {
            Some(register) => Operand::Register(register),
            None if name == "_" => Operand::Sink,
            None => match name.strip_prefix('%') {
                Some(special) => Operand::Special(special.to_owned()),
                None => Operand::Symbol(name),
            },
        })
    }
}
