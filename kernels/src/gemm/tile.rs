//! The register tile: `@tile{stage}_{rows}` sums its terms along K in registers and leaves the sums in scratch.
//!
//! A long K is summed in parts, whose sums are added in scratch: a chain of additions in f32 loses digits with its length.
//! On SmolLM2, whose first token has activations a thousand times the others', logits differed from those in f64 by
//! 3.8e-4 with one chain of 1536, by 3.9e-5 with parts of 128 (PyTorch: 6.6e-5).
use super::ask::{Ask, AskResult};
use super::plan::{Feed, FeedB, Plan};
use super::{Gemm, Operand, prefetch, private_function};
use crate::emit::{Elem, Emitter, Value, float_type};
use crate::pairs::{self, Pairs};
use std::fmt::Write;

/// Stored rows ahead that are asked for where B is read in place.
const AHEAD: usize = 16;
/// Turns along K whose sums stay in registers.
const PART: usize = 128;

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
pub fn functions(gemm: &Gemm, plan: &Plan, result: &AskResult) -> String {
    let mut text = String::new();
    for (s, stage) in plan.stages(gemm).iter().enumerate() {
        for rows in heights(gemm, plan) {
            text += &function(gemm, plan, (s, stage), rows, result);
        }
    }
    text
}

/// Whether there are sums in scratch already, to which others are added.
enum Kept {
    No,
    /// Where the i1 holds.
    If(Value),
    Yes,
}

/// `%tile` are the sums, `%panel` the packed B, `%keep` says whether to add to what is there, `%a` and `%k` of every
/// term are its first element of A and its depth, `%b` that of B, where it is not in a panel of scratch, and
/// `%next` the rows of B that this strip asks for; `%c` of every matrix of the epilogue is its first element there.
fn function(gemm: &Gemm, plan: &Plan, (s, stage): (usize, &[usize]), rows: usize, result: &AskResult) -> String {
    let mut e = Emitter::new();
    let mut params = "%tile: !llvm.ptr, %panel: !llvm.ptr, %keep: i1".to_string();
    let zero = e.float(0.0, plan.lanes);
    let none = vec![zero; rows * plan.vectors];
    let mut kept = if plan.keeps_sums() { Kept::If("%keep".into()) } else { Kept::No };
    let mut pending = None;
    for &t in stage {
        write!(params, ", %a{t}: !llvm.ptr, %k{t}: i64").expect("writing to a string");
        let panel = if plan.feed_b(gemm, &gemm.terms[t]) != FeedB::Panel {
            write!(params, ", %b{t}: !llvm.ptr").expect("writing to a string");
            format!("%b{t}")
        } else {
            e.at("%panel", (plan.panel_offset(gemm, stage, t) * plan.width()) as i64, Elem::F32)
        };
        let mut walk = Walk::new(gemm, plan, t, rows, &panel);
        if walk.ask.is_some() {
            write!(params, ", %next{t}: !llvm.ptr").expect("writing to a string");
        }
        if plan.longest(gemm, stage) == t {
            params += &result.params();
            walk.result = Some(result);
        }
        let turns = walk.turns_of(&mut e, &format!("%k{t}"));
        if plan.capacity(&gemm.terms[t]) <= PART {
            let from = e.index(0);
            pending = Some(walk.along(&mut e, (&from, &turns), pending.unwrap_or_else(|| none.clone())));
            continue;
        }
        if let Some(sums) = pending.take() {
            add(&mut e, plan, &sums, &kept);
            kept = Kept::Yes;
        }
        parts(&mut e, &walk, &turns, &none, &kept);
        kept = Kept::Yes;
    }
    if let Some(sums) = pending {
        add(&mut e, plan, &sums, &kept);
    }
    private_function(&name(s, rows), &params, e)
}

/// All parts of a long term, added to what is in scratch; one of no depth where there are none, so that the sums are there.
fn parts(e: &mut Emitter, walk: &Walk, turns: &str, none: &[Value], kept: &Kept) {
    let (zero, one) = (e.index(0), e.index(1));
    let end = e.int2("maxsi", turns, &one);
    e.repeat(&zero, &end, PART as i64, |e, from| {
        let to = e.plus(from, PART as i64);
        let to = e.int2("minsi", &to, turns);
        let sums = walk.along(e, (from, &to), none.to_vec());
        let later = e.op(format!("arith.cmpi ne, {from}, {zero} : i64"));
        let kept = match kept {
            Kept::No => Kept::If(later),
            Kept::If(keep) => Kept::If(e.op(format!("arith.ori {later}, {keep} : i1"))),
            Kept::Yes => Kept::Yes,
        };
        add(e, walk.plan, &sums, &kept);
    });
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
    /// How B is stored, if it is read in place.
    b: Option<Operand>,
    /// Steps of K.
    depth: String,
    pairs: Option<Pairs>,
    /// What is asked for along K, of the rows of B from a pointer on.
    ask: Option<(Ask, String)>,
    /// Of the result, by the longest term.
    result: Option<&'a AskResult>,
    /// Turns of a block, several at once.
    turns: usize,
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
        let b = (plan.feed_b(gemm, term) == FeedB::InPlace).then_some(term.b);
        let (a, depth) = (format!("%a{t}"), format!("%k{t}"));
        let ask = Ask::of(gemm, plan, term).filter(|ask| ask.along).map(|ask| (ask, format!("%next{t}")));
        let turns = plan.capacity(term) / plan.unroll;
        Walk { plan, rows, a, a_elem, row_stride, turn_stride, panel, b, depth, pairs, ask, turns, result: None }
    }

    /// Turns of a depth: the last pair counts, though it may lack its second step.
    fn turns_of(&self, e: &mut Emitter, depth: &str) -> Value {
        if self.pairs.is_none() {
            return depth.to_string();
        }
        let depth = e.plus(depth, 1);
        e.divided(&depth, 2)
    }

    /// The sums after turns `from..to`: several at once, then one by one, and by itself a pair without its second step.
    fn along(&self, e: &mut Emitter, (from, to): (&str, &str), sums: Vec<Value>) -> Vec<Value> {
        let end = match self.pairs {
            None => to.to_string(),
            Some(_) => {
                let whole = e.divided(&self.depth, 2);
                e.int2("minsi", &whole, to)
            }
        };
        let count = e.int2("subi", &end, from);
        let count = e.rounded_down(&count, self.plan.unroll);
        let middle = e.int2("addi", from, &count);
        let sums = self.turns(e, (from, &middle), self.plan.unroll, true, sums);
        let sums = self.turns(e, (&middle, &end), 1, true, sums);
        if self.pairs.is_none() { sums } else { self.turns(e, (&end, to), 1, false, sums) }
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
            let b = match self.b {
                Some(b) => e.row(self.panel, k, self.b_rows() * b.stride, b.elem),
                None => e.row(self.panel, k, self.plan.width(), Elem::F32),
            };
            if count == self.plan.unroll {
                let turn = e.divided(k, count);
                self.ask.iter().for_each(|(ask, next)| ask.along(e, next, &turn, self.turns));
                self.result.iter().for_each(|result| result.along(e, &turn));
            }
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
        let b: Vec<Value> = (0..vectors).map(|j| self.load_b(e, b, turn, j, whole)).collect();
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

impl Walk<'_> {
    /// Stored rows of B of a turn, where it is read in place.
    fn b_rows(&self) -> usize {
        if self.pairs.is_some() { 2 } else { 1 }
    }

    /// Vector `j` of B of a turn.
    fn load_b(&self, e: &mut Emitter, b: &str, turn: usize, j: usize, whole: bool) -> Value {
        let lanes = self.plan.lanes;
        let Some(stored) = self.b else {
            let place = e.at(b, (turn * self.plan.width() + j * lanes) as i64, Elem::F32);
            return e.load(&place, Elem::F32, lanes);
        };
        let row = turn * self.b_rows();
        for ahead in row + AHEAD..row + AHEAD + self.b_rows() {
            prefetch(e, b, ahead * stored.stride + j * lanes, stored.elem);
        }
        let low = e.at(b, (row * stored.stride + j * lanes) as i64, stored.elem);
        if self.pairs.is_none() {
            return e.load(&low, stored.elem, lanes);
        }
        let high = whole.then(|| e.at(&low, stored.stride as i64, stored.elem));
        e.load_halves(&low, high.as_deref(), lanes)
    }
}

/// Adds the sums to those in scratch, or leaves them there.
///
/// Scratch is volatile, or else LLVM keeps the sums of the parts before in registers, of which there are none left, and
/// saves all on the stack around every part: 5 to 10 % of a product on Zen 5.
fn add(e: &mut Emitter, plan: &Plan, sums: &[Value], kept: &Kept) {
    let place = |e: &mut Emitter, i: usize| e.at("%tile", (i * plan.lanes) as i64, Elem::F32);
    let added = |e: &mut Emitter| -> Vec<Value> {
        let add = |(i, sum): (usize, &Value)| {
            let place = place(e, i);
            let kept = e.load_volatile(&place, plan.lanes);
            e.float2("addf", &kept, sum, plan.lanes)
        };
        sums.iter().enumerate().map(add).collect()
    };
    let sums = match kept {
        Kept::No => sums.to_vec(),
        Kept::Yes => added(e),
        Kept::If(condition) => {
            let types = vec![float_type(plan.lanes); sums.len()];
            e.either(condition, &types, added, |_| sums.to_vec())
        }
    };
    for (i, sum) in sums.iter().enumerate() {
        let place = place(e, i);
        e.store_volatile(sum, &place, plan.lanes);
    }
}
