//! Losses of rows of logits, and the gradient in the place of the logits.
use crate::emit::{Elem, Emitter, Value, float_type};
use crate::loops::Reduction;
use crate::{Kernel, Machine, Varies, Work, math};

/// Operations of a logit: scaling, maximum, the exponential's polynomial, sum, factor.
const OPERATIONS: usize = 20;
/// What a softcap adds: the tangent, which has an exponential of its own, and its derivative.
const CAPPING: usize = 25;

/// Cross entropy of a block of rows of logits.
///
/// Operands: `logits` f32 `[rows, vocab]`, `labels` i32 `[rows]`, `count` i32 `[1]`, `loss_scale` f32 `[1]`, `losses` f32
/// `[rows]`. With `z = logit_scale · logits`, row `r < count` gets the loss `(ln Σ e^z - z[label]) · loss_scale` and, with
/// `gradient`, its logits become `(softmax(z) - onehot(label)) · logit_scale · loss_scale`, stored as `gradient` says
/// from where the row begins: bf16 fills the first half of a row's memory. Rows from `count` on get zeros. A label outside
/// the vocabulary matches nothing: `z[label]` counts as 0. With a `softcap` c (Gemma 2), `c · tanh(z / c)` takes the place of
/// `z`, and the gradient has the further factor `1 - tanh²`.
///
/// On a CPU three passes over a row: maximum; exponentials, which replace the logits if the gradient is wanted, and their sum;
/// multiplication by a factor. A row that fits into the inner caches comes from memory once. On a GPU two, as a row comes from
/// memory each time: maximum and sum of exponentials together, each thread relative to the largest that it has seen; and the
/// gradient, for which exponentials are computed again.
#[derive(Clone, PartialEq, Debug)]
pub struct CrossEntropyRows {
    pub rows: usize,
    pub vocab: usize,
    pub logit_scale: f32,
    pub softcap: Option<f32>,
    pub gradient: Option<Elem>,
}

/// What a row's task works with.
struct Row<'a> {
    logits: &'a str,
    loss_scale: &'a str,
    label: &'a str,
    /// Where its loss goes.
    loss: &'a str,
}

/// What a row's label has.
struct Label {
    /// Whether it is in the vocabulary.
    known: Value,
    /// Its logit.
    z: Value,
    /// The derivative of the cap on it, if there is one.
    slope: Option<Value>,
}

impl CrossEntropyRows {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let wide = 4 * machine.lanes();
        let mut e = machine.rows(self.vocab, self.vocab, Elem::F32);
        let [logits, labels, count, losses] = [0, 1, 2, 4].map(|i| e.arg(i));
        let (loss_scale, zero) = (e.scalar_arg(3), e.index(0));
        let count = e.load_int_at(&count, &zero);
        e.tasks(|e, row| {
            let (logits, loss) = (e.row(&logits, row, self.vocab, Elem::F32), e.offset(&losses, row, Elem::F32));
            let used = e.less(row, &count);
            let compute = |e: &mut Emitter| {
                let label = e.load_int_at(&labels, row);
                self.row(e, machine, &Row { logits: &logits, loss_scale: &loss_scale, label: &label, loss: &loss });
            };
            let clear = |e: &mut Emitter| {
                let nothing = e.float(0.0, 1);
                e.store(&nothing, &loss, Elem::F32, 1);
                if let Some(elem) = self.gradient {
                    e.clear_row(&logits, elem, self.vocab, wide);
                }
            };
            e.branch(&used, compute, clear);
        });
        let kind = self.gradient.map_or(String::new(), |elem| format!("_grad_{}", elem.name()));
        let logits = self.rows * self.vocab;
        let operations = OPERATIONS + if self.softcap.is_some() { CAPPING } else { 0 };
        let work = Work::new("cross_entropy", operations * logits).moving(logits, Elem::F32).varying(Varies::Labels);
        let work = self.gradient.map_or(work, |elem| work.moving(logits, elem));
        e.finish(&format!("cross_entropy{kind}_{}x{}", self.rows, self.vocab), self.rows, 0, work)
    }

    fn row(&self, e: &mut Emitter, machine: &dyn Machine, row: &Row) {
        let known = e.within(row.label, self.vocab);
        let shared = e.threads().is_some();
        let (top, sum, label) = if shared {
            let label = self.label(e, row, known);
            let (top, sum) = self.maximum_and_sum(e, row.logits);
            (top, sum, label)
        } else {
            let top = self.maximum(e, machine, row.logits);
            let label = self.label(e, row, known);
            let sum = self.exponentials(e, machine, row.logits, &top);
            (top, sum, label)
        };
        // Logits are taken relative to the largest, so that large ones do not swallow the logarithm.
        let log = math::log(e, &sum, 1);
        let relative = e.float2("subf", &label.z, &top, 1);
        let loss = e.float2("subf", &log, &relative, 1);
        let loss = e.float2("mulf", &loss, row.loss_scale, 1);
        e.store(&loss, row.loss, Elem::F32, 1);
        match self.gradient {
            Some(elem) if shared => self.gradient_of(e, row, (&top, &sum), &label, elem),
            Some(elem) => self.scale(e, machine, row, &sum, &label, elem),
            None => {}
        }
    }

    /// The largest logit; a cap, which grows with its operand, is put on it alone.
    fn maximum(&self, e: &mut Emitter, machine: &dyn Machine, logits: &str) -> Value {
        let count = e.index(self.vocab as i64);
        let top = e.reduce(&count, 8 * machine.lanes(), &[Reduction::Max], |e, i, lanes, so_far| {
            let z = self.scaled(e, logits, i, lanes);
            vec![Reduction::Max.join(e, &so_far[0], &z, lanes)]
        });
        self.capped(e, &top[0], 1).0
    }

    /// `z[i]` without a cap.
    fn scaled(&self, e: &mut Emitter, logits: &str, i: &str, lanes: usize) -> Value {
        let (logit, scale) = (e.load_at(logits, i, Elem::F32, lanes), e.float(self.logit_scale, lanes));
        e.float2("mulf", &logit, &scale, lanes)
    }

    /// `z` under the cap, and its derivative `1 - tanh²` by what is capped.
    fn capped(&self, e: &mut Emitter, z: &str, lanes: usize) -> (Value, Option<Value>) {
        let Some(cap) = self.softcap else { return (z.into(), None) };
        let (inverse, cap, one) = (e.float(1.0 / cap, lanes), e.float(cap, lanes), e.float(1.0, lanes));
        let share = e.float2("mulf", z, &inverse, lanes);
        let tanh = math::tanh(e, &share, lanes);
        let square = e.float2("mulf", &tanh, &tanh, lanes);
        let slope = e.float2("subf", &one, &square, lanes);
        (e.float2("mulf", &tanh, &cap, lanes), Some(slope))
    }

    /// The largest logit under the cap, and `Σ e^(z - top)`. A thread without elements has the lowest number and a sum of 0.
    fn maximum_and_sum(&self, e: &mut Emitter, logits: &str) -> (Value, Value) {
        let count = e.index(self.vocab as i64);
        let start = [Reduction::Max, Reduction::Sum].map(|kind| (e.float(kind.initial(), 1), float_type(1)));
        let own = e.fold_own(&count, start.into(), |e, indices, lanes, so_far| {
            let z: Vec<Value> = indices.iter().map(|i| self.scaled(e, logits, i, lanes)).collect();
            let z: Vec<Value> = z.iter().map(|z| self.capped(e, z, lanes).0).collect();
            let join = |e: &mut Emitter, kind: Reduction, values: Vec<Value>| {
                let joined = values.into_iter().reduce(|a, b| kind.join(e, &a, &b, lanes)).expect("a turn's values");
                e.horizontal(&joined, kind, lanes)
            };
            let top = join(e, Reduction::Max, z.clone());
            let top = Reduction::Max.join(e, &so_far[0], &top, 1);
            let exps: Vec<Value> = z.iter().map(|z| exp_below(e, z, &top, lanes)).collect();
            let sum = join(e, Reduction::Sum, exps);
            let factor = exp_below(e, &so_far[0], &top, 1);
            let sum = e.fma(&so_far[1], &factor, &sum, 1);
            vec![top, sum]
        });
        let top = e.across_task(&own[..1], &[Reduction::Max]).remove(0);
        let factor = exp_below(e, &own[0], &top, 1);
        let sum = e.float2("mulf", &own[1], &factor, 1);
        let sum = e.across_task(&[sum], &[Reduction::Sum]).remove(0);
        (top, sum)
    }

    /// The gradient from the logits, their largest and the sum of exponentials. Narrow results trail behind the wide values that
    /// they replace.
    fn gradient_of(&self, e: &mut Emitter, row: &Row, (top, sum): (&str, &str), label: &Label, elem: Elem) {
        let scale = e.float(self.logit_scale, 1);
        let scale = e.float2("mulf", &scale, row.loss_scale, 1);
        let factor = e.float2("divf", &scale, sum, 1);
        let count = e.index(self.vocab as i64);
        let value = |e: &mut Emitter, z: &str, slope: Option<&Value>, lanes: usize| {
            let exp = e.approximating(elem == Elem::Bf16, |e| exp_below(e, z, top, lanes));
            let exp = slope.map_or(exp.clone(), |slope| e.float2("mulf", &exp, slope, lanes));
            let factor = e.splat(&factor, lanes);
            e.float2("mulf", &exp, &factor, lanes)
        };
        let of_label = value(e, &label.z, label.slope.as_ref(), 1);
        let read = |e: &mut Emitter, i: &str, lanes: usize| {
            let z = self.scaled(e, row.logits, i, lanes);
            let (z, slope) = self.capped(e, &z, lanes);
            value(e, &z, slope.as_ref(), lanes)
        };
        e.each_trailing(&count, 1, read, |e, value, i, lanes| e.store_at(value, row.logits, i, elem, lanes));
        e.sync();
        let subtract = |e: &mut Emitter| {
            let whole = label.slope.as_ref().map_or(scale.clone(), |slope| e.float2("mulf", &scale, slope, 1));
            let value = e.float2("subf", &of_label, &whole, 1);
            e.store_at(&value, row.logits, row.label, elem, 1);
        };
        e.branch(&label.known, subtract, |_| {});
    }

    fn label(&self, e: &mut Emitter, row: &Row, known: Value) -> Label {
        let (first, zero) = (e.index(0), e.float(0.0, 1));
        let place = e.choose(&known, row.label, &first);
        let z = self.scaled(e, row.logits, &place, 1);
        let (z, slope) = self.capped(e, &z, 1);
        Label { z: e.select(&known, &z, &zero, 1), known, slope }
    }

    /// `Σ e^(z - top)`; the summands, times the derivatives of a cap, replace the logits if the gradient is wanted.
    fn exponentials(&self, e: &mut Emitter, machine: &dyn Machine, logits: &str, top: &str) -> Value {
        let count = e.index(self.vocab as i64);
        let sum = e.reduce(&count, 2 * machine.lanes(), &[Reduction::Sum], |e, i, lanes, so_far| {
            let (z, top) = (self.scaled(e, logits, i, lanes), e.splat(top, lanes));
            let (z, slope) = self.capped(e, &z, lanes);
            let z = e.float2("subf", &z, &top, lanes);
            let value = math::exp_of_small(e, &z, lanes);
            if self.gradient.is_some() {
                let kept = slope.map_or(value.clone(), |slope| e.float2("mulf", &value, &slope, lanes));
                e.store_at(&kept, logits, i, Elem::F32, lanes);
            }
            vec![e.float2("addf", &so_far[0], &value, lanes)]
        });
        sum[0].clone()
    }

    /// The gradient from the exponentials and their sum. Narrow results trail behind the wide values that they replace.
    fn scale(&self, e: &mut Emitter, machine: &dyn Machine, row: &Row, sum: &str, label: &Label, elem: Elem) {
        let known = &label.known;
        let scale = e.float(self.logit_scale, 1);
        let scale = e.float2("mulf", &scale, row.loss_scale, 1);
        let factor = e.float2("divf", &scale, sum, 1);
        let (first, count) = (e.index(0), e.index(self.vocab as i64));
        let place = e.choose(known, row.label, &first);
        let of_label = e.load_at(row.logits, &place, Elem::F32, 1);
        let scaled = |e: &mut Emitter, i: &str, lanes| {
            let (value, factor) = (e.load_at(row.logits, i, Elem::F32, lanes), e.splat(&factor, lanes));
            e.float2("mulf", &value, &factor, lanes)
        };
        e.each_trailing(&count, 4 * machine.lanes(), scaled, |e, value, i, lanes| {
            e.store_at(value, row.logits, i, elem, lanes);
        });
        let subtract = |e: &mut Emitter| {
            let value = e.float2("mulf", &of_label, &factor, 1);
            let whole = label.slope.as_ref().map_or(scale.clone(), |slope| e.float2("mulf", &scale, slope, 1));
            let value = e.float2("subf", &value, &whole, 1);
            e.store_at(&value, row.logits, row.label, elem, 1);
        };
        e.branch(known, subtract, |_| {});
    }
}

/// `e^(z - top)`
fn exp_below(e: &mut Emitter, z: &str, top: &str, lanes: usize) -> Value {
    let top = e.splat(top, lanes);
    let z = e.float2("subf", z, &top, lanes);
    math::exp_of_small(e, &z, lanes)
}
