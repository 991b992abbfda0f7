//! What is left over behind whole vectors, as one vector of which the first lanes count.
//!
//! Within [`Emitter::masked`], loads and stores of as many lanes as the mask has touch the lanes that it holds, and load zeros
//! in the others: the code of a loop's body serves its remainder too. Processors with AVX-512 mask elements of any size; others
//! take what is left one by one.
use crate::emit::{Emitter, Value, int_type};

/// The lanes that count.
#[derive(Clone, Debug)]
pub(crate) struct Mask {
    /// i1 lanes.
    value: Value,
    lanes: usize,
}

impl Emitter {
    /// A mask of the first `count` of `lanes` lanes.
    pub(crate) fn first_lanes(&mut self, count: &str, lanes: usize) -> Mask {
        let ty = int_type(lanes, 32);
        let numbers: Vec<String> = (0..lanes).map(|lane| lane.to_string()).collect();
        let numbers = self.op(format!("arith.constant dense<[{}]> : {ty}", numbers.join(", ")));
        let count = self.op(format!("arith.trunci {count} : i64 to i32"));
        let count = self.op(format!("vector.broadcast {count} : i32 to {ty}"));
        let value = self.op(format!("arith.cmpi ult, {numbers}, {count} : {ty}"));
        Mask { value, lanes }
    }

    /// `body` for the lanes of the mask.
    pub(crate) fn masked<T>(&mut self, mask: Mask, body: impl FnOnce(&mut Emitter) -> T) -> T {
        let before = self.mask.replace(mask);
        let result = body(self);
        self.mask = before;
        result
    }

    /// The lanes of `then` that the mask holds, others of `otherwise`; f32 lanes.
    pub(crate) fn merge(&mut self, mask: &Mask, then: &str, otherwise: &str) -> Value {
        self.select(&mask.value, then, otherwise, mask.lanes)
    }

    /// Loads a value of `lanes` elements of type `ty`, where they begin at a multiple of so many bytes.
    pub(crate) fn load_as(&mut self, pointer: &str, ty: &str, lanes: usize, alignment: u64) -> Value {
        let Some(Mask { value, .. }) = self.mask_of(lanes) else {
            return self.op(format!("llvm.load {pointer} {{alignment = {alignment} : i64}} : !llvm.ptr -> {ty}"));
        };
        let zeros = if ty.ends_with("f32>") { "0.0" } else { "0" };
        let zeros = self.op(format!("arith.constant dense<{zeros}> : {ty}"));
        let mask_type = int_type(lanes, 1);
        self.op(format!(
            "llvm.intr.masked.load {pointer}, {value}, {zeros} {{alignment = {alignment} : i32}} : \
             (!llvm.ptr, {mask_type}, {ty}) -> {ty}"
        ))
    }

    /// Stores a value of `lanes` elements of type `ty`.
    pub(crate) fn store_as(&mut self, value: &str, pointer: &str, ty: &str, lanes: usize, alignment: u64) {
        let Some(mask) = self.mask_of(lanes) else {
            return self.store_line(format!(
                "llvm.store {value}, {pointer} {{alignment = {alignment} : i64}} : {ty}, !llvm.ptr"
            ));
        };
        let mask_type = int_type(lanes, 1);
        self.line(format!(
            "llvm.intr.masked.store {value}, {pointer}, {} {{alignment = {alignment} : i32}} : {ty}, {mask_type} into \
             !llvm.ptr",
            mask.value
        ));
    }

    fn mask_of(&self, lanes: usize) -> Option<Mask> {
        self.mask.clone().filter(|mask| mask.lanes == lanes)
    }
}
