//! Matrix instructions of a warp: `ldmatrix`, `stmatrix`, `mma.sync`.
use super::{
    Decoded,
    operands::{Operands, exactly},
};
use crate::{
    op::{Element, MultiplyOp, Op},
    parse::Instruction,
};

pub fn decode(operands: &mut Operands, instruction: &Instruction) -> Decoded {
    let parts: Vec<&str> = instruction.opcode.split('.').collect();
    match parts.as_slice() {
        ["ldmatrix", "sync", "aligned", "m8n8", count, rest @ ..] => {
            let Some(transposed) = transposed(rest) else { return Ok(None) };
            let [to, address] = exactly(instruction)?;
            let (to, address) = (operands.words(to)?, operands.address(address)?);
            expect_matrices(count, to.len())?;
            Ok(Some(Op::LoadMatrix { to, address, transposed }))
        }
        ["stmatrix", "sync", "aligned", "m8n8", count, rest @ ..] => {
            let Some(transposed) = transposed(rest) else { return Ok(None) };
            let [address, from] = exactly(instruction)?;
            let (from, address) = (operands.words(from)?, operands.address(address)?);
            expect_matrices(count, from.len())?;
            Ok(Some(Op::StoreMatrix { from, address, transposed }))
        }
        ["mma", "sync", "aligned", shape, "row", "col", "f32", a, b, "f32"] if a == b => {
            multiply(operands, instruction, shape, a)
        }
        _ => Ok(None),
    }
}

fn transposed(modifiers: &[&str]) -> Option<bool> {
    match modifiers {
        ["shared" | "shared::cta", "b16"] => Some(false),
        ["trans", "shared" | "shared::cta", "b16"] => Some(true),
        _ => None,
    }
}

fn expect_matrices(count: &str, registers: usize) -> Result<(), String> {
    if count == format!("x{registers}") && matches!(registers, 1 | 2 | 4) {
        return Ok(());
    }
    Err(format!("found {registers} registers, wanted as many as `.{count}` says"))
}

fn multiply(operands: &mut Operands, instruction: &Instruction, shape: &str, element: &str) -> Decoded {
    let (element, k) = match (element, shape) {
        ("bf16", "m16n8k16") => (Element::Bf16, 16),
        ("bf16", "m16n8k8") => (Element::Bf16, 8),
        ("f16", "m16n8k16") => (Element::F16, 16),
        ("f16", "m16n8k8") => (Element::F16, 8),
        ("tf32", "m16n8k8") => (Element::Tf32, 8),
        ("tf32", "m16n8k4") => (Element::Tf32, 4),
        _ => return Ok(None),
    };
    let [d, a, b, c] = exactly(instruction)?;
    let op = MultiplyOp {
        element,
        k,
        d: operands.words(d)?,
        a: operands.words(a)?,
        b: operands.words(b)?,
        c: operands.words(c)?,
    };
    let per_register = if element == Element::Tf32 { 1 } else { 2 };
    let wanted = [4, 16 * k / 32 / per_register, 8 * k / 32 / per_register, 4];
    let found = [op.d.len(), op.a.len(), op.b.len(), op.c.len()];
    if found != wanted {
        return Err(format!("found {found:?} registers of D, A, B and C, wanted {wanted:?}"));
    }
    Ok(Some(Op::Multiply(Box::new(op))))
}
