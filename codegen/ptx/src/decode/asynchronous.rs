//! Copies that run on their own: `cp.async`.
use super::{
    Decoded,
    operands::{Operands, exactly, integer},
};
use crate::{op::Op, parse::Instruction};

pub fn decode(operands: &mut Operands, instruction: &Instruction) -> Decoded {
    let parts: Vec<&str> = instruction.opcode.split('.').collect();
    match parts.as_slice() {
        ["cp", "async", "commit_group"] => Ok(Some(Op::CopyCommit)),
        ["cp", "async", "wait_all"] => Ok(Some(Op::CopyWait { pending: 0, all: true })),
        ["cp", "async", "wait_group"] => {
            let [pending] = exactly(instruction)?;
            Ok(Some(Op::CopyWait { pending: integer(pending)? as u32, all: false }))
        }
        ["cp", "async", "ca" | "cg", "shared" | "shared::cta", "global", hints @ ..]
            if hints.iter().all(|hint| hint.starts_with("L2::") && *hint != "L2::cache_hint") =>
        {
            copy(operands, instruction, parts[2])
        }
        _ => Ok(None),
    }
}

fn copy(operands: &mut Operands, instruction: &Instruction, cache: &str) -> Decoded {
    let [shared, global, bytes, source_bytes @ ..] = instruction.operands.as_slice() else {
        return Err(format!("found {} operands, wanted 3 or 4", instruction.operands.len()));
    };
    let bytes = integer(bytes)? as u8;
    if !matches!((cache, bytes), ("ca", 4 | 8 | 16) | ("cg", 16)) {
        return Err(format!("found {bytes} bytes, wanted 4, 8 or 16, and 16 with `.cg`"));
    }
    let source_bytes = match source_bytes {
        [] => None,
        [bytes] => Some(operands.word(bytes)?),
        more => return Err(format!("found {} operands, wanted 3 or 4", 3 + more.len())),
    };
    let (shared, global) = (operands.address(shared)?, operands.address(global)?);
    Ok(Some(Op::CopyAsync { shared, global, bytes, source_bytes }))
}
