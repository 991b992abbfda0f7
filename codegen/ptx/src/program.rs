//! A kernel ready to run: decoded instructions and what a launch has to set up for them.
//!
//! Invariants: every operand is a slot of a register file, immediates and special registers included (they are slots
//! that no instruction writes); a branch target is an index into `code`, of which `code.len()` is the exit; every
//! branch has its reconvergence point.
use crate::{
    op::{Doubleword, Op, Word},
    parse::{Guard, Parameter},
};

/// A kernel of a module.
#[derive(Debug)]
pub struct Kernel {
    pub name: String,
    pub parameters: Vec<Parameter>,
    /// `.maxntid`.
    pub max_threads: Option<[u32; 3]>,
    /// `.reqntid`.
    pub required_threads: Option<[u32; 3]>,
    /// `.reqnctapercluster`: blocks of a cluster that the kernel was compiled for.
    pub cluster: Option<[u32; 3]>,
    /// `.minnctapersm`: blocks that a multiprocessor has registers for.
    pub least_blocks: Option<u32>,
    pub(crate) shared: SharedLayout,
    pub(crate) local_bytes: u64,
    pub(crate) code: Vec<Instruction>,
    /// Opcodes as spelled, which instructions point to.
    pub(crate) opcodes: Vec<String>,
    pub(crate) files: Files,
    pub(crate) specials: Vec<(Special, Word)>,
    /// By instruction: where lanes that part at it meet again.
    pub(crate) reconvergence: Vec<u32>,
    /// The module's variables in global and constant memory.
    pub(crate) variables: VariableImage,
}

/// Sizes of the register files, and the slots that hold constants.
#[derive(Debug, Default)]
pub struct Files {
    pub words: u32,
    pub doubles: u32,
    pub predicates: u32,
    pub constant_words: Vec<(Word, u32)>,
    pub constant_doubles: Vec<(Doubleword, u64)>,
}

/// Shared memory of a block: a reserved start, static arrays, then the dynamic one.
#[derive(Clone, Copy, Debug, Default)]
pub struct SharedLayout {
    /// Where the static arrays end; a kernel without a dynamic array has no more.
    pub static_end: u64,
    /// Where the dynamic array starts, if there is one.
    pub dynamic_start: Option<u64>,
}

/// Module variables, read-only, at the addresses that the code was given.
#[derive(Clone, Debug, Default)]
pub struct VariableImage {
    pub bytes: Vec<u8>,
}

#[derive(Debug)]
pub struct Instruction {
    pub op: Op,
    pub guard: Option<Guard>,
    pub line: u32,
    /// Index into [`Kernel::opcodes`].
    pub opcode: u32,
}

/// Registers that the hardware fills. What differs by lane or warp is known when a warp starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    Thread(u8),
    ThreadCount(u8),
    Block(u8),
    BlockCount(u8),
    Lane,
    Warp,
    LanesBelow,
    LanesUpTo,
    LanesAbove,
    LanesFrom,
    LaneBit,
    Cluster(u8),
    ClusterCount(u8),
    ClusterBlock(u8),
    ClusterBlockCount(u8),
    ClusterRank,
    ClusterSize,
    DynamicShared,
    TotalShared,
}

impl Special {
    /// By its PTX name without `%`.
    pub fn named(name: &str) -> Option<Special> {
        if let Some((register, axis)) = name.rsplit_once('.') {
            let axis = ["x", "y", "z"].iter().position(|a| *a == axis)? as u8;
            return Some(match register {
                "tid" => Special::Thread(axis),
                "ntid" => Special::ThreadCount(axis),
                "ctaid" => Special::Block(axis),
                "nctaid" => Special::BlockCount(axis),
                "clusterid" => Special::Cluster(axis),
                "nclusterid" => Special::ClusterCount(axis),
                "cluster_ctaid" => Special::ClusterBlock(axis),
                "cluster_nctaid" => Special::ClusterBlockCount(axis),
                _ => return None,
            });
        }
        Some(match name {
            "laneid" => Special::Lane,
            "warpid" => Special::Warp,
            "lanemask_lt" => Special::LanesBelow,
            "lanemask_le" => Special::LanesUpTo,
            "lanemask_gt" => Special::LanesAbove,
            "lanemask_ge" => Special::LanesFrom,
            "lanemask_eq" => Special::LaneBit,
            "cluster_ctarank" => Special::ClusterRank,
            "cluster_nctarank" => Special::ClusterSize,
            "dynamic_smem_size" => Special::DynamicShared,
            "total_smem_size" => Special::TotalShared,
            _ => return None,
        })
    }
}
