//! Loops over tasks and elements: vectors first, then for what is left one vector under a mask.
use crate::emit::{Elem, Emitter, Value, float_type};
use crate::gpu::block::Block;
use crate::{Code, Kernel, Work};

/// How the values of a loop's turns are joined; the order is fixed by the code alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reduction {
    Sum,
    /// The largest, leaving out NaN.
    Max,
}

impl Reduction {
    /// The value that changes nothing.
    pub fn initial(self) -> f32 {
        if self == Reduction::Sum { 0.0 } else { f32::NEG_INFINITY }
    }

    /// The arith operation that joins two values.
    pub fn op(self) -> &'static str {
        if self == Reduction::Sum { "addf" } else { "maxnumf" }
    }

    /// `so_far` joined with `value`.
    pub fn join(self, e: &mut Emitter, so_far: &str, value: &str, lanes: usize) -> Value {
        if self == Reduction::Sum {
            return e.float2("addf", so_far, value, lanes);
        }
        let larger = e.compare("ogt", value, so_far, lanes);
        e.select(&larger, value, so_far, lanes)
    }
}

impl Emitter {
    /// A loop that carries nothing.
    pub fn repeat(&mut self, from: &str, to: &str, step: i64, body: impl FnOnce(&mut Emitter, &str)) {
        self.for_loop(from, to, step, &[], |e, i, _| {
            body(e, i);
            vec![]
        });
    }

    /// `body(task)` for every task asked for.
    pub fn tasks(&mut self, body: impl FnOnce(&mut Emitter, &str)) {
        if self.block.is_some() {
            return body(self, "%task");
        }
        self.repeat("%begin", "%end", 1, body);
    }

    /// Tasks that each take `chunk` of `total` elements: `body(first, count)`.
    pub fn chunks(&mut self, total: usize, chunk: usize, body: impl FnOnce(&mut Emitter, &str, &str)) {
        self.tasks(|e, task| {
            let first = e.times(task, chunk);
            let total_elements = total;
            let total = e.index(total as i64);
            let left = e.int2("subi", &total, &first);
            let size = e.index(chunk as i64);
            let count = e.int2("minsi", &left, &size);
            e.unrolling_chunks((total_elements, chunk), &count, |e| body(e, &first, &count));
        });
    }

    /// Elements of a task over a flat array: `size` for a CPU; for a GPU as many as its threads take in one turn.
    pub fn chunk(&self, size: usize) -> usize {
        self.block.as_ref().map_or(size, Block::turn)
    }

    /// `body(index, lanes)` over `0..count`: on a CPU `lanes` elements at a time, then those that are left, under a mask; on
    /// a GPU as they are dealt out to its threads (`gpu/deal.rs`), to each the same in every loop over as many.
    pub fn each(&mut self, count: &str, lanes: usize, mut body: impl FnMut(&mut Emitter, &str, usize)) {
        if self.block.is_some() {
            return self.each_dealt(count, body);
        }
        let zero = self.index(0);
        let whole = self.rounded_down(count, lanes);
        self.repeat(&zero, &whole, lanes as i64, |e, i| body(e, i, lanes));
        let (rest, some) = self.rest(count, &whole);
        let masked = |e: &mut Emitter| {
            let mask = e.first_lanes(&rest, lanes);
            e.masked(mask, |e| body(e, &whole, lanes));
        };
        self.branch(&some, masked, |_| {});
    }

    /// `write(read(index, lanes), index, lanes)` over `0..count`, where what is written may lie over what later turns read,
    /// but not over what they have not yet passed: narrow elements in the place of wide ones.
    pub fn each_trailing(
        &mut self,
        count: &str,
        lanes: usize,
        mut read: impl FnMut(&mut Emitter, &str, usize) -> Value,
        mut write: impl FnMut(&mut Emitter, &str, &str, usize),
    ) {
        if self.block.is_some() {
            return self.each_trailing_dealt(count, read, write);
        }
        self.each(count, lanes, |e, i, lanes| {
            let value = read(e, i, lanes);
            write(e, &value, i, lanes);
        });
    }

    /// `write(read(index, lanes), index, lanes)` over `0..count`; a GPU's thread reads for several turns before it writes, so
    /// nothing that is written may lie over what later turns read.
    pub fn each_ahead(
        &mut self,
        count: &str,
        lanes: usize,
        mut read: impl FnMut(&mut Emitter, &str, usize) -> Vec<Value>,
        mut write: impl FnMut(&mut Emitter, &[Value], &str, usize),
    ) {
        if self.block.is_some() {
            return self.each_ahead_dealt(count, read, write);
        }
        self.each(count, lanes, |e, i, lanes| {
            let values = read(e, i, lanes);
            write(e, &values, i, lanes);
        });
    }

    /// Reduces over `0..count`: `body(index, lanes, so far)` returns the next accumulators, one for each of `kinds`.
    /// Returns f32 scalars.
    pub fn reduce(
        &mut self,
        count: &str,
        lanes: usize,
        kinds: &[Reduction],
        mut body: impl FnMut(&mut Emitter, &str, usize, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        if self.block.is_some() {
            return self.reduce_dealt(count, kinds, body);
        }
        let zero = self.index(0);
        let whole = self.rounded_down(count, lanes);
        let start: Vec<_> = kinds.iter().map(|k| (self.float(k.initial(), lanes), float_type(lanes))).collect();
        let vectors = self.for_loop(&zero, &whole, lanes as i64, &start, |e, i, so_far| body(e, i, lanes, so_far));
        let (rest, some) = self.rest(count, &whole);
        let types = vec![float_type(lanes); kinds.len()];
        let masked = |e: &mut Emitter| {
            let mask = e.first_lanes(&rest, lanes);
            let next = e.masked(mask.clone(), |e| body(e, &whole, lanes, &vectors));
            next.iter().zip(&vectors).map(|(next, so_far)| e.merge(&mask, next, so_far)).collect()
        };
        let vectors = self.either(&some, &types, masked, |_| vectors.clone());
        vectors.iter().zip(kinds).map(|(v, k)| self.horizontal(v, *k, lanes)).collect()
    }

    /// How many elements of `count` are left behind the `whole` vectors, and whether any are.
    fn rest(&mut self, count: &str, whole: &str) -> (Value, Value) {
        let rest = self.int2("subi", count, whole);
        let some = self.op(format!("arith.cmpi ne, {count}, {whole} : i64"));
        (rest, some)
    }

    /// Stores zeros to `count` elements.
    pub fn fill(&mut self, pointer: &str, count: &str, elem: Elem, lanes: usize) {
        self.each(count, lanes, |e, i, lanes| {
            let zero = e.float(0.0, lanes);
            e.store_at(&zero, pointer, i, elem, lanes);
        });
    }

    /// Joins the lanes of a vector (a power of two of them), halves first.
    pub fn horizontal(&mut self, value: &str, kind: Reduction, lanes: usize) -> Value {
        let (mut value, mut lanes) = (value.to_string(), lanes);
        while lanes > 1 {
            let (low, high) =
                (self.slice(&value, lanes, 0, lanes / 2), self.slice(&value, lanes, lanes / 2, lanes / 2));
            lanes /= 2;
            value = kind.join(self, &low, &high, lanes);
        }
        value
    }

    /// Lanes `from..from + count` of a vector of `lanes`; the scalar where `count` is 1.
    pub fn slice(&mut self, value: &str, lanes: usize, from: usize, count: usize) -> Value {
        let wide = float_type(lanes);
        if count == 1 {
            return self.op(format!("vector.extract {value}[{from}] : f32 from {wide}"));
        }
        let place = format!("{{offsets = [{from}], sizes = [{count}], strides = [1]}}");
        self.op(format!("vector.extract_strided_slice {value} {place} : {wide} to {}", float_type(count)))
    }

    /// `value` without its remainder by `unit`; `value` is not negative.
    pub fn rounded_down(&mut self, value: &str, unit: usize) -> Value {
        let unit = self.index(unit as i64);
        let rest = self.int2("remui", value, &unit);
        self.int2("subi", value, &rest)
    }

    /// `value * factor` on i64.
    pub fn times(&mut self, value: &str, factor: usize) -> Value {
        let factor = self.index(factor as i64);
        self.int2("muli", value, &factor)
    }

    /// `value + constant` on i64.
    pub fn plus(&mut self, value: &str, constant: i64) -> Value {
        let constant = self.index(constant);
        self.int2("addi", value, &constant)
    }

    /// `max(value, 0) / unit` on i64.
    pub fn divided(&mut self, value: &str, unit: usize) -> Value {
        let (zero, unit) = (self.index(0), self.index(unit as i64));
        let value = self.int2("maxsi", value, &zero);
        self.int2("divui", &value, &unit)
    }

    /// Row `row` of an array whose rows have `n` elements.
    pub fn row(&mut self, pointer: &str, row: &str, n: usize, elem: Elem) -> Value {
        let index = self.times(row, n);
        self.offset(pointer, &index, elem)
    }

    /// Element `index`, or `lanes` from there on, of an array.
    pub fn load_at(&mut self, pointer: &str, index: &str, elem: Elem, lanes: usize) -> Value {
        if let Some(value) = self.kept(pointer, index) {
            return value;
        }
        let place = self.offset(pointer, index, elem);
        let value = self.load(&place, elem, lanes);
        self.keep(pointer, index, Some(&value));
        value
    }

    /// Stores `lanes` values from element `index` on.
    pub fn store_at(&mut self, value: &str, pointer: &str, index: &str, elem: Elem, lanes: usize) {
        let place = self.offset(pointer, index, elem);
        self.store(value, &place, elem, lanes);
        self.keep(pointer, index, None);
    }

    /// Element `index` of an i32 array, as i64.
    pub fn load_int_at(&mut self, pointer: &str, index: &str) -> Value {
        let pointer = self.offset(pointer, index, Elem::I32);
        let value = self.op(format!("llvm.load {pointer} {{alignment = 4 : i64}} : !llvm.ptr -> i32"));
        self.op(format!("arith.extsi {value} : i32 to i64"))
    }

    /// Stores an i64 value, which fits, as element `index` of an i32 array.
    pub fn store_int_at(&mut self, value: &str, pointer: &str, index: &str) {
        let pointer = self.offset(pointer, index, Elem::I32);
        let value = self.op(format!("arith.trunci {value} : i64 to i32"));
        self.store_line(format!("llvm.store {value}, {pointer} {{alignment = 4 : i64}} : i32, !llvm.ptr"));
    }

    /// The only f32 that the `i`-th operand holds.
    pub fn scalar_arg(&mut self, i: usize) -> Value {
        let pointer = self.arg(i);
        self.load(&pointer, Elem::F32, 1)
    }

    /// Whether `0 <= value < limit`, on i64.
    pub fn within(&mut self, value: &str, limit: usize) -> Value {
        let limit = self.index(limit as i64);
        self.op(format!("arith.cmpi ult, {value}, {limit} : i64"))
    }

    /// `then` where the i1 `condition` holds, otherwise `otherwise`.
    pub fn branch(&mut self, condition: &str, then: impl FnOnce(&mut Emitter), otherwise: impl FnOnce(&mut Emitter)) {
        self.line(format!("scf.if {condition} {{"));
        then(self);
        self.line("} else {");
        otherwise(self);
        self.line("}");
    }

    /// The values, of these types, of one of two branches.
    pub fn either(
        &mut self,
        condition: &str,
        types: &[String],
        then: impl FnOnce(&mut Emitter) -> Vec<Value>,
        otherwise: impl FnOnce(&mut Emitter) -> Vec<Value>,
    ) -> Vec<Value> {
        let (name, joined) = (self.fresh(), types.join(", "));
        self.line(format!("{name}:{} = scf.if {condition} -> ({joined}) {{", types.len()));
        let values = then(self).join(", ");
        self.line(format!("scf.yield {values} : {joined}"));
        self.line("} else {");
        let values = otherwise(self).join(", ");
        self.line(format!("scf.yield {values} : {joined}"));
        self.line("}");
        (0..types.len()).map(|i| format!("{name}#{i}")).collect()
    }

    /// Goes on as long as `test` says so, an i1 beside i64 that it passes to `body`, which returns what `test` gets next; it gets
    /// `carried` first. Returns what it passes in the end.
    pub(crate) fn while_loop(
        &mut self,
        carried: &[Value],
        test: impl FnOnce(&mut Emitter, &[Value]) -> (Value, Vec<Value>),
        body: impl FnOnce(&mut Emitter, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let types = |count: usize| vec!["i64"; count].join(", ");
        let (result, before) = (self.fresh(), std::mem::take(&mut self.text));
        let names: Vec<Value> = carried.iter().map(|_| self.fresh()).collect();
        let (go_on, passed) = test(self, &names);
        self.line(format!("scf.condition({go_on}) {} : {}", passed.join(", "), types(passed.len())));
        let tested = std::mem::replace(&mut self.text, before);
        let inits: Vec<String> = names.iter().zip(carried).map(|(name, value)| format!("{name} = {value}")).collect();
        let (count, from, to) = (passed.len(), types(carried.len()), types(passed.len()));
        self.line(format!("{result}:{count} = scf.while ({}) : ({from}) -> ({to}) {{", inits.join(", ")));
        self.text += &tested;
        let names: Vec<Value> = passed.iter().map(|_| self.fresh()).collect();
        let arguments: Vec<String> = names.iter().map(|name| format!("{name}: i64")).collect();
        self.line("} do {");
        self.line(format!("^bb0({}):", arguments.join(", ")));
        let next = body(self, &names);
        self.line(format!("scf.yield {} : {from}", next.join(", ")));
        self.line("}");
        (0..count).map(|i| format!("{result}#{i}")).collect()
    }

    /// The finished kernel; its symbol is `name` and a digest of its text (FNV-1a), so equal symbols mean equal kernels.
    pub fn finish(self, name: &str, tasks: usize, scratch_bytes: u64, work: Work) -> Kernel {
        let (body, block) = self.into_parts();
        let body = block.as_ref().map_or(body.clone(), |block| Emitter::within_tasks(body, block, tasks));
        let symbol = format!("{name}_{:016x}", digest(&body));
        let tasks = u32::try_from(tasks).expect("a kernel has less than 2^32 tasks");
        if let Some(block) = block {
            let (text, geometry) = Emitter::block_function(&symbol, &body, &block);
            let tasks = tasks.div_ceil(block.tasks() as u32);
            return Kernel { symbol, code: Code::Gpu(text, geometry), tasks, scratch_bytes: 0, work };
        }
        let text = format!(
            "func.func @{symbol}(%args: !llvm.ptr, %begin: i64, %end: i64, %scratch: !llvm.ptr) {{\n{body}  return\n}}\n"
        );
        Kernel { symbol, code: Code::Cpu(text), tasks, scratch_bytes, work }
    }
}

/// FNV-1a.
pub fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
