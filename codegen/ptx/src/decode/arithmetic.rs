//! Opcodes that are functions of their operands' lanes.
use super::{
    Decoded,
    operands::{Operands, exactly, integer},
};
use crate::{
    op::{Combine, Op},
    ops::{compare, convert, float, half, integer as integers},
    parse::{Instruction, Operand, Register},
};

pub fn decode(operands: &mut Operands, instruction: &Instruction) -> Decoded {
    let opcode = instruction.opcode.as_str();
    let head = opcode.split('.').next().unwrap_or(opcode);
    match head {
        "setp" => test(operands, instruction),
        "selp" => select(operands, instruction),
        "lop3" => lookup(operands, instruction),
        "bfi" => insert(operands, instruction),
        "mad" if opcode.starts_with("mad.wide.") => wide_multiply_add(operands, instruction),
        _ if opcode.ends_with(".pred") => predicates(operands, instruction),
        _ => {
            let found = match instruction.operands.len() {
                2 => unary(operands, instruction)?,
                3 => binary(operands, instruction)?,
                4 => ternary(operands, instruction)?,
                _ => None,
            };
            if found.is_none() && head == "cvt" { conversion(operands, instruction) } else { Ok(found) }
        }
    }
}

/// Constants of 16-bit instructions are cut to their type.
fn source(operands: &mut Operands, opcode: &str, operand: &Operand) -> Result<crate::op::Word, String> {
    if opcode.ends_with("16") { operands.half(operand) } else { operands.word(operand) }
}

fn unary(operands: &mut Operands, instruction: &Instruction) -> Decoded {
    let opcode = instruction.opcode.as_str();
    let [to, a] = exactly(instruction)?;
    let words = integers::words1(opcode).or_else(|| float::words1(opcode));
    let words = words.or_else(|| half::words1(opcode)).or_else(|| convert::words1(opcode));
    if let Some(f) = words {
        return Ok(Some(Op::Words1 { f, to: operands.destination_word(to)?, a: source(operands, opcode, a)? }));
    }
    if let Some(f) = integers::doubles1(opcode).or_else(|| float::doubles1(opcode)) {
        return Ok(Some(Op::Doubles1 { f, to: operands.destination_double(to)?, a: operands.double(a)? }));
    }
    if let Some(f) = integers::narrowing1(opcode) {
        return Ok(Some(Op::Narrow1 { f, to: operands.destination_word(to)?, a: operands.double(a)? }));
    }
    Ok(None)
}

fn binary(operands: &mut Operands, instruction: &Instruction) -> Decoded {
    let opcode = instruction.opcode.as_str();
    let [to, a, b] = exactly(instruction)?;
    let words = integers::words2(opcode).or_else(|| float::words2(opcode));
    if let Some(f) = words.or_else(|| half::words2(opcode)).or_else(|| convert::words2(opcode)) {
        let (a, b) = (source(operands, opcode, a)?, source(operands, opcode, b)?);
        return Ok(Some(Op::Words2 { f, to: operands.destination_word(to)?, a, b }));
    }
    if let Some(f) = integers::doubles2(opcode).or_else(|| float::doubles2(opcode)) {
        let (a, b) = (operands.double(a)?, operands.double(b)?);
        return Ok(Some(Op::Doubles2 { f, to: operands.destination_double(to)?, a, b }));
    }
    if let Some(f) = integers::shifts(opcode) {
        let (a, b) = (operands.double(a)?, operands.word(b)?);
        return Ok(Some(Op::Shift { f, to: operands.destination_double(to)?, a, b }));
    }
    if let Some(f) = integers::wide_product(opcode) {
        let (a, b) = (operands.word(a)?, operands.word(b)?);
        return Ok(Some(Op::Widen2 { f, to: operands.destination_double(to)?, a, b }));
    }
    Ok(None)
}

fn ternary(operands: &mut Operands, instruction: &Instruction) -> Decoded {
    let opcode = instruction.opcode.as_str();
    let [to, a, b, c] = exactly(instruction)?;
    let words = integers::words3(opcode).or_else(|| float::words3(opcode));
    if let Some(f) = words.or_else(|| half::words3(opcode)) {
        let (a, b, c) = (source(operands, opcode, a)?, source(operands, opcode, b)?, source(operands, opcode, c)?);
        return Ok(Some(Op::Words3 { f, to: operands.destination_word(to)?, a, b, c }));
    }
    if let Some(f) = integers::fields(opcode) {
        let (a, b, c) = (operands.double(a)?, operands.word(b)?, operands.word(c)?);
        return Ok(Some(Op::Field { f, to: operands.destination_double(to)?, a, b, c }));
    }
    if let Some(f) = integers::doubles3(opcode).or_else(|| float::doubles3(opcode)) {
        let (a, b, c) = (operands.double(a)?, operands.double(b)?, operands.double(c)?);
        return Ok(Some(Op::Doubles3 { f, to: operands.destination_double(to)?, a, b, c }));
    }
    Ok(None)
}

fn wide_multiply_add(operands: &mut Operands, instruction: &Instruction) -> Decoded {
    let [to, a, b, c] = exactly(instruction)?;
    let Some(f) = integers::wide_product(&instruction.opcode) else { return ternary(operands, instruction) };
    let (a, b, c) = (operands.word(a)?, operands.word(b)?, operands.double(c)?);
    Ok(Some(Op::WideMultiplyAdd { f, to: operands.destination_double(to)?, a, b, c }))
}

fn conversion(operands: &mut Operands, instruction: &Instruction) -> Decoded {
    let Some((read, write)) = convert::convert(&instruction.opcode) else { return Ok(None) };
    let [to, from] = exactly(instruction)?;
    let from_bytes = if matches!(read, convert::Read::Doubles(_)) { 8 } else { 4 };
    let to = operands.destination(to)?.ok_or("found destination `_`, wanted a register")?;
    Ok(Some(Op::Convert { read, write, to, from: operands.slot(from, from_bytes)? }))
}

/// `setp.COMPARISON[.and|.or|.xor][.ftz].TYPE p, a, b[, c]`
fn test(operands: &mut Operands, instruction: &Instruction) -> Decoded {
    let parts: Vec<&str> = instruction.opcode.split('.').skip(1).filter(|part| *part != "ftz").collect();
    let (comparison, logic, of) = match parts.as_slice() {
        [comparison, of] => (*comparison, None, *of),
        [comparison, logic, of] => (*comparison, boolean(logic), *of),
        _ => return Ok(None),
    };
    let [to, a, b, rest @ ..] = instruction.operands.as_slice() else {
        return Err(format!("found {} operands, wanted 3 or 4", instruction.operands.len()));
    };
    let combine = match (logic, rest) {
        (None, []) => None,
        (Some(f), [with]) => Some(Combine { f, with: operands.predicate(with)? }),
        _ => return Err("the operands do not fit the opcode".to_owned()),
    };
    let to = operands.predicate(to)?;
    if let Some(f) = compare::words(comparison, of) {
        let (a, b) = (source(operands, of, a)?, source(operands, of, b)?);
        return Ok(Some(Op::TestWords { f, to, a, b, combine }));
    }
    let Some(f) = compare::doubles(comparison, of) else { return Ok(None) };
    Ok(Some(Op::TestDoubles { f, to, a: operands.double(a)?, b: operands.double(b)?, combine }))
}

fn boolean(name: &str) -> Option<fn(u32, u32) -> u32> {
    Some(match name {
        "and" => |a, b| a & b,
        "or" => |a, b| a | b,
        "xor" => |a, b| a ^ b,
        _ => return None,
    })
}

fn select(operands: &mut Operands, instruction: &Instruction) -> Decoded {
    let [to, a, b, by] = exactly(instruction)?;
    let by = operands.predicate(by)?;
    if instruction.opcode.ends_with("64") {
        let (a, b) = (operands.double(a)?, operands.double(b)?);
        return Ok(Some(Op::SelectDouble { to: operands.destination_double(to)?, a, b, by }));
    }
    let opcode = instruction.opcode.as_str();
    let (a, b) = (source(operands, opcode, a)?, source(operands, opcode, b)?);
    Ok(Some(Op::SelectWord { to: operands.destination_word(to)?, a, b, by }))
}

fn lookup(operands: &mut Operands, instruction: &Instruction) -> Decoded {
    if instruction.opcode != "lop3.b32" {
        return Ok(None);
    }
    let [to, a, b, c, table] = exactly(instruction)?;
    let (a, b, c) = (operands.word(a)?, operands.word(b)?, operands.word(c)?);
    Ok(Some(Op::Lookup { to: operands.destination_word(to)?, a, b, c, table: integer(table)? as u32 }))
}

fn insert(operands: &mut Operands, instruction: &Instruction) -> Decoded {
    let bytes = match instruction.opcode.as_str() {
        "bfi.b32" => 4,
        "bfi.b64" => 8,
        _ => return Ok(None),
    };
    let [to, a, b, position, length] = exactly(instruction)?;
    let (a, b) = (operands.slot(a, bytes)?, operands.slot(b, bytes)?);
    let (position, length) = (operands.word(position)?, operands.word(length)?);
    let to = operands.destination(to)?.ok_or("found destination `_`, wanted a register")?;
    Ok(Some(Op::BitInsert { to, a, b, position, length }))
}

fn predicates(operands: &mut Operands, instruction: &Instruction) -> Decoded {
    let head = instruction.opcode.trim_end_matches(".pred");
    match (head, instruction.operands.as_slice()) {
        ("not", [to, a]) => {
            Ok(Some(Op::Predicates1 { f: |a| !a, to: operands.predicate(to)?, a: operands.predicate(a)? }))
        }
        ("mov", [to, a @ Operand::Register(Register::Predicate(_))]) => {
            Ok(Some(Op::Predicates1 { f: |a| a, to: operands.predicate(to)?, a: operands.predicate(a)? }))
        }
        ("mov", [to, Operand::Integer(value)]) => {
            let (f, to) = (if *value == 0 { compare::words("ne", "b32") } else { compare::words("eq", "b32") }, to);
            let zero = operands.constant_word(0);
            let f = f.ok_or("no comparison of words")?;
            Ok(Some(Op::TestWords { f, to: operands.predicate(to)?, a: zero, b: zero, combine: None }))
        }
        (head, [to, a, b]) => {
            let Some(f) = boolean(head) else { return Ok(None) };
            let (a, b) = (operands.predicate(a)?, operands.predicate(b)?);
            Ok(Some(Op::Predicates2 { f, to: operands.predicate(to)?, a, b }))
        }
        _ => Ok(None),
    }
}
