//! Products in which every group of rows meets a matrix of its own, as experts' layers are; which rows are whose is
//! read from memory.
//!
//! Group e has rows `offsets[e]..offsets[e + 1]` of R. Tasks are cut for the worst case: however the rows are divided,
//! blocks of so many rows are no more than [`most_blocks`], and a task whose block has no rows returns at once. A
//! kernel takes the matrices of all groups as operands of their own, so that frozen ones stay where their file is
//! mapped and adapters, gradients and states are tensors like any other. CPUs find a group's matrix in the array of
//! operands, GPUs in a parameter that is an array of addresses.
//!
//! Whatever `offsets` hold, nothing outside of the operands is read or written.
use crate::emit::Elem;
use crate::emit::{Emitter, Value, int_type};
use crate::gemm::{Gemm, Operand, Term};
use crate::region::{Broadcast, Region, RegionInput, RegionNode, RegionOutput, RegionValue, ScalarOp};

/// Most groups: as addresses they take 4 KiB of a GPU's parameters, whose bytes every launch brings along.
pub const MOST_GROUPS: usize = 512;

/// `C[i, :] = epilogue(A[i, :] · B_e)` for the rows i of every group e, summed in f32.
///
/// Operands: A `[m, k]`, `offsets` i32 `[groups + 1]`, the epilogue's as in [`Gemm`], each of m rows, then B_e of every
/// group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupedRows {
    pub groups: usize,
    /// All groups as one product, of one term without limits whose A is not transposed.
    pub gemm: Gemm,
}

impl GroupedRows {
    pub(crate) fn term(&self) -> &Term {
        let Gemm { terms, row_limit, inner_limit, .. } = &self.gemm;
        let simple = terms.len() == 1 && row_limit.is_none() && inner_limit.is_none() && !terms[0].a.transposed;
        assert!(simple && (1..=MOST_GROUPS).contains(&self.groups), "{self:?} is no product of groups of rows");
        &terms[0]
    }

    /// Position of the first group's matrix.
    pub(crate) fn first_matrix(&self) -> usize {
        self.gemm.count_operand()
    }

    /// Rows of a group where all have as many.
    pub(crate) fn share(&self) -> usize {
        self.gemm.m.div_ceil(self.groups)
    }

    pub(crate) fn name(&self) -> String {
        format!("grouped_{}_{}", self.groups, self.gemm.name())
    }

    /// The product's work, with every group's matrix.
    pub(crate) fn work(&self, family: &'static str) -> crate::Work {
        let others = (self.groups - 1) * self.term().k * self.gemm.n;
        self.gemm.work(family).moving(others, self.term().b.elem)
    }
}

/// `C_e = Aᵀ · B` over the rows of every group e, summed in f32, or that added to C_e.
///
/// Operands: A `[rows, m]`, B `[rows, n]`, `offsets` i32 `[groups + 1]`, then C_e f32 `[m, n]` of every group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupedDepth {
    pub groups: usize,
    pub rows: usize,
    pub m: usize,
    pub n: usize,
    /// Storage of A and B.
    pub elems: [Elem; 2],
    pub accumulate: bool,
}

/// Position of the first C_e.
pub(crate) const FIRST_RESULT: usize = 3;

impl GroupedDepth {
    /// One group as a product, of which only the first steps of K are summed.
    pub(crate) fn gemm(&self) -> Gemm {
        assert!((1..=MOST_GROUPS).contains(&self.groups), "{self:?} has too many groups or none");
        let operand = |elem, transposed, stride| Operand { elem, transposed, stride };
        let (a, b) = (operand(self.elems[0], true, self.m), operand(self.elems[1], false, self.n));
        let terms = vec![Term { k: self.rows, a, b, packed: false }];
        let epilogue = if self.accumulate { added() } else { Region::identity(Elem::F32, Elem::F32) };
        Gemm { m: self.m, n: self.n, terms, epilogue, row_limit: None, inner_limit: Some(0) }
    }

    pub(crate) fn name(&self) -> String {
        format!("grouped_{}_{}", self.groups, self.gemm().name())
    }

    /// Rows of a group where all have as many.
    pub(crate) fn share(&self) -> usize {
        self.rows.div_ceil(self.groups)
    }

    /// The product's work, with every group's result.
    pub(crate) fn work(&self, family: &'static str) -> crate::Work {
        let passes = if self.accumulate { 2 } else { 1 };
        let one = Gemm { inner_limit: None, ..self.gemm() };
        one.work(family).moving((self.groups - 1) * passes * self.m * self.n, Elem::F32)
    }
}

/// The sum and what is there, added.
fn added() -> Region {
    let input = RegionInput { elem: Elem::F32, broadcast: Broadcast::Full };
    let node = RegionNode { op: ScalarOp::Add, args: vec![RegionValue::Input(0), RegionValue::Input(1)] };
    let output = RegionOutput { value: RegionValue::Node(0), elem: Elem::F32 };
    Region { inputs: vec![input; 2], nodes: vec![node], outputs: vec![output] }
}

/// The most blocks of `block` rows that `rows` fill, divided among so many groups: each may leave a block incomplete.
pub fn most_blocks(rows: usize, groups: usize, block: usize) -> usize {
    (rows + groups.min(rows) * (block - 1)) / block
}

/// A group's rows, i64.
pub(crate) struct Span {
    pub group: Value,
    pub first: Value,
    pub end: Value,
}

/// The rows of a group, within `0..rows`.
pub(crate) fn span(e: &mut Emitter, offsets: &str, group: &str, rows: usize) -> Span {
    let (zero, all, next) = (e.index(0), e.index(rows as i64), e.plus(group, 1));
    let (first, end) = (e.load_int_at(offsets, group), e.load_int_at(offsets, &next));
    let first = e.int2("maxsi", &first, &zero);
    let first = e.int2("minsi", &first, &all);
    let end = e.int2("maxsi", &end, &first);
    Span { group: group.into(), first, end: e.int2("minsi", &end, &all) }
}

/// The rows of block number `number`, where each group's rows are cut into blocks of `block`; none where there is no
/// such block.
pub(crate) fn block_of(
    e: &mut Emitter,
    offsets: &str,
    (groups, rows, block): (usize, usize, usize),
    number: &str,
) -> Span {
    let (zero, count) = (e.index(0), e.index(groups as i64));
    let carried = vec![(zero.clone(), int_type(1, 64)); 4];
    let found = e.for_loop(&zero, &count, 1, &carried, |e, group, so_far| {
        let Span { first, end, .. } = span(e, offsets, group, rows);
        let own = e.int2("subi", number, &so_far[0]);
        let start = e.times(&own, block);
        let start = e.int2("addi", &first, &start);
        let stop = e.plus(&start, block as i64);
        let stop = e.int2("minsi", &stop, &end);
        let (begun, open) = (e.op(format!("arith.cmpi sge, {own}, {zero} : i64")), e.less(&start, &end));
        let mine = e.op(format!("arith.andi {begun}, {open} : i1"));
        let all = e.int2("subi", &end, &first);
        let all = e.plus(&all, block as i64 - 1);
        let all = e.divided(&all, block);
        let next = e.int2("addi", &so_far[0], &all);
        vec![
            next,
            e.choose(&mine, group, &so_far[1]),
            e.choose(&mine, &start, &so_far[2]),
            e.choose(&mine, &stop, &so_far[3]),
        ]
    });
    let [_, group, first, end] = found.try_into().expect("as many as are carried");
    Span { group, first, end }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_enough_however_rows_are_divided() {
        for (rows, groups, block) in
            [(1_usize, 1, 4), (1, 8, 4), (7, 3, 4), (12, 3, 4), (13, 3, 4), (40, 8, 1), (9, 2, 64)]
        {
            // As many groups as can be with a last block of one row, the rest to one group.
            let alone = (groups - 1).min(rows - 1);
            let worst = (0..=alone).map(|single| single + (rows - single).div_ceil(block)).max().unwrap();
            assert!(most_blocks(rows, groups, block) >= worst, "{rows} {groups} {block}");
            assert!(most_blocks(rows, groups, block) <= rows.div_ceil(block) + groups, "{rows} {groups} {block}");
        }
    }
}
