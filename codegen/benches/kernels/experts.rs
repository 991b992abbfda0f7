//! Layers of SmolLM2's width with eight experts, of which a token has two, over 1,024 tokens: products of the forward
//! pass and of both gradients, rows divided evenly and all to one expert.
use crate::case::Case;
use crate::rounds::Operand;
use crate::rounds::Use::{Read, Write};
use amc_kernels::emit::Elem::{self, Bf16, F32};
use amc_kernels::gemm::{self, Gemm, Term};
use amc_kernels::grouped::{GroupedDepth, GroupedRows};
use amc_kernels::region::Region;
use amc_kernels::{Machine, Target};

const ROWS: usize = 2048;
const EXPERTS: usize = 8;
const WIDTH: usize = 576;
const HIDDEN: usize = 1536;

/// Where rows begin, and how that is called.
type Division = (&'static str, fn(usize) -> i32);
const DIVISIONS: [Division; 2] =
    [("evenly", |e| (ROWS * e / EXPERTS) as i32), ("all to one", |e| if e > 3 { ROWS as i32 } else { 0 })];

pub fn cases(target: &Target) -> Vec<Case> {
    let of = |elem| DIVISIONS.into_iter().flat_map(move |division| products(elem, division, target));
    [F32, Bf16].into_iter().flat_map(of).collect()
}

fn products(elem: Elem, (how, offsets): Division, target: &Target) -> Vec<Case> {
    let offsets = Operand::ints(Read, EXPERTS + 1, offsets);
    let rows = |role: &str, n: usize, k: usize, transposed: bool| {
        let operand = |transposed, stride| gemm::Operand { elem, transposed, stride };
        let b = operand(transposed, if transposed { k } else { n });
        let terms = vec![Term { k, a: operand(false, k), b, packed: false }];
        let epilogue = Region::identity(F32, elem);
        let gemm = Gemm { m: ROWS, n, terms, epilogue, row_limit: None, inner_limit: None };
        let kernel = target.grouped_rows(&GroupedRows { groups: EXPERTS, gemm });
        let x = |usage, columns| Operand::floats(usage, elem, ROWS * columns);
        let matrices = (0..EXPERTS).map(|_| Operand::floats(Read, elem, n * k).in_file());
        let operands = [x(Read, k), offsets, x(Write, n)].into_iter().chain(matrices).collect();
        let pairs = elem == Bf16;
        let size = format!("{ROWS} x {n} x {k}, {how}");
        Case { pairs, ..Case::new(role, size, elem, kernel, operands) }
    };
    let (m, n) = (HIDDEN, WIDTH);
    let depth = GroupedDepth { groups: EXPERTS, rows: ROWS, m, n, elems: [elem; 2], accumulate: true };
    let x = |columns| Operand::floats(Read, elem, ROWS * columns);
    let results = (0..EXPERTS).map(|_| Operand::floats(Write, F32, m * n));
    let operands = [x(m), x(n), offsets].into_iter().chain(results).collect();
    let size = format!("{m} x {n} x {ROWS}, {how}");
    let by_matrix = Case::new("experts: dw", size, elem, target.grouped_depth(&depth), operands);
    vec![
        rows("experts", HIDDEN, WIDTH, true),
        rows("experts: dx", WIDTH, HIDDEN, false),
        Case { pairs: elem == Bf16, ..by_matrix },
    ]
}
