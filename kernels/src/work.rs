//! What a kernel has to do, whatever the machine: arithmetic, and memory traffic that no schedule can avoid.
use crate::emit::Elem;

/// What of the operands' content the work of a launch is in proportion to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Varies {
    /// Nothing: it follows from sizes.
    Never,
    /// Tokens with a label.
    Labels,
    /// Pairs of a query and a key that it sees, at most so many keys a query.
    Pairs { window: Option<usize> },
}

/// The work of one launch, over all of its tasks.
///
/// Where it depends on what operands hold, it is the most that it can be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Work {
    /// Kernels of one family keep a machine busy in the same way, so one rate describes them.
    pub family: &'static str,
    /// Floating-point operations; a multiply-add counts two.
    pub operations: u64,
    /// Bytes of operands, each read and each written once.
    pub bytes: u64,
    pub varies: Varies,
}

impl Work {
    /// Work of `operations`, moving nothing so far.
    pub fn new(family: &'static str, operations: usize) -> Work {
        Work { family, operations: operations as u64, bytes: 0, varies: Varies::Never }
    }

    /// Adds the traffic of `count` elements.
    pub fn moving(self, count: usize, elem: Elem) -> Work {
        Work { bytes: self.bytes + count as u64 * elem.bytes(), ..self }
    }

    /// The same work, of which the content of operands decides how much is done.
    pub fn varying(self, varies: Varies) -> Work {
        Work { varies, ..self }
    }
}
