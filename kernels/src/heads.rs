//! Heads that hold several parts side by side, taken apart and put together.
//!
//! Parts are copied; where all heads share the last one, it is copied to every head, or summed over the heads, in their order
//! and in f32, on the way back.
use crate::emit::{Elem, Emitter, Value, float_type};
use crate::{Kernel, Machine, Work};

/// Heads whose elements a thread of a GPU asks for before it adds them.
const HEADS_AHEAD: usize = 8;

/// `heads` heads, each of the parts that `sizes` says.
///
/// [`Heads::split`]: operands `x [tokens, heads * Σ sizes]`, then every part `[tokens, heads * size]`; [`Heads::join`]: every
/// part, then `x`. With `shared` the last part is `[tokens, size]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heads {
    pub tokens: usize,
    pub heads: usize,
    pub sizes: Vec<usize>,
    /// Whether all heads share the last part.
    pub shared: bool,
    /// Storage of everything.
    pub elem: Elem,
}

impl Heads {
    /// `x` into its parts.
    pub fn split(&self, machine: &dyn Machine) -> Kernel {
        let mut e = self.emitter(machine);
        let x = e.arg(0);
        let parts: Vec<Value> = (1..=self.sizes.len()).map(|i| e.arg(i)).collect();
        e.tasks(|e, token| {
            let x = e.row(&x, token, self.head() * self.heads, self.elem);
            for (i, part) in parts.iter().enumerate() {
                let part = e.row(part, token, self.width(i), self.elem);
                let first = e.at(&x, self.first(i), self.elem);
                if self.is_shared(i) {
                    self.sum(e, machine, &first, &part, self.sizes[i]);
                } else {
                    self.copy(e, machine, [(&first, self.head()), (&part, self.sizes[i])], self.sizes[i]);
                }
            }
        });
        self.finish(e, "split")
    }

    /// `x` from its parts.
    pub fn join(&self, machine: &dyn Machine) -> Kernel {
        let mut e = self.emitter(machine);
        let parts: Vec<Value> = (0..self.sizes.len()).map(|i| e.arg(i)).collect();
        let x = e.arg(self.sizes.len());
        e.tasks(|e, token| {
            let x = e.row(&x, token, self.head() * self.heads, self.elem);
            for (i, part) in parts.iter().enumerate() {
                let part = e.row(part, token, self.width(i), self.elem);
                let first = e.at(&x, self.first(i), self.elem);
                let step = if self.is_shared(i) { 0 } else { self.sizes[i] };
                self.copy(e, machine, [(&part, step), (&first, self.head())], self.sizes[i]);
            }
        });
        self.finish(e, "join")
    }

    fn emitter(&self, machine: &dyn Machine) -> Emitter {
        let unit = self.sizes.iter().fold(0, |unit, size| unit | size);
        machine.rows(self.heads * self.head(), unit, self.elem)
    }

    /// Elements of a head.
    fn head(&self) -> usize {
        self.sizes.iter().sum()
    }

    /// Where part `i` begins in a head.
    fn first(&self, i: usize) -> i64 {
        self.sizes[..i].iter().sum::<usize>() as i64
    }

    fn is_shared(&self, i: usize) -> bool {
        self.shared && i + 1 == self.sizes.len()
    }

    /// Columns of part `i`.
    fn width(&self, i: usize) -> usize {
        if self.is_shared(i) { self.sizes[i] } else { self.heads * self.sizes[i] }
    }

    /// Copies `size` elements of every head; of each side, where the first head's are, and how far apart heads are.
    fn copy(&self, e: &mut Emitter, machine: &dyn Machine, [from, to]: [(&Value, usize); 2], size: usize) {
        let sides = [from, to].map(|(pointer, step)| (pointer.as_str(), step));
        e.copy_rows(sides, (self.heads, size), self.elem, 2 * machine.lanes());
    }

    /// Stores the sum over heads of `size` elements each.
    fn sum(&self, e: &mut Emitter, machine: &dyn Machine, from: &str, to: &str, size: usize) {
        let count = e.index(size as i64);
        e.each(&count, 2 * machine.lanes(), |e, i, lanes| {
            let from = e.offset(from, i, self.elem);
            let total = self.total(e, &from, lanes);
            e.store_at(&total, to, i, self.elem, lanes);
        });
    }

    /// The sum of what all heads have at `from`, in their order; on a GPU several are asked for at a time.
    fn total(&self, e: &mut Emitter, from: &str, lanes: usize) -> Value {
        let ahead = if e.threads().is_some() { HEADS_AHEAD.min(self.heads) } else { 1 };
        let whole = self.heads / ahead * ahead;
        let add = |e: &mut Emitter, first: &str, heads: usize, sum: &Value| {
            let values = (0..heads).map(|k| {
                let head = if k == 0 { first.to_string() } else { e.plus(first, k as i64) };
                let from = e.row(from, &head, self.head(), self.elem);
                e.load(&from, self.elem, lanes)
            });
            let values: Vec<Value> = values.collect();
            values.iter().fold(sum.clone(), |sum, value| e.float2("addf", &sum, value, lanes))
        };
        let start = e.float(0.0, lanes);
        let (zero, heads) = (e.index(0), e.index(whole as i64));
        let total = e.for_loop(&zero, &heads, ahead as i64, &[(start, float_type(lanes))], |e, head, so_far| {
            vec![add(e, head, ahead, &so_far[0])]
        });
        if whole == self.heads {
            return total[0].clone();
        }
        add(e, &heads, self.heads - whole, &total[0])
    }

    fn finish(&self, e: Emitter, way: &str) -> Kernel {
        let sizes: Vec<String> = self.sizes.iter().map(ToString::to_string).collect();
        let name = format!("{way}_heads_{}x{}x{}_{}", self.tokens, self.heads, sizes.join("_"), self.elem.name());
        let whole = self.tokens * self.heads * self.head();
        let parts = self.tokens * (0..self.sizes.len()).map(|i| self.width(i)).sum::<usize>();
        let operations = if self.shared { self.tokens * self.heads * self.sizes[self.sizes.len() - 1] } else { 0 };
        e.finish(&name, self.tokens, 0, Work::new("rows", operations).moving(whole + parts, self.elem))
    }
}
