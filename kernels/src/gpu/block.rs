//! A block of threads that does a task together: who is who, shared memory, and sums over all threads.
use super::deal::{Deal, Unrolled};
use super::tensor_map::TensorMap;
use crate::emit::{Elem, Emitter, Value};
use crate::loops::Reduction;
use std::collections::HashMap;

/// Threads of a block in the kernels of rows and elements.
pub const ROW_THREADS: usize = 256;
/// Threads that run in step.
pub const WARP: usize = 32;
/// What bodies call the block's shared memory until the kernel has a name.
const SHARED: &str = "@shared";
/// Alignment of what is given out of shared memory, in bytes.
const ALIGNMENT: usize = 128;

/// How a kernel is launched on a GPU: a block for each task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Threads of a block.
    pub threads: u32,
    /// Shared memory of a block, all of it given at the launch.
    pub shared_bytes: u32,
    /// Operands that are given as tensor maps instead of addresses, in the operands' order.
    pub maps: Vec<TensorMap>,
    /// Operands that are given as one parameter, in their order.
    pub arrays: Vec<OperandArray>,
}

/// Neighbouring operands that are one parameter, so that a kernel finds one of them by its number: addresses, or tensor maps
/// where there is one for the first operand, which describes all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OperandArray {
    pub first: usize,
    pub count: usize,
}

impl OperandArray {
    fn holds(&self, operand: usize) -> bool {
        (self.first..self.first + self.count).contains(&operand)
    }
}

/// What an emitter knows of the block that its kernel runs in.
#[derive(Clone, Debug)]
pub struct Block {
    threads: usize,
    shared_bytes: usize,
    /// Where shared memory begins is a multiple of it.
    alignment: usize,
    operands: usize,
    maps: Vec<TensorMap>,
    arrays: Vec<OperandArray>,
    /// Whether warps pass registers to each other (`setmaxnreg`).
    pools_registers: bool,
    /// Blocks of a cluster, which run at a time and reach each other's shared memory.
    cluster: usize,
    /// Whether each thread does something of its own, rather than all the same.
    apart: bool,
    /// Which threads share a task, and how its elements are dealt out to them.
    pub(super) deal: Deal,
    /// The loops that are unrolled.
    pub(super) unrolled: Option<Unrolled>,
    /// Whether the thread has elements in the turn that is written, where not all have.
    pub(super) inside: Option<Value>,
    /// What i64 constants are called.
    pub(super) constants: HashMap<Value, i64>,
    /// Bytes of the body before what is a task's.
    head: usize,
}

impl Block {
    pub fn new(threads: usize) -> Block {
        Block {
            threads,
            shared_bytes: 0,
            alignment: ALIGNMENT,
            operands: 0,
            maps: vec![],
            arrays: vec![],
            pools_registers: false,
            cluster: 1,
            apart: false,
            deal: Deal::single(threads),
            unrolled: None,
            inside: None,
            constants: HashMap::new(),
            head: 0,
        }
    }

    /// A block whose tasks' elements are dealt out like that: one task, or one for each warp.
    pub fn dealing(deal: Deal) -> Block {
        Block { deal, ..Block::new(deal.threads()) }
    }

    /// Tasks of a block.
    pub(crate) fn tasks(&self) -> usize {
        self.threads / self.deal.sharing
    }

    /// A block whose shared memory begins at a multiple of `alignment` bytes, a power of two.
    pub fn aligned(threads: usize, alignment: usize) -> Block {
        Block { alignment, ..Block::new(threads) }
    }

    /// A block that has a multiprocessor to itself, so that the assembler gives its threads all registers to begin with,
    /// for warps to pass to each other.
    pub fn with_register_pool(self) -> Block {
        Block { pools_registers: true, ..self }
    }

    /// A block of a cluster of so many, up to eight: those with neighbouring numbers. A grid is made of whole clusters.
    pub fn in_clusters(self, cluster: usize) -> Block {
        Block { cluster, ..self }
    }

    pub(super) fn add_map(&mut self, map: TensorMap) {
        self.maps.push(map);
        self.maps.sort_by_key(|map| map.operand);
    }

    /// Makes one parameter of an array of operands, if it is none yet.
    pub(super) fn add_array(&mut self, array: OperandArray) {
        if self.array_of(array.first) != Some(array) {
            self.operands = self.operands.max(array.first + array.count);
            self.arrays.push(array);
            self.arrays.sort_by_key(|array| array.first);
        }
    }

    pub(super) fn maps(&self) -> &[TensorMap] {
        &self.maps
    }

    /// The array that holds an operand.
    pub(super) fn array_of(&self, operand: usize) -> Option<OperandArray> {
        self.arrays.iter().find(|array| array.holds(operand)).copied()
    }

    fn geometry(&self) -> Geometry {
        let (threads, shared_bytes) = (self.threads as u32, self.shared_bytes as u32);
        Geometry { threads, shared_bytes, maps: self.maps.clone(), arrays: self.arrays.clone() }
    }
}

impl Emitter {
    /// A body that a block of threads runs. `%task`, `%thread`, `%lane` and `%warp` are i64 numbers: of the task, of the thread among
    /// those that share it, of the thread in its warp, and of the warp. `%is_first` says whether the thread is the first of
    /// those that share the task; `%block_memory` is shared memory.
    pub fn of_block(block: Block) -> Emitter {
        let mut e = Emitter::new();
        let a_task_each = block.tasks() > 1;
        let [task, thread] = if a_task_each { ["%block", "%of_block"] } else { ["%task", "%thread"] };
        e.line("%task_word = nvvm.read.ptx.sreg.ctaid.x : i32");
        e.line("%thread_word = nvvm.read.ptx.sreg.tid.x : i32");
        e.line(format!("{task} = arith.extui %task_word : i32 to i64"));
        e.line(format!("{thread} = arith.extui %thread_word : i32 to i64"));
        e.line(format!("%warp_size = arith.constant {WARP} : i64"));
        e.line(format!("%lane = arith.remui {thread}, %warp_size : i64"));
        e.line(format!("%warp = arith.divui {thread}, %warp_size : i64"));
        if a_task_each {
            e.line(format!("%block_tasks = arith.constant {} : i64", block.tasks()));
            e.line(format!("%sharing = arith.constant {} : i64", block.deal.sharing));
            e.line("%first_task = arith.muli %block, %block_tasks : i64");
            e.line("%task_of_block = arith.divui %of_block, %sharing : i64");
            e.line("%task = arith.addi %first_task, %task_of_block : i64");
            e.line("%thread = arith.remui %of_block, %sharing : i64");
        }
        e.line("%zero = arith.constant 0 : i64");
        e.line("%is_first = arith.cmpi eq, %thread, %zero : i64");
        e.line(format!("%shared_memory = llvm.mlir.addressof {SHARED} : !llvm.ptr<3>"));
        e.line("%block_memory = llvm.addrspacecast %shared_memory : !llvm.ptr<3> to !llvm.ptr");
        (e.block, e.rounds) = (Some(Block { head: e.bytes(), ..block }), true);
        e
    }

    /// Threads that share a task, if the kernel is a GPU's.
    pub fn threads(&self) -> Option<usize> {
        self.block.as_ref().map(|block| block.deal.sharing)
    }

    /// Notes what an i64 constant is called.
    pub(crate) fn name_constant(&mut self, name: &str, value: i64) {
        if let Some(block) = &mut self.block {
            block.constants.insert(name.into(), value);
        }
    }

    /// Byte offset of `bytes` of shared memory that nothing else has.
    pub fn shared(&mut self, bytes: usize) -> usize {
        let block = self.block.as_mut().expect("only a block has shared memory");
        let offset = block.shared_bytes;
        block.shared_bytes += bytes.next_multiple_of(ALIGNMENT);
        offset
    }

    /// A pointer to so many bytes, an i64, behind another.
    pub fn bytes_behind(&mut self, pointer: &str, bytes: &str) -> Value {
        self.op(format!("llvm.getelementptr inbounds {pointer}[{bytes}] : (!llvm.ptr, i64) -> !llvm.ptr, i8"))
    }

    /// A pointer `bytes` into shared memory.
    pub fn shared_at(&mut self, bytes: usize) -> Value {
        self.op(format!("llvm.getelementptr inbounds %block_memory[{bytes}] : (!llvm.ptr) -> !llvm.ptr, i8"))
    }

    /// The `i`-th operand of a GPU's kernel.
    pub(crate) fn block_operand(&mut self, i: usize) -> Option<Value> {
        let block = self.block.as_mut()?;
        block.operands = block.operands.max(i + 1);
        Some(format!("%operand{i}"))
    }

    /// The address of operand `first + index` of a GPU's kernel, which gets all `count` from `first` on as one parameter.
    pub(crate) fn block_operand_of(&mut self, first: usize, count: usize, index: &str) -> Option<Value> {
        let array = OperandArray { first, count };
        self.block.as_mut()?.add_array(array);
        let slot = self
            .op(format!("llvm.getelementptr inbounds %operand{first}[{index}] : (!llvm.ptr, i64) -> !llvm.ptr, i64"));
        Some(self.op(format!("llvm.load {slot} invariant : !llvm.ptr -> !llvm.ptr")))
    }

    /// Waits for all threads of the task; whatever they wrote before, all can read behind it. Nothing on a CPU, where a
    /// task is one thread's.
    pub fn sync(&mut self) {
        match &self.block {
            None => {}
            Some(block) if block.tasks() == 1 => self.line("nvvm.barrier0"),
            Some(_) => self.sync_warp(),
        }
    }

    /// Waits for the threads of the warp, which then see what each other has written.
    pub fn sync_warp(&mut self) {
        let all = self.int_constant(-1, 1);
        self.line(format!("nvvm.bar.warp.sync {all} : i32"));
    }

    /// Code in which every thread of the block does something of its own, and stores it.
    pub fn apart<T>(&mut self, body: impl FnOnce(&mut Emitter) -> T) -> T {
        let before = self.set_apart(true);
        let result = body(self);
        self.set_apart(before);
        result
    }

    fn set_apart(&mut self, apart: bool) -> bool {
        self.block.as_mut().is_some_and(|block| std::mem::replace(&mut block.apart, apart))
    }

    /// Stores something that all threads have, by the first of them; or something of each thread's own, by those that have it.
    pub(crate) fn store_line(&mut self, line: String) {
        let storing = match &self.block {
            Some(Block { apart: false, .. }) => Some("%is_first"),
            Some(block) => block.inside.as_deref(),
            None => None,
        };
        let Some(storing) = storing else { return self.line(line) };
        let condition = format!("scf.if {storing} {{");
        self.line(condition);
        self.line(line);
        self.line("}");
    }

    /// Loads by `load`, a value of type `ty`; zeros where the thread has no elements.
    pub(crate) fn load_line(&mut self, load: String, ty: &str) -> Value {
        let Some(inside) = self.block.as_ref().and_then(|block| block.inside.clone()) else { return self.op(load) };
        let zero = match ty {
            "i16" => "0".to_string(),
            "f32" => "0.0".to_string(),
            _ if ty.ends_with("f32>") => "dense<0.0>".to_string(),
            _ => "dense<0>".to_string(),
        };
        let zero = self.op(format!("arith.constant {zero} : {ty}"));
        let value = self.either(&inside, &[ty.to_string()], |e| vec![e.op(load)], |_| vec![zero]);
        value[0].clone()
    }

    /// The value of the thread whose lane differs in the bits of `mask`.
    pub fn shuffle(&mut self, value: &str, mask: usize) -> Value {
        let (all, mask) = (self.int_constant(-1, 1), self.int_constant(mask as i32, 1));
        let clamp = self.int_constant(WARP as i32 - 1, 1);
        self.op(format!("nvvm.shfl.sync bfly {all}, {value}, {mask}, {clamp} : f32 -> f32"))
    }

    /// An i64 that the compiler takes for another each time that it comes here: what is computed from it in a loop is not kept in
    /// registers from turn to turn.
    pub fn anew(&mut self, value: &str) -> Value {
        self.op(format!("llvm.inline_asm has_side_effects asm_dialect = att \"\", \"=l,0\" {value} : (i64) -> i64"))
    }

    /// The i32 value of the thread in a lane, an i32.
    pub fn from_lane(&mut self, value: &str, lane: &str) -> Value {
        let (all, last) = (self.int_constant(-1, 1), self.int_constant(WARP as i32 - 1, 1));
        self.op(format!("nvvm.shfl.sync idx {all}, {value}, {lane}, {last} : i32 -> i32"))
    }

    /// Whether the i1 `condition` holds in any thread of the warp: so the assembler sees that all agree.
    pub fn any_in_warp(&mut self, condition: &str) -> Value {
        let all = self.int_constant(-1, 1);
        self.op(format!("nvvm.vote.sync any {all}, {condition} -> i1"))
    }

    /// Whether it holds in all.
    pub fn all_in_warp(&mut self, condition: &str) -> Value {
        let all = self.int_constant(-1, 1);
        self.op(format!("nvvm.vote.sync all {all}, {condition} -> i1"))
    }

    /// In which threads of the warp the i1 `condition` holds, a bit of an i32 for each.
    pub fn ballot(&mut self, condition: &str) -> Value {
        let all = self.int_constant(-1, 1);
        self.op(format!("nvvm.vote.sync ballot {all}, {condition} -> i32"))
    }

    /// The bits of an i32 that are set, an i64.
    pub fn count_bits(&mut self, bits: &str) -> Value {
        let count = self.op(format!("llvm.intr.ctpop({bits}) : (i32) -> i32"));
        self.op(format!("arith.extui {count} : i32 to i64"))
    }

    /// Joins the values of `lanes` neighbouring threads of a warp, a power of two; all of them get the result.
    pub fn across_lanes(&mut self, value: &str, kind: Reduction, lanes: usize) -> Value {
        let (mut value, mut distance) = (value.to_string(), 1);
        while distance < lanes {
            let other = self.shuffle(&value, distance);
            value = kind.join(self, &value, &other, 1);
            distance *= 2;
        }
        value
    }

    /// Joins one value of every thread that shares the task for each of `kinds`.
    pub(crate) fn across_task(&mut self, values: &[Value], kinds: &[Reduction]) -> Vec<Value> {
        match self.threads() {
            Some(lanes) if lanes <= WARP => {
                values.iter().zip(kinds).map(|(value, kind)| self.across_lanes(value, *kind, lanes)).collect()
            }
            _ => self.across_block(values, kinds),
        }
    }

    /// Joins one value of every thread for each of `kinds`: within warps by halves, then the warps in order.
    pub(crate) fn across_block(&mut self, values: &[Value], kinds: &[Reduction]) -> Vec<Value> {
        let warps = self.threads().expect("only a block has threads") / WARP;
        let values: Vec<Value> =
            values.iter().zip(kinds).map(|(value, kind)| self.across_lanes(value, *kind, WARP)).collect();
        let offset = self.shared(4 * warps * kinds.len());
        let memory = self.shared_at(offset);
        let leads = self.op("arith.cmpi eq, %lane, %zero : i64");
        self.line(format!("scf.if {leads} {{"));
        for (k, value) in values.iter().enumerate() {
            let place = self.at(&memory, (k * warps) as i64, Elem::F32);
            self.apart(|e| e.store_at(value, &place, "%warp", Elem::F32, 1));
        }
        self.line("}");
        self.sync();
        let joined = (kinds.iter().enumerate())
            .map(|(k, kind)| {
                let mut total = self.at(&memory, (k * warps) as i64, Elem::F32);
                total = self.load(&total, Elem::F32, 1);
                for warp in 1..warps {
                    let next = self.at(&memory, (k * warps + warp) as i64, Elem::F32);
                    let next = self.load(&next, Elem::F32, 1);
                    total = kind.join(self, &total, &next, 1);
                }
                total
            })
            .collect();
        // Others may write there again once all have read.
        self.sync();
        joined
    }

    /// The body of a kernel of so many tasks, where blocks may have room for more.
    pub(crate) fn within_tasks(body: String, block: &Block, tasks: usize) -> String {
        if tasks.is_multiple_of(block.tasks()) {
            return body;
        }
        let (head, rest) = body.split_at(block.head);
        let inside = format!(
            "  %all_tasks = arith.constant {tasks} : i64\n  %is_task = arith.cmpi ult, %task, %all_tasks : i64\n"
        );
        format!("{head}{inside}  scf.if %is_task {{\n{rest}  }}\n")
    }

    /// The function around `body`, and its shared memory.
    pub(crate) fn block_function(symbol: &str, body: &str, block: &Block) -> (String, Geometry) {
        let param = |i: usize| format!("%operand{i}: !llvm.ptr{}", block.parameter_attributes(i));
        let is_param = |i: &usize| block.array_of(*i).is_none_or(|array| array.first == *i);
        let params: Vec<String> = (0..block.operands).filter(is_param).map(param).collect();
        // What the kernel says of its clusters, a plain launch does (PTX ISA, `.reqnctapercluster`).
        let cluster = match block.cluster {
            1 => String::new(),
            blocks => format!(", nvvm.cluster_dim = array<i32: {blocks}, 1, 1>"),
        };
        let shared = format!("@{symbol}_shared");
        let text = format!(
            "llvm.mlir.global external {shared}() {{addr_space = 3 : i32, alignment = {} : i64}} : \
             !llvm.array<0 x i8>\nllvm.func @{symbol}({}) attributes {{nvvm.kernel, nvvm.maxntid = \
             array<i32: {}, 1, 1>{}{cluster}}} {{\n{}  llvm.return\n}}\n",
            block.alignment,
            params.join(", "),
            block.threads,
            if block.pools_registers { ", nvvm.minctasm = 1 : i32" } else { "" },
            body.replace(SHARED, &shared)
        );
        (text, block.geometry())
    }
}
