//! PTX text to a [`Module`]: what the LLVM back end writes, no more.
//!
//! Invariants: a register operand is resolved to its file and index, so that later stages know no register names; a
//! statement knows its line; nothing here knows what an opcode means.
mod body;
mod lex;
mod module;

use std::fmt;

/// Text that is not PTX as we know it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("line {line}: found {found}, wanted {wanted}")]
pub struct ParseError {
    pub line: u32,
    pub found: String,
    pub wanted: String,
}

/// A parsed file.
#[derive(Debug)]
pub struct Module {
    /// Such as `sm_90a`.
    pub target: String,
    /// Variables outside of functions.
    pub variables: Vec<Variable>,
    pub entries: Vec<Entry>,
}

/// Where a variable or an access lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Generic,
    Global,
    Constant,
    Shared,
    /// Shared memory of any block of the cluster.
    SharedCluster,
    Local,
    Parameter,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Space::Generic => "generic",
            Space::Global => "global",
            Space::Constant => "constant",
            Space::Shared => "shared",
            Space::SharedCluster => "cluster's shared",
            Space::Local => "local",
            Space::Parameter => "parameter",
        })
    }
}

#[derive(Clone, Debug)]
pub struct Variable {
    pub space: Space,
    pub name: String,
    pub align: u64,
    /// 0 for the dynamic array of shared memory.
    pub bytes: u64,
    /// Empty where the file gives none; shorter than `bytes` where the rest is zero.
    pub initial: Vec<u8>,
}

/// A kernel before its instructions are decoded.
#[derive(Debug)]
pub struct Entry {
    pub name: String,
    pub line: u32,
    pub parameters: Vec<Parameter>,
    /// `.maxntid`: no launch has more threads in a block.
    pub max_threads: Option<[u32; 3]>,
    /// `.reqntid`: every launch has these.
    pub required_threads: Option<[u32; 3]>,
    /// `.reqnctapercluster`.
    pub cluster: Option<[u32; 3]>,
    /// `.minnctapersm`: blocks that a multiprocessor has registers for.
    pub least_blocks: Option<u32>,
    /// Shared and local variables of this function.
    pub variables: Vec<Variable>,
    pub registers: RegisterCounts,
    pub statements: Vec<Statement>,
}

/// A kernel's parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    pub name: String,
    pub bytes: u64,
    pub align: u64,
    /// Where it lies in the parameter space.
    pub offset: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct RegisterCounts {
    pub predicates: u32,
    /// 16- and 32-bit registers share a file.
    pub words: u32,
    pub doubles: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    Predicate(u32),
    Half(u32),
    Word(u32),
    Double(u32),
}

#[derive(Debug)]
pub enum Statement {
    Label(String),
    /// `NAME: .branchtargets A, B, …;`
    Targets(String, Vec<String>),
    Instruction(Instruction),
}

#[derive(Clone, Debug)]
pub struct Instruction {
    pub guard: Option<Guard>,
    pub opcode: String,
    pub operands: Vec<Operand>,
    pub line: u32,
}

/// `@%p` or `@!%p`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    pub predicate: u32,
    pub negated: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    Register(Register),
    /// A special register, without its `%`.
    Special(String),
    /// Negative numbers in two's complement.
    Integer(u64),
    Single(u32),
    Double(u64),
    /// A label or a variable.
    Symbol(String),
    Vector(Vec<Operand>),
    Address(Box<Address>),
    /// `a|b`: two destinations.
    Pair(Box<Operand>, Box<Operand>),
    /// `_`.
    Sink,
}

/// `[base+offset]`, or `[base, {coordinates}]` of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Address {
    pub base: Operand,
    pub offset: i64,
    pub coordinates: Vec<Operand>,
}

/// Parses one file.
///
/// # Errors
/// Anything that is not a directive or statement known here, by its line.
pub fn parse(source: &str) -> Result<Module, ParseError> {
    module::parse(lex::lex(source)?)
}
