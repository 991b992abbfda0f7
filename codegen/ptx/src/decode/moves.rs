//! Moves, packing, addresses of other spaces, and control flow.
use super::{
    Decoded,
    operands::{Operands, exactly},
};
use crate::{
    op::Op,
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

fn split(operands: &mut Operands, to: &[Operand], from: &Operand) -> Result<Op, String> {
    let [low, high] = to else { return Err(format!("found {} parts, wanted 2", to.len())) };
    let part = |operand: &Operand| match operand {
        Operand::Sink => Ok(None),
        other => operands.destination_word(other).map(Some),
    };
    let (low, high) = (part(low)?, part(high)?);
    if matches!(from, Operand::Register(Register::Double(_))) {
        return Ok(Op::Split { low, high, from: operands.double(from)? });
    }
    Ok(Op::SplitHalves { low, high, from: operands.word(from)? })
}

fn join(operands: &mut Operands, to: &Operand, from: &[Operand]) -> Result<Op, String> {
    let [low, high] = from else { return Err(format!("found {} parts, wanted 2", from.len())) };
    if matches!(to, Operand::Register(Register::Double(_))) {
        let (low, high) = (operands.word(low)?, operands.word(high)?);
        return Ok(Op::Join { to: operands.destination_double(to)?, low, high });
    }
    let (low, high) = (operands.half(low)?, operands.half(high)?);
    Ok(Op::JoinHalves { to: operands.destination_word(to)?, low, high })
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
