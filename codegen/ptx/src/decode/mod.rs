//! From parsed text to [`Kernel`]s. An opcode that no family knows is an error here, before anything runs.
mod arithmetic;
mod asynchronous;
mod layout;
mod matrix;
mod memory;
mod moves;
mod operands;
mod synchronization;
mod warpgroup;

use crate::{
    control_flow::reconvergence,
    error::Error,
    op::Op,
    parse::{self, Entry, Module, Statement},
    program::{Instruction, Kernel},
};
use operands::Operands;

/// What a family of opcodes answers: its op, nothing where the opcode is of another family, or what is wrong with it.
type Decoded = Result<Option<Op>, String>;

const FAMILIES: [fn(&mut Operands, &parse::Instruction) -> Decoded; 7] = [
    arithmetic::decode,
    moves::decode,
    memory::decode,
    synchronization::decode,
    asynchronous::decode,
    matrix::decode,
    warpgroup::decode,
];

/// The kernels of a module.
pub fn decode(module: &Module) -> Result<Vec<Kernel>, Error> {
    module.entries.iter().map(|entry| kernel(module, entry)).collect()
}

fn kernel(module: &Module, entry: &Entry) -> Result<Kernel, Error> {
    let unsupported = |line, found| Error::Unsupported { kernel: entry.name.clone(), line, found };
    let layout = layout::Layout::of(module, entry);
    let mut operands = Operands::new(entry, layout.symbols);
    let mut opcodes: Vec<String> = Vec::new();
    let mut code = Vec::new();
    for statement in &entry.statements {
        let Statement::Instruction(instruction) = statement else { continue };
        let op = instruction_op(&mut operands, instruction).map_err(|found| unsupported(instruction.line, found))?;
        let opcode = position(&mut opcodes, &instruction.opcode);
        code.push(Instruction { op, guard: instruction.guard, line: instruction.line, opcode });
    }
    let end_is_reached = code
        .last()
        .is_none_or(|last| last.guard.is_some() || !matches!(last.op, Op::Exit | Op::Trap | Op::Branch { .. }));
    if end_is_reached {
        let opcode = position(&mut opcodes, "ret");
        code.push(Instruction { op: Op::Exit, guard: None, line: entry.line, opcode });
    }
    let reconvergence = reconvergence(&code);
    let (files, specials) = operands.finish();
    Ok(Kernel {
        name: entry.name.clone(),
        parameters: entry.parameters.clone(),
        max_threads: entry.max_threads,
        required_threads: entry.required_threads,
        cluster: entry.cluster,
        least_blocks: entry.least_blocks,
        shared: layout.shared,
        local_bytes: layout.local_bytes,
        code,
        opcodes,
        files,
        specials,
        reconvergence,
        variables: layout.variables,
    })
}

fn instruction_op(operands: &mut Operands, instruction: &parse::Instruction) -> Result<Op, String> {
    for family in FAMILIES {
        let decoded = family(operands, instruction).map_err(|found| format!("`{}`: {found}", instruction.opcode))?;
        if let Some(op) = decoded {
            return Ok(op);
        }
    }
    Err(format!("the instruction `{}` is not supported", instruction.opcode))
}

fn position(opcodes: &mut Vec<String>, opcode: &str) -> u32 {
    let known = opcodes.iter().position(|known| known == opcode);
    known.unwrap_or_else(|| {
        opcodes.push(opcode.to_owned());
        opcodes.len() - 1
    }) as u32
}
