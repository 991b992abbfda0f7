//! What attention's kernels by warpgroups are made of: tiles of a head's tokens, the ring that brings them, and products of two
//! such tiles, or of registers and one.
//!
//! A block has [`CONSUMERS`] warpgroups of 64 own tokens each, and walks over tiles of the other side: of two arrays in turn, so
//! that the ring's tile `2 i` is the first array's `i`-th and tile `2 i + 1` the second's.
use super::*;
use crate::gpu::hopper::descriptor::{self, PATTERN_ROWS, distance};
use crate::gpu::hopper::pipeline::{Pipeline, Slot};
use crate::gpu::hopper::producer::copy_box;
use crate::gpu::hopper::wgmma::{self, Fragment, STEPS, Sums, pinned_fragments};
use crate::gpu::hopper::{CONSUMERS, WARPGROUP, registers_fit};
use crate::gpu::tensor_map::{TensorMap, whole_box_row};
use crate::gpu::warp::pack;

/// Registers of a thread of the producer's warpgroup and of the consumers', together those that the block begins with.
#[derive(Clone, Copy)]
pub struct Registers {
    pub producer: usize,
    pub consumer: usize,
}

impl Registers {
    /// The most that consumers can have.
    pub const FOR_SUMS: Registers = Registers { producer: 24, consumer: 240 };
    /// For producers that copy a tile in many boxes.
    pub const FOR_BOXES: Registers = Registers { producer: 40, consumer: 232 };
}
const _: () = assert!(registers_fit(Registers::FOR_SUMS.consumer, Registers::FOR_SUMS.producer));
const _: () = assert!(registers_fit(Registers::FOR_BOXES.consumer, Registers::FOR_BOXES.producer));

/// Warps of the consumers.
pub const WARPS: usize = CONSUMERS * WARPGROUP / WARP;

/// Whether warpgroups can compute attention and its gradient: heads are of bf16 and copied in whole boxes, none of which reaches into
/// the next head.
pub fn suits(attention: &Attention) -> bool {
    let whole = |entries: usize| whole_box_row(ENTRY_BYTES * entries).is_some();
    attention.elem == Elem::Bf16 && whole(attention.head_dim) && whole(attention.value_dim)
}

/// Of bf16.
const ENTRY_BYTES: usize = 2;

/// Tokens of a head in shared memory: boxes of some of its entries, one behind the other. A box is as wide as divides the
/// head: of 64 entries where they do, else of 32 or 16. So products take the boxes of a tile as the columns of one matrix.
#[derive(Clone, Copy)]
pub struct HeadTile {
    pub tokens: usize,
    /// Entries of the head, which is whole boxes.
    pub width: usize,
}

impl HeadTile {
    pub fn box_row_bytes(self) -> usize {
        whole_box_row(ENTRY_BYTES * self.width).expect("heads are whole boxes")
    }

    /// Entries of a head in a box.
    fn box_entries(self) -> usize {
        self.box_row_bytes() / ENTRY_BYTES
    }

    pub fn boxes(self) -> usize {
        self.width / self.box_entries()
    }

    /// Whether a tile at that byte begins patterns of the swizzle with all of its boxes.
    pub fn may_begin_at(self, at: usize) -> bool {
        at.is_multiple_of(self.pattern()) && self.box_bytes().is_multiple_of(self.pattern())
    }

    /// Bytes of a pattern of the swizzle.
    fn pattern(self) -> usize {
        PATTERN_ROWS * self.box_row_bytes()
    }

    pub fn bytes(self) -> usize {
        self.tokens * self.width * Elem::Bf16.bytes() as usize
    }

    /// The map of an operand with that many heads, of which it is copied.
    pub fn map(self, attention: &Attention, operand: usize, heads: usize) -> TensorMap {
        let (rows, columns) = (attention.batch * attention.seq, heads * self.width);
        let (elem, stride, box_row_bytes) = (attention.elem, columns, self.box_row_bytes());
        TensorMap { operand, elem, rows, columns, stride, box_rows: self.tokens, box_row_bytes }
    }

    /// Starts its copy from a map, from a row on, to so many bytes behind a byte of shared memory; it ends on the barrier.
    pub fn copy(self, e: &mut Emitter, map: (&str, &str), (byte, behind): (usize, &str), (head, row): (&str, &str)) {
        let column = e.times(head, self.width);
        for number in 0..self.boxes() {
            let column = e.plus(&column, (number * self.box_entries()) as i64);
            copy_box(e, map, (byte + number * self.box_bytes(), behind), (&column, row));
        }
    }

    fn box_bytes(self) -> usize {
        self.tokens * self.box_row_bytes()
    }

    /// Where an entry that begins a product's steps is, in bytes.
    fn entry_at(self, entry: usize) -> usize {
        entry / self.box_entries() * self.box_bytes() + entry % self.box_entries() * ENTRY_BYTES
    }

    /// The descriptor of a tile at so many bytes of shared memory, to be summed over entries.
    fn along(self, e: &mut Emitter, at: usize) -> Value {
        let first = descriptor::first(e, self.box_row_bytes(), None);
        e.plus(&first, distance(at))
    }

    /// The descriptor of this thread's warpgroup's tokens in a tile of the block's own, summed over entries.
    pub fn mine(self, e: &mut Emitter, at: usize) -> Value {
        debug_assert_eq!(self.tokens, CONSUMERS * wgmma::ROWS);
        let warps = e.index((WARPGROUP / WARP) as i64);
        let later = e.op(format!("arith.cmpi uge, %warp, {warps} : i64"));
        // All threads of a warp agree; so the assembler sees it, and has the descriptor in a register that they share.
        let later = e.any_in_warp(&later);
        let first = self.along(e, at);
        let second = e.plus(&first, distance(wgmma::ROWS * self.box_row_bytes()));
        e.choose(&later, &second, &first)
    }
}

impl Walk<'_> {
    /// The block's own tokens of an array.
    pub fn own_head(&self, array: usize) -> HeadTile {
        HeadTile { tokens: self.own(), width: self.width(array) }
    }

    /// A tile of an array of the other side's.
    pub fn other_head(&self, array: usize) -> HeadTile {
        HeadTile { tokens: self.others, width: self.width(array) }
    }

    pub fn score_sums(&self) -> Sums {
        Sums { columns: self.others }
    }

    /// Of results like the tokens of an array.
    pub fn result_sums(&self, array: usize) -> Sums {
        Sums { columns: self.width(array) }
    }
}

/// A consumer begins: it takes its registers.
pub fn begin_consumer(e: &mut Emitter, registers: Registers) {
    e.line(format!("nvvm.setmaxregister increase {}", registers.consumer));
}

/// The turns in which the two consumers start their products: while those of one run, the other computes its softmax. Each waits at
/// a barrier of its own, to which the other comes when it has started what it had to.
pub struct Turns;

impl Turns {
    /// Barriers that are taken: that of the whole block, and one for each consumer.
    pub const BARRIERS: usize = 1 + CONSUMERS;

    /// The first consumer's turn is the first.
    pub fn begin(e: &mut Emitter) -> Turns {
        Turns::of_consumer(e, 1, |e| Turns.pass(e));
        Turns
    }

    pub fn wait(&self, e: &mut Emitter) {
        let (mine, threads) = (Turns::barrier(e), Turns::threads(e));
        e.line(format!("nvvm.barrier id = {mine} number_of_threads = {threads}"));
    }

    pub fn pass(&self, e: &mut Emitter) {
        let (mine, threads) = (Turns::barrier(e), Turns::threads(e));
        let both = e.int_constant(Turns::BARRIERS as i32, 1);
        let other = e.int_lanes2("subi", &both, &mine, 1);
        e.line(format!("nvvm.barrier.arrive id = {other} number_of_threads = {threads}"));
    }

    /// As many turns were waited for as passed, by both: the first consumer takes the one that is left over.
    pub fn end(&self, e: &mut Emitter) {
        Turns::of_consumer(e, 0, |e| self.wait(e));
    }

    fn of_consumer(e: &mut Emitter, number: i32, then: impl FnOnce(&mut Emitter)) {
        let (mine, barrier) = (Turns::barrier(e), e.int_constant(1 + number, 1));
        let is = e.op(format!("arith.cmpi eq, {mine}, {barrier} : i32"));
        e.branch(&is, then, |_| {});
    }

    /// The number of the consumer's own: computed for every turn, so that it takes no registers between them.
    fn barrier(e: &mut Emitter) -> Value {
        let (warps, warp) = (e.index((WARPGROUP / WARP) as i64), e.anew("%warp"));
        let consumer = e.int2("divui", &warp, &warps);
        let barrier = e.plus(&consumer, 1);
        e.op(format!("arith.trunci {barrier} : i64 to i32"))
    }

    fn threads(e: &mut Emitter) -> Value {
        e.int_constant((CONSUMERS * WARPGROUP) as i32, 1)
    }
}

/// Waits for all warps of a consumer, at the barrier that is as many behind `first` as the consumer's number.
pub fn warpgroup_sync(e: &mut Emitter, first: usize) {
    let (warps, threads) = (e.index((WARPGROUP / WARP) as i64), e.int_constant(WARPGROUP as i32, 1));
    let consumer = e.int2("divui", "%warp", &warps);
    let barrier = e.plus(&consumer, first as i64);
    let barrier = e.op(format!("arith.trunci {barrier} : i64 to i32"));
    e.line(format!("nvvm.barrier id = {barrier} number_of_threads = {threads}"));
}

/// The tiles that a block walks over, on their way.
pub struct Ring {
    pub pipeline: Pipeline,
    /// Of the two arrays.
    tiles: [HeadTile; 2],
    stage_bytes: usize,
    at: usize,
}

impl Ring {
    pub fn new(e: &mut Emitter, tiles: [HeadTile; 2], stages: usize) -> Ring {
        // Any stage may have a tile of either array.
        let [bytes, pattern] = [tiles.map(HeadTile::bytes), tiles.map(HeadTile::pattern)].map(|[a, b]| a.max(b));
        let stage_bytes = bytes.next_multiple_of(pattern);
        let at = e.shared(stages * stage_bytes);
        assert!(tiles.iter().all(|tile| tile.may_begin_at(at)), "boxes begin patterns of the swizzle");
        Ring { pipeline: Pipeline::new(e, stages), tiles, stage_bytes, at }
    }

    /// The producer's turn: starts the copy of an array's tile, that number in the ring, from a map and a row on, when its stage is
    /// free. So many bytes, an i64, come on the stage's barrier, which is returned.
    pub fn copy(
        &self,
        e: &mut Emitter,
        (array, number): (usize, &str),
        map: &str,
        (head, row): (&str, &str),
        bytes: &str,
    ) -> (Slot, Value) {
        let slot = self.pipeline.slot(e, number);
        self.pipeline.wait_empty(e, &slot);
        let bytes = e.op(format!("arith.trunci {bytes} : i64 to i32"));
        let barrier = self.pipeline.expect(e, &slot, &bytes);
        let stage = e.times(&slot.stage, self.stage_bytes);
        self.tiles[array].copy(e, (map, &barrier), (self.at, &stage), (head, row));
        (slot, barrier)
    }

    /// The descriptor of a stage's tile of an array, summed over entries.
    pub fn along(&self, e: &mut Emitter, array: usize, stage: &str) -> Value {
        let first = self.tiles[array].along(e, self.at);
        let behind = e.times(stage, distance(self.stage_bytes) as usize);
        e.int2("addi", &first, &behind)
    }

    /// The same, summed over tokens.
    pub fn down(&self, e: &mut Emitter, array: usize, stage: &str) -> Value {
        let along = self.along(e, array, stage);
        descriptor::leading(e, &along, self.tiles[array].box_bytes())
    }
}

/// Starts the products of a warpgroup's own tokens with those of a tile, summed over a head's entries: a group.
pub fn over_entries(e: &mut Emitter, (own, mine): (HeadTile, &str), (other, theirs): (HeadTile, &str)) -> Value {
    let sums = Sums { columns: other.tokens };
    // Or all steps' descriptors would be made ahead of the walk, and take registers in it.
    let mine = e.anew(mine);
    let factors = |e: &mut Emitter, entry: usize| {
        (e.plus(&mine, distance(own.entry_at(entry))), e.plus(theirs, distance(other.entry_at(entry))))
    };
    wgmma::fence(e);
    let (a, b) = factors(e, 0);
    let mut result = sums.first_product(e, (&a, &b), (true, true));
    for entry in (STEPS..own.width).step_by(STEPS) {
        let (a, b) = factors(e, entry);
        result = sums.multiply(e, &result, (&a, &b), (true, true));
    }
    wgmma::commit(e);
    result
}

/// Starts adding to `results`, pinned, the products of what is in registers with a tile, summed over its tokens: a group.
pub fn over_tokens(e: &mut Emitter, results: Value, values: &[Fragment], (other, theirs): (HeadTile, &str)) -> Value {
    let sums = Sums { columns: other.width };
    let mut results = results;
    wgmma::fence(e);
    for (step, fragment) in values.iter().enumerate() {
        let b = e.plus(theirs, distance(step * STEPS * other.box_row_bytes()));
        let values = sums.values(e, &results);
        results = sums.multiply_words(e, &values, fragment, (&b, false));
    }
    wgmma::commit(e);
    results
}

/// Sums, rounded to bf16, as the first factor of another product: sums of sixteen columns are laid out as those columns of A are.
pub fn as_fragments(e: &mut Emitter, values: &[Value]) -> Vec<Fragment> {
    let words = |e: &mut Emitter, v: &[Value]| [0, 2, 4, 6].map(|i| pack(e, &v[i], &v[i + 1]));
    let fragments = values.chunks(8).map(|columns| words(e, columns)).collect();
    pinned_fragments(e, fragments)
}
