//! Several launches that compute one thing together, with memory between them.
use crate::Kernel;

/// What a launch of some [`Steps`] is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// The `i`-th operand of the whole.
    Operand(usize),
    /// The `i`-th temporary.
    Temporary(usize),
}

/// Launches in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Steps {
    /// Bytes of each temporary; their contents mean nothing before and after.
    pub temporaries: Vec<usize>,
    /// Kernels and their operands.
    pub launches: Vec<(Kernel, Vec<Slot>)>,
}
