//! What a kernel has to do, whatever the machine: arithmetic, and memory traffic that no schedule can avoid.
use crate::emit::Elem;

/// The work of one launch, over all of its tasks.
///
/// Where the work depends on what operands hold (labels, segments), it is the most that it can be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Work {
    /// Kernels of one family keep a machine busy in the same way, so one rate describes them.
    pub family: &'static str,
    /// Floating-point operations; a multiply-add counts two.
    pub operations: u64,
    /// Bytes of operands, each read and each written once.
    pub bytes: u64,
}

impl Work {
    /// Work of `operations`, moving nothing so far.
    pub fn new(family: &'static str, operations: usize) -> Work {
        Work { family, operations: operations as u64, bytes: 0 }
    }

    /// Adds the traffic of `count` elements.
    pub fn moving(self, count: usize, elem: Elem) -> Work {
        Work { bytes: self.bytes + count as u64 * elem.bytes(), ..self }
    }
}
