//! The plan: flat lists of kernel launches over one arena of memory.
use serde::{Deserialize, Serialize};

/// How the elements of a buffer are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    F32,
    Bf16,
    I32,
}

impl Storage {
    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        match self {
            Storage::F32 | Storage::I32 => 4,
            Storage::Bf16 => 2,
        }
    }
}

/// Everything that the runtime does, decided at compile time.
#[derive(Clone, Default, PartialEq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Bytes of the arena: trainable state first, then what the programs share.
    pub arena_bytes: u64,
    /// Bytes of private scratch that every thread has while it runs a task.
    pub scratch_bytes: u64,
    /// Symbols in the shared object, indexed by [`Launch::kernel`].
    pub kernels: Vec<String>,
    /// Read-only data made at compile time (rotary tables), addressed by [`Arg::Constant`].
    pub constants: Vec<u8>,
    /// Checkpoint tensors that stay in their memory-mapped files.
    pub weights: Vec<WeightTensor>,
    /// Trainable parameters, which live in the arena.
    pub params: Vec<Param>,
    pub programs: Vec<Program>,
}

/// A frozen tensor, by its name in the checkpoint.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WeightTensor {
    pub name: String,
    pub storage: Storage,
    pub shape: Vec<u64>,
}

/// A trainable parameter and its optimizer state; every field `*_offset` is a byte offset into the arena. In a plan that
/// does not train, only the value is there.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Param {
    /// Name in the written file (the checkpoint name, or PEFT's name of an adapter matrix).
    pub name: String,
    pub storage: Storage,
    pub shape: Vec<u64>,
    pub init: Init,
    /// Where the value is, stored as `storage`.
    pub value_offset: u64,
    /// Where the gradient is, f32.
    pub grad_offset: u64,
    /// Adam's first and second moment, f32.
    pub exp_avg_offset: u64,
    pub exp_avg_sq_offset: u64,
}

/// Where the first value of a parameter comes from.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// The tensor of the same name in the checkpoint.
    Checkpoint,
    Zeros,
    /// Normal with standard deviation sqrt(2 / (fan_in + fan_out)).
    XavierNormal,
    /// Uniform in ±sqrt(6 / ((1 + a²) fan_in)), a² = 5.
    KaimingUniform,
}

/// One list of launches, run from start to end.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Program {
    pub name: String,
    pub kind: ProgramKind,
    /// Rows of a batch and tokens of a row; 0 where it means nothing (`Update`).
    pub batch: u64,
    pub seq: u64,
    /// Buffers that the caller fills before the run.
    pub inputs: Vec<Port>,
    /// Buffers that the caller may read after the run.
    pub outputs: Vec<Port>,
    pub launches: Vec<Launch>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgramKind {
    /// One microbatch: forward, loss, backward; adds to the gradients.
    Train,
    /// One microbatch: forward and loss.
    Evaluate,
    /// Clip, optimizer, gradients to zero.
    Update,
    /// Forward up to the logits of every row.
    Logits,
    /// A chunk of tokens behind a key/value cache, to the logits of its last row.
    Decode,
}

/// A named buffer of the arena.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Port {
    pub name: String,
    pub storage: Storage,
    pub shape: Vec<u64>,
    pub offset: u64,
}

/// One kernel over tasks `0..tasks`; tasks of a launch are independent of each other.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Launch {
    pub kernel: u32,
    pub tasks: u32,
    pub args: Vec<Arg>,
    /// The IR value it computes, for reports.
    pub label: String,
}

/// An operand of a launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Arg {
    /// Byte offset into the arena.
    Arena(u64),
    /// Byte offset into a frozen tensor.
    Weight { tensor: u32, offset: u64 },
    /// Byte offset into [`Plan::constants`].
    Constant(u64),
}
