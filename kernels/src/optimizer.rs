//! The end of the gradient's norm, and Adam.
use crate::emit::{Elem, Emitter, Value};
use crate::loops::Reduction;
use crate::{Kernel, Machine, Work};

/// Elements of a CPU's task.
const FLAT_CHUNK: usize = 4096;
/// Operations of a parameter's step.
const OPERATIONS: usize = 16;

/// Norm and clipping factor (`torch.nn.utils.clip_grad_norm_`) from partial sums of squares, by one task.
///
/// Operands: `partials` f32 `[parts]`, `max_norm` f32 `[1]`, which may be infinite, `norm` f32 `[1]`, `coefficient` f32
/// `[1]`. `norm = √Σ partials`, `coefficient = min(1, max_norm / (norm + 1e-6))`, NaN where the norm is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FinishNorm {
    pub parts: usize,
}

impl FinishNorm {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let mut e = machine.flat(self.parts, Elem::F32);
        let [partials, norm, coefficient] = [0, 2, 3].map(|i| e.arg(i));
        let max_norm = e.scalar_arg(1);
        e.tasks(|e, _| {
            let count = e.index(self.parts as i64);
            let total = e.reduce(&count, 4 * machine.lanes(), &[Reduction::Sum], |e, i, lanes, so_far| {
                let part = e.load_at(&partials, i, Elem::F32, lanes);
                vec![e.float2("addf", &so_far[0], &part, lanes)]
            });
            let root = e.square_root(&total[0], 1);
            e.store(&root, &norm, Elem::F32, 1);
            let (small, one) = (e.float(1e-6, 1), e.float(1.0, 1));
            let root = e.float2("addf", &root, &small, 1);
            let ratio = e.float2("divf", &max_norm, &root, 1);
            let ratio = e.float2("minimumf", &ratio, &one, 1);
            e.store(&ratio, &coefficient, Elem::F32, 1);
        });
        e.finish(
            &format!("finish_norm_{}", self.parts),
            1,
            0,
            Work::new("sum", self.parts).moving(self.parts, Elem::F32),
        )
    }
}

/// One step of `torch.optim.Adam`, or of AdamW with `decoupled`, in place.
///
/// Operands: `param [n]`, `grad`, `exp_avg`, `exp_avg_sq` f32 `[n]`, then f32 `[1]` each: `coefficient`, `learning_rate`,
/// `weight_decay`, `bias_correction1 = 1 - beta1ᵗ`, `bias_correction2 = 1 - beta2ᵗ`. With `g = grad · coefficient`, to which
/// `weight_decay · param` is added, or with `decoupled` `param` first multiplied by `1 - learning_rate · weight_decay`:
/// `m += (1 - beta1)(g - m)`, `v = beta2 · v + (1 - beta2) g²`,
/// `param -= learning_rate / bias_correction1 · m / (√v / √bias_correction2 + eps)`. `grad` becomes zero.
#[derive(Clone, PartialEq, Debug)]
pub struct Adam {
    pub n: usize,
    /// Storage of `param`.
    pub elem: Elem,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    pub decoupled: bool,
}

/// The numbers that all elements share.
struct Scalars {
    coefficient: Value,
    /// `1 - learning_rate · weight_decay` if decoupled, otherwise `weight_decay`.
    decay: Value,
    /// `-learning_rate / bias_correction1`
    step: Value,
    /// `√bias_correction2`
    root: Value,
}

impl Adam {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let mut e = machine.flat(self.n, Elem::F32);
        let chunk = e.chunk(FLAT_CHUNK);
        let pointers = [0, 1, 2, 3].map(|i| e.arg(i));
        let scalars = self.scalars(&mut e);
        e.chunks(self.n, chunk, |e, first, count| {
            e.each(count, 2 * machine.lanes(), |e, i, lanes| {
                let at = e.int2("addi", first, i);
                self.update(e, &pointers, &scalars, &at, lanes);
            });
        });
        let kind = if self.decoupled { "adamw" } else { "adam" };
        let work =
            Work::new("optimizer", OPERATIONS * self.n).moving(2 * self.n, self.elem).moving(6 * self.n, Elem::F32);
        e.finish(&format!("{kind}_{}_{}", self.n, self.elem.name()), self.n.div_ceil(chunk), 0, work)
    }

    fn scalars(&self, e: &mut Emitter) -> Scalars {
        let [coefficient, rate, decay, correction1, correction2] = [4, 5, 6, 7, 8].map(|i| e.scalar_arg(i));
        let (minus_rate, one) = (e.float1("negf", &rate, 1), e.float(1.0, 1));
        let decay = if self.decoupled { e.fma(&minus_rate, &decay, &one, 1) } else { decay };
        let step = e.float2("divf", &minus_rate, &correction1, 1);
        let root = e.square_root(&correction2, 1);
        Scalars { coefficient, decay, step, root }
    }

    fn update(&self, e: &mut Emitter, pointers: &[Value; 4], scalars: &Scalars, at: &str, lanes: usize) {
        let elems = [self.elem, Elem::F32, Elem::F32, Elem::F32];
        let [mut param, mut grad, m, v] = [0, 1, 2, 3].map(|i| e.load_at(&pointers[i], at, elems[i], lanes));
        let (coefficient, decay) = (e.splat(&scalars.coefficient, lanes), e.splat(&scalars.decay, lanes));
        grad = e.float2("mulf", &grad, &coefficient, lanes);
        if self.decoupled {
            param = e.float2("mulf", &param, &decay, lanes);
        } else {
            grad = e.fma(&decay, &param, &grad, lanes);
        }
        let m = self.first_moment(e, &m, &grad, lanes);
        let v = self.second_moment(e, &v, &grad, lanes);
        let param = self.stepped(e, scalars, [&param, &m, &v], lanes);
        let zero = e.float(0.0, lanes);
        for ((value, pointer), elem) in [param, zero, m, v].iter().zip(pointers).zip(elems) {
            e.store_at(value, pointer, at, elem, lanes);
        }
    }

    fn first_moment(&self, e: &mut Emitter, m: &str, grad: &str, lanes: usize) -> Value {
        let weight = e.float(complement(self.beta1), lanes);
        let difference = e.float2("subf", grad, m, lanes);
        e.fma(&weight, &difference, m, lanes)
    }

    fn second_moment(&self, e: &mut Emitter, v: &str, grad: &str, lanes: usize) -> Value {
        let (beta, weight) = (e.float(self.beta2, lanes), e.float(complement(self.beta2), lanes));
        let old = e.float2("mulf", v, &beta, lanes);
        let new = e.float2("mulf", grad, &weight, lanes);
        e.fma(&new, grad, &old, lanes)
    }

    /// `param` after the step.
    fn stepped(&self, e: &mut Emitter, scalars: &Scalars, [param, m, v]: [&Value; 3], lanes: usize) -> Value {
        let (step, root) = (e.splat(&scalars.step, lanes), e.splat(&scalars.root, lanes));
        let (denominator, eps) = (e.square_root(v, lanes), e.float(self.eps, lanes));
        let denominator = e.float2("divf", &denominator, &root, lanes);
        let denominator = e.float2("addf", &denominator, &eps, lanes);
        let numerator = e.float2("mulf", m, &step, lanes);
        let change = e.float2("divf", &numerator, &denominator, lanes);
        e.float2("addf", param, &change, lanes)
    }
}

/// `1 - beta` for the decimal number that `beta` stands for: with 0.999 as f32 it is off by 1.3e-5 of itself.
fn complement(beta: f32) -> f32 {
    let decimal: f64 = beta.to_string().parse().expect("a printed number can be read");
    (1.0 - decimal) as f32
}
