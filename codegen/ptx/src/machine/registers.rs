//! The registers of a warp. Reading one that no instruction wrote in an active lane is a fault; moves and selections
//! carry the lack along instead, because the compiler copies values that it never uses.
use super::{Outcome, halt, misuse};
use crate::{
    error::FaultKind,
    op::{Doubleword, Predicate, Slot, Word},
    ops::{Doubles, LANES, Mask, Words},
    program::Files,
};
use std::cell::Cell;

#[derive(Clone)]
pub struct Registers {
    words: Vec<Words>,
    doubles: Vec<Doubles>,
    predicates: Vec<Mask>,
    words_ready: Vec<Mask>,
    doubles_ready: Vec<Mask>,
    predicates_ready: Vec<Mask>,
    /// Running products that use a word: they may neither be read nor written.
    held: Vec<u32>,
    holds: u32,
    /// By word: how many `wgmma.fence`s came before its last use by the warp: a write, or a read of a product's sum.
    used_at: Vec<Cell<u32>>,
    /// Words that got a product's sum.
    sums: Vec<bool>,
    pub fences: u32,
}

impl Registers {
    pub fn new(files: &Files) -> Registers {
        let mut registers = Registers {
            words: vec![[0; LANES]; files.words as usize],
            doubles: vec![[0; LANES]; files.doubles as usize],
            predicates: vec![0; files.predicates as usize],
            words_ready: vec![0; files.words as usize],
            doubles_ready: vec![0; files.doubles as usize],
            predicates_ready: vec![0; files.predicates as usize],
            held: vec![0; files.words as usize],
            holds: 0,
            used_at: vec![Cell::new(0); files.words as usize],
            sums: vec![false; files.words as usize],
            fences: 0,
        };
        for (word, value) in &files.constant_words {
            registers.define_word(*word, [*value; LANES]);
        }
        for (double, value) in &files.constant_doubles {
            registers.doubles[double.0 as usize] = [*value; LANES];
            registers.doubles_ready[double.0 as usize] = Mask::MAX;
        }
        registers
    }

    /// A constant or special register, before anything runs.
    pub fn define_word(&mut self, word: Word, value: Words) {
        self.words[word.0 as usize] = value;
        self.words_ready[word.0 as usize] = Mask::MAX;
    }

    pub fn word(&self, word: Word, lanes: Mask, operand: &'static str) -> Outcome<&Words> {
        let missing = lanes & !self.words_ready[word.0 as usize];
        if missing != 0 || self.holds > 0 {
            self.check_word(word, missing, operand)?;
        }
        self.note_read(word);
        Ok(&self.words[word.0 as usize])
    }

    #[cold]
    fn check_word(&self, word: Word, missing: Mask, operand: &'static str) -> Outcome<()> {
        if self.held[word.0 as usize] > 0 {
            return Err(halt(0, FaultKind::PendingRegister { operand }));
        }
        undefined(missing, operand)
    }

    pub fn double(&self, double: Doubleword, lanes: Mask, operand: &'static str) -> Outcome<&Doubles> {
        let missing = lanes & !self.doubles_ready[double.0 as usize];
        if missing != 0 {
            undefined(missing, operand)?;
        }
        Ok(&self.doubles[double.0 as usize])
    }

    pub fn predicate(&self, predicate: Predicate, lanes: Mask, operand: &'static str) -> Outcome<Mask> {
        let missing = lanes & !self.predicates_ready[predicate.0 as usize];
        if missing != 0 {
            undefined(missing, operand)?;
        }
        Ok(self.predicates[predicate.0 as usize])
    }

    /// The value in one lane, as a number.
    pub fn lane(&self, slot: Slot, lane: usize, operand: &'static str) -> Outcome<u64> {
        Ok(match slot {
            Slot::Word(word) => u64::from(self.word(word, 1 << lane, operand)?[lane]),
            Slot::Double(double) => self.double(double, 1 << lane, operand)?[lane],
        })
    }

    /// A slot of either size, as 64 bits.
    pub fn wide(&self, slot: Slot, lanes: Mask, operand: &'static str) -> Outcome<Doubles> {
        Ok(match slot {
            Slot::Word(word) => self.word(word, lanes, operand)?.map(u64::from),
            Slot::Double(double) => *self.double(double, lanes, operand)?,
        })
    }

    /// Writes a slot of either size, cut to it.
    pub fn set_wide(&mut self, to: Slot, lanes: Mask, values: &Doubles) -> Outcome<()> {
        match to {
            Slot::Word(word) => self.set_word(word, lanes, &values.map(|value| value as u32)),
            Slot::Double(double) => {
                self.set_double(double, lanes, values);
                Ok(())
            }
        }
    }

    /// The values, and the lanes that were written, for moves.
    pub fn held_word(&self, word: Word) -> Outcome<(&Words, Mask)> {
        if self.holds > 0 {
            self.check_word(word, 0, "a")?;
        }
        self.note_read(word);
        Ok((&self.words[word.0 as usize], self.words_ready[word.0 as usize]))
    }

    pub fn double_unchecked(&self, double: Doubleword) -> (&Doubles, Mask) {
        (&self.doubles[double.0 as usize], self.doubles_ready[double.0 as usize])
    }

    pub fn set_word(&mut self, to: Word, lanes: Mask, values: &Words) -> Outcome<()> {
        self.copy_word(to, lanes, values, Mask::MAX)
    }

    pub fn set_double(&mut self, to: Doubleword, lanes: Mask, values: &Doubles) {
        self.copy_double(to, lanes, values, Mask::MAX);
    }

    /// A write that leaves `lanes` without `ready` undefined.
    pub fn copy_word(&mut self, to: Word, lanes: Mask, values: &Words, ready: Mask) -> Outcome<()> {
        let index = to.0 as usize;
        if self.holds > 0 && self.held[index] > 0 {
            return Err(halt(lanes.trailing_zeros() as usize, FaultKind::PendingRegister { operand: "d" }));
        }
        blend(&mut self.words[index], lanes, values);
        self.words_ready[index] = self.words_ready[index] & !lanes | ready & lanes;
        self.used_at[index].set(self.fences);
        self.sums[index] = false;
        Ok(())
    }

    /// A move is no use of a register: the assembler removes it, and both stand for one.
    pub fn move_word(&mut self, to: Word, from: Word, lanes: Mask) -> Outcome<()> {
        if self.holds > 0 {
            self.check_word(from, 0, "a")?;
        }
        let (from, index) = (from.0 as usize, to.0 as usize);
        let (values, used_at, sum) = (self.words[from], self.used_at[from].get(), self.sums[from]);
        self.copy_word(to, lanes, &values, self.words_ready[from])?;
        self.used_at[index].set(used_at);
        self.sums[index] = sum;
        Ok(())
    }

    pub fn copy_double(&mut self, to: Doubleword, lanes: Mask, values: &Doubles, ready: Mask) {
        let index = to.0 as usize;
        blend(&mut self.doubles[index], lanes, values);
        self.doubles_ready[index] = self.doubles_ready[index] & !lanes | ready & lanes;
    }

    pub fn set_predicate(&mut self, to: Predicate, lanes: Mask, values: Mask) {
        let index = to.0 as usize;
        self.predicates[index] = self.predicates[index] & !lanes | values & lanes;
        self.predicates_ready[index] |= lanes;
    }

    fn note_read(&self, word: Word) {
        if self.sums[word.0 as usize] {
            self.used_at[word.0 as usize].set(self.fences);
        }
    }

    /// Checks that a `wgmma.fence` came between the warp's last uses of these words and now, unless a product holds
    /// them.
    pub fn check_fenced(&self, words: &[Word]) -> Outcome<()> {
        let unfenced = |word: &&Word| {
            let index = word.0 as usize;
            self.held[index] == 0 && self.used_at[index].get() >= self.fences
        };
        match words.iter().find(unfenced) {
            None => Ok(()),
            Some(_) => Err(misuse(0, "uses registers that the warp used after the last wgmma.fence")),
        }
    }

    /// As [`Self::check_fenced`]; words that the product adds to have to be written.
    pub fn check_accumulators(&self, words: &[Word], read: bool) -> Outcome<()> {
        self.check_fenced(words)?;
        for word in words.iter().filter(|word| read && self.held[word.0 as usize] == 0) {
            undefined(!self.words_ready[word.0 as usize], "d")?;
        }
        Ok(())
    }

    /// A word that a product reads.
    pub fn word_of_product(&self, word: Word, operand: &'static str) -> Outcome<&Words> {
        undefined(!self.words_ready[word.0 as usize], operand)?;
        Ok(&self.words[word.0 as usize])
    }

    /// A running product uses these words.
    pub fn hold(&mut self, words: &[Word]) {
        words.iter().for_each(|word| self.held[word.0 as usize] += 1);
        self.holds += words.len() as u32;
    }

    /// It no longer does.
    pub fn let_go(&mut self, words: &[Word]) {
        words.iter().for_each(|word| self.held[word.0 as usize] -= 1);
        self.holds -= words.len() as u32;
    }

    /// The product's sum for one word, which it lets go.
    pub fn finish_product(&mut self, word: Word, accumulate: bool, sum: impl Fn(usize) -> f32) {
        let index = word.0 as usize;
        for (lane, value) in self.words[index].iter_mut().enumerate() {
            let old = if accumulate { f32::from_bits(*value) } else { 0.0 };
            *value = (old + sum(lane)).to_bits();
        }
        self.words_ready[index] = Mask::MAX;
        self.sums[index] = true;
        self.let_go(&[word]);
    }

    /// A number to one lane, cut to the slot's size.
    pub fn set_lane(&mut self, to: Slot, lane: usize, value: u64) -> Outcome<()> {
        self.set_wide(to, 1 << lane, &[value; LANES])
    }
}

fn undefined(missing: Mask, operand: &'static str) -> Outcome<()> {
    if missing == 0 {
        return Ok(());
    }
    Err(halt(missing.trailing_zeros() as usize, FaultKind::UndefinedRegister { operand }))
}

fn blend<T: Copy>(to: &mut [T; LANES], lanes: Mask, values: &[T; LANES]) {
    if lanes == Mask::MAX {
        *to = *values;
        return;
    }
    for lane in (0..LANES).filter(|lane| lanes >> lane & 1 == 1) {
        to[lane] = values[lane];
    }
}
