//! The register tile: `@tile{stage}_{rows}` sums its terms along K in registers and leaves the sums in scratch.
use super::plan::{Feed, Plan};
use super::{Gemm, private_function};
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
        let term = &gemm.terms[t];
        let (row_stride, step_stride) = match plan.feed(gemm, term) {
            Feed::InPlace if term.a.transposed => (1, term.a.stride),
            Feed::InPlace => (term.a.stride, 1),
            Feed::Rows => (plan.row_stride(term), 1),
            Feed::Strips => (1, plan.rows),
        };
        let walk = Walk { plan, rows, a: &format!("%a{t}"), panel: &panel, row_stride, step_stride };
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

/// One term's way along K.
struct Walk<'a> {
    plan: &'a Plan,
    rows: usize,
    a: &'a str,
    panel: &'a str,
    row_stride: usize,
    step_stride: usize,
}

impl Walk<'_> {
    /// The sums after `depth` steps: several a turn, then one a turn.
    fn along(&self, e: &mut Emitter, depth: &str, sums: Vec<Value>) -> Vec<Value> {
        let zero = e.index(0);
        let whole = e.rounded_down(depth, self.plan.unroll);
        let sums = self.turns(e, &zero, &whole, self.plan.unroll, sums);
        self.turns(e, &whole, depth, 1, sums)
    }

    fn turns(&self, e: &mut Emitter, from: &str, to: &str, steps: usize, sums: Vec<Value>) -> Vec<Value> {
        let carried: Vec<_> = sums.into_iter().map(|sum| (sum, float_type(self.plan.lanes))).collect();
        e.for_loop(from, to, steps as i64, &carried, |e, k, sums| {
            let a = e.row(self.a, k, self.step_stride, Elem::F32);
            let b = e.row(self.panel, k, self.plan.width(), Elem::F32);
            (0..steps).fold(sums.to_vec(), |sums, step| self.step(e, &a, &b, step, sums))
        })
    }

    /// `sums[i][j] += a[i] * b[j]`
    fn step(&self, e: &mut Emitter, a: &str, b: &str, step: usize, mut sums: Vec<Value>) -> Vec<Value> {
        let (lanes, vectors) = (self.plan.lanes, self.plan.vectors);
        let load = |e: &mut Emitter, pointer: &str, at: usize, lanes: usize| {
            let pointer = e.at(pointer, at as i64, Elem::F32);
            e.load(&pointer, Elem::F32, lanes)
        };
        let b: Vec<Value> = (0..vectors).map(|j| load(e, b, step * self.plan.width() + j * lanes, lanes)).collect();
        for i in 0..self.rows {
            let a = load(e, a, i * self.row_stride + step * self.step_stride, 1);
            let a = e.splat(&a, lanes);
            for j in 0..vectors {
                sums[i * vectors + j] = e.fma(&a, &b[j], &sums[i * vectors + j], lanes);
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
