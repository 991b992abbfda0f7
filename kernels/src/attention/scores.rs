//! What becomes of the product of a query and a key before the softmax: it is scaled, capped, and lowered by the distance.
//!
//! With a softcap `c` a score `x` becomes `c tanh(x / c)` (Gemma 2). With ALiBi, `alibi · slope(h) · (i - j)` is then
//! subtracted, the *penalty* of head `h` times the distance of query `i` from key `j` (Press et al., "Train Short, Test
//! Long"). The derivative of a score by the scaled product is `1 - tanh²`.
use super::Layout;
use super::sight::{Meeting, lane_tokens, splat_int};
use super::tile::Tile;
use crate::emit::{Elem, Emitter, Value, float_type, int_type};
use crate::math;

/// A tile's scores, and the derivative of each where it is not 1.
pub struct Scored {
    pub scores: Vec<Value>,
    pub derivatives: Option<Vec<Value>>,
}

impl Layout {
    /// The scores that a tile's products make.
    pub fn scored(&self, e: &mut Emitter, products: Vec<Value>, at: &Meeting) -> Scored {
        let lanes = self.tile.lanes;
        let Some(cap) = self.softcap else {
            let scores = self.scaled(e, products);
            return Scored { scores: lowered(e, self.tile, scores, at), derivatives: None };
        };
        let factor = self.score_scale().unwrap_or(1.0) / cap;
        let (mut scores, mut derivatives) = (vec![], vec![]);
        for product in &products {
            let tanh = tanh_of(e, product, factor, lanes);
            scores.push(times(e, &tanh, cap, lanes));
            derivatives.push(derivative(e, &tanh, lanes));
        }
        Scored { scores: lowered(e, self.tile, scores, at), derivatives: Some(derivatives) }
    }
}

/// `tanh(x · factor)`
pub fn tanh_of(e: &mut Emitter, x: &str, factor: f32, lanes: usize) -> Value {
    let x = times(e, x, factor, lanes);
    math::tanh(e, &x, lanes)
}

/// `1 - tanh²`
pub fn derivative(e: &mut Emitter, tanh: &str, lanes: usize) -> Value {
    let (negative, one) = (e.float1("negf", tanh, lanes), e.float(1.0, lanes));
    e.fma(&negative, tanh, &one, lanes)
}

pub fn times(e: &mut Emitter, x: &str, factor: f32, lanes: usize) -> Value {
    let factor = e.float(factor, lanes);
    e.float2("mulf", x, &factor, lanes)
}

/// Scores less what the meeting's penalty makes of their distances, if it has one.
fn lowered(e: &mut Emitter, tile: Tile, scores: Vec<Value>, at: &Meeting) -> Vec<Value> {
    let Some(penalty) = at.penalty else { return scores };
    let lanes = tile.lanes;
    let slope = e.load(penalty, Elem::F32, 1);
    let slope = e.float1("negf", &slope, 1);
    let slope = e.splat(&slope, lanes);
    let key = splat_int(e, at.first_key, lanes);
    // From the first key; distances are whole numbers far below 2^24, so all of this is exact.
    let distances: Vec<Value> = (0..tile.vectors)
        .map(|v| {
            let token = lane_tokens(e, at.first_query, v, lanes);
            let distance = e.int_lanes2("subi", &token, &key, lanes);
            e.op(format!("arith.sitofp {distance} : {} to {}", int_type(lanes, 32), float_type(lanes)))
        })
        .collect();
    let one = |(i, score): (usize, &Value)| {
        let row = e.float((i / tile.vectors) as f32, lanes);
        let distance = e.float2("subf", &distances[i % tile.vectors], &row, lanes);
        e.fma(&slope, &distance, score, lanes)
    };
    scores.iter().enumerate().map(one).collect()
}

/// The penalty of a distance of one for head `head` (an i64) of so many: `alibi` times `2^(-8 (h + 1) / n)` for `h < n` and
/// `2^(-4 (2 (h - n) + 1) / n)` from there on, `n` being the largest power of two up to `heads`.
pub(crate) fn penalty(e: &mut Emitter, alibi: Option<f32>, heads: usize, head: &str) -> Option<Value> {
    let mut result = e.float(alibi?, 1);
    let n = 1usize << heads.ilog2();
    let next = e.plus(head, 1);
    let mut power = e.times(&next, 2);
    if heads > n {
        let (limit, later) = (e.index(n as i64), e.plus(&power, -(2 * n as i64 + 1)));
        let early = e.op(format!("arith.cmpi slt, {head}, {limit} : i64"));
        power = e.op(format!("arith.select {early}, {power}, {later} : i64"));
    }
    // The power-th power of 2^(-4 / n), from its binary digits.
    let (zero, one) = (e.index(0), e.float(1.0, 1));
    for digit in (0..=n.ilog2() + 1).map(|digit| 1u64 << digit) {
        let bit = e.index(digit as i64);
        let bit = e.int2("andi", &power, &bit);
        let is_set = e.op(format!("arith.cmpi ne, {bit}, {zero} : i64"));
        let factor = e.float((-4.0 * digit as f64 / n as f64).exp2() as f32, 1);
        let factor = e.select(&is_set, &factor, &one, 1);
        result = e.float2("mulf", &result, &factor, 1);
    }
    Some(result)
}
