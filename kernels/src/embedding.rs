//! Table lookup and its gradient. An id outside the table reads as zeros and gets no gradient.
use crate::emit::{Elem, Emitter, Value, int_type};
use crate::gpu::block::WARP;
use crate::{Kernel, Machine, Work};

/// Most tasks of the gradient, on a CPU and on a GPU: four blocks for each of 132 multiprocessors.
const GRAD_TASKS: usize = 32;
const GPU_GRAD_TASKS: usize = 528;

/// `x[t] = scale · table[tokens[t]]`. Operands: `table [vocab, width]`, `tokens` i32 `[tokens]`, `x [tokens, width]`.
#[derive(Clone, PartialEq, Debug)]
pub struct Embedding {
    pub tokens: usize,
    pub vocab: usize,
    pub width: usize,
    pub scale: f32,
    /// Storage of `table`.
    pub table: Elem,
    /// Storage of `x`.
    pub elem: Elem,
}

impl Embedding {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let (width, wide) = (self.width, 2 * machine.lanes());
        let widest = if self.table.bytes() > self.elem.bytes() { self.table } else { self.elem };
        let mut e = machine.rows(width, width, widest);
        let [table, tokens, x] = [0, 1, 2].map(|i| e.arg(i));
        e.tasks(|e, token| {
            let to = e.row(&x, token, width, self.elem);
            let id = e.load_int_at(&tokens, token);
            let known = e.within(&id, self.vocab);
            let look_up = |e: &mut Emitter| {
                let (from, count) = (e.row(&table, &id, width, self.table), e.index(width as i64));
                let read = |e: &mut Emitter, j: &str, lanes| vec![e.load_at(&from, j, self.table, lanes)];
                e.each_ahead(&count, wide, read, |e, values, j, lanes| {
                    let scale = e.float(self.scale, lanes);
                    let value = e.float2("mulf", &values[0], &scale, lanes);
                    e.store_at(&value, &to, j, self.elem, lanes);
                });
            };
            e.branch(&known, look_up, |e| e.clear_row(&to, self.elem, width, wide));
        });
        let name = format!("embedding_{}x{width}_{}_{}", self.tokens, self.table.name(), self.elem.name());
        let elements = self.tokens * width;
        let work = Work::new("rows", elements).moving(elements, self.table).moving(elements, self.elem);
        e.finish(&name, self.tokens, 0, work)
    }
}

/// Adds `scale · dy[t]` to row `tokens[t]` of `grad`, in the order of the tokens. A task looks at all tokens and takes those
/// whose id leaves its number as the remainder by the number of tasks; frequent ids are neighbours in most vocabularies.
///
/// Operands: `tokens` i32 `[tokens]`, `dy [tokens, width]`, `grad` f32 `[vocab, width]`.
#[derive(Clone, PartialEq, Debug)]
pub struct EmbeddingGrad {
    pub tokens: usize,
    pub vocab: usize,
    pub width: usize,
    pub scale: f32,
    /// The row that gets no gradient.
    pub padding: Option<usize>,
    /// Whether `grad` keeps what it holds; otherwise it is zeroed first.
    pub accumulate: bool,
    /// Storage of `dy`.
    pub elem: Elem,
}

impl EmbeddingGrad {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let (width, wide) = (self.width, 2 * machine.lanes());
        let mut e = machine.rows(width, width, Elem::F32);
        let shared = e.threads().is_some();
        let tasks = if shared { GPU_GRAD_TASKS } else { GRAD_TASKS }.min(self.vocab);
        let [tokens, dy, grad] = [0, 1, 2].map(|i| e.arg(i));
        e.tasks(|e, task| {
            if !self.accumulate {
                let vocab = e.index(self.vocab as i64);
                e.repeat(task, &vocab, tasks as i64, |e, id| {
                    let row = e.row(&grad, id, width, Elem::F32);
                    e.clear_row(&row, Elem::F32, width, wide);
                });
            }
            let add = |e: &mut Emitter, token: &str, id: &str| {
                let (from, to) = (e.row(&dy, token, width, self.elem), e.row(&grad, id, width, Elem::F32));
                self.add(e, &from, &to, wide);
            };
            if shared {
                return self.each_wanted_of_warps(e, &tokens, (task, tasks), add);
            }
            let (zero, all) = (e.index(0), e.index(self.tokens as i64));
            e.repeat(&zero, &all, 1, |e, token| {
                let id = e.load_int_at(&tokens, token);
                let wanted = self.wanted(e, &id, task, tasks);
                e.branch(&wanted, |e| add(e, token, &id), |_| {});
            });
        });
        let (elements, cleared) = (self.tokens * width, if self.accumulate { 0 } else { self.vocab * width });
        let work = Work::new("embedding_grad", 2 * elements)
            .moving(elements, self.elem)
            .moving(2 * elements + cleared, Elem::F32);
        e.finish(&format!("embedding_grad_{}x{width}_{}", self.tokens, self.elem.name()), tasks, 0, work)
    }

    /// `body(token, id)` for every token that belongs to `task`, in their order. The lanes of each warp look at as many tokens at a
    /// time, so all warps find the same ones.
    fn each_wanted_of_warps(
        &self,
        e: &mut Emitter,
        tokens: &str,
        (task, tasks): (&str, usize),
        body: impl FnOnce(&mut Emitter, &str, &str),
    ) {
        let (zero, all, warp) = (e.index(0), e.index(self.tokens as i64), e.index(WARP as i64));
        e.repeat(&zero, &all, WARP as i64, |e, first| {
            let token = e.int2("addi", first, "%lane");
            let (inside, none) = (e.less(&token, &all), e.index(-1));
            let load = |e: &mut Emitter| vec![e.load_int_at(tokens, &token)];
            let id = e.either(&inside, &[int_type(1, 64)], load, |_| vec![none]);
            let wanted = self.wanted(e, &id[0], task, tasks);
            let found = e.ballot(&wanted);
            let nothing = e.int_constant(0, 1);
            let some = e.op(format!("arith.cmpi ne, {found}, {nothing} : i32"));
            let found = e.op(format!("arith.extui {found} : i32 to i64"));
            let take = |e: &mut Emitter| {
                e.repeat(&zero, &warp, 1, |e, lane| {
                    let (bit, one) = (e.int2("shrui", &found, lane), e.index(1));
                    let bit = e.int2("andi", &bit, &one);
                    let wanted = e.op(format!("arith.cmpi eq, {bit}, {one} : i64"));
                    let add = |e: &mut Emitter| {
                        let token = e.int2("addi", first, lane);
                        let id = e.load_int_at(tokens, &token);
                        body(e, &token, &id);
                    };
                    e.branch(&wanted, add, |_| {});
                });
            };
            e.branch(&some, take, |_| {});
        });
    }

    /// Whether row `id` belongs to `task`, exists and is not the padding.
    fn wanted(&self, e: &mut Emitter, id: &str, task: &str, tasks: usize) -> Value {
        let tasks = e.index(tasks as i64);
        let owner = e.int2("remui", id, &tasks);
        let own = e.op(format!("arith.cmpi eq, {owner}, {task} : i64"));
        let known = e.within(id, self.vocab);
        let wanted = e.op(format!("arith.andi {own}, {known} : i1"));
        let Some(padding) = self.padding else { return wanted };
        let padding = e.index(padding as i64);
        let other = e.op(format!("arith.cmpi ne, {id}, {padding} : i64"));
        e.op(format!("arith.andi {wanted}, {other} : i1"))
    }

    fn add(&self, e: &mut Emitter, from: &str, to: &str, wide: usize) {
        let count = e.index(self.width as i64);
        let read = |e: &mut Emitter, j: &str, lanes| {
            vec![e.load_at(from, j, self.elem, lanes), e.load_at(to, j, Elem::F32, lanes)]
        };
        e.each_ahead(&count, wide, read, |e, values, j, lanes| {
            let scale = e.float(self.scale, lanes);
            let sum = e.fma(&values[0], &scale, &values[1], lanes);
            e.store_at(&sum, to, j, Elem::F32, lanes);
        });
    }
}
