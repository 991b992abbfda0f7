//! Operands to slots: registers keep their index, constants and special registers get slots behind them.
use crate::{
    op::{Address, Doubleword, Predicate, Slot, Word},
    parse::{self, Entry, Operand, Register, RegisterCounts, Statement},
    program::{Files, Special},
};
use std::collections::HashMap;

pub struct Operands<'e> {
    symbols: HashMap<String, u64>,
    labels: HashMap<&'e str, u32>,
    target_lists: HashMap<&'e str, &'e [String]>,
    counts: RegisterCounts,
    words: HashMap<u32, Word>,
    doubles: HashMap<u64, Doubleword>,
    files: Files,
    specials: Vec<(Special, Word)>,
}

type Result<T> = std::result::Result<T, String>;

impl<'e> Operands<'e> {
    pub fn new(entry: &'e Entry, symbols: HashMap<String, u64>) -> Self {
        let (mut labels, mut target_lists, mut at) = (HashMap::new(), HashMap::new(), 0);
        for statement in &entry.statements {
            match statement {
                Statement::Label(name) => drop(labels.insert(name.as_str(), at)),
                Statement::Targets(name, targets) => drop(target_lists.insert(name.as_str(), targets.as_slice())),
                Statement::Instruction(_) => at += 1,
            }
        }
        Operands {
            symbols,
            labels,
            target_lists,
            counts: entry.registers,
            words: HashMap::new(),
            doubles: HashMap::new(),
            files: Files::default(),
            specials: Vec::new(),
        }
    }

    /// The register files with all slots handed out.
    pub fn finish(mut self) -> (Files, Vec<(Special, Word)>) {
        self.files.words = self.next_word();
        self.files.doubles = self.counts.doubles + self.files.constant_doubles.len() as u32;
        self.files.predicates = self.counts.predicates;
        (self.files, self.specials)
    }

    fn next_word(&self) -> u32 {
        self.counts.words + (self.files.constant_words.len() + self.specials.len()) as u32
    }

    pub fn constant_word(&mut self, value: u32) -> Word {
        let next = Word(self.next_word());
        *self.words.entry(value).or_insert_with(|| {
            self.files.constant_words.push((next, value));
            next
        })
    }

    pub fn constant_double(&mut self, value: u64) -> Doubleword {
        let next = Doubleword(self.counts.doubles + self.files.constant_doubles.len() as u32);
        *self.doubles.entry(value).or_insert_with(|| {
            self.files.constant_doubles.push((next, value));
            next
        })
    }

    fn special(&mut self, name: &str) -> Result<Word> {
        let special = Special::named(name).ok_or_else(|| format!("special register `%{name}` is not supported"))?;
        if let Some((_, word)) = self.specials.iter().find(|(known, _)| *known == special) {
            return Ok(*word);
        }
        let word = Word(self.next_word());
        self.specials.push((special, word));
        Ok(word)
    }

    fn symbol(&self, name: &str) -> Result<u64> {
        self.symbols.get(name).copied().ok_or_else(|| format!("`{name}` is not a variable of this module"))
    }

    /// A source of up to 32 bits.
    pub fn word(&mut self, operand: &Operand) -> Result<Word> {
        match operand {
            Operand::Register(Register::Word(i) | Register::Half(i)) => Ok(Word(*i)),
            Operand::Integer(value) => Ok(self.constant_word(*value as u32)),
            Operand::Single(bits) => Ok(self.constant_word(*bits)),
            Operand::Special(name) => self.special(name),
            Operand::Symbol(name) => self.symbol(name).map(|value| self.constant_word(value as u32)),
            other => Err(format!("found operand {other:?}, wanted 32 bits")),
        }
    }

    /// A source of 16 bits: as [`Self::word`], constants cut.
    pub fn half(&mut self, operand: &Operand) -> Result<Word> {
        match operand {
            Operand::Integer(value) => Ok(self.constant_word(*value as u32 & 0xffff)),
            other => self.word(other),
        }
    }

    pub fn double(&mut self, operand: &Operand) -> Result<Doubleword> {
        match operand {
            Operand::Register(Register::Double(i)) => Ok(Doubleword(*i)),
            Operand::Integer(value) | Operand::Double(value) => Ok(self.constant_double(*value)),
            Operand::Symbol(name) => self.symbol(name).map(|value| self.constant_double(value)),
            other => Err(format!("found operand {other:?}, wanted 64 bits")),
        }
    }

    pub fn predicate(&self, operand: &Operand) -> Result<Predicate> {
        match operand {
            Operand::Register(Register::Predicate(i)) => Ok(Predicate(*i)),
            other => Err(format!("found operand {other:?}, wanted a predicate")),
        }
    }

    /// A register, or a constant of as many bits as asked for.
    pub fn slot(&mut self, operand: &Operand, bytes: u8) -> Result<Slot> {
        match operand {
            Operand::Register(Register::Double(_)) => self.double(operand).map(Slot::Double),
            Operand::Register(_) => self.word(operand).map(Slot::Word),
            _ if bytes == 8 => self.double(operand).map(Slot::Double),
            _ => self.word(operand).map(Slot::Word),
        }
    }

    pub fn destination_word(&self, operand: &Operand) -> Result<Word> {
        match operand {
            Operand::Register(Register::Word(i) | Register::Half(i)) => Ok(Word(*i)),
            other => Err(format!("found destination {other:?}, wanted a register of up to 32 bits")),
        }
    }

    pub fn destination_double(&self, operand: &Operand) -> Result<Doubleword> {
        match operand {
            Operand::Register(Register::Double(i)) => Ok(Doubleword(*i)),
            other => Err(format!("found destination {other:?}, wanted a register of 64 bits")),
        }
    }

    /// A destination, or none for `_`.
    pub fn destination(&self, operand: &Operand) -> Result<Option<Slot>> {
        match operand {
            Operand::Sink => Ok(None),
            Operand::Register(Register::Double(i)) => Ok(Some(Slot::Double(Doubleword(*i)))),
            other => self.destination_word(other).map(|word| Some(Slot::Word(word))),
        }
    }

    pub fn address(&mut self, operand: &Operand) -> Result<Address> {
        let Operand::Address(address) = operand else {
            return Err(format!("found operand {operand:?}, wanted an address"));
        };
        let parse::Address { base, offset, .. } = address.as_ref();
        Ok(Address { base: self.slot(base, 8)?, offset: *offset })
    }

    /// The words of `{a, b, …}`, or a single one.
    pub fn words(&mut self, operand: &Operand) -> Result<Vec<Word>> {
        match operand {
            Operand::Vector(items) => items.iter().map(|item| self.word(item)).collect(),
            single => Ok(vec![self.word(single)?]),
        }
    }

    pub fn label(&self, operand: &Operand) -> Result<u32> {
        match operand {
            Operand::Symbol(name) => self.label_named(name),
            other => Err(format!("found operand {other:?}, wanted a label")),
        }
    }

    fn label_named(&self, name: &str) -> Result<u32> {
        self.labels.get(name).copied().ok_or_else(|| format!("no label `{name}` in this function"))
    }

    pub fn target_list(&self, operand: &Operand) -> Result<Vec<u32>> {
        match operand {
            Operand::Symbol(name) => match self.target_lists.get(name.as_str()) {
                Some(targets) => targets.iter().map(|target| self.label_named(target)).collect(),
                None => Err(format!("no list of branch targets `{name}`")),
            },
            other => Err(format!("found operand {other:?}, wanted a list of branch targets")),
        }
    }
}

/// As many operands as the pattern has, or an error that counts them.
pub fn exactly<const N: usize>(instruction: &parse::Instruction) -> Result<&[Operand; N]> {
    let found = instruction.operands.len();
    instruction.operands.as_slice().try_into().map_err(|_| format!("found {found} operands, wanted {N}"))
}

/// An operand that has to be a number.
pub fn integer(operand: &Operand) -> Result<u64> {
    match operand {
        Operand::Integer(value) => Ok(*value),
        other => Err(format!("found operand {other:?}, wanted a number")),
    }
}
