//! Barriers, and what the lanes of a warp do together.
use super::{
    Decoded,
    operands::{Operands, exactly, integer},
};
use crate::{
    op::{BarrierKind, BarrierOp, Op, Reduction, RegistersOp, Shuffle, ShuffleOp, Vote},
    parse::{Instruction, Operand},
};

pub fn decode(operands: &mut Operands, instruction: &Instruction) -> Decoded {
    let opcode = instruction.opcode.as_str();
    let parts: Vec<&str> = opcode.split('.').collect();
    match parts.as_slice() {
        ["bar", "warp", "sync"] => {
            let [members] = exactly(instruction)?;
            Ok(Some(Op::WarpSync { members: operands.word(members)? }))
        }
        ["barrier", "cluster", "arrive", rest @ ..] => Ok(cluster_arrive(rest)),
        ["barrier", "cluster", "wait", rest @ ..] => {
            let known = rest.iter().all(|part| matches!(*part, "acquire" | "aligned"));
            Ok(known.then_some(Op::ClusterWait))
        }
        ["bar" | "barrier", rest @ ..] => barrier(operands, instruction, parts[0] == "bar", rest),
        ["shfl", "sync", kind, "b32"] => shuffle(operands, instruction, kind),
        ["vote", "sync", kind, _] => vote(operands, instruction, kind),
        ["activemask", "b32"] => {
            let [to] = exactly(instruction)?;
            Ok(Some(Op::ActiveMask { to: operands.destination_word(to)? }))
        }
        ["redux", "sync", kind, of] => reduce(operands, instruction, kind, of),
        ["elect", "sync"] => elect(operands, instruction),
        ["setmaxnreg", "inc", "sync", "aligned", "u32"] => registers(instruction, true),
        ["setmaxnreg", "dec", "sync", "aligned", "u32"] => registers(instruction, false),
        ["griddepcontrol", ..] | ["nanosleep", ..] => Ok(Some(Op::Nothing)),
        _ => Ok(None),
    }
}

/// Registers of a thread: multiples of 8 from 24 to 256.
fn registers(instruction: &Instruction, grows: bool) -> Decoded {
    let [count] = exactly(instruction)?;
    let count = integer(count)?;
    if !(24..=256).contains(&count) || count % 8 != 0 {
        return Err(format!("found {count} registers, wanted a multiple of 8 from 24 to 256"));
    }
    Ok(Some(Op::Registers(RegistersOp { count: count as u32, grows })))
}

fn cluster_arrive(modifiers: &[&str]) -> Option<Op> {
    let known = modifiers.iter().all(|part| matches!(*part, "release" | "relaxed" | "aligned"));
    known.then(|| Op::ClusterArrive { release: !modifiers.contains(&"relaxed") })
}

/// `bar` is `barrier` with `.aligned`.
fn barrier(operands: &mut Operands, instruction: &Instruction, aligned: bool, modifiers: &[&str]) -> Decoded {
    let modifiers: Vec<&str> = modifiers.iter().copied().filter(|part| *part != "cta").collect();
    let (kind, aligned) = match modifiers.as_slice() {
        ["sync"] => (BarrierKind::Sync, aligned),
        ["sync", "aligned"] => (BarrierKind::Sync, true),
        ["arrive"] => (BarrierKind::Arrive, aligned),
        ["arrive", "aligned"] => (BarrierKind::Arrive, true),
        _ => return Ok(None),
    };
    let (id, threads) = match instruction.operands.as_slice() {
        [id] if kind == BarrierKind::Sync => (id, None),
        [id, threads] => (id, Some(operands.word(threads)?)),
        other => return Err(format!("found {} operands, wanted a barrier and a number of threads", other.len())),
    };
    Ok(Some(Op::Barrier(BarrierOp { kind, aligned, id: operands.word(id)?, threads })))
}

fn shuffle(operands: &mut Operands, instruction: &Instruction, kind: &str) -> Decoded {
    let kind = match kind {
        "up" => Shuffle::Up,
        "down" => Shuffle::Down,
        "bfly" => Shuffle::Butterfly,
        "idx" => Shuffle::Index,
        _ => return Ok(None),
    };
    let [to, from, lane, clamp, members] = exactly(instruction)?;
    let (to, valid) = match to {
        Operand::Pair(to, valid) => (to.as_ref(), Some(operands.predicate(valid)?)),
        single => (single, None),
    };
    let to = operands.destination_word(to)?;
    let (from, lane) = (operands.word(from)?, operands.word(lane)?);
    let (clamp, members) = (operands.word(clamp)?, operands.word(members)?);
    Ok(Some(Op::Shuffle(Box::new(ShuffleOp { kind, to, valid, from, lane, clamp, members }))))
}

fn vote(operands: &mut Operands, instruction: &Instruction, kind: &str) -> Decoded {
    let [to, from, members] = exactly(instruction)?;
    let (from, members) = (operands.predicate(from)?, operands.word(members)?);
    let kind = match kind {
        "all" => Vote::All,
        "any" => Vote::Any,
        "uni" => Vote::Uniform,
        "ballot" => return Ok(Some(Op::Ballot { to: operands.destination_word(to)?, from, members })),
        _ => return Ok(None),
    };
    Ok(Some(Op::Vote { kind, to: operands.predicate(to)?, from, members }))
}

fn reduce(operands: &mut Operands, instruction: &Instruction, kind: &str, of: &str) -> Decoded {
    let kind = match (kind, of) {
        ("add", "u32" | "s32") => Reduction::Add,
        ("min", "u32") => Reduction::Min,
        ("max", "u32") => Reduction::Max,
        ("min", "s32") => Reduction::SignedMin,
        ("max", "s32") => Reduction::SignedMax,
        ("and", "b32") => Reduction::And,
        ("or", "b32") => Reduction::Or,
        ("xor", "b32") => Reduction::Xor,
        _ => return Ok(None),
    };
    let [to, from, members] = exactly(instruction)?;
    let (from, members) = (operands.word(from)?, operands.word(members)?);
    Ok(Some(Op::Reduce { kind, to: operands.destination_word(to)?, from, members }))
}

fn elect(operands: &mut Operands, instruction: &Instruction) -> Decoded {
    let [to, members] = exactly(instruction)?;
    let Operand::Pair(leader, to) = to else { return Err("wanted `leader|predicate`".to_owned()) };
    let leader = match leader.as_ref() {
        Operand::Sink => None,
        register => Some(operands.destination_word(register)?),
    };
    Ok(Some(Op::Elect { leader, to: operands.predicate(to)?, members: operands.word(members)? }))
}
