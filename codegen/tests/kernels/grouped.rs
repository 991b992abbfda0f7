//! Products of groups of rows, however these are divided, against f64 loops.
use super::gemm::{plain, term};
use crate::harness::*;
use amc_kernels::emit::Elem::{self, Bf16, F32};
use amc_kernels::gemm::Gemm;
use amc_kernels::grouped::{GroupedDepth, GroupedRows};
use amc_kernels::region::*;
use amc_kernels::{Kernel, Machine};
use std::ops::Range;

/// Ways to divide `rows`: evenly, all to one group, none to some, and by numbers that lie outside.
fn divisions(rows: usize, groups: usize) -> Vec<Vec<i32>> {
    let all = rows as i32;
    let evenly = (0..=groups).map(|g| (rows * g / groups) as i32).collect();
    let one = |owner: usize| (0..=groups).map(|g| if g > owner { all } else { 0 }).collect();
    let some = (0..=groups).map(|g| (rows * (g / 3 * 3) / groups) as i32).collect();
    let mut outside = vec![i32::MAX; groups + 1];
    outside[0] = -5;
    if groups > 1 {
        (outside[1], outside[groups]) = (all / 3, i32::MIN);
    }
    vec![evenly, one(0), one(groups - 1), some, outside]
}

fn spans(offsets: &[i32], rows: usize) -> Vec<Range<usize>> {
    let within = |at: i32| at.clamp(0, rows as i32) as usize;
    offsets.windows(2).map(|pair| within(pair[0])..within(pair[1]).max(within(pair[0]))).collect()
}

/// `(sum, Σ |a · b|)` over some steps.
fn dot(steps: Range<usize>, a: impl Fn(usize) -> f64, b: impl Fn(usize) -> f64) -> (f64, f64) {
    steps.map(|l| a(l) * b(l)).fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()))
}

fn assert_sum(what: &str, got: f64, (want, size): (f64, f64), output: Elem) {
    let allowed = size * 4e-6 + want.abs() * rounding(output) + 1e-30;
    assert!((got - want).abs() <= allowed, "{what}: {got}, not {want} (allowed {allowed:e})");
}

pub fn check_rows(problem: &GroupedRows, kernel: &Kernel) {
    let library = load(&[kernel]);
    let (Gemm { m, n, terms, .. }, output) = (&problem.gemm, problem.gemm.epilogue.outputs[0].elem);
    let term = terms[0];
    for offsets in divisions(*m, problem.groups) {
        let (mut a, xs) = random_buffer(1, term.a.elem, m * term.k);
        let matrices: Vec<(Buffer, Vec<f64>)> =
            (0..problem.groups).map(|g| random_buffer(10 + g as u64, term.b.elem, term.k * n)).collect();
        let (mut buffers, values): (Vec<Buffer>, Vec<Vec<f64>>) = matrices.into_iter().unzip();
        let mut c = Buffer::garbage(output, m * n);
        let before = c.values();
        let mut numbers = Buffer::ints(&offsets);
        let mut operands = vec![&mut a, &mut numbers, &mut c];
        operands.extend(buffers.iter_mut());
        library.run(kernel, &mut operands);
        let got = c.values();
        let mut done = vec![false; *m];
        for (rows, matrix) in spans(&offsets, *m).into_iter().zip(&values) {
            for i in rows {
                done[i] = true;
                for j in 0..*n {
                    let b = |l: usize| matrix[if term.b.transposed { j * term.k + l } else { l * n + j }];
                    let want = dot(0..term.k, |l| xs[i * term.k + l], b);
                    assert_sum(&format!("{problem:?} {offsets:?} [{i}, {j}]"), got[i * n + j], want, output);
                }
            }
        }
        for i in (0..*m).filter(|i| !done[*i]) {
            let same = (0..*n).all(|j| got[i * n + j].to_bits() == before[i * n + j].to_bits());
            assert!(same, "{problem:?} {offsets:?}: row {i} is nobody's, but was written");
        }
    }
}

pub fn rows(
    groups: usize,
    (m, n, k): (usize, usize, usize),
    form: &str,
    elems: [Elem; 2],
    output: Elem,
) -> GroupedRows {
    GroupedRows { groups, gemm: plain(m, n, vec![term(m, n, k, form, elems, 0)], output) }
}

#[test]
fn rows_meet_the_matrix_of_their_group() {
    for form in ["nt", "nn"] {
        for (groups, size) in [(3, (29, 53, 37)), (4, (50, 48, 64)), (8, (5, 40, 24)), (1, (1, 1, 1)), (5, (70, 8, 72))]
        {
            for (elems, output) in [([F32, F32], F32), ([Bf16, Bf16], Bf16), ([F32, Bf16], Bf16), ([Bf16, F32], F32)] {
                let problem = rows(groups, size, form, elems, output);
                check_rows(&problem, &super::target().grouped_rows(&problem));
            }
        }
    }
}

/// K in blocks, many rows a group, several panels; on a GPU the largest blocks.
#[test]
fn rows_of_long_products() {
    for elem in [F32, Bf16] {
        for (groups, size) in [(2, (40, 70, 2500)), (3, (300, 150, 40))] {
            let problem = rows(groups, size, "nt", [elem; 2], elem);
            check_rows(&problem, &super::target().grouped_rows(&problem));
        }
    }
}

/// An epilogue that reads a matrix, a row and a column.
#[test]
fn rows_have_epilogues() {
    let (groups, m, n, k) = (3, 23, 37, 19);
    let input = |broadcast| RegionInput { elem: F32, broadcast };
    let inputs = [Broadcast::Full, Broadcast::Full, Broadcast::Row, Broadcast::Column].map(input).to_vec();
    let node = |op, a, b| RegionNode { op, args: vec![a, b] };
    use RegionValue::{Input, Node};
    let nodes = vec![
        node(ScalarOp::Add, Input(0), Input(1)),
        node(ScalarOp::Add, Node(0), Input(2)),
        node(ScalarOp::Mul, Node(1), Input(3)),
    ];
    let epilogue = Region { inputs, nodes, outputs: vec![RegionOutput { value: Node(2), elem: F32 }] };
    let plain = rows(groups, (m, n, k), "nt", [F32, F32], F32);
    let problem = GroupedRows { gemm: Gemm { epilogue, ..plain.gemm }, ..plain };
    let kernel = super::target().grouped_rows(&problem);
    let library = load(&[&kernel]);
    for offsets in divisions(m, groups) {
        let sizes = [m * k, m * n, n, m, n * k, n * k, n * k];
        let (mut buffers, values): (Vec<Buffer>, Vec<Vec<f64>>) =
            sizes.iter().enumerate().map(|(i, size)| random_buffer(i as u64, F32, *size)).unzip();
        let (mut c, mut numbers) = (Buffer::garbage(F32, m * n), Buffer::ints(&offsets));
        let mut given: Vec<&mut Buffer> = buffers.iter_mut().collect();
        given.insert(1, &mut numbers);
        given.insert(5, &mut c);
        library.run(&kernel, &mut given);
        let got = c.values();
        for (group, span) in spans(&offsets, m).into_iter().enumerate() {
            for (i, j) in span.flat_map(|i| (0..n).map(move |j| (i, j))) {
                let (sum, size) = dot(0..k, |l| values[0][i * k + l], |l| values[4 + group][j * k + l]);
                let want = (sum + values[1][i * n + j] + values[2][j]) * values[3][i];
                assert_sum(&format!("{offsets:?} [{i}, {j}]"), got[i * n + j], (want, size + 2.0), F32);
            }
        }
    }
}

#[test]
fn products_over_the_rows_of_each_group() {
    let sizes = [(3, (29, 53, 37)), (4, (50, 4, 64)), (8, (5, 40, 4)), (1, (1, 1, 1)), (2, (2100, 12, 17))];
    for (groups, (rows, m, n)) in sizes {
        for elems in [[F32, F32], [Bf16, Bf16], [F32, Bf16], [Bf16, F32]] {
            for accumulate in [false, true] {
                let problem = GroupedDepth { groups, rows, m, n, elems, accumulate };
                let kernel = super::target().grouped_depth(&problem);
                check_depth(&problem, &kernel);
            }
        }
    }
}

pub fn check_depth(problem: &GroupedDepth, kernel: &Kernel) {
    let GroupedDepth { groups, rows, m, n, elems, accumulate } = *problem;
    let library = load(&[kernel]);
    for offsets in divisions(rows, groups) {
        let (mut a, xs) = random_buffer(1, elems[0], rows * m);
        let (mut b, ys) = random_buffer(2, elems[1], rows * n);
        let results = (0..groups).map(|g| random_buffer(10 + g as u64, F32, m * n));
        let (mut results, before): (Vec<Buffer>, Vec<Vec<f64>>) = results.unzip();
        let mut numbers = Buffer::ints(&offsets);
        let mut operands = vec![&mut a, &mut b, &mut numbers];
        operands.extend(results.iter_mut());
        library.run(kernel, &mut operands);
        for (group, span) in spans(&offsets, rows).into_iter().enumerate() {
            let got = results[group].values();
            for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let (sum, size) = dot(span.clone(), |r| xs[r * m + i], |r| ys[r * n + j]);
                let there = if accumulate { before[group][i * n + j] } else { 0.0 };
                let want = (sum + there, size + there.abs());
                assert_sum(&format!("{problem:?} {offsets:?}: {group} [{i}, {j}]"), got[i * n + j], want, F32);
            }
        }
    }
}
