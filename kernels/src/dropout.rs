//! Dropout whose mask is a pure function of seed, site and element, so that the backward pass draws the same one.
use crate::emit::{Elem, Emitter, Value, int_type};
use crate::{Kernel, Machine, Work};

/// Elements of a CPU's task.
const FLAT_CHUNK: usize = 4096;
/// Multipliers and key increments of Philox4x32 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011).
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const INCREMENTS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;
/// Operations of an element: its share of a block of Philox, comparison, factor.
const OPERATIONS: usize = 2 * ROUNDS + 2;

/// `y[i] = x[i] / (1 - p)` where element `i` is kept, else 0. It is kept where word `i mod 4` of
/// Philox4x32-10(key = seed, counter = (i / 4, site, 0, 0)) is at least `p · 2³²`.
///
/// Operands: `x [n]`, `seed` i32 `[2]` (low word, high word), `y [n]`, which may be `x`.
#[derive(Clone, PartialEq, Debug)]
pub struct Dropout {
    pub n: usize,
    /// In `0 <= p < 1`.
    pub p: f32,
    pub site: u32,
    /// Storage of `x` and `y`.
    pub elem: Elem,
}

impl Dropout {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        // Threads of a GPU take a whole number of counters, or one element.
        let unit = if self.n.is_multiple_of(4) { self.n } else { 1 };
        let mut e = machine.flat(unit, self.elem);
        let chunk = e.chunk(FLAT_CHUNK);
        let [x, seed, y] = [0, 1, 2].map(|i| e.arg(i));
        let keys = round_keys(&mut e, &seed);
        e.chunks(self.n, chunk, |e, first, count| {
            e.each(count, 4 * machine.lanes(), |e, i, lanes| {
                let at = e.int2("addi", first, i);
                let words = self.words(e, &keys, &at, lanes);
                let kept = self.kept(e, &words, lanes);
                let (value, factor) = (e.load_at(&x, &at, self.elem, lanes), e.float(self.factor(), lanes));
                let value = e.float2("mulf", &value, &factor, lanes);
                let zero = e.float(0.0, lanes);
                let value = e.select(&kept, &value, &zero, lanes);
                e.store_at(&value, &y, &at, self.elem, lanes);
            });
        });
        let work = Work::new("dropout", OPERATIONS * self.n).moving(2 * self.n, self.elem);
        e.finish(&format!("dropout_{}_{}", self.n, self.elem.name()), self.n.div_ceil(chunk), 0, work)
    }

    fn factor(&self) -> f32 {
        (1.0 / (1.0 - f64::from(self.p))) as f32
    }

    /// i1 lanes: whether the words are at least `p · 2³²`.
    fn kept(&self, e: &mut Emitter, words: &str, lanes: usize) -> Value {
        let threshold = (f64::from(self.p) * 4_294_967_296.0) as u32;
        let threshold = e.int_constant(threshold.cast_signed(), lanes);
        e.op(format!("arith.cmpi uge, {words}, {threshold} : {}", int_type(lanes, 32)))
    }

    /// The words of elements `at..at + lanes`, i32 lanes; `at` is a multiple of 4, or there is one lane.
    fn words(&self, e: &mut Emitter, keys: &[[Value; 2]], at: &str, lanes: usize) -> Value {
        let four = e.index(4);
        let counter = e.int2("divui", at, &four);
        let words = philox(e, keys, &counter, self.site, lanes.div_ceil(4));
        if lanes == 1 {
            let place = e.int2("remui", at, &four);
            return pick(e, &words, &place);
        }
        if lanes == 4 {
            return e.op(format!("vector.from_elements {} : {}", words.join(", "), int_type(4, 32)));
        }
        // One counter's four words belong to neighbouring elements.
        let even = interleave(e, &words[0], &words[2], lanes / 4);
        let odd = interleave(e, &words[1], &words[3], lanes / 4);
        interleave(e, &even, &odd, lanes / 2)
    }
}

/// The keys of all rounds, i64 values whose low halves count.
fn round_keys(e: &mut Emitter, seed: &str) -> Vec<[Value; 2]> {
    let (zero, one) = (e.index(0), e.index(1));
    let mut keys = vec![[e.load_int_at(seed, &zero), e.load_int_at(seed, &one)]];
    for _ in 1..ROUNDS {
        let mut next = keys[keys.len() - 1].clone();
        for (key, increment) in next.iter_mut().zip(INCREMENTS) {
            let increment = e.index(i64::from(increment));
            *key = e.int2("addi", key, &increment);
        }
        keys.push(next);
    }
    keys
}

/// The four words, i32 lanes, of the counters `(counter + lane, site, 0, 0)`. In between, words are the low halves of i64
/// lanes, which is what the 32 by 32 bit multiplication of vector units takes.
fn philox(e: &mut Emitter, keys: &[[Value; 2]], counter: &str, site: u32, lanes: usize) -> Vec<Value> {
    let ty = int_type(lanes, 64);
    let first = splat(e, counter, lanes);
    let step = e.op(format!("arith.constant {} : {ty}", count_up(lanes)));
    let first = e.op(format!("arith.addi {first}, {step} : {ty}"));
    let mut c = [first, constant(e, site, lanes), constant(e, 0, lanes), constant(e, 0, lanes)];
    for key in keys {
        c = round(e, &c, key, lanes);
    }
    c.iter().map(|word| e.op(format!("arith.trunci {word} : {ty} to {}", int_type(lanes, 32)))).collect()
}

fn round(e: &mut Emitter, c: &[Value; 4], key: &[Value; 2], lanes: usize) -> [Value; 4] {
    let ty = int_type(lanes, 64);
    let (low, half) = (constant(e, u32::MAX, lanes), constant(e, 32, lanes));
    let mut multiply = |word: &str, multiplier: u32| {
        let word = e.op(format!("arith.andi {word}, {low} : {ty}"));
        let multiplier = constant(e, multiplier, lanes);
        e.op(format!("arith.muli {word}, {multiplier} : {ty}"))
    };
    let (a, b) = (multiply(&c[0], MULTIPLIERS[0]), multiply(&c[2], MULTIPLIERS[1]));
    let mut mix = |product: &str, word: &str, key: &str| {
        let high = e.op(format!("arith.shrui {product}, {half} : {ty}"));
        let mixed = e.op(format!("arith.xori {high}, {word} : {ty}"));
        let key = splat(e, key, lanes);
        e.op(format!("arith.xori {mixed}, {key} : {ty}"))
    };
    [mix(&b, &c[1], &key[0]), b.clone(), mix(&a, &c[3], &key[1]), a.clone()]
}

/// `0, 1, 2, …` as a literal.
fn count_up(lanes: usize) -> String {
    if lanes == 1 {
        return "0".into();
    }
    let numbers: Vec<String> = (0..lanes).map(|i| i.to_string()).collect();
    format!("dense<[{}]>", numbers.join(", "))
}

/// One constant in every i64 lane.
fn constant(e: &mut Emitter, value: u32, lanes: usize) -> Value {
    let literal = if lanes == 1 { value.to_string() } else { format!("dense<{value}>") };
    e.op(format!("arith.constant {literal} : {}", int_type(lanes, 64)))
}

/// One i64 in every lane.
fn splat(e: &mut Emitter, value: &str, lanes: usize) -> Value {
    if lanes == 1 {
        return value.into();
    }
    e.op(format!("vector.broadcast {value} : i64 to {}", int_type(lanes, 64)))
}

/// `a[0], b[0], a[1], b[1], …` of vectors of `lanes` i32.
fn interleave(e: &mut Emitter, a: &str, b: &str, lanes: usize) -> Value {
    e.op(format!("vector.interleave {a}, {b} : vector<{lanes}xi32> -> vector<{}xi32>", 2 * lanes))
}

/// Word `place` of four i32.
fn pick(e: &mut Emitter, words: &[Value], place: &str) -> Value {
    let mut chosen = words[0].clone();
    for (i, word) in words.iter().enumerate().skip(1) {
        let i = e.index(i as i64);
        let here = e.op(format!("arith.cmpi eq, {place}, {i} : i64"));
        chosen = e.op(format!("arith.select {here}, {word}, {chosen} : i32"));
    }
    chosen
}

/// The seed of call `index` of a function that is called many times: `index · 0x9E3779B9` is added to the first word.
///
/// Operands: `seed` i32 `[2]`, `out` i32 `[2]`, which may be `seed`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeriveSeed {
    pub index: u32,
}

impl DeriveSeed {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let mut e = machine.emitter();
        let (seed, out) = (e.arg(0), e.arg(1));
        e.tasks(|e, _| {
            let (zero, one) = (e.index(0), e.index(1));
            let (low, high) = (e.load_int_at(&seed, &zero), e.load_int_at(&seed, &one));
            let distance = e.index(i64::from(self.index.wrapping_mul(INCREMENTS[0])));
            let low = e.int2("addi", &low, &distance);
            e.store_int_at(&low, &out, &zero);
            e.store_int_at(&high, &out, &one);
        });
        e.finish(&format!("derive_seed_{}", self.index), 1, 0, Work::new("rows", 0).moving(4, Elem::I32))
    }
}
