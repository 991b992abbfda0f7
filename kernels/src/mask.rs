//! What is left over behind whole vectors, as one vector of which the first lanes count.
//!
//! Within [`Emitter::masked`], loads and stores of as many lanes as the mask has touch the lanes that it holds, and load zeros
//! in the others: the code of a loop's body serves its remainder too. Processors with AVX-512 mask elements of any size, those with
//! AVX2 words of four bytes: elements of two go there in pairs, and the last of an odd number by itself.
use crate::emit::{Elem, Emitter, Value, int_type};

/// The lanes that count.
#[derive(Clone, Debug)]
pub(crate) struct Mask {
    /// i1 lanes.
    value: Value,
    lanes: usize,
    /// How many there are, i32, at most `lanes`.
    count: Value,
}

/// Elements of two bytes under a mask, as words of four.
struct Words {
    mask: Value,
    ty: String,
    /// The elements of whole words, i32, and whether one more counts.
    even: Value,
    odd: Value,
}

impl Emitter {
    /// A mask of the first `count` of `lanes` lanes.
    pub(crate) fn first_lanes(&mut self, count: &str, lanes: usize) -> Mask {
        let count = self.op(format!("arith.trunci {count} : i64 to i32"));
        let value = self.lanes_where("ult", &count, lanes, 32);
        Mask { value, lanes, count }
    }

    /// Where the comparison of a lane's number with `count`, an integer of `bits`, holds.
    fn lanes_where(&mut self, comparison: &str, count: &str, lanes: usize, bits: usize) -> Value {
        let ty = int_type(lanes, bits);
        let numbers: Vec<String> = (0..lanes).map(|lane| lane.to_string()).collect();
        let numbers = self.op(format!("arith.constant dense<[{}]> : {ty}", numbers.join(", ")));
        let count = self.op(format!("vector.broadcast {count} : i{bits} to {ty}"));
        self.op(format!("arith.cmpi {comparison}, {numbers}, {count} : {ty}"))
    }

    /// `body` for the lanes of the mask.
    pub(crate) fn masked<T>(&mut self, mask: Mask, body: impl FnOnce(&mut Emitter) -> T) -> T {
        let before = self.mask.replace(mask);
        let result = body(self);
        self.mask = before;
        result
    }

    /// `body` for the first `count` of `lanes` lanes, under a mask unless that is all.
    pub(crate) fn within_first<T>(&mut self, count: usize, lanes: usize, body: impl FnOnce(&mut Emitter) -> T) -> T {
        if count == lanes {
            return body(self);
        }
        let count = self.index(count as i64);
        let mask = self.first_lanes(&count, lanes);
        self.masked(mask, body)
    }

    /// The lanes of `then` that the mask holds, others of `otherwise`; f32 lanes.
    pub(crate) fn merge(&mut self, mask: &Mask, then: &str, otherwise: &str) -> Value {
        self.select(&mask.value, then, otherwise, mask.lanes)
    }

    /// Loads a value of `lanes` elements of type `ty`, where they begin at a multiple of so many bytes.
    pub(crate) fn load_as(&mut self, pointer: &str, ty: &str, lanes: usize, alignment: u64) -> Value {
        let Some(mask) = self.mask_of(lanes) else {
            return self
                .load_line(format!("llvm.load {pointer} {{alignment = {alignment} : i64}} : !llvm.ptr -> {ty}"), ty);
        };
        if ty == int_type(lanes, 16) && !self.masks_halves {
            return self.load_as_words(pointer, &mask);
        }
        self.load_masked(pointer, &mask.value, ty, lanes, alignment)
    }

    fn load_masked(&mut self, pointer: &str, mask: &str, ty: &str, lanes: usize, alignment: u64) -> Value {
        let zeros = if ty.ends_with("f32>") { "0.0" } else { "0" };
        let zeros = self.op(format!("arith.constant dense<{zeros}> : {ty}"));
        let mask_type = int_type(lanes, 1);
        self.op(format!(
            "llvm.intr.masked.load {pointer}, {mask}, {zeros} {{alignment = {alignment} : i32}} : \
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
        if ty == int_type(lanes, 16) && !self.masks_halves {
            return self.store_as_words(value, pointer, &mask);
        }
        self.store_masked(value, pointer, &mask.value, ty, lanes, alignment);
    }

    fn store_masked(&mut self, value: &str, pointer: &str, mask: &str, ty: &str, lanes: usize, alignment: u64) {
        let mask_type = int_type(lanes, 1);
        self.line(format!(
            "llvm.intr.masked.store {value}, {pointer}, {mask} {{alignment = {alignment} : i32}} : {ty}, {mask_type} into \
             !llvm.ptr"
        ));
    }

    /// The words that a mask's elements of two bytes fill.
    fn words(&mut self, mask: &Mask) -> Words {
        let one = self.int_constant(1, 1);
        let words = self.int_lanes2("shrui", &mask.count, &one, 1);
        let even = self.int_lanes2("shli", &words, &one, 1);
        let odd = self.op(format!("arith.cmpi ne, {even}, {} : i32", mask.count));
        let lanes = mask.lanes / 2;
        Words { mask: self.lanes_where("ult", &words, lanes, 32), ty: int_type(lanes, 32), even, odd }
    }

    /// Where element `even` lies.
    fn behind_words(&mut self, pointer: &str, words: &Words) -> Value {
        let even = self.op(format!("arith.extui {} : i32 to i64", words.even));
        self.offset(pointer, &even, Elem::Bf16)
    }

    fn load_as_words(&mut self, pointer: &str, mask: &Mask) -> Value {
        let (words, narrow) = (self.words(mask), int_type(mask.lanes, 16));
        let loaded = self.load_masked(pointer, &words.mask, &words.ty, mask.lanes / 2, 2);
        let loaded = self.op(format!("vector.bitcast {loaded} : {} to {narrow}", words.ty));
        // The lane behind the whole words: none if they fill the vector.
        let last = self.op(format!("arith.trunci {} : i32 to i16", words.even));
        let last = self.lanes_where("eq", &last, mask.lanes, 16);
        let place = self.behind_words(pointer, &words);
        let nothing = self.op("arith.constant 0 : i16");
        let load =
            |e: &mut Emitter| vec![e.op(format!("llvm.load {place} {{alignment = 2 : i64}} : !llvm.ptr -> i16"))];
        let element = self.either(&words.odd, &["i16".into()], load, |_| vec![nothing]);
        let element = self.op(format!("vector.broadcast {} : i16 to {narrow}", element[0]));
        self.op(format!("arith.select {last}, {element}, {loaded} : {}, {narrow}", int_type(mask.lanes, 1)))
    }

    fn store_as_words(&mut self, value: &str, pointer: &str, mask: &Mask) {
        let (words, narrow) = (self.words(mask), int_type(mask.lanes, 16));
        let whole = self.op(format!("vector.bitcast {value} : {narrow} to {}", words.ty));
        self.store_masked(&whole, pointer, &words.mask, &words.ty, mask.lanes / 2, 2);
        let place = self.behind_words(pointer, &words);
        let store = |e: &mut Emitter| {
            let element = e.op(format!("llvm.extractelement {value}[{} : i32] : {narrow}", words.even));
            e.store_line(format!("llvm.store {element}, {place} {{alignment = 2 : i64}} : i16, !llvm.ptr"));
        };
        self.branch(&words.odd, store, |_| {});
    }

    fn mask_of(&self, lanes: usize) -> Option<Mask> {
        self.mask.clone().filter(|mask| mask.lanes == lanes)
    }
}
