//! Matrix products of a warpgroup: `wgmma`.
use super::{
    Decoded,
    operands::{Operands, exactly, integer},
};
use crate::{
    op::{Accumulate, Element, MatrixSource, Op, WarpgroupMultiplyOp},
    parse::{Instruction, Operand, Register},
};

pub fn decode(operands: &mut Operands, instruction: &Instruction) -> Decoded {
    let parts: Vec<&str> = instruction.opcode.split('.').collect();
    match parts.as_slice() {
        ["wgmma", "fence", "sync", "aligned"] => Ok(Some(Op::WarpgroupFence)),
        ["wgmma", "commit_group", "sync", "aligned"] => Ok(Some(Op::WarpgroupCommit)),
        ["wgmma", "wait_group", "sync", "aligned"] => {
            let [pending] = exactly(instruction)?;
            Ok(Some(Op::WarpgroupWait { pending: integer(pending)? as u32 }))
        }
        ["wgmma", "mma_async", "sync", "aligned", shape, "f32", a, b] if a == b => {
            multiply(operands, instruction, shape, a)
        }
        _ => Ok(None),
    }
}

/// `m64nNkK` as (N, K).
fn sizes(shape: &str) -> Option<(usize, usize)> {
    let (n, k) = shape.strip_prefix("m64n")?.split_once('k')?;
    Some((n.parse().ok()?, k.parse().ok()?))
}

fn multiply(operands: &mut Operands, instruction: &Instruction, shape: &str, element: &str) -> Decoded {
    let Some((n, k)) = sizes(shape) else { return Ok(None) };
    let element = match (element, k) {
        ("bf16", 16) => Element::Bf16,
        ("f16", 16) => Element::F16,
        ("tf32", 8) => Element::Tf32,
        _ => return Ok(None),
    };
    if n % 8 != 0 || !(8..=256).contains(&n) {
        return Err(format!("found {n} columns, wanted a multiple of 8 up to 256"));
    }
    let [d, a, b, accumulate, scale_a, scale_b, transposed @ ..] = instruction.operands.as_slice() else {
        return Err(format!("found {} operands, wanted at least 6", instruction.operands.len()));
    };
    let a = match a {
        Operand::Vector(_) => MatrixSource::Registers(operands.words(a)?),
        descriptor => MatrixSource::Descriptor(operands.double(descriptor)?),
    };
    let (transposed_a, transposed_b) = match (&a, transposed) {
        (_, []) => (false, false),
        (MatrixSource::Registers(_), [b]) => (false, integer(b)? == 1),
        (MatrixSource::Descriptor(_), [a, b]) => (integer(a)? == 1, integer(b)? == 1),
        _ => return Err(format!("found {} transposition flags", transposed.len())),
    };
    let accumulate = match accumulate {
        Operand::Register(Register::Predicate(_)) => Accumulate::If(operands.predicate(accumulate)?),
        number => Accumulate::Always(integer(number)? != 0),
    };
    let (d, b) = (operands.words(d)?, operands.double(b)?);
    let found = (d.len(), if let MatrixSource::Registers(a) = &a { a.len() } else { 4 });
    if found != (n / 2, 4) {
        return Err(format!("found {found:?} registers of D and A, wanted {:?}", (n / 2, 4)));
    }
    let negate = (integer(scale_a)? as i64) * (integer(scale_b)? as i64) < 0;
    let op = WarpgroupMultiplyOp { element, n, k, d, a, b, accumulate, negate, transposed_a, transposed_b };
    Ok(Some(Op::WarpgroupMultiply(Box::new(op))))
}
