//! Which experts a token goes to, and the gradient of that choice.
use crate::emit::{Elem, Emitter, Value, float_type, int_type};
use crate::loops::Reduction;
use crate::{Kernel, Machine, Work, math};

/// Operations of an expert for each that is chosen: comparisons.
const CHOICE: usize = 6;
/// Operations of an exponential and what comes with it.
const EXPONENTIAL: usize = 18;

/// The `k` largest of a token's logits, the largest first, of equals the one with the lower number, and the softmax of
/// all logits at these, with `normalize` divided by its sum over these.
///
/// A task is a token. After the largest it looks k - 1 times for the largest behind the one found before, in the order
/// of value and number; so it needs no memory.
///
/// Operands: `logits` f32 `[tokens, experts]`, `weights` f32 `[tokens, k]`, `chosen` i32 `[tokens, k]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    pub tokens: usize,
    pub experts: usize,
    /// At most `experts`.
    pub k: usize,
    pub normalize: bool,
}

/// A logit and the number of its expert, both f32.
type Found = (Value, Value);

impl Route {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let wide = 2 * machine.lanes();
        let mut e = machine.rows(self.experts, self.experts, Elem::F32);
        let [logits, weights, chosen] = [0, 1, 2].map(|i| e.arg(i));
        e.tasks(|e, token| {
            let row = e.row(&logits, token, self.experts, Elem::F32);
            e.keeping(self.experts, |e| self.row(e, &row, token, [&weights, &chosen], wide));
        });
        let (each, slots) = (self.tokens * self.experts, self.tokens * self.k);
        let work = Work::new("rows", each * self.k * CHOICE + EXPONENTIAL * if self.normalize { slots } else { each })
            .moving(each + slots, Elem::F32)
            .moving(slots, Elem::I32);
        let letter = if self.normalize { "n" } else { "a" };
        e.finish(&format!("route_{}x{}_{}{letter}", self.tokens, self.experts, self.k), self.tokens, 0, work)
    }

    fn row(&self, e: &mut Emitter, row: &str, token: &str, [weights, chosen]: [&str; 2], wide: usize) {
        let mut found: Vec<Found> = vec![];
        for _ in 0..self.k {
            let next = self.next(e, row, found.last(), wide);
            found.push(next);
        }
        let exps: Vec<Value> = found.iter().map(|(value, _)| exp_below(e, value, &found[0].0, 1)).collect();
        let total = if self.normalize { sum(e, &exps) } else { sum_of_exps(e, row, self.experts, &found[0].0, wide) };
        let first = e.times(token, self.k);
        for (j, (exp, (_, number))) in exps.iter().zip(&found).enumerate() {
            let at = e.plus(&first, j as i64);
            let weight = e.float2("divf", exp, &total, 1);
            e.store_at(&weight, weights, &at, Elem::F32, 1);
            let number = self.integer(e, number);
            e.store_int_at(&number, chosen, &at);
        }
    }

    /// The largest logit of those that come behind `last`, the first of its equals.
    fn next(&self, e: &mut Emitter, row: &str, last: Option<&Found>, wide: usize) -> Found {
        let count = e.index(self.experts as i64);
        let lowest = Reduction::Max.initial();
        let value = e.reduce(&count, wide, &[Reduction::Max], |e, i, lanes, so_far| {
            let x = e.load_at(row, i, Elem::F32, lanes);
            let (open, lowest) = (behind(e, &x, i, last, lanes), e.float(lowest, lanes));
            let x = open.map_or(x.clone(), |open| e.select(&open, &x, &lowest, lanes));
            vec![Reduction::Max.join(e, &so_far[0], &x, lanes)]
        });
        // The lowest number is the largest negated one.
        let number = e.reduce(&count, wide, &[Reduction::Max], |e, i, lanes, so_far| {
            let (x, best) = (e.load_at(row, i, Elem::F32, lanes), e.splat(&value[0], lanes));
            let mut wanted = e.compare("oeq", &x, &best, lanes);
            if let Some(open) = behind(e, &x, i, last, lanes) {
                wanted = e.op(format!("arith.andi {wanted}, {open} : {}", int_type(lanes, 1)));
            }
            let number = numbers(e, i, lanes);
            let (number, lowest) = (e.float1("negf", &number, lanes), e.float(lowest, lanes));
            let number = e.select(&wanted, &number, &lowest, lanes);
            vec![Reduction::Max.join(e, &so_far[0], &number, lanes)]
        });
        let number = e.float1("negf", &number[0], 1);
        (value[0].clone(), number)
    }

    /// A number as an i64, the last one where nothing was found, because the logits are no numbers.
    fn integer(&self, e: &mut Emitter, number: &str) -> Value {
        let last = e.float(self.experts as f32 - 1.0, 1);
        let known = e.compare("olt", number, &last, 1);
        let number = e.select(&known, number, &last, 1);
        let number = e.op(format!("arith.fptosi {number} : f32 to i32"));
        e.op(format!("arith.extsi {number} : i32 to i64"))
    }
}

/// i1 lanes: whether the values `x` from number `i` on come behind `last`; all do where there is none.
fn behind(e: &mut Emitter, x: &str, i: &str, last: Option<&Found>, lanes: usize) -> Option<Value> {
    let (value, number) = last?;
    let (value, number, own) = (e.splat(value, lanes), e.splat(number, lanes), numbers(e, i, lanes));
    let (less, equal) = (e.compare("olt", x, &value, lanes), e.compare("oeq", x, &value, lanes));
    let later = e.compare("ogt", &own, &number, lanes);
    let ty = int_type(lanes, 1);
    let later = e.op(format!("arith.andi {equal}, {later} : {ty}"));
    Some(e.op(format!("arith.ori {less}, {later} : {ty}")))
}

/// The numbers from `first` on as f32 lanes, exact below 2^24.
fn numbers(e: &mut Emitter, first: &str, lanes: usize) -> Value {
    let ty = int_type(lanes, 32);
    let first = e.op(format!("arith.trunci {first} : i64 to i32"));
    if lanes == 1 {
        return e.op(format!("arith.sitofp {first} : i32 to f32"));
    }
    let steps: Vec<String> = (0..lanes).map(|lane| lane.to_string()).collect();
    let steps = e.op(format!("arith.constant dense<[{}]> : {ty}", steps.join(", ")));
    let first = e.op(format!("vector.broadcast {first} : i32 to {ty}"));
    let all = e.int_lanes2("addi", &first, &steps, lanes);
    e.op(format!("arith.sitofp {all} : {ty} to {}", float_type(lanes)))
}

/// `e^(x - top)`
fn exp_below(e: &mut Emitter, x: &str, top: &str, lanes: usize) -> Value {
    let top = e.splat(top, lanes);
    let x = e.float2("subf", x, &top, lanes);
    math::exp(e, &x, lanes)
}

fn sum(e: &mut Emitter, values: &[Value]) -> Value {
    let first = values[0].clone();
    values[1..].iter().fold(first, |sum, value| e.float2("addf", &sum, value, 1))
}

/// `Σ e^(row[i] - top)`
fn sum_of_exps(e: &mut Emitter, row: &str, experts: usize, top: &str, wide: usize) -> Value {
    let count = e.index(experts as i64);
    let total = e.reduce(&count, wide, &[Reduction::Sum], |e, i, lanes, so_far| {
        let x = e.load_at(row, i, Elem::F32, lanes);
        let exp = exp_below(e, &x, top, lanes);
        vec![e.float2("addf", &so_far[0], &exp, lanes)]
    });
    total[0].clone()
}

/// The gradient by the logits. With p the softmax, c the chosen experts and w their weights: `w_c (dw_c - Σ_c w dw)`
/// for those and 0 for others where weights are normalised, otherwise `p_e (dw_e - Σ_c p dw)` with `dw_e` 0 for those
/// not chosen.
///
/// Operands: `logits` f32 `[tokens, experts]`, `chosen` i32 `[tokens, k]`, `dw` f32 `[tokens, k]`, `d` f32
/// `[tokens, experts]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteGrad {
    pub tokens: usize,
    pub experts: usize,
    pub k: usize,
    pub normalize: bool,
}

impl RouteGrad {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let wide = 2 * machine.lanes();
        let mut e = machine.rows(self.experts, self.experts, Elem::F32);
        let [logits, chosen, dw, d] = [0, 1, 2, 3].map(|i| e.arg(i));
        e.tasks(|e, token| {
            let [row, d] = [&logits, &d].map(|p| e.row(p, token, self.experts, Elem::F32));
            let first = e.times(token, self.k);
            let count = e.index(self.experts as i64);
            let top = e.reduce(&count, wide, &[Reduction::Max], |e, i, lanes, so_far| {
                let x = e.load_at(&row, i, Elem::F32, lanes);
                vec![Reduction::Max.join(e, &so_far[0], &x, lanes)]
            });
            let one = |j: usize| {
                let at = e.plus(&first, j as i64);
                let number = e.load_int_at(&chosen, &at);
                let number = e.nearest_below(&number, self.experts);
                let logit = e.load_at(&row, &number, Elem::F32, 1);
                (number, exp_below(e, &logit, &top[0], 1), e.load_at(&dw, &at, Elem::F32, 1))
            };
            let slots: Vec<(Value, Value, Value)> = (0..self.k).map(one).collect();
            let exps: Vec<Value> = slots.iter().map(|slot| slot.1.clone()).collect();
            let total = if self.normalize { sum(e, &exps) } else { sum_of_exps(e, &row, self.experts, &top[0], wide) };
            let weights: Vec<Value> = exps.iter().map(|exp| e.float2("divf", exp, &total, 1)).collect();
            let products: Vec<Value> =
                weights.iter().zip(&slots).map(|(w, slot)| e.float2("mulf", w, &slot.2, 1)).collect();
            let mean = sum(e, &products);
            e.each(&count, wide, |e, i, lanes| {
                let value = if self.normalize {
                    e.float(0.0, lanes)
                } else {
                    let (x, mean, total) =
                        (e.load_at(&row, i, Elem::F32, lanes), e.splat(&mean, lanes), e.splat(&total, lanes));
                    let exp = exp_below(e, &x, &top[0], lanes);
                    let p = e.float2("divf", &exp, &total, lanes);
                    let p = e.float1("negf", &p, lanes);
                    e.float2("mulf", &p, &mean, lanes)
                };
                e.store_at(&value, &d, i, Elem::F32, lanes);
            });
            e.sync();
            for (weight, (number, _, dw)) in weights.iter().zip(&slots) {
                let difference = e.float2("subf", dw, &mean, 1);
                let value = e.float2("mulf", weight, &difference, 1);
                e.store_at(&value, &d, number, Elem::F32, 1);
            }
        });
        let (each, slots) = (self.tokens * self.experts, self.tokens * self.k);
        let work = Work::new("rows", EXPONENTIAL * if self.normalize { slots } else { 2 * each })
            .moving(2 * each + slots, Elem::F32)
            .moving(slots, Elem::I32);
        let letter = if self.normalize { "n" } else { "a" };
        e.finish(&format!("route_grad_{}x{}_{}{letter}", self.tokens, self.experts, self.k), self.tokens, 0, work)
    }
}
