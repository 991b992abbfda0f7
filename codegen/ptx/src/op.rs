//! The decoded instruction: what to do, on which register slots.
use crate::{
    ops::{
        Doubles1, Doubles2, Doubles3, DoublesByWords, DoublesByWords2, DoublesTest, Narrowing1, Widening2, Words1,
        Words2, Words3, WordsTest,
        convert::{Read, Write},
    },
    parse::Space,
};

/// A slot for up to 32 bits of every lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Word(pub u32);

/// A slot for 64 bits of every lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Doubleword(pub u32);

/// A slot for a bit of every lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Predicate(pub u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    Word(Word),
    Double(Doubleword),
}

/// Base register (or constant) plus offset.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub base: Slot,
    pub offset: i64,
}

/// How an access takes part in the memory model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Volatile, relaxed or stronger: no data race with another strong access.
    pub strong: bool,
    pub acquire: bool,
    pub release: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Atomic {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Increment,
    Decrement,
    Exchange,
    CompareAndSwap,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberType {
    Unsigned,
    Signed,
    Bits,
    Float,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    All,
    Any,
    Uniform,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    Add,
    Min,
    Max,
    SignedMin,
    SignedMax,
    And,
    Or,
    Xor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierKind {
    Sync,
    Arrive,
}

/// Element types of matrix instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    Bf16,
    F16,
    Tf32,
}

#[derive(Clone, Debug)]
pub enum Op {
    Words1 { f: Words1, to: Word, a: Word },
    Words2 { f: Words2, to: Word, a: Word, b: Word },
    Words3 { f: Words3, to: Word, a: Word, b: Word, c: Word },
    Doubles1 { f: Doubles1, to: Doubleword, a: Doubleword },
    Doubles2 { f: Doubles2, to: Doubleword, a: Doubleword, b: Doubleword },
    Doubles3 { f: Doubles3, to: Doubleword, a: Doubleword, b: Doubleword, c: Doubleword },
    Shift { f: DoublesByWords, to: Doubleword, a: Doubleword, b: Word },
    Field { f: DoublesByWords2, to: Doubleword, a: Doubleword, b: Word, c: Word },
    Widen2 { f: Widening2, to: Doubleword, a: Word, b: Word },
    WideMultiplyAdd { f: Widening2, to: Doubleword, a: Word, b: Word, c: Doubleword },
    Narrow1 { f: Narrowing1, to: Word, a: Doubleword },
    BitInsert { to: Slot, a: Slot, b: Slot, position: Word, length: Word },
    Lookup { to: Word, a: Word, b: Word, c: Word, table: u32 },
    Convert { read: Read, write: Write, to: Slot, from: Slot },
    TestWords { f: WordsTest, to: Predicate, a: Word, b: Word, combine: Option<Combine> },
    TestDoubles { f: DoublesTest, to: Predicate, a: Doubleword, b: Doubleword, combine: Option<Combine> },
    Predicates1 { f: fn(u32) -> u32, to: Predicate, a: Predicate },
    Predicates2 { f: fn(u32, u32) -> u32, to: Predicate, a: Predicate, b: Predicate },
    SelectWord { to: Word, a: Word, b: Word, by: Predicate },
    SelectDouble { to: Doubleword, a: Doubleword, b: Doubleword, by: Predicate },
    MoveWord { to: Word, from: Word },
    MoveDouble { to: Doubleword, from: Doubleword },
    // Two words to a doubleword.
    Join { to: Doubleword, low: Word, high: Word },
    // A doubleword to two words.
    Split { low: Option<Word>, high: Option<Word>, from: Doubleword },
    // Four halves to a doubleword.
    JoinFour { to: Doubleword, parts: [Word; 4] },
    // A doubleword to four halves.
    SplitFour { parts: [Option<Word>; 4], from: Doubleword },
    // Two halves to a word.
    JoinHalves { to: Word, low: Word, high: Word },
    // A word to two halves.
    SplitHalves { low: Option<Word>, high: Option<Word>, from: Word },
    // Between the address spaces and the generic one.
    ToGeneric { space: Space, to: Doubleword, from: Doubleword },
    FromGeneric { space: Space, to: Doubleword, from: Doubleword },

    Load { space: Space, bytes: u8, signed: bool, order: Order, to: Vec<Option<Slot>>, address: Address },
    Store { space: Space, bytes: u8, order: Order, from: Vec<Slot>, address: Address },
    Atomic(Box<AtomicOp>),
    Fence { release_acquire: bool, proxy: bool },

    Branch { target: u32 },
    BranchIndexed { index: Word, targets: Vec<u32> },
    Exit,
    Trap,
    // Hints, and what has no effect here.
    Nothing,

    Barrier(BarrierOp),
    WarpSync { members: Word },
    ClusterArrive { release: bool },
    ClusterWait,
    Shuffle(Box<ShuffleOp>),
    Vote { kind: Vote, to: Predicate, from: Predicate, members: Word },
    Ballot { to: Word, from: Predicate, members: Word },
    ActiveMask { to: Word },
    Reduce { kind: Reduction, to: Word, from: Word, members: Word },
    Elect { leader: Option<Word>, to: Predicate, members: Word },

    CopyAsync(CopyOp),
    CopyCommit,
    // `all` counts copies that are in no group yet.
    CopyWait { pending: u32, all: bool },

    MbarrierInit { address: Address, count: Word },
    MbarrierInvalidate { address: Address },
    MbarrierArrive(Box<ArriveOp>),
    MbarrierExpect { address: Address, bytes: Word },
    MbarrierWait(WaitOp),
    // An arrival when the lane's copies so far are done.
    CopyArrive { address: Address, counted: bool },
    Bulk(Box<BulkOp>),
    BulkCommit,
    BulkWait { pending: u32, reads_only: bool },
    // `mapa`: a shared address in the block of another rank.
    MapShared { to: Doubleword, from: Doubleword, rank: Word, generic: bool },

    Registers(RegistersOp),

    WarpgroupFence,
    WarpgroupCommit,
    WarpgroupWait { pending: u32 },
    WarpgroupMultiply(Box<WarpgroupMultiplyOp>),

    LoadMatrix { to: Vec<Word>, address: Address, transposed: bool },
    StoreMatrix { from: Vec<Word>, address: Address, transposed: bool },
    Multiply(Box<MultiplyOp>),
}

/// The Boolean operand of `setp`.
#[derive(Clone, Copy, Debug)]
pub struct Combine {
    pub f: fn(u32, u32) -> u32,
    pub with: Predicate,
}

#[derive(Clone, Debug)]
pub struct AtomicOp {
    pub space: Space,
    pub kind: Atomic,
    pub number: NumberType,
    pub bytes: u8,
    pub order: Order,
    /// None for `red`, which returns nothing.
    pub to: Option<Slot>,
    pub address: Address,
    pub a: Slot,
    /// The new value of a compare-and-swap.
    pub b: Option<Slot>,
}

/// `mma.sync`: D = A · B + C with accumulators in `f32`.
#[derive(Clone, Debug)]
pub struct MultiplyOp {
    pub element: Element,
    /// Columns of A, rows of B.
    pub k: usize,
    pub d: Vec<Word>,
    pub a: Vec<Word>,
    pub b: Vec<Word>,
    pub c: Vec<Word>,
}

#[derive(Clone, Debug)]
pub struct ArriveOp {
    /// Gets the phase that the arrival belongs to.
    pub to: Option<Doubleword>,
    pub address: Address,
    pub count: Option<Word>,
    /// Bytes to expect before arriving.
    pub expect: Option<Word>,
    pub release: bool,
    /// Whether it may be another block's.
    pub remote: bool,
}

/// `setmaxnreg`: how many registers each thread of the warp is to have, and whether those are more than before.
#[derive(Clone, Copy, Debug)]
pub struct RegistersOp {
    pub count: u32,
    pub grows: bool,
}

/// Which phase a wait is for.
#[derive(Clone, Copy, Debug)]
pub enum Phase {
    /// The last one of this parity.
    Parity(Word),
    /// What an arrival returned.
    State(Doubleword),
}

/// A bulk copy; one thread issues it.
#[derive(Clone, Debug)]
pub struct BulkOp {
    pub shared: Address,
    pub global: BulkGlobal,
    pub direction: BulkDirection,
}

#[derive(Clone, Debug)]
pub enum BulkGlobal {
    Linear { address: Address, bytes: Word },
    Tensor { map: Address, coordinates: Vec<Word> },
}

#[derive(Clone, Copy, Debug)]
pub enum BulkDirection {
    /// To shared memory of this block, or of all blocks whose bit is set.
    Load {
        mbarrier: Address,
        multicast: Option<Word>,
    },
    Store,
    /// Adds `f32` numbers to those in global memory.
    Add,
}

/// `wgmma.mma_async`: D = A · B (+ D) with accumulators in `f32`.
#[derive(Clone, Debug)]
pub struct WarpgroupMultiplyOp {
    pub element: Element,
    pub n: usize,
    pub k: usize,
    pub d: Vec<Word>,
    pub a: MatrixSource,
    pub b: Doubleword,
    pub accumulate: Accumulate,
    pub negate: bool,
    pub transposed_a: bool,
    pub transposed_b: bool,
}

#[derive(Clone, Debug)]
pub enum MatrixSource {
    Descriptor(Doubleword),
    Registers(Vec<Word>),
}

#[derive(Clone, Copy, Debug)]
pub enum Accumulate {
    Always(bool),
    If(Predicate),
}

/// `bar.sync`, `bar.arrive`.
#[derive(Clone, Copy, Debug)]
pub struct BarrierOp {
    pub kind: BarrierKind,
    pub aligned: bool,
    pub id: Word,
    /// None for all threads of the block.
    pub threads: Option<Word>,
}

#[derive(Clone, Debug)]
pub struct ShuffleOp {
    pub kind: Shuffle,
    pub to: Word,
    /// Whether the lane that was read lies in the segment.
    pub valid: Option<Predicate>,
    pub from: Word,
    pub lane: Word,
    pub clamp: Word,
    pub members: Word,
}

/// `cp.async`.
#[derive(Clone, Copy, Debug)]
pub struct CopyOp {
    pub shared: Address,
    pub global: Address,
    pub bytes: u8,
    /// Bytes that are read, if fewer; the rest is zero.
    pub source_bytes: Option<Word>,
}

/// `mbarrier.try_wait`, `mbarrier.test_wait`.
#[derive(Clone, Copy, Debug)]
pub struct WaitOp {
    pub to: Predicate,
    pub address: Address,
    pub phase: Phase,
    pub acquire: bool,
}
