//! Loads, stores, atomics and fences.
use super::{Decoded, moves::space_named, operands::Operands};
use crate::{
    op::{Atomic, AtomicOp, NumberType, Op, Order},
    parse::{Instruction, Operand, Space},
};

pub fn decode(operands: &mut Operands, instruction: &Instruction) -> Decoded {
    let opcode = instruction.opcode.as_str();
    let (head, rest) = opcode.split_once('.').unwrap_or((opcode, ""));
    match head {
        "ld" | "ldu" => load(operands, instruction, rest),
        "st" => store(operands, instruction, rest),
        "atom" | "red" => atomic(operands, instruction, rest, head == "atom"),
        "fence" | "membar" => Ok(fence(opcode)),
        "prefetch" | "prefetchu" | "applypriority" | "discard" => Ok(Some(Op::Nothing)),
        _ => Ok(None),
    }
}

/// What the modifiers of an access say.
struct Access {
    space: Space,
    order: Order,
    bytes: u8,
    number: NumberType,
    /// Modifiers that are not common to all accesses.
    others: Vec<String>,
}

impl Access {
    fn parse(modifiers: &str) -> Option<Access> {
        let mut parts: Vec<&str> = modifiers.split('.').collect();
        let (number, bytes) = number_type(parts.pop()?)?;
        let mut access = Access { space: Space::Generic, order: Order::default(), bytes, number, others: Vec::new() };
        for part in parts {
            match part {
                "weak" | "nc" | "ca" | "cg" | "cs" | "lu" | "cv" | "wb" | "wt" | "cta" | "cluster" | "gpu" | "sys" => {}
                "volatile" | "relaxed" => access.order.strong = true,
                "acquire" => access.order = Order { strong: true, acquire: true, release: false },
                "release" => access.order = Order { strong: true, acquire: false, release: true },
                "acq_rel" => access.order = Order { strong: true, acquire: true, release: true },
                _ if part.starts_with("L1::") || part.starts_with("L2::") => {}
                _ => match space_named(part) {
                    Some(space) => access.space = space,
                    None => access.others.push(part.to_owned()),
                },
            }
        }
        Some(access)
    }

    /// Elements of the vector, if the other modifiers say just that.
    fn elements(&self) -> Option<usize> {
        match self.others.as_slice() {
            [] => Some(1),
            [only] => match only.as_str() {
                "v2" => Some(2),
                "v4" => Some(4),
                "v8" => Some(8),
                _ => None,
            },
            _ => None,
        }
    }
}

fn number_type(name: &str) -> Option<(NumberType, u8)> {
    let number = match name.get(..1)? {
        "b" => NumberType::Bits,
        "u" => NumberType::Unsigned,
        "s" => NumberType::Signed,
        "f" => NumberType::Float,
        _ => return None,
    };
    let bytes = match &name[1..] {
        "8" => 1,
        "16" => 2,
        "32" => 4,
        "64" => 8,
        _ => return None,
    };
    Some((number, bytes))
}

/// The items of `{…}`, or the one operand.
fn items(operand: &Operand) -> &[Operand] {
    match operand {
        Operand::Vector(items) => items,
        single => std::slice::from_ref(single),
    }
}

/// Operands without the cache policy that a `cache_hint` brings.
fn without_policy<'i>(instruction: &'i Instruction, modifiers: &str) -> &'i [Operand] {
    let hinted = modifiers.contains("cache_hint");
    &instruction.operands[..instruction.operands.len() - usize::from(hinted && !instruction.operands.is_empty())]
}

fn load(operands: &mut Operands, instruction: &Instruction, modifiers: &str) -> Decoded {
    let Some(access) = Access::parse(modifiers) else { return Ok(None) };
    let Some(elements) = access.elements() else { return Ok(None) };
    let [to, address] = without_policy(instruction, modifiers) else {
        return Err("wanted a destination and an address".to_owned());
    };
    let to = items(to).iter().map(|item| operands.destination(item)).collect::<Result<Vec<_>, _>>()?;
    if to.len() != elements {
        return Err(format!("found {} destinations, wanted {elements}", to.len()));
    }
    let Access { space, bytes, order, number, .. } = access;
    let signed = number == NumberType::Signed;
    Ok(Some(Op::Load { space, bytes, signed, order, to, address: operands.address(address)? }))
}

fn store(operands: &mut Operands, instruction: &Instruction, modifiers: &str) -> Decoded {
    let Some(access) = Access::parse(modifiers) else { return Ok(None) };
    let Some(elements) = access.elements() else { return Ok(None) };
    let [address, from] = without_policy(instruction, modifiers) else {
        return Err("wanted an address and a source".to_owned());
    };
    let Access { space, bytes, order, .. } = access;
    let from = items(from).iter().map(|item| operands.slot(item, bytes)).collect::<Result<Vec<_>, _>>()?;
    if from.len() != elements {
        return Err(format!("found {} sources, wanted {elements}", from.len()));
    }
    Ok(Some(Op::Store { space, bytes, order, from, address: operands.address(address)? }))
}

fn atomic(operands: &mut Operands, instruction: &Instruction, modifiers: &str, returns: bool) -> Decoded {
    let Some(access) = Access::parse(modifiers) else { return Ok(None) };
    let [name] = access.others.as_slice() else { return Ok(None) };
    let Some(kind) = atomic_named(name) else { return Ok(None) };
    let float = access.number == NumberType::Float;
    if access.bytes < 4 || float && (kind != Atomic::Add || access.bytes != 4) {
        return Ok(None);
    }
    let mut rest = instruction.operands.as_slice();
    let mut next = || {
        let (first, others) = rest.split_first().ok_or("too few operands")?;
        rest = others;
        Ok::<_, String>(first)
    };
    let to = if returns { operands.destination(next()?)? } else { None };
    let address = operands.address(next()?)?;
    let a = operands.slot(next()?, access.bytes)?;
    let b = if kind == Atomic::CompareAndSwap { Some(operands.slot(next()?, access.bytes)?) } else { None };
    let order = Order { strong: true, ..access.order };
    let Access { space, bytes, number, .. } = access;
    Ok(Some(Op::Atomic(Box::new(AtomicOp { space, kind, number, bytes, order, to, address, a, b }))))
}

fn atomic_named(name: &str) -> Option<Atomic> {
    Some(match name {
        "add" => Atomic::Add,
        "min" => Atomic::Min,
        "max" => Atomic::Max,
        "and" => Atomic::And,
        "or" => Atomic::Or,
        "xor" => Atomic::Xor,
        "inc" => Atomic::Increment,
        "dec" => Atomic::Decrement,
        "exch" => Atomic::Exchange,
        "cas" => Atomic::CompareAndSwap,
        _ => return None,
    })
}

fn fence(opcode: &str) -> Option<Op> {
    let proxy = opcode.starts_with("fence.proxy.async") || opcode == "fence.mbarrier_init.release.cluster";
    let scoped = ["fence.acq_rel.", "fence.sc.", "membar."].iter().any(|start| opcode.starts_with(start));
    if proxy || scoped {
        return Some(Op::Fence { release_acquire: scoped, proxy });
    }
    None
}
