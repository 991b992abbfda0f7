//! Copies that run on their own, and the mbarriers that tell of their end.
use super::{
    Decoded,
    operands::{Operands, exactly, integer},
};
use crate::{
    op::{Address, ArriveOp, BulkDirection, BulkGlobal, BulkOp, CopyOp, Op, Phase, WaitOp},
    parse::{Instruction, Operand},
};

pub fn decode(operands: &mut Operands, instruction: &Instruction) -> Decoded {
    let parts: Vec<&str> = instruction.opcode.split('.').collect();
    match parts.as_slice() {
        ["mbarrier", rest @ ..] => mbarrier(operands, instruction, rest),
        ["cp", "async", "bulk", rest @ ..] => bulk(operands, instruction, rest, false),
        ["cp", "reduce", "async", "bulk", rest @ ..] => bulk(operands, instruction, rest, true),
        ["cp", "async", rest @ ..] => copies(operands, instruction, rest),
        ["mapa", rest @ ..] => map_shared(operands, instruction, rest),
        _ => Ok(None),
    }
}

fn copies(operands: &mut Operands, instruction: &Instruction, parts: &[&str]) -> Decoded {
    match parts {
        ["commit_group"] => Ok(Some(Op::CopyCommit)),
        ["wait_all"] => Ok(Some(Op::CopyWait { pending: 0, all: true })),
        ["wait_group"] => {
            let [pending] = exactly(instruction)?;
            Ok(Some(Op::CopyWait { pending: integer(pending)? as u32, all: false }))
        }
        ["mbarrier", "arrive", rest @ ..] => {
            let counted = match rest {
                ["shared" | "shared::cta", "b64"] => true,
                ["noinc", "shared" | "shared::cta", "b64"] => false,
                _ => return Ok(None),
            };
            let [address] = exactly(instruction)?;
            // Without `.noinc` the pending count is raised first, so the arrival does not count.
            Ok(Some(Op::CopyArrive { address: operands.address(address)?, counted: !counted }))
        }
        [cache @ ("ca" | "cg"), "shared" | "shared::cta", "global", hints @ ..]
            if hints.iter().all(|hint| hint.starts_with("L2::") && *hint != "L2::cache_hint") =>
        {
            copy(operands, instruction, cache)
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
    Ok(Some(Op::CopyAsync(CopyOp { shared, global, bytes, source_bytes })))
}

/// Modifiers of an mbarrier instruction that only say what holds anyway: scopes, spaces, the type.
fn is_plain(part: &&str) -> bool {
    matches!(*part, "cta" | "cluster" | "shared" | "shared::cta" | "shared::cluster" | "b64")
}

fn mbarrier(operands: &mut Operands, instruction: &Instruction, parts: &[&str]) -> Decoded {
    let (name, modifiers) = parts.split_first().ok_or("wanted an operation")?;
    let special: Vec<&str> = modifiers.iter().filter(|part| !is_plain(part)).copied().collect();
    match (*name, special.as_slice()) {
        ("init", []) => {
            let [address, count] = exactly(instruction)?;
            Ok(Some(Op::MbarrierInit { address: operands.address(address)?, count: operands.word(count)? }))
        }
        ("inval", []) => {
            let [address] = exactly(instruction)?;
            Ok(Some(Op::MbarrierInvalidate { address: operands.address(address)? }))
        }
        ("expect_tx", [] | ["relaxed"]) => {
            let [address, bytes] = exactly(instruction)?;
            Ok(Some(Op::MbarrierExpect { address: operands.address(address)?, bytes: operands.word(bytes)? }))
        }
        ("arrive", rest) => arrive(operands, instruction, rest, modifiers.contains(&"shared::cluster")),
        ("try_wait" | "test_wait", rest) => wait(operands, instruction, rest),
        _ => Ok(None),
    }
}

fn arrive(operands: &mut Operands, instruction: &Instruction, special: &[&str], remote: bool) -> Decoded {
    let (expects, release) = match special {
        [] | ["release"] => (false, true),
        ["relaxed"] => (false, false),
        ["expect_tx"] | ["expect_tx", "release"] => (true, true),
        ["expect_tx", "relaxed"] => (true, false),
        _ => return Ok(None),
    };
    let [to, address, number @ ..] = instruction.operands.as_slice() else {
        return Err(format!("found {} operands, wanted 2 or 3", instruction.operands.len()));
    };
    let number = number.first().map(|number| operands.word(number)).transpose()?;
    if expects && number.is_none() {
        return Err("wanted the number of bytes to expect".to_owned());
    }
    let to = match to {
        Operand::Sink => None,
        _ if remote => return Err("wanted `_`, as another block's mbarrier tells no phase".to_owned()),
        register => Some(operands.destination_double(register)?),
    };
    let (count, expect) = if expects { (None, number) } else { (number, None) };
    let address = operands.address(address)?;
    Ok(Some(Op::MbarrierArrive(Box::new(ArriveOp { to, address, count, expect, release, remote }))))
}

/// A time limit, the last operand of some waits, is not modelled: waits end when nothing else can run.
fn wait(operands: &mut Operands, instruction: &Instruction, special: &[&str]) -> Decoded {
    let (parity, order) = match special {
        ["parity", order @ ..] => (true, order),
        order => (false, order),
    };
    let acquire = match order {
        [] | ["acquire"] => true,
        ["relaxed"] => false,
        _ => return Ok(None),
    };
    let [to, address, phase, ..] = instruction.operands.as_slice() else {
        return Err(format!("found {} operands, wanted at least 3", instruction.operands.len()));
    };
    let phase = if parity { Phase::Parity(operands.word(phase)?) } else { Phase::State(operands.double(phase)?) };
    let (to, address) = (operands.predicate(to)?, operands.address(address)?);
    Ok(Some(Op::MbarrierWait(WaitOp { to, address, phase, acquire })))
}

fn bulk(operands: &mut Operands, instruction: &Instruction, parts: &[&str], adds: bool) -> Decoded {
    match parts {
        ["commit_group"] => return Ok(Some(Op::BulkCommit)),
        ["wait_group", rest @ ..] => {
            let [pending] = exactly(instruction)?;
            let reads_only = rest == ["read"];
            return Ok(Some(Op::BulkWait { pending: integer(pending)? as u32, reads_only }));
        }
        ["prefetch", ..] => return Ok(Some(Op::Nothing)),
        _ => {}
    }
    let tensor = matches!(parts, ["tensor", ..]);
    let names: Vec<&str> = parts.iter().copied().filter(|part| !matches!(*part, "tensor" | "tile")).collect();
    let names = if tensor { names.get(1..).unwrap_or(&[]) } else { &names };
    let rest = match names {
        ["shared::cluster" | "shared::cta", "global", "mbarrier::complete_tx::bytes", rest @ ..] if !adds => {
            return load(operands, instruction, tensor, rest);
        }
        ["global", "shared::cta", rest @ ..] => rest,
        _ => return Ok(None),
    };
    let direction = match (adds, tensor, rest) {
        (false, _, ["bulk_group", ..]) => BulkDirection::Store,
        (true, true, ["add", "bulk_group", ..]) | (true, false, ["bulk_group", "add", "f32"]) => BulkDirection::Add,
        _ => return Ok(None),
    };
    let [to, shared, sizes @ ..] = instruction.operands.as_slice() else {
        return Err("wanted a destination and a source".to_owned());
    };
    let global = global_side(operands, to, sizes.first(), tensor)?;
    let shared = operands.address(shared)?;
    Ok(Some(Op::Bulk(Box::new(BulkOp { shared, global, direction }))))
}

fn load(operands: &mut Operands, instruction: &Instruction, tensor: bool, modifiers: &[&str]) -> Decoded {
    let known = modifiers.iter().all(|part| matches!(*part, "multicast::cluster" | "L2::cache_hint"));
    if !known {
        return Ok(None);
    }
    let [to, from, rest @ ..] = instruction.operands.as_slice() else {
        return Err("wanted a destination and a source".to_owned());
    };
    let global = global_side(operands, from, rest.first(), tensor)?;
    let rest = if tensor { rest } else { rest.get(1..).unwrap_or(&[]) };
    let [mbarrier, masks @ ..] = rest else { return Err("wanted an mbarrier".to_owned()) };
    let multicast = match (modifiers.contains(&"multicast::cluster"), masks) {
        (true, [mask, ..]) => Some(operands.word(mask)?),
        (true, []) => return Err("wanted the mask of blocks".to_owned()),
        (false, _) => None,
    };
    let direction = BulkDirection::Load { mbarrier: operands.address(mbarrier)?, multicast };
    let shared = operands.address(to)?;
    Ok(Some(Op::Bulk(Box::new(BulkOp { shared, global, direction }))))
}

/// `[map, {coordinates}]`, or an address and a number of bytes.
fn global_side(
    operands: &mut Operands,
    operand: &Operand,
    bytes: Option<&Operand>,
    tensor: bool,
) -> Result<BulkGlobal, String> {
    let address: Address = operands.address(operand)?;
    if !tensor {
        let bytes = bytes.ok_or("wanted a number of bytes")?;
        return Ok(BulkGlobal::Linear { address, bytes: operands.word(bytes)? });
    }
    let Operand::Address(parsed) = operand else { return Err("wanted a tensor map".to_owned()) };
    let coordinates = parsed.coordinates.iter().map(|c| operands.word(c)).collect::<Result<Vec<_>, _>>()?;
    Ok(BulkGlobal::Tensor { map: address, coordinates })
}

fn map_shared(operands: &mut Operands, instruction: &Instruction, modifiers: &[&str]) -> Decoded {
    let generic = match modifiers {
        ["shared::cluster", "u64"] => false,
        ["u64"] => true,
        _ => return Ok(None),
    };
    let [to, from, rank] = exactly(instruction)?;
    let (from, rank) = (operands.double(from)?, operands.word(rank)?);
    Ok(Some(Op::MapShared { to: operands.destination_double(to)?, from, rank, generic }))
}
