//! What a line of the table measures.
use crate::rounds::Operand;
use amc_kernels::Kernel;
use amc_kernels::emit::Elem;

/// A kernel of the step, with what it is for.
pub struct Case {
    pub role: String,
    /// Sizes of the problem.
    pub size: String,
    /// Forms of storage.
    pub elems: String,
    pub kernel: Kernel,
    pub operands: Vec<Operand>,
    /// Whether both factors of its products are bf16.
    pub pairs: bool,
}

impl Case {
    pub fn new(role: &str, size: String, elem: Elem, kernel: Kernel, operands: Vec<Operand>) -> Case {
        Case { role: role.into(), size, elems: elem.name().into(), kernel, operands, pairs: false }
    }

    /// What filters are looked for in.
    pub fn line(&self) -> String {
        format!("{} {} {}", self.role, self.size, self.elems)
    }

    /// Bytes of all operands that a run uses, each once.
    pub fn footprint(&self) -> u64 {
        self.operands.iter().map(Operand::touched_bytes).sum()
    }
}
