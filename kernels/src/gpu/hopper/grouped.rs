//! Products of groups of rows ([`crate::grouped`]) by warpgroups: blocks whose rows, matrix or steps are found at run time.
//!
//! Rows of all groups are one matrix with one tensor map. A block has rows of one group alone: where fewer than 128 are left, the
//! copies bring rows of the next group too, which are multiplied and not stored. Over the rows of a group, K begins at any row,
//! which boxes may do, and what a last tile has of the next group is made zeros ([`super::tail`]).
//!
//! The matrices of all groups are one parameter, an array of tensor maps, or of addresses where threads load or store. So a
//! kernel finds a group's by its number, no map lies in memory that would have to be fenced, and 32,764 bytes of parameters have
//! room for 255 maps.
//!
//! Places of clusters are numbered group by group, and in a group as in a product of its own. A task that goes from one of its
//! places to the next goes on along `offsets`, so that in all it reads them once.
use super::{Groups, ROWS, Share, Start, Template, copied, loads_a, loads_b, suits, template};
use crate::Kernel;
use crate::emit::{Emitter, Value};
use crate::gemm::{Gemm, Term};
use crate::gpu::Gpu;
use crate::gpu::tensor_map::MAP_BYTES;
use crate::grouped::{FIRST_RESULT, GroupedDepth, GroupedRows, Span, span};
use crate::tuning::WarpgroupTuning;

/// Bytes of an address among a kernel's parameters.
const ADDRESS_BYTES: usize = 8;

/// Whether rows can be computed so, with terms of at most `short_depth` steps that threads load.
pub fn suits_rows(problem: &GroupedRows, short_depth: usize) -> bool {
    suits(&problem.gemm, short_depth) && parameter_bytes(problem) <= Gpu::PARAMETER_BYTES
}

/// Whether products over rows can.
pub fn suits_depth(gemm: &Gemm) -> bool {
    gemm.terms.iter().all(|term| copied(&term.a) && copied(&term.b))
}

/// An upper bound, as maps begin at multiples of 64 bytes.
fn parameter_bytes(problem: &GroupedRows) -> usize {
    let term = problem.term();
    let a = if loads_a(term) { ADDRESS_BYTES } else { MAP_BYTES };
    let b = if loads_b(term) { ADDRESS_BYTES } else { MAP_BYTES };
    let others = (problem.first_matrix() - 1) * ADDRESS_BYTES;
    (a + others).next_multiple_of(64) + problem.groups * b
}

/// Rows of every group by its matrix, with the operands of [`GroupedRows`].
pub fn rows(problem: &GroupedRows, cut: WarpgroupTuning) -> Kernel {
    let name = format!("grouped_wg{}_{}_{}", cut.columns, problem.groups, problem.gemm.name());
    template(&problem.gemm, Groups::Rows(problem), cut).build(&name, problem.work("product_bf16"))
}

/// A product over the rows of every group, with the operands of [`GroupedDepth`].
pub fn depth(problem: &GroupedDepth, cut: WarpgroupTuning) -> Kernel {
    let gemm = problem.gemm();
    let name = format!("grouped_wg{}_{}_{}", cut.columns, problem.groups, gemm.name());
    template(&gemm, Groups::Depth(problem), cut).build(&name, problem.work("product_bf16"))
}

impl Template<'_> {
    /// What blocks of [`GroupedRows`] have in common, B being that of all groups; and where these begin.
    pub(super) fn of_rows(&self, e: &mut Emitter, problem: &GroupedRows) -> (Share, Option<Value>) {
        let term = problem.term();
        let a = if loads_a(term) { e.arg(0) } else { e.tensor_map(self.a(term).map(0)) };
        let b = (!loads_b(term)).then(|| e.tensor_maps(self.b(term).map(problem.first_matrix()), problem.groups));
        let offsets = e.arg(1);
        let epilogue = self.gemm.epilogue.operands(e, self.gemm.first_epilogue_operand(), 1);
        let depths = vec![e.index(term.k as i64)];
        let operands = vec![(a, b.unwrap_or_default())];
        let zero = || "%zero".to_string();
        let whole = Share { row: zero(), column: zero(), rows: zero(), operands, epilogue, depths, first_step: None };
        (whole, Some(offsets))
    }

    /// What blocks of [`GroupedDepth`] have in common, and where groups begin.
    pub(super) fn of_depth(&self, e: &mut Emitter, problem: &GroupedDepth) -> (Share, Option<Value>) {
        let term = &self.gemm.terms[0];
        let operands = vec![(e.tensor_map(self.a(term).map(0)), e.tensor_map(self.b(term).map(1)))];
        let offsets = e.arg(2);
        let rows = e.index(problem.m as i64);
        let zero = || "%zero".to_string();
        let (row, column, epilogue, depths) = (zero(), zero(), vec![], vec![]);
        (Share { row, column, rows, operands, epilogue, depths, first_step: None }, Some(offsets))
    }

    /// What is computed at place number `place` of the products over rows.
    pub(super) fn share_of_depth(&self, e: &mut Emitter, start: &Start, problem: &GroupedDepth, place: &str) -> Share {
        let of_group = e.index((self.places_down() * self.blocks_across()) as i64);
        let (group, place) = (e.int2("divui", place, &of_group), e.int2("remui", place, &of_group));
        let (row, column) = self.corner(e, &place);
        let Span { first, end, .. } = span(e, offsets(start), &group, problem.rows);
        let depths = vec![e.int2("subi", &end, &first)];
        let result = e.operand_of(FIRST_RESULT, problem.groups, &group);
        let epilogue = vec![result; self.gemm.epilogue.inputs.len()];
        Share { row, column, epilogue, depths, first_step: Some(first), ..start.whole.clone() }
    }

    /// `body(share, first)` for each of the task's blocks, as [`Template::walk`] has it.
    pub(super) fn walk_rows(
        &self,
        e: &mut Emitter,
        start: &Start,
        problem: &GroupedRows,
        body: impl FnOnce(&mut Emitter, &Share, &str) -> Value,
    ) {
        // The number of the cluster's place, its group, how many places are before that, and the number of the first tile.
        let first = if self.cluster > 1 { e.divided("%task", self.cluster) } else { "%task".into() };
        let carried = [&first, "%zero", "%zero", "%zero"].map(String::from);
        let test = |e: &mut Emitter, carried: &[Value]| {
            let [place, group, before, tile] = carried else { unreachable!("four are carried") };
            let found = self.group_of(e, start, problem, place, (group, before));
            let groups = e.index(problem.groups as i64);
            let any = e.less(&found.rows.group, &groups);
            let Span { group, first, end } = found.rows;
            (any, vec![place.clone(), group, found.before, first, end, tile.clone()])
        };
        let compute = |e: &mut Emitter, passed: &[Value]| {
            let [place, group, before, first, end, tile] = passed else { unreachable!("six are passed") };
            let within = e.int2("subi", place, before);
            let (row, column) = self.corner_in_group(e, (first, end), &within);
            let row = self.own_row(e, start, &row);
            let operands = self.operands_of(e, start, problem, group);
            let share = Share { row, column, rows: end.clone(), operands, ..start.whole.clone() };
            let tile = body(e, &share, tile);
            vec![e.plus(place, (self.tasks / self.cluster) as i64), group.clone(), before.clone(), tile]
        };
        e.while_loop(&carried, test, compute);
    }

    /// The group of a place, from the group of the task's last one on; behind all groups if there is no such place.
    fn group_of(
        &self,
        e: &mut Emitter,
        start: &Start,
        problem: &GroupedRows,
        place: &str,
        (group, before): (&str, &str),
    ) -> Found {
        let test = |e: &mut Emitter, carried: &[Value]| {
            let [group, before] = carried else { unreachable!("two are carried") };
            let (groups, last) = (e.index(problem.groups as i64), e.index(problem.groups as i64 - 1));
            let known = e.int2("minsi", group, &last);
            let Span { first, end, .. } = span(e, offsets(start), &known, self.gemm.m);
            let down = self.down_a_group(e, &first, &end);
            let places = e.times(&down, self.blocks_across());
            let next = e.int2("addi", before, &places);
            let (later, within) = (e.op(format!("arith.cmpi sge, {place}, {next} : i64")), e.less(group, &groups));
            let again = e.op(format!("arith.andi {later}, {within} : i1"));
            (again, vec![group.clone(), before.clone(), next, first, end])
        };
        let carried = [group, before].map(String::from);
        let found = e.while_loop(&carried, test, |e, passed| vec![e.plus(&passed[0], 1), passed[2].clone()]);
        let [group, before, _, first, end] = found.try_into().expect("as many as are passed");
        Found { rows: Span { group, first, end }, before }
    }

    /// The first row and column of place number `place` of a group with these rows: as [`Template::corner`] has it.
    fn corner_in_group(&self, e: &mut Emitter, (first, end): (&str, &str), place: &str) -> (Value, Value) {
        let highest = self.band / self.cluster;
        let in_band = e.index((highest * self.blocks_across()) as i64);
        let (band, within) = (e.int2("divui", place, &in_band), e.int2("remui", place, &in_band));
        let (above, all) = (e.times(&band, highest), e.index(highest as i64));
        let down = self.down_a_group(e, first, end);
        let left = e.int2("subi", &down, &above);
        let height = e.int2("minsi", &left, &all);
        // Short numbers, as the division is by one that is known only now.
        let [within, height] = [&within, &height].map(|value| e.op(format!("arith.trunci {value} : i64 to i32")));
        let [j, i] = ["divui", "remui"].map(|op| {
            let result = e.op(format!("arith.{op} {within}, {height} : i32"));
            e.op(format!("arith.extui {result} : i32 to i64"))
        });
        let i = e.int2("addi", &above, &i);
        let below = e.times(&i, ROWS * self.cluster);
        (e.int2("addi", first, &below), e.times(&j, self.columns))
    }

    /// Places one below the other in a group with these rows; the last may reach below it.
    fn down_a_group(&self, e: &mut Emitter, first: &str, end: &str) -> Value {
        let (rows, height) = (e.int2("subi", end, first), ROWS * self.cluster);
        let rows = e.plus(&rows, height as i64 - 1);
        e.divided(&rows, height)
    }

    /// A and B of every term for rows of a group.
    fn operands_of(&self, e: &mut Emitter, start: &Start, problem: &GroupedRows, group: &str) -> Vec<(Value, Value)> {
        let matrix = |((a, maps), term): (&(Value, Value), &Term)| {
            let b = if loads_b(term) {
                e.operand_of(problem.first_matrix(), problem.groups, group)
            } else {
                e.map_of(maps, group)
            };
            (a.clone(), b)
        };
        start.whole.operands.iter().zip(&self.gemm.terms).map(matrix).collect()
    }
}

/// The group of a place.
struct Found {
    rows: Span,
    /// Places of the groups before it.
    before: Value,
}

fn offsets(start: &Start) -> &str {
    start.offsets.as_ref().expect("groups begin somewhere")
}
