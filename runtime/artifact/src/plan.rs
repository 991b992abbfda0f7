//! The plan: flat lists of kernel launches over one arena of memory.
use crate::VendorProduct;
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
    /// Indexed by [`Launch::kernel`].
    pub kernels: Vec<Kernel>,
    /// Read-only data made at compile time (rotary tables), addressed by [`Arg::Constant`].
    pub constants: Vec<u8>,
    /// What is not trained: checkpoint tensors that stay in their memory-mapped files, or drawn ones.
    pub weights: Vec<WeightTensor>,
    /// Trainable parameters, which live in the arena.
    pub params: Vec<Param>,
    pub programs: Vec<Program>,
}

/// What one launch does, and how much work that is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Kernel {
    pub symbol: String,
    pub work: Work,
    pub code: Code,
}

/// What does the tasks of a launch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Code {
    /// Threads of a CPU, by the function that is called as the kernel is.
    Cpu,
    /// Blocks of a GPU, by that function.
    Gpu(Block),
    /// cuBLASLt, as one task.
    Vendor(VendorProduct),
}

impl Kernel {
    /// The tensor map that it wants in place of an operand's address, if it does.
    pub fn map(&self, operand: usize) -> Option<&TensorMap> {
        let Code::Gpu(block) = &self.code else { return None };
        block.map(operand)
    }

    /// The product, if the vendor's library computes it.
    pub fn vendor_product(&self) -> Option<&VendorProduct> {
        match &self.code {
            Code::Vendor(product) => Some(product),
            Code::Cpu | Code::Gpu(_) => None,
        }
    }
}

/// The threads of a GPU that do a task together.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Block {
    pub threads: u32,
    /// Bytes of memory that they share, given at the launch.
    pub shared_bytes: u32,
    /// Operands that the kernel wants as tensor maps instead of addresses, in the operands' order.
    pub maps: Vec<TensorMap>,
    /// Operands that the kernel takes as one parameter, in their order.
    pub arrays: Vec<OperandArray>,
}

/// Neighbouring operands that are one parameter of a kernel: their addresses, or their tensor maps where there is one for the
/// first, which describes all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OperandArray {
    pub first: u32,
    pub count: u32,
}

impl OperandArray {
    /// Index of the operand behind the last, which is less than 2^33.
    pub fn end(&self) -> u64 {
        u64::from(self.first) + u64::from(self.count)
    }
}

impl Block {
    /// The tensor map that the kernel wants in place of an operand's address, if it does.
    pub fn map(&self, operand: usize) -> Option<&TensorMap> {
        let described = self.array(operand).map_or(operand, |array| array.first as usize);
        self.maps.iter().find(|map| map.operand as usize == described)
    }

    /// The array that an operand belongs to, if it does.
    pub fn array(&self, operand: usize) -> Option<&OperandArray> {
        self.arrays.iter().find(|array| array.first as usize <= operand && (operand as u64) < array.end())
    }
}

/// A matrix that a kernel copies box by box into shared memory, where boxes lie under the swizzle of as many bytes as their
/// rows have, and are zeros outside of the matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TensorMap {
    /// Index of the operand among a launch's.
    pub operand: u32,
    pub storage: Storage,
    pub rows: u64,
    pub columns: u64,
    /// Elements from one row to the next.
    pub stride: u64,
    pub box_rows: u32,
    /// Bytes of a row of a box: 32, 64 or 128.
    pub box_row_bytes: u32,
}

impl TensorMap {
    /// Elements of a box's row.
    pub fn box_columns(&self) -> u32 {
        self.box_row_bytes / self.storage.bytes() as u32
    }

    /// Bytes from one row to the next, if there is such a number.
    pub fn pitch(&self) -> Option<u64> {
        self.stride.checked_mul(self.storage.bytes())
    }

    /// Bytes from the first element to behind the last, if there is such a number.
    pub fn span(&self) -> Option<u64> {
        let rows = self.rows.checked_sub(1)?.checked_mul(self.pitch()?)?;
        rows.checked_add(self.columns.checked_mul(self.storage.bytes())?)
    }
}

/// What of a batch the work of a launch is in proportion to.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Varies {
    /// Nothing: it follows from sizes.
    #[default]
    Never,
    /// Tokens with a label.
    Labels,
    /// Pairs of a query and a key that it sees, at most so many keys a query.
    Pairs { window: Option<u64> },
}

/// What a launch has to do, whatever the machine; where that depends on what operands hold, the most that it can be.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Work {
    /// Kernels of one family keep a machine busy in the same way.
    pub family: String,
    /// Floating-point operations; a multiply-add counts two.
    pub operations: u64,
    /// Bytes of operands, each read and each written once.
    pub bytes: u64,
    pub varies: Varies,
}

/// A frozen tensor, by its name in the checkpoint, which it comes from or is called as if it did.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WeightTensor {
    pub name: String,
    pub storage: Storage,
    pub shape: Vec<u64>,
    pub init: Init,
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

/// Where the first value of a parameter, or the only one of a frozen tensor, comes from.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// The tensor of the same name in the checkpoint.
    Checkpoint,
    Zeros,
    Ones,
    /// Normal with that standard deviation; but for a row of zeros, such as an embedding's padding.
    Normal {
        deviation: f32,
        zero_row: Option<u64>,
    },
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
    /// What the program keeps in the arena beside the trainable state, for reports.
    pub buffers: Vec<Buffer>,
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
    /// Packed copies of frozen matrices, which all others read: once, before any of them. Its buffers are the copies.
    Pack,
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
    /// The last IR value that it computes, for reports: `function: %value op`.
    pub label: String,
    pub begins: Begins,
    /// The module of the model that it belongs to, such as `model.layers.3.self_attn.q_proj`; empty where there is none.
    pub module: String,
}

/// What a launch waits for. Launches of one of which nobody waits for the other touch no memory in common but what both only read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Begins {
    /// For nothing that those before it do not wait for: the threads of a CPU go on to it.
    Beside,
    /// For all launches before it: the threads of a CPU meet.
    BehindAll,
    /// For those before it in a stream of a GPU, and these of other streams, the latest first.
    InStream { stream: u32, behind: Vec<u32> },
}

/// Most streams of a GPU that a program's launches are in.
pub const MOST_STREAMS: u32 = 16;

/// Memory of the arena while a part of a program runs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Buffer {
    /// What it holds: `function: %value op`, or the name of an input.
    pub label: String,
    /// The module of the model in whose call it is made.
    pub module: String,
    pub offset: u64,
    pub bytes: u64,
    /// The first and the last launch that touch it; an input is touched before the first, an output after the last.
    pub first: u32,
    pub last: u32,
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
