//! The instruction `wgmma` (PTX ISA, "wgmma.mma_async"): products by the four warps of a warpgroup, with the sums in registers.
//!
//! Instructions are issued between a [`fence`] and a [`commit`], which makes a group of them. Until a group was waited for, its
//! registers are its own. [`Sums::pinned`] keeps LLVM from moving code over these borders.
use super::WARPGROUP;
use crate::emit::{Emitter, Value};
use crate::gpu::block::WARP;
use crate::gpu::warp::Part;

/// Rows of a product.
pub const ROWS: usize = 64;
/// Steps of a product of bf16.
pub const STEPS: usize = 16;
/// Words of A that a thread has for a product where A is in registers.
pub const WORDS: usize = 4;

/// Pairs of a thread's elements of such an A, of 64 rows by 16 steps: in the four words' order, row and column of the first
/// element from the thread's own first row and column.
pub const PAIRS: [(usize, usize); WORDS] = [(0, 0), (8, 0), (0, 8), (8, 8)];

/// A thread's words of A.
pub type Fragment = [Value; WORDS];

/// A matrix of sums, 64 rows by some columns.
#[derive(Clone, Copy)]
pub struct Sums {
    pub columns: usize,
}

impl Sums {
    /// A warp's part; those of its warpgroup lie below each other.
    pub fn part(self) -> Part {
        Part { rows: ROWS * WARP / WARPGROUP, columns: self.columns }
    }

    /// The type of a thread's sums.
    pub fn ty(self) -> String {
        format!("!llvm.struct<({})>", vec!["f32"; self.part().registers()].join(", "))
    }

    pub fn zeros(self, e: &mut Emitter) -> Value {
        let zeros = e.op(format!("llvm.mlir.zero : {}", self.ty()));
        let zeros = self.values(e, &zeros);
        self.pinned(e, &zeros)
    }

    /// A thread's sums one by one.
    pub fn values(self, e: &mut Emitter, sums: &str) -> Vec<Value> {
        let ty = self.ty();
        (0..self.part().registers()).map(|i| e.op(format!("llvm.extractvalue {sums}[{i}] : {ty}"))).collect()
    }

    /// The sums, taken and given by an empty instruction: what comes before it stays before a fence, what comes behind it
    /// stays behind a wait. Without it the assembler serialises the products (its warnings C75xx).
    pub fn pinned(self, e: &mut Emitter, values: &[Value]) -> Value {
        pinned(e, values, "f32", "f")
    }

    /// A thread's sums one by one, behind a [`wait`] for them.
    pub fn waited_for(self, e: &mut Emitter, sums: &str) -> Vec<Value> {
        let values = self.values(e, sums);
        let sums = self.pinned(e, &values);
        self.values(e, &sums)
    }

    /// `sums + a · b` over sixteen steps, of matrices with these descriptors; `along` says of each whether the steps run along
    /// its rows in memory.
    pub fn multiply(self, e: &mut Emitter, sums: &str, matrices: (&str, &str), along: (bool, bool)) -> Value {
        self.product(e, (sums, "one"), matrices, along)
    }

    /// `a · b`, likewise.
    pub fn first_product(self, e: &mut Emitter, matrices: (&str, &str), along: (bool, bool)) -> Value {
        let nothing = e.op(format!("llvm.mlir.undef : {}", self.ty()));
        self.product(e, (&nothing, "zero"), matrices, along)
    }

    fn product(self, e: &mut Emitter, (sums, times): (&str, &str), (a, b): (&str, &str), along: (bool, bool)) -> Value {
        // The instruction takes A in rows and B in columns as they are.
        let layout_a = if along.0 { "row" } else { "col" };
        let layout_b = if along.1 { "col" } else { "row" };
        let ty = self.ty();
        e.op(format!(
            "nvvm.wgmma.mma_async {a}, {b}, {sums}, <m = {ROWS}, n = {}, k = {STEPS}>, D[<f32>, <{times}>], A[<bf16>, <one>, \
             <{layout_a}>], B[<bf16>, <one>, <{layout_b}>] : {ty} -> {ty}",
            self.columns
        ))
    }

    /// The same with A in registers, and the sums one by one.
    pub fn multiply_words(self, e: &mut Emitter, sums: &[Value], a: &Fragment, (b, along): (&str, bool)) -> Value {
        let (ty, count) = (self.ty(), self.part().registers());
        let list =
            |from: usize, count: usize| (from..from + count).map(|i| format!("${i}")).collect::<Vec<_>>().join(", ");
        let instruction = format!(
            "wgmma.mma_async.sync.aligned.m{ROWS}n{}k{STEPS}.f32.bf16.bf16 {{{}}}, {{{}}}, ${}, 1, 1, 1, {};",
            self.columns,
            list(0, count),
            list(2 * count, WORDS),
            2 * count + WORDS,
            u8::from(!along)
        );
        let tied = (0..count).map(|i| i.to_string());
        let outputs = std::iter::repeat_n("=f".to_string(), count);
        let inputs = ["r", "r", "r", "r", "l"].map(String::from);
        let constraints = outputs.chain(tied).chain(inputs).collect::<Vec<_>>().join(",");
        e.op(format!(
            "llvm.inline_asm has_side_effects asm_dialect = att \"{instruction}\", \"{constraints}\" {}, {}, {b} : ({}, i32, \
             i32, i32, i32, i64) -> {ty}",
            sums.join(", "),
            a.join(", "),
            vec!["f32"; count].join(", ")
        ))
    }
}

/// Fragments that are made before the next fence.
pub fn pinned_fragments(e: &mut Emitter, fragments: Vec<Fragment>) -> Vec<Fragment> {
    let words = fragments.concat();
    let ty = format!("!llvm.struct<({})>", vec!["i32"; words.len()].join(", "));
    let all = pinned(e, &words, "i32", "r");
    let mut word = |i: usize| e.op(format!("llvm.extractvalue {all}[{i}] : {ty}"));
    (0..words.len() / WORDS).map(|first| std::array::from_fn(|i| word(WORDS * first + i))).collect()
}

fn pinned(e: &mut Emitter, values: &[Value], ty: &str, register: &str) -> Value {
    let types = vec![ty; values.len()].join(", ");
    let outputs = vec![format!("={register}"); values.len()].join(",");
    let inputs: Vec<String> = (0..values.len()).map(|i| i.to_string()).collect();
    e.op(format!(
        "llvm.inline_asm has_side_effects asm_dialect = att \"\", \"{outputs},{}\" {} : ({types}) -> !llvm.struct<({types})>",
        inputs.join(","),
        values.join(", ")
    ))
}

/// Products behind it see what registers and shared memory hold before it.
pub fn fence(e: &mut Emitter) {
    e.line("nvvm.wgmma.fence.aligned");
}

/// Ends a group of products.
pub fn commit(e: &mut Emitter) {
    e.line("nvvm.wgmma.commit.group.sync.aligned");
}

/// Waits until all but the newest `pending` groups are done.
pub fn wait(e: &mut Emitter, pending: usize) {
    e.line(format!("nvvm.wgmma.wait.group.sync.aligned {pending}"));
}
