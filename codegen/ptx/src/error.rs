//! What can go wrong, from the text of a kernel to its last access.
use crate::parse::{ParseError, Space};
use std::fmt;

/// An error of reading or running PTX.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("PTX {0}")]
    Parse(#[from] ParseError),
    /// An instruction that this interpreter does not know, found before anything runs.
    #[error("kernel `{kernel}`, line {line}: {found}")]
    Unsupported { kernel: String, line: u32, found: String },
    #[error("launch of `{kernel}`: {found}")]
    Launch { kernel: String, found: String },
    #[error(transparent)]
    Fault(Box<Fault>),
}

/// Something that a GPU leaves undefined, or that never ends.
#[derive(Debug, thiserror::Error)]
#[error("kernel `{kernel}`, line {line} (`{opcode}`), {place}: {kind}")]
pub struct Fault {
    pub kernel: String,
    /// Line of the PTX text.
    pub line: u32,
    pub opcode: String,
    pub place: Place,
    pub kind: FaultKind,
}

/// A thread of a launch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub block: [u32; 3],
    pub thread: [u32; 3],
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([bx, by, bz], [tx, ty, tz]) = (self.block, self.thread);
        write!(f, "block ({bx}, {by}, {bz}), thread ({tx}, {ty}, {tz})")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum FaultKind {
    #[error("{bytes} bytes at {address:#x} of {space} memory: {found}")]
    OutOfBounds { space: Space, address: u64, bytes: u64, found: String },
    #[error("address {address:#x} of {space} memory is not a multiple of {wanted}")]
    Misaligned { space: Space, address: u64, wanted: u64 },
    #[error("reads {bytes} bytes at {address:#x} of {space} memory ({found}) that nobody wrote")]
    Unwritten { space: Space, address: u64, bytes: u64, found: String },
    #[error("writes {bytes} bytes at {address:#x} of {space} memory, which is read-only")]
    ReadOnly { space: Space, address: u64, bytes: u64 },
    #[error("uses a register that nobody wrote: operand {operand}")]
    UndefinedRegister { operand: &'static str },
    #[error("uses a register of a wgmma that is still running: operand {operand}; wait for its group first")]
    PendingRegister { operand: &'static str },
    #[error("data race: {mine} of address {address:#x} of {space} memory ({found}) and {other} are not ordered")]
    Race { space: Space, address: u64, found: String, mine: &'static str, other: String },
    #[error("deadlock, everything waits:\n{0}")]
    Deadlock(String),
    #[error("ran {0} instructions, the launch's budget, without coming to an end")]
    Budget(u64),
    #[error("trap")]
    Trap,
    /// A rule of one instruction that the operands or the state of a barrier break.
    #[error("{0}")]
    Misuse(String),
}
