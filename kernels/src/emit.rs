//! Writes MLIR text a line at a time: fresh names, constants, addresses, loads and stores.
//!
//! Float values are `f32` or vectors of it; bf16 exists only in memory and is widened on load, rounded on store.
use crate::Pairs;
use crate::gpu::block::Block;
use crate::mask::Mask;
use std::fmt::Write;

/// How the elements of an operand are stored in memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Elem {
    F32,
    Bf16,
    I32,
}

impl Elem {
    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        if self == Elem::Bf16 { 2 } else { 4 }
    }
    /// Its short name in kernel symbols.
    pub fn name(self) -> &'static str {
        match self {
            Elem::F32 => "f32",
            Elem::Bf16 => "bf16",
            Elem::I32 => "i32",
        }
    }
}

/// Of operands of a GPU's kernels, in bytes.
const LARGEST_ALIGNMENT: u64 = 16;

/// An SSA name such as `%v12`.
pub type Value = String;

/// The text of one function body under construction.
#[derive(Default, Debug)]
pub struct Emitter {
    pub(crate) text: String,
    next: usize,
    /// Whether the machine rounds to bf16 by an instruction.
    pub(crate) rounds: bool,
    /// Whether the machine masks elements of two bytes, and the mask that is in force.
    pub(crate) masks_halves: bool,
    pub(crate) mask: Option<Mask>,
    /// Whether vectors in memory begin at multiples of their size.
    aligned: bool,
    /// Whether functions may be approximated, because what is computed is rounded to bf16 next.
    approximate: bool,
    /// Whether the array of operands is written again while the kernel runs.
    varying_operands: bool,
    /// The threads that share a task, on a GPU.
    pub(crate) block: Option<Block>,
}

/// The type of `lanes` f32 values: `f32` for one, a vector otherwise.
pub fn float_type(lanes: usize) -> String {
    if lanes == 1 { "f32".into() } else { format!("vector<{lanes}xf32>") }
}

/// The type of `lanes` integers of `bits` bits.
pub fn int_type(lanes: usize, bits: usize) -> String {
    if lanes == 1 { format!("i{bits}") } else { format!("vector<{lanes}xi{bits}>") }
}

impl Emitter {
    pub fn new() -> Emitter {
        Emitter::default()
    }

    /// A body for a CPU with vectors of so many f32 lanes that multiplies bf16 like that.
    pub fn for_cpu(lanes: usize, pairs: Option<Pairs>) -> Emitter {
        Emitter { rounds: pairs == Some(Pairs::Instruction), masks_halves: lanes >= 16, ..Emitter::default() }
    }

    /// A body that is called on one array of operands after the other, in the same memory.
    pub(crate) fn with_varying_operands(self) -> Emitter {
        Emitter { varying_operands: true, ..self }
    }

    /// A line without a result.
    pub fn line(&mut self, text: impl AsRef<str>) {
        writeln!(self.text, "  {}", text.as_ref()).expect("writing to a string");
    }

    /// A line with one result, whose name is returned.
    pub fn op(&mut self, text: impl AsRef<str>) -> Value {
        let name = self.fresh();
        self.line(format!("{name} = {}", text.as_ref()));
        name
    }

    /// A name that nothing uses yet.
    pub fn fresh(&mut self) -> Value {
        self.next += 1;
        format!("%v{}", self.next)
    }

    /// An `i64` constant.
    pub fn index(&mut self, value: i64) -> Value {
        let name = self.op(format!("arith.constant {value} : i64"));
        self.name_constant(&name, value);
        name
    }

    /// An f32 constant in every lane; the bits are written so that nothing is lost.
    pub fn float(&mut self, value: f32, lanes: usize) -> Value {
        let bits = format!("0x{:08X}", value.to_bits());
        let literal = if lanes == 1 { bits } else { format!("dense<{bits}>") };
        self.op(format!("arith.constant {literal} : {}", float_type(lanes)))
    }

    /// `a op b` on i64, such as `arith.addi`.
    pub fn int2(&mut self, op: &str, a: &str, b: &str) -> Value {
        self.op(format!("arith.{op} {a}, {b} : i64"))
    }

    /// `a op b` on f32 lanes, such as `addf`.
    pub fn float2(&mut self, op: &str, a: &str, b: &str, lanes: usize) -> Value {
        self.op(format!("arith.{op} {a}, {b} : {}", float_type(lanes)))
    }

    /// `op a` on f32 lanes, such as `negf`.
    pub fn float1(&mut self, op: &str, a: &str, lanes: usize) -> Value {
        self.op(format!("arith.{op} {a} : {}", float_type(lanes)))
    }

    /// `a op b` on i32 lanes, such as `addi`.
    pub fn int_lanes2(&mut self, op: &str, a: &str, b: &str, lanes: usize) -> Value {
        self.op(format!("arith.{op} {a}, {b} : {}", int_type(lanes, 32)))
    }

    /// Compares f32 lanes by a predicate such as `ogt` (false where either is NaN); the result has i1 lanes.
    pub fn compare(&mut self, predicate: &str, a: &str, b: &str, lanes: usize) -> Value {
        self.op(format!("arith.cmpf {predicate}, {a}, {b} : {}", float_type(lanes)))
    }

    /// `a` in the lanes where `mask` holds, else `b`; f32 lanes.
    pub fn select(&mut self, mask: &str, a: &str, b: &str, lanes: usize) -> Value {
        let ty = float_type(lanes);
        let mask_type = if lanes == 1 { String::new() } else { format!("{}, ", int_type(lanes, 1)) };
        self.op(format!("arith.select {mask}, {a}, {b} : {mask_type}{ty}"))
    }

    /// The bits of f32 lanes as i32 lanes.
    pub fn float_bits(&mut self, value: &str, lanes: usize) -> Value {
        self.op(format!("arith.bitcast {value} : {} to {}", float_type(lanes), int_type(lanes, 32)))
    }

    /// The f32 lanes with these bits.
    pub fn bits_float(&mut self, bits: &str, lanes: usize) -> Value {
        self.op(format!("arith.bitcast {bits} : {} to {}", int_type(lanes, 32), float_type(lanes)))
    }

    /// `|a|` on f32 lanes.
    pub fn absolute(&mut self, a: &str, lanes: usize) -> Value {
        self.op(format!("math.absf {a} : {}", float_type(lanes)))
    }

    /// The magnitude of `a` with the sign of `sign`.
    pub fn copy_sign(&mut self, a: &str, sign: &str, lanes: usize) -> Value {
        self.op(format!("math.copysign {a}, {sign} : {}", float_type(lanes)))
    }

    /// `√a`, rounded correctly.
    pub fn square_root(&mut self, a: &str, lanes: usize) -> Value {
        self.op(format!("math.sqrt {a} : {}", float_type(lanes)))
    }

    /// `1 / √a` by a square root and a division.
    pub fn reciprocal_root(&mut self, a: &str, lanes: usize) -> Value {
        let root = self.square_root(a, lanes);
        let one = self.float(1.0, lanes);
        self.float2("divf", &one, &root, lanes)
    }

    /// `a * b + c` with one rounding.
    pub fn fma(&mut self, a: &str, b: &str, c: &str, lanes: usize) -> Value {
        self.op(format!("math.fma {a}, {b}, {c} : {}", float_type(lanes)))
    }

    /// The `i`-th operand pointer of the kernel.
    pub fn arg(&mut self, i: usize) -> Value {
        if let Some(operand) = self.block_operand(i) {
            return operand;
        }
        let slot = self.op(format!("llvm.getelementptr inbounds %args[{i}] : (!llvm.ptr) -> !llvm.ptr, !llvm.ptr"));
        let invariant = if self.varying_operands { "" } else { "invariant " };
        self.op(format!("llvm.load {slot} {invariant}: !llvm.ptr -> !llvm.ptr"))
    }

    /// The pointer of operand `first + index` of the kernel, where `index`, an i64 value, is in `0..count`.
    pub fn operand_of(&mut self, first: usize, count: usize, index: &str) -> Value {
        if let Some(operand) = self.block_operand_of(first, count, index) {
            return operand;
        }
        let at = self.plus(index, first as i64);
        let slot =
            self.op(format!("llvm.getelementptr inbounds %args[{at}] : (!llvm.ptr, i64) -> !llvm.ptr, !llvm.ptr"));
        self.op(format!("llvm.load {slot} invariant : !llvm.ptr -> !llvm.ptr"))
    }

    /// `pointer + index` elements; `index` is an i64 value or a literal.
    pub fn offset(&mut self, pointer: &str, index: &str, elem: Elem) -> Value {
        let ty = match elem {
            Elem::F32 => "f32",
            Elem::Bf16 => "i16",
            Elem::I32 => "i32",
        };
        let operands = if index.starts_with('%') { "!llvm.ptr, i64" } else { "!llvm.ptr" };
        self.op(format!("llvm.getelementptr inbounds {pointer}[{index}] : ({operands}) -> !llvm.ptr, {ty}"))
    }

    /// `pointer + count` elements, a constant.
    pub fn at(&mut self, pointer: &str, count: i64, elem: Elem) -> Value {
        if count == 0 {
            return pointer.into();
        }
        self.offset(pointer, &count.to_string(), elem)
    }

    /// Code in which all vectors that are loaded and stored begin at multiples of their size, or of 16 bytes where they are larger.
    pub(crate) fn aligned<T>(&mut self, body: impl FnOnce(&mut Emitter) -> T) -> T {
        self.with_alignment(true, body)
    }

    /// Code in which vectors begin anywhere, within such code.
    pub(crate) fn unaligned<T>(&mut self, body: impl FnOnce(&mut Emitter) -> T) -> T {
        self.with_alignment(false, body)
    }

    /// Code whose results are rounded to bf16 next if `rounded` holds: then a GPU's hardware may approximate functions in it.
    pub(crate) fn approximating<T>(&mut self, rounded: bool, body: impl FnOnce(&mut Emitter) -> T) -> T {
        let before = std::mem::replace(&mut self.approximate, rounded && self.block.is_some());
        let result = body(self);
        self.approximate = before;
        result
    }

    pub(crate) fn approximates(&self) -> bool {
        self.approximate
    }

    fn with_alignment<T>(&mut self, aligned: bool, body: impl FnOnce(&mut Emitter) -> T) -> T {
        let before = std::mem::replace(&mut self.aligned, aligned);
        let result = body(self);
        self.aligned = before;
        result
    }

    /// Of `lanes` floats in memory, in bytes.
    fn alignment(&self, elem: Elem, lanes: usize) -> u64 {
        if self.aligned { (elem.bytes() * lanes as u64).min(LARGEST_ALIGNMENT) } else { elem.bytes() }
    }

    /// Loads `lanes` floats, widening bf16.
    pub fn load(&mut self, pointer: &str, elem: Elem, lanes: usize) -> Value {
        match elem {
            Elem::F32 => {
                let alignment = self.alignment(elem, lanes);
                self.load_as(pointer, &float_type(lanes), lanes, alignment)
            }
            Elem::Bf16 => {
                let (narrow, wide) = (int_type(lanes, 16), int_type(lanes, 32));
                let alignment = self.alignment(elem, lanes);
                let raw = self.load_as(pointer, &narrow, lanes, alignment);
                let raw = self.op(format!("arith.extui {raw} : {narrow} to {wide}"));
                let sixteen = self.int_constant(16, lanes);
                let raw = self.op(format!("arith.shli {raw}, {sixteen} : {wide}"));
                self.op(format!("arith.bitcast {raw} : {wide} to {}", float_type(lanes)))
            }
            Elem::I32 => panic!("integers are loaded by load_int"),
        }
    }

    /// Loads `lanes` words of four bytes, wherever they lie, as the f32 with these bits.
    pub fn load_words(&mut self, pointer: &str, lanes: usize) -> Value {
        self.load_as(pointer, &float_type(lanes), lanes, 2)
    }

    /// Loads `lanes` bf16 into the low halves of words, and those of `high`, if there are, into the high halves.
    pub fn load_halves(&mut self, low: &str, high: Option<&str>, lanes: usize) -> Value {
        let (narrow, wide) = (int_type(lanes, 16), int_type(lanes, 32));
        let mut half = |pointer: &str| {
            let raw = self.load_as(pointer, &narrow, lanes, 2);
            self.op(format!("arith.extui {raw} : {narrow} to {wide}"))
        };
        let (mut bits, high) = (half(low), high.map(half));
        if let Some(high) = high {
            let sixteen = self.int_constant(16, lanes);
            let high = self.int_lanes2("shli", &high, &sixteen, lanes);
            bits = self.int_lanes2("ori", &bits, &high, lanes);
        }
        self.bits_float(&bits, lanes)
    }

    /// Loads `lanes` i32.
    pub fn load_ints(&mut self, pointer: &str, lanes: usize) -> Value {
        let alignment = self.alignment(Elem::I32, lanes);
        self.load_as(pointer, &int_type(lanes, 32), lanes, alignment)
    }

    /// Stores `lanes` floats, rounding to nearest even where the memory is bf16.
    pub fn store(&mut self, value: &str, pointer: &str, elem: Elem, lanes: usize) {
        match elem {
            Elem::F32 => {
                let alignment = self.alignment(elem, lanes);
                self.store_as(value, pointer, &float_type(lanes), lanes, alignment);
            }
            Elem::Bf16 => {
                let (narrow, wide) = (int_type(lanes, 16), int_type(lanes, 32));
                let bits = self.rounded_bits(value, lanes);
                let bits = self.op(format!("arith.trunci {bits} : {wide} to {narrow}"));
                let alignment = self.alignment(elem, lanes);
                self.store_as(&bits, pointer, &narrow, lanes, alignment);
            }
            Elem::I32 => panic!("integers are stored by store_int"),
        }
    }

    /// Loads `lanes` f32 that LLVM may not carry in registers from an earlier store.
    pub fn load_volatile(&mut self, pointer: &str, lanes: usize) -> Value {
        let (alignment, ty) = (self.alignment(Elem::F32, lanes), float_type(lanes));
        self.op(format!("llvm.load volatile {pointer} {{alignment = {alignment} : i64}} : !llvm.ptr -> {ty}"))
    }

    /// Stores `lanes` f32 where [`Emitter::load_volatile`] finds them.
    pub fn store_volatile(&mut self, value: &str, pointer: &str, lanes: usize) {
        let ty = float_type(lanes);
        self.line(format!("llvm.store volatile {value}, {pointer} {{alignment = 4 : i64}} : {ty}, !llvm.ptr"));
    }

    /// f32 lanes rounded to the nearest bf16, ties to even: its bits in i32 lanes.
    pub fn rounded_bits(&mut self, value: &str, lanes: usize) -> Value {
        let (narrow, wide) = (int_type(lanes, 16), int_type(lanes, 32));
        if self.rounds {
            let halves = if lanes == 1 { "bf16".to_string() } else { format!("vector<{lanes}xbf16>") };
            let rounded = self.op(format!("arith.truncf {value} : {} to {halves}", float_type(lanes)));
            let bits = self.op(format!("arith.bitcast {rounded} : {halves} to {narrow}"));
            return self.op(format!("arith.extui {bits} : {narrow} to {wide}"));
        }
        let bits = self.float_bits(value, lanes);
        let (sixteen, one, half) =
            (self.int_constant(16, lanes), self.int_constant(1, lanes), self.int_constant(0x7fff, lanes));
        let high = self.int_lanes2("shrui", &bits, &sixteen, lanes);
        let odd = self.int_lanes2("andi", &high, &one, lanes);
        let bits = self.int_lanes2("addi", &bits, &half, lanes);
        let bits = self.int_lanes2("addi", &bits, &odd, lanes);
        self.int_lanes2("shrui", &bits, &sixteen, lanes)
    }

    /// One i32 constant in every lane.
    pub fn int_constant(&mut self, value: i32, lanes: usize) -> Value {
        let literal = if lanes == 1 { value.to_string() } else { format!("dense<{value}>") };
        self.op(format!("arith.constant {literal} : {}", int_type(lanes, 32)))
    }

    /// One f32 copied to every lane.
    pub fn splat(&mut self, value: &str, lanes: usize) -> Value {
        if lanes == 1 {
            return value.into();
        }
        self.op(format!("vector.broadcast {value} : f32 to {}", float_type(lanes)))
    }

    /// `for i in from..to step step`, with values carried from turn to turn; `body` returns the next ones.
    /// `types` are the types of the carried values. Returns the last ones.
    pub fn for_loop(
        &mut self,
        from: &str,
        to: &str,
        step: i64,
        carried: &[(Value, String)],
        body: impl FnOnce(&mut Emitter, &str, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let step = self.index(step);
        let i = self.fresh();
        if carried.is_empty() {
            self.line(format!("scf.for {i} = {from} to {to} step {step} : i64 {{"));
            body(self, &i, &[]);
            self.line("}");
            return vec![];
        }
        let result = self.fresh();
        let names: Vec<Value> = carried.iter().map(|_| self.fresh()).collect();
        let inits: Vec<String> = names.iter().zip(carried).map(|(n, (v, _))| format!("{n} = {v}")).collect();
        let types: Vec<&str> = carried.iter().map(|(_, t)| t.as_str()).collect();
        let types = types.join(", ");
        self.line(format!(
            "{result}:{} = scf.for {i} = {from} to {to} step {step} iter_args({}) -> ({types}) : i64 {{",
            names.len(),
            inits.join(", ")
        ));
        let next = body(self, &i, &names);
        self.line(format!("scf.yield {} : {types}", next.join(", ")));
        self.line("}");
        (0..names.len()).map(|k| format!("{result}#{k}")).collect()
    }

    /// The whole function with the kernels' calling convention.
    pub fn kernel(self, symbol: &str) -> String {
        format!(
            "func.func @{symbol}(%args: !llvm.ptr, %begin: i64, %end: i64, %scratch: !llvm.ptr) {{\n{}  return\n}}\n",
            self.text
        )
    }

    /// How long the body is so far.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The body written so far, and the block that it is for.
    pub(crate) fn into_parts(self) -> (String, Option<Block>) {
        (self.text, self.block)
    }

    /// The body written so far.
    pub fn into_text(self) -> String {
        self.text
    }
}
