//! Moves, packing, addresses of other spaces, and control flow.
use super::{
    Decoded,
    operands::{Operands, exactly},
};
use crate::{
    op::{Op, Word},
    parse::{Instruction, Operand, Register, Space},
};

pub fn decode(operands: &mut Operands, instruction: &Instruction) -> Decoded {
    let opcode = instruction.opcode.as_str();
    match opcode {
        "mov.b16" | "mov.u16" | "mov.s16" | "mov.b32" | "mov.u32" | "mov.s32" | "mov.f32" | "mov.b64" | "mov.u64"
        | "mov.s64" | "mov.f64" => movement(operands, instruction),
        "bra" | "bra.uni" => {
            let [target] = exactly(instruction)?;
            Ok(Some(Op::Branch { target: operands.label(target)? }))
        }
        "brx.idx" | "brx.idx.uni" => {
            let [index, targets] = exactly(instruction)?;
            Ok(Some(Op::BranchIndexed { index: operands.word(index)?, targets: operands.target_list(targets)? }))
        }
        "ret" | "ret.uni" | "exit" => Ok(Some(Op::Exit)),
        "trap" => Ok(Some(Op::Trap)),
        // What the cache is to do with an access has no effect here.
        _ if opcode.starts_with("createpolicy.") => {
            let to = instruction.operands.first().ok_or("wanted a destination")?;
            Ok(Some(Op::MoveDouble { to: operands.destination_double(to)?, from: operands.constant_double(0) }))
        }
        _ if opcode.starts_with("cvta.") => address_conversion(operands, instruction),
        _ => Ok(None),
    }
}

fn movement(operands: &mut Operands, instruction: &Instruction) -> Decoded {
    let [to, from] = exactly(instruction)?;
    Ok(Some(match (to, from) {
        (Operand::Vector(to), from) => split(operands, to, from)?,
        (to, Operand::Vector(from)) => join(operands, to, from)?,
        (to @ Operand::Register(Register::Double(_)), from) => {
            Op::MoveDouble { to: operands.destination_double(to)?, from: operands.double(from)? }
        }
        (to @ Operand::Register(Register::Half(_)), from) => {
            Op::MoveWord { to: operands.destination_word(to)?, from: operands.half(from)? }
        }
        (to, from) => Op::MoveWord { to: operands.destination_word(to)?, from: operands.word(from)? },
    }))
}

/// A destination of up to 32 bits, or none for `_`.
fn part(operands: &Operands, operand: &Operand) -> Result<Option<Word>, String> {
    match operand {
        Operand::Sink => Ok(None),
        other => operands.destination_word(other).map(Some),
    }
}

fn split(operands: &mut Operands, to: &[Operand], from: &Operand) -> Result<Op, String> {
    let wide = matches!(from, Operand::Register(Register::Double(_)));
    let parts = to.iter().map(|operand| part(operands, operand)).collect::<Result<Vec<_>, _>>()?;
    match *parts.as_slice() {
        [low, high] if wide => Ok(Op::Split { low, high, from: operands.double(from)? }),
        [low, high] => Ok(Op::SplitHalves { low, high, from: operands.word(from)? }),
        [a, b, c, d] if wide => Ok(Op::SplitFour { parts: [a, b, c, d], from: operands.double(from)? }),
        _ => Err(format!("found {} parts, wanted 2, or 4 of 64 bits", to.len())),
    }
}

fn join(operands: &mut Operands, to: &Operand, from: &[Operand]) -> Result<Op, String> {
    let wide = matches!(to, Operand::Register(Register::Double(_)));
    let parts = from.iter().map(|operand| operands.word(operand)).collect::<Result<Vec<_>, _>>()?;
    match *parts.as_slice() {
        [low, high] if wide => Ok(Op::Join { to: operands.destination_double(to)?, low, high }),
        [low, high] => Ok(Op::JoinHalves { to: operands.destination_word(to)?, low, high }),
        [a, b, c, d] if wide => Ok(Op::JoinFour { to: operands.destination_double(to)?, parts: [a, b, c, d] }),
        _ => Err(format!("found {} parts, wanted 2, or 4 of 64 bits", from.len())),
    }
}

/// `cvta.SPACE.u64` and `cvta.to.SPACE.u64`
fn address_conversion(operands: &mut Operands, instruction: &Instruction) -> Decoded {
    let [to, from] = exactly(instruction)?;
    let parts: Vec<&str> = instruction.opcode.split('.').skip(1).collect();
    let (back, space) = match parts.as_slice() {
        ["to", space, "u64"] => (true, *space),
        [space, "u64"] => (false, *space),
        _ => return Ok(None),
    };
    let Some(space) = space_named(space) else { return Ok(None) };
    let (to, from) = (operands.destination_double(to)?, operands.double(from)?);
    Ok(Some(if back { Op::FromGeneric { space, to, from } } else { Op::ToGeneric { space, to, from } }))
}

/// A state space as opcodes spell it.
pub fn space_named(name: &str) -> Option<Space> {
    Some(match name {
        "global" => Space::Global,
        "const" => Space::Constant,
        "shared" | "shared::cta" => Space::Shared,
        "shared::cluster" => Space::SharedCluster,
        "local" => Space::Local,
        "param" | "param::entry" => Space::Parameter,
        _ => return None,
    })
}
