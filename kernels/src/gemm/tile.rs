//! The register tile: `@tile{stage}_{rows}` sums its terms along K in registers and leaves the sums in scratch.
use super::plan::{Feed, Pairs, Plan};
use super::{Gemm, pairs, private_function};
use crate::emit::{Elem, Emitter, Value, float_type};
use std::fmt::Write;

/// The name of the tile function of a stage for so many rows.
pub fn name(stage: usize, rows: usize) -> String {
    format!("tile{stage}_{rows}")
}

/// The rows of the tile functions that are needed: a last strip with fewer rows must not read beyond A.
pub fn heights(gemm: &Gemm, plan: &Plan) -> Vec<usize> {
    let rest = gemm.m % plan.rows;
    let in_place = gemm.terms.iter().any(|term| plan.feed(gemm, term) == Feed::InPlace);
    if rest > 0 && in_place { vec![plan.rows, rest] } else { vec![plan.rows] }
}

/// All tile functions of the product.
pub fn functions(gemm: &Gemm, plan: &Plan) -> String {
    let mut text = String::new();
    for (s, stage) in plan.stages(gemm).iter().enumerate() {
        for rows in heights(gemm, plan) {
            text += &function(gemm, plan, s, stage, rows);
        }
    }
    text
}

/// `%tile` are the sums, `%panel` the packed B, `%keep` says whether to add to what is there, `%a` and `%k` of every
/// term are its first element of A and its depth.
fn function(gemm: &Gemm, plan: &Plan, s: usize, stage: &[usize], rows: usize) -> String {
    let mut e = Emitter::new();
    let mut params = "%tile: !llvm.ptr, %panel: !llvm.ptr, %keep: i1".to_string();
    let zero = e.float(0.0, plan.lanes);
    let mut sums = vec![zero; rows * plan.vectors];
    for &t in stage {
        write!(params, ", %a{t}: !llvm.ptr, %k{t}: i64").expect("writing to a string");
        let panel = e.at("%panel", (plan.panel_offset(gemm, stage, t) * plan.width()) as i64, Elem::F32);
        let walk = Walk::new(gemm, plan, t, rows, &panel);
        sums = walk.along(&mut e, &format!("%k{t}"), sums);
    }
    if plan.keeps_sums() {
        sums = add_kept(&mut e, plan, sums);
    }
    for (i, sum) in sums.iter().enumerate() {
        let place = e.at("%tile", (i * plan.lanes) as i64, Elem::F32);
        e.store(sum, &place, Elem::F32, plan.lanes);
    }
    private_function(&name(s, rows), &params, e)
}

/// One term's way along K, by steps or by pairs of them.
struct Walk<'a> {
    plan: &'a Plan,
    rows: usize,
    a: String,
    /// How A is addressed, and what lies between its rows and between turns, in these elements.
    a_elem: Elem,
    row_stride: usize,
    turn_stride: usize,
    panel: &'a str,
    pairs: Option<Pairs>,
}

impl<'a> Walk<'a> {
    fn new(gemm: &Gemm, plan: &'a Plan, t: usize, rows: usize, panel: &'a str) -> Walk<'a> {
        let term = &gemm.terms[t];
        let pairs = plan.pairs.filter(|_| plan.paired(term));
        let (a_elem, row_stride, turn_stride) = match plan.feed(gemm, term) {
            Feed::InPlace if pairs.is_some() => (Elem::Bf16, term.a.stride, 2),
            Feed::InPlace if term.a.transposed => (Elem::F32, 1, term.a.stride),
            Feed::InPlace => (Elem::F32, term.a.stride, 1),
            Feed::Rows => (Elem::F32, plan.row_stride(term), 1),
            Feed::Strips => (Elem::F32, 1, plan.rows),
        };
        Walk { plan, rows, a: format!("%a{t}"), a_elem, row_stride, turn_stride, panel, pairs }
    }

    /// The sums after `depth` steps: several turns at once, then one by one.
    fn along(&self, e: &mut Emitter, depth: &str, sums: Vec<Value>) -> Vec<Value> {
        let zero = e.index(0);
        let turns = if self.pairs.is_some() { e.divided(depth, 2) } else { depth.to_string() };
        let whole = e.rounded_down(&turns, self.plan.unroll);
        let sums = self.turns(e, (&zero, &whole), self.plan.unroll, true, sums);
        let sums = self.turns(e, (&whole, &turns), 1, true, sums);
        if self.pairs.is_none() {
            return sums;
        }
        let end = e.plus(depth, 1);
        let end = e.divided(&end, 2);
        self.turns(e, (&turns, &end), 1, false, sums)
    }

    /// `whole` is false for the pair that lacks its second step.
    fn turns(
        &self,
        e: &mut Emitter,
        (from, to): (&str, &str),
        count: usize,
        whole: bool,
        sums: Vec<Value>,
    ) -> Vec<Value> {
        let carried: Vec<_> = sums.into_iter().map(|sum| (sum, float_type(self.plan.lanes))).collect();
        e.for_loop(from, to, count as i64, &carried, |e, k, sums| {
            let a = e.row(&self.a, k, self.turn_stride, self.a_elem);
            let b = e.row(self.panel, k, self.plan.width(), Elem::F32);
            (0..count).fold(sums.to_vec(), |sums, turn| self.turn(e, (&a, &b), turn, whole, sums))
        })
    }

    /// `sums[i][j] += a[i] * b[j]`
    fn turn(
        &self,
        e: &mut Emitter,
        (a, b): (&str, &str),
        turn: usize,
        whole: bool,
        mut sums: Vec<Value>,
    ) -> Vec<Value> {
        let (lanes, vectors) = (self.plan.lanes, self.plan.vectors);
        let load_b = |j: usize| {
            let place = e.at(b, (turn * self.plan.width() + j * lanes) as i64, Elem::F32);
            e.load(&place, Elem::F32, lanes)
        };
        let b: Vec<Value> = (0..vectors).map(load_b).collect();
        for i in 0..self.rows {
            let place = e.at(a, (i * self.row_stride + turn * self.turn_stride) as i64, self.a_elem);
            let a = match self.a_elem {
                Elem::Bf16 if whole => e.load_words(&place, 1),
                Elem::Bf16 => e.load_halves(&place, None, 1),
                _ => e.load(&place, Elem::F32, 1),
            };
            let a = e.splat(&a, lanes);
            for j in 0..vectors {
                let sum = &mut sums[i * vectors + j];
                *sum = match self.pairs {
                    Some(how) => pairs::dot(e, how, &a, &b[j], sum, lanes),
                    None => e.fma(&a, &b[j], sum, lanes),
                };
            }
        }
        sums
    }
}

/// The sums plus those of earlier blocks, if there were any.
fn add_kept(e: &mut Emitter, plan: &Plan, sums: Vec<Value>) -> Vec<Value> {
    let ty = float_type(plan.lanes);
    let types = vec![ty.as_str(); sums.len()].join(", ");
    let result = e.fresh();
    e.line(format!("{result}:{} = scf.if %keep -> ({types}) {{", sums.len()));
    let mut added = Vec::new();
    for (i, sum) in sums.iter().enumerate() {
        let place = e.at("%tile", (i * plan.lanes) as i64, Elem::F32);
        let kept = e.load(&place, Elem::F32, plan.lanes);
        added.push(e.float2("addf", &kept, sum, plan.lanes));
    }
    e.line(format!("scf.yield {} : {types}", added.join(", ")));
    e.line("} else {");
    e.line(format!("scf.yield {} : {types}", sums.join(", ")));
    e.line("}");
    (0..sums.len()).map(|i| format!("{result}#{i}")).collect()
}
