//! Table lookup and its gradient. An id outside the table reads as zeros and gets no gradient.
use crate::emit::{Elem, Emitter, Value};
use crate::{Kernel, Target};

/// Columns of a task of the gradient.
const GRAD_COLUMNS: usize = 64;

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
    pub fn build(&self, target: &Target) -> Kernel {
        let (width, wide) = (self.width, 2 * target.lanes);
        let mut e = Emitter::new();
        let [table, tokens, x] = [0, 1, 2].map(|i| e.arg(i));
        e.tasks(|e, token| {
            let to = e.row(&x, token, width, self.elem);
            let id = e.load_int_at(&tokens, token);
            let known = e.within(&id, self.vocab);
            let look_up = |e: &mut Emitter| {
                let (from, count) = (e.row(&table, &id, width, self.table), e.index(width as i64));
                e.each(&count, wide, |e, j, lanes| {
                    let (value, scale) = (e.load_at(&from, j, self.table, lanes), e.float(self.scale, lanes));
                    let value = e.float2("mulf", &value, &scale, lanes);
                    e.store_at(&value, &to, j, self.elem, lanes);
                });
            };
            e.branch(&known, look_up, |e| e.clear_row(&to, self.elem, width, wide));
        });
        let name = format!("embedding_{}x{width}_{}_{}", self.tokens, self.table.name(), self.elem.name());
        e.finish(&name, self.tokens, 0)
    }
}

/// Adds `scale · dy[t]` to row `tokens[t]` of `grad`, in the order of the tokens; each task does so for some columns.
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
    pub fn build(&self, target: &Target) -> Kernel {
        let (width, wide) = (self.width, 2 * target.lanes);
        let mut e = Emitter::new();
        let [tokens, dy, grad] = [0, 1, 2].map(|i| e.arg(i));
        e.chunks(width, GRAD_COLUMNS, |e, first, count| {
            let (dy, grad) = (e.offset(&dy, first, self.elem), e.offset(&grad, first, Elem::F32));
            let zero = e.index(0);
            if !self.accumulate {
                let vocab = e.index(self.vocab as i64);
                e.repeat(&zero, &vocab, 1, |e, id| {
                    let row = e.row(&grad, id, width, Elem::F32);
                    e.fill(&row, count, Elem::F32, wide);
                });
            }
            let tokens_in_all = e.index(self.tokens as i64);
            e.repeat(&zero, &tokens_in_all, 1, |e, token| {
                let id = e.load_int_at(&tokens, token);
                let wanted = self.gets_gradient(e, &id);
                let add = |e: &mut Emitter| {
                    let (from, to) = (e.row(&dy, token, width, self.elem), e.row(&grad, &id, width, Elem::F32));
                    self.add(e, &from, &to, count, wide);
                };
                e.branch(&wanted, add, |_| {});
            });
        });
        let name = format!("embedding_grad_{}x{width}_{}", self.tokens, self.elem.name());
        e.finish(&name, width.div_ceil(GRAD_COLUMNS), 0)
    }

    /// Whether row `id` exists and is not the padding.
    fn gets_gradient(&self, e: &mut Emitter, id: &str) -> Value {
        let known = e.within(id, self.vocab);
        let Some(padding) = self.padding else { return known };
        let padding = e.index(padding as i64);
        let other = e.op(format!("arith.cmpi ne, {id}, {padding} : i64"));
        e.op(format!("arith.andi {known}, {other} : i1"))
    }

    fn add(&self, e: &mut Emitter, from: &str, to: &str, count: &str, wide: usize) {
        e.each(count, wide, |e, j, lanes| {
            let (value, scale) = (e.load_at(from, j, self.elem, lanes), e.float(self.scale, lanes));
            let so_far = e.load_at(to, j, Elem::F32, lanes);
            let sum = e.fma(&value, &scale, &so_far, lanes);
            e.store_at(&sum, to, j, Elem::F32, lanes);
        });
    }
}
