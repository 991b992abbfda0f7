//! What threads make of the products of queries and keys: scores, with the formulas of `crate::attention::scores`.
use super::*;
use crate::attention::scores::{derivative, penalty, tanh_of, times};

/// What lowers the scores of a thread's elements, with ALiBi.
pub struct Distances {
    /// What is added for a distance of one token.
    slope: Value,
    /// How far the query of the thread's first element is behind its key, as f32: exact, as numbers of tokens are below 2^24.
    first: Value,
    /// Whether rows of elements are queries; otherwise columns are.
    rows_are_queries: bool,
}

impl Distances {
    /// The score of an element, lowered by its distance.
    pub fn lowered(&self, e: &mut Emitter, score: &str, element: &Element) -> Value {
        let further = element.row as f32 - element.column as f32;
        let further = e.float(if self.rows_are_queries { further } else { -further }, 1);
        let distance = e.float2("addf", &self.first, &further, 1);
        e.fma(&self.slope, &distance, score, 1)
    }
}

impl Walk<'_> {
    /// What is added to a score of a head for a distance of one token, with ALiBi.
    pub fn slope(&self, e: &mut Emitter, head: &str) -> Option<Value> {
        let penalty = penalty(e, self.attention.alibi, self.attention.heads, head)?;
        Some(e.float1("negf", &penalty, 1))
    }

    /// The same, for [`Walk::unscaled`].
    pub fn unscaled_slope(&self, e: &mut Emitter, head: &str) -> Option<Value> {
        let slope = self.slope(e, head)?;
        Some(times(e, &slope, 1.0 / self.score_factor(), 1))
    }

    /// Distances that lower scores by a slope, if there is one, from the numbers of the thread's first query and its first key.
    pub fn distances(
        &self,
        e: &mut Emitter,
        slope: Option<&str>,
        (query, key): (&str, &str),
        rows_are_queries: bool,
    ) -> Option<Distances> {
        let slope = slope?.to_string();
        let distance = e.int2("subi", query, key);
        let first = e.op(format!("arith.sitofp {distance} : i64 to f32"));
        Some(Distances { slope, first, rows_are_queries })
    }

    /// What scores are times their [`Walk::unscaled`]: the exponential's multiply-add multiplies by it, too. It is positive, so
    /// the largest score stays the largest.
    pub fn score_factor(&self) -> f32 {
        let factor = self.last_factor();
        if self.elem() == Elem::Bf16 && factor > 0.0 { factor } else { 1.0 }
    }

    /// What makes scores of products, or of what they are capped to.
    fn last_factor(&self) -> f32 {
        self.attention.softcap.unwrap_or(self.attention.scale)
    }

    /// The score of an element's product, divided by [`Walk::score_factor`], as the slope of its distance is.
    pub fn unscaled(&self, e: &mut Emitter, product: &str, element: &Element, distances: Option<&Distances>) -> Value {
        let value = self.tanh(e, product).unwrap_or_else(|| product.into());
        let value = times(e, &value, self.last_factor() / self.score_factor(), 1);
        distances.map_or(value.clone(), |distances| distances.lowered(e, &value, element))
    }

    /// The score of an element's product, and its derivative by the scaled product where that is not 1.
    pub fn score(
        &self,
        e: &mut Emitter,
        product: &str,
        element: &Element,
        distances: Option<&Distances>,
    ) -> (Value, Option<Value>) {
        let tanh = self.tanh(e, product);
        let score = match (&tanh, self.attention.softcap) {
            (Some(tanh), Some(cap)) => times(e, tanh, cap, 1),
            _ => times(e, product, self.attention.scale, 1),
        };
        let score = distances.map_or(score.clone(), |distances| distances.lowered(e, &score, element));
        (score, tanh.map(|tanh| derivative(e, &tanh, 1)))
    }

    /// A score is this times the softcap, if it is capped: with an error of some 2^-22 where products are of bf16.
    pub fn tanh(&self, e: &mut Emitter, product: &str) -> Option<Value> {
        let factor = self.attention.scale / self.attention.softcap?;
        if self.elem() == Elem::F32 {
            return Some(tanh_of(e, product, factor, 1));
        }
        // 1 - 2 / (e^2x + 1)
        let power = times(e, product, 2.0 * std::f32::consts::LOG2_E * factor, 1);
        let power = power_of_two(e, &power);
        let [one, minus_two] = [1.0, -2.0].map(|value| e.float(value, 1));
        let sum = e.float2("addf", &power, &one, 1);
        let inverse = e.op(format!("llvm.call_intrinsic \"llvm.nvvm.rcp.approx.ftz.f\"({sum}) : (f32) -> f32"));
        Some(e.fma(&inverse, &minus_two, &one, 1))
    }
}
