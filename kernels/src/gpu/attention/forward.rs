//! The forward pass: a block's queries walk over the keys that they see. Values are on their way while scores are multiplied, and the
//! next keys while values are.
use super::scores::Distances;
use super::*;
use crate::attention::scores::times;
use crate::emit::float_type;

/// The softmax so far of a thread's two rows: the largest score, and the thread's share of the sum of exponentials.
pub struct Softmax {
    pub top: Vec<Value>,
    pub sum: Vec<Value>,
}

pub fn build(walk: &Walk) -> Kernel {
    let attention = walk.attention;
    let Attention { batch, seq, heads, kv_heads, .. } = *attention;
    let blocks = seq.div_ceil(walk.own());
    let mut e = walk.emitter();
    let [q, k, v, segments, o, lse] = [0, 1, 2, 3, 4, 5].map(|i| e.arg(i));
    let q_at = walk.place(&mut e, &walk.own_tile(0));
    let [k_at, v_at] = [0, 1].map(|array| walk.place(&mut e, &walk.other_tile(array)));
    let passed = walk.passed(&mut e);
    let [b, head, block] = walk.block_of_task(&mut e, true);
    let kv_head = e.divided(&head, heads / kv_heads);
    let first = e.times(&block, walk.own());
    let at = Place { batch: &b, first: &first };
    walk.load(&mut e, &walk.own_tile(0), &q_at, (&q, attention.query_heads()), &at, &head);
    let (row, column) = Part::origin(&mut e);
    let warp_row = e.times("%warp", WARP_ROWS);
    let row = e.int2("addi", &row, &warp_row);
    let query = e.int2("addi", &first, &row);
    let queries = walk.tokens(&mut e, &segments, &b, &query, [0, 8].into_iter());
    let mine = walk.mine(&mut e, &walk.own_tile(0), &q_at);
    let (from, to) = walk.key_range(&mut e, &segments, &at);
    let slope = walk.unscaled_slope(&mut e, &head);
    let (lowest, zero) = (e.float(f32::NEG_INFINITY, 1), e.float(0.0, 1));
    let mut carried = walk.results(1).zeros(&mut e);
    let results = carried.len();
    carried.extend([&lowest, &lowest, &zero, &zero].map(|value| (value.clone(), float_type(1))));
    let load_keys = |e: &mut Emitter, key: &str| {
        let at = Place { batch: &b, first: key };
        walk.load(e, &walk.other_tile(0), &k_at, (&k, attention.key_heads()), &at, &kv_head);
    };
    load_keys(&mut e, &from);
    let last = e.for_loop(&from, &to, walk.others as i64, &carried, |e, key, so_far| {
        // Behind it, nobody reads the values before.
        walk.arrived(e);
        let at = Place { batch: &b, first: key };
        walk.load(e, &walk.other_tile(1), &v_at, (&v, attention.value_heads()), &at, &kv_head);
        let scores: Vec<Value> = walk.scores().zeros(e).into_iter().map(|(value, _)| value).collect();
        let (a, b_factor) = (walk.own_factor(&walk.own_tile(0), &mine), walk.other_factor((0, &k_at), true));
        let scores = walk.scores().multiply(e, scores, &a, &b_factor, walk.width(0));
        // Behind it, nobody reads these keys.
        walk.arrived(e);
        let next_key = e.plus(key, walk.others as i64);
        let more = e.less(&next_key, &to);
        e.branch(&more, |e| load_keys(e, &next_key), |_| {});
        let first_key = e.int2("addi", key, &column);
        let keys = walk.tokens(e, &segments, &b, &first_key, column_distances(walk.scores()));
        let distances = walk.distances(e, slope.as_deref(), (&query, &first_key), true);
        let scores = masked(walk, e, &scores, [&queries, &keys], distances.as_ref());
        let softmax = Softmax { top: so_far[results..results + 2].to_vec(), sum: so_far[results + 2..].to_vec() };
        let (softmax, factors, probabilities) = softmax.with(walk, e, &scores);
        let scaled = walk
            .results(1)
            .elements()
            .map(|element| e.float2("mulf", &so_far[element.register], by_row(&factors, &element), 1));
        let scaled = scaled.collect();
        let mut next = walk.pass_on(e, scaled, &probabilities, (1, &v_at), passed.as_deref());
        next.extend(softmax.top);
        next.extend(softmax.sum);
        next
    });
    // Of a block that sees nothing, the first keys.
    walk.end_copies(&mut e);
    let softmax = Softmax { top: last[results..results + 2].to_vec(), sum: last[results + 2..].to_vec() };
    let (factors, logarithms) = softmax.finish(walk, &mut e);
    let finished: Vec<Value> = (walk.results(1).elements())
        .map(|element| e.float2("mulf", &last[element.register], by_row(&factors, &element), 1))
        .collect();
    walk.store(&mut e, &finished, (&o, attention.result_heads(), &head), &b, (&query, &column));
    store_logarithms(walk, &mut e, &logarithms, &lse, (&b, &head), (&query, &column));
    let work = attention.work("attention", [1, 1], 2);
    e.finish(&attention.name("attention"), batch * heads * blocks, 0, work)
}

/// The scores of products, as [`Walk::unscaled`] has them; -infinity where the query does not see the key.
fn masked(
    walk: &Walk,
    e: &mut Emitter,
    products: &[Value],
    [queries, keys]: [&[(Value, Value)]; 2],
    distances: Option<&Distances>,
) -> Vec<Value> {
    let lowest = e.float(f32::NEG_INFINITY, 1);
    let one = |element: Element| {
        let sees = walk.sees(e, &queries[element.row / 8], &keys[column_number(&element)]);
        let score = walk.unscaled(e, &products[element.register], &element, distances);
        e.select(&sees, &score, &lowest, 1)
    };
    walk.scores().elements().map(one).collect()
}

impl Softmax {
    /// Of rows that have seen nothing.
    pub fn of_nothing(e: &mut Emitter) -> Softmax {
        let (lowest, zero) = (e.float(f32::NEG_INFINITY, 1), e.float(0.0, 1));
        Softmax { top: vec![lowest; 2], sum: vec![zero; 2] }
    }

    /// The softmax with more scores, as [`Walk::unscaled`] has them, the factors of earlier results, and the exponentials of the scores.
    pub fn with(self, walk: &Walk, e: &mut Emitter, scores: &[Value]) -> (Softmax, Vec<Value>, Vec<Value>) {
        let (lowest, zero) = (e.float(f32::NEG_INFINITY, 1), e.float(0.0, 1));
        let (mut top, mut sum, mut factors, mut bases) = (vec![], vec![], vec![], vec![]);
        for (i, (old, so_far)) in self.top.iter().zip(&self.sum).enumerate() {
            let of_row = walk.scores().elements().filter(|element| element.row / 8 == i);
            let most = largest(e, of_row.map(|element| scores[element.register].clone()).collect());
            // The four threads of a row have a quarter of it each.
            let most = [1, 2].into_iter().fold(most, |most, distance| {
                let other = e.shuffle(&most, distance);
                larger(e, &most, &other)
            });
            let most = larger(e, old, &most);
            // A row that has seen nothing: exponentials of -infinity, not of the difference of two.
            let nothing = e.compare("oeq", &most, &lowest, 1);
            let base = e.select(&nothing, &zero, &most, 1);
            // Exactly 1 where nothing has changed.
            let distance = e.float2("subf", old, &base, 1);
            let distance = times(e, &distance, walk.score_factor(), 1);
            let factor = walk.exponential(e, &distance);
            let base = Base::new(walk, e, &base);
            sum.push(e.float2("mulf", so_far, &factor, 1));
            top.push(most);
            factors.push(factor);
            bases.push(base);
        }
        let mut exponentials = vec![];
        for element in walk.scores().elements() {
            let row = element.row / 8;
            let value = bases[row].exponential(walk, e, &scores[element.register]);
            sum[row] = e.float2("addf", &sum[row], &value, 1);
            exponentials.push(value);
        }
        (Softmax { top, sum }, factors, exponentials)
    }

    /// What results are multiplied by, and the logarithms of the sums; zeros for rows that have seen nothing.
    pub fn finish(&self, walk: &Walk, e: &mut Emitter) -> (Vec<Value>, Vec<Value>) {
        let (zero, one, scale) = (e.float(0.0, 1), e.float(1.0, 1), e.float(walk.score_factor(), 1));
        let row = |(top, sum): (&Value, &Value)| {
            let sum = e.across_lanes(sum, Reduction::Sum, 4);
            let any = e.compare("ogt", &sum, &zero, 1);
            let factor = e.float2("divf", &one, &sum, 1);
            let logarithm = math::log(e, &sum, 1);
            let logarithm = e.fma(top, &scale, &logarithm, 1);
            (e.select(&any, &factor, &zero, 1), e.select(&any, &logarithm, &zero, 1))
        };
        self.top.iter().zip(&self.sum).map(row).unzip()
    }
}

/// What is subtracted from a row's scores before their exponentials: where these have few bits, already as powers of 2 have it.
struct Base(Value);

impl Base {
    fn new(walk: &Walk, e: &mut Emitter, base: &str) -> Base {
        Base(if walk.elem() == Elem::F32 { base.into() } else { times(e, base, -log2_factor(walk), 1) })
    }

    /// The exponential of a score less this, the score as [`Walk::unscaled`] has it.
    fn exponential(&self, walk: &Walk, e: &mut Emitter, score: &str) -> Value {
        if walk.elem() == Elem::F32 {
            let x = e.float2("subf", score, &self.0, 1);
            return walk.exponential(e, &x);
        }
        let factor = e.float(log2_factor(walk), 1);
        let x = e.fma(score, &factor, &self.0, 1);
        power_of_two(e, &x)
    }
}

/// What makes exponents of 2 of [`Walk::unscaled`] scores.
fn log2_factor(walk: &Walk) -> f32 {
    walk.score_factor() * std::f32::consts::LOG2_E
}

/// The largest of some values, in a tree, so that few wait for each other.
fn largest(e: &mut Emitter, mut values: Vec<Value>) -> Value {
    while values.len() > 1 {
        let join = |pair: &[Value]| match pair {
            [a, b] => larger(e, a, b),
            alone => alone[0].clone(),
        };
        values = values.chunks(2).map(join).collect();
    }
    values.remove(0)
}

/// The larger of two values by one instruction.
fn larger(e: &mut Emitter, a: &str, b: &str) -> Value {
    e.float2(Reduction::Max.op(), a, b, 1)
}

/// The first of a row's four threads stores its logarithm.
pub fn store_logarithms(
    walk: &Walk,
    e: &mut Emitter,
    logarithms: &[Value],
    lse: &str,
    (batch, head): (&str, &str),
    (query, column): (&str, &str),
) {
    let leads = e.op(format!("arith.cmpi eq, {column}, %zero : i64"));
    for (i, logarithm) in logarithms.iter().enumerate() {
        let token = e.plus(query, 8 * i as i64);
        let (number, inside) = walk.token(e, batch, &token);
        let wanted = e.op(format!("arith.andi {inside}, {leads} : i1"));
        let row = e.row(lse, &number, walk.attention.heads, Elem::F32);
        e.branch(&wanted, |e| e.apart(|e| e.store_at(logarithm, &row, head, Elem::F32, 1)), |_| {});
    }
}
