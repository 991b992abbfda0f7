//! The matrix product in all layouts and storage forms, odd sizes, several terms, epilogues and limits, against f64 loops.
use crate::harness::*;
use amc_kernels::emit::Elem::{self, Bf16, F32};
use amc_kernels::gemm::{Gemm, Operand, Term};
use amc_kernels::region::*;
use amc_kernels::{Kernel, Machine};

/// A term whose rows are stored `gap` elements longer than they need to be.
pub fn term(m: usize, n: usize, k: usize, form: &str, elems: [Elem; 2], gap: usize) -> Term {
    let transposed: Vec<bool> = form.chars().map(|c| c == 't').collect();
    let operand = |elem, transposed: bool, rows: usize, columns: usize| Operand {
        elem,
        transposed,
        stride: if transposed { rows } else { columns } + gap,
    };
    Term { k, a: operand(elems[0], transposed[0], m, k), b: operand(elems[1], transposed[1], k, n), packed: false }
}

pub fn plain(m: usize, n: usize, terms: Vec<Term>, output: Elem) -> Gemm {
    Gemm { m, n, terms, epilogue: Region::identity(F32, output), row_limit: None, inner_limit: None }
}

/// Buffers of A and B of every term, and their product, of which only `limits` rows and steps of K are summed.
struct Problem {
    buffers: Vec<Buffer>,
    sums: Vec<f64>,
    /// Σ |a · b|, to which rounding errors are relative.
    magnitudes: Vec<f64>,
}

fn problem(gemm: &Gemm, inner: usize) -> Problem {
    problem_of(gemm, inner, |x| x)
}

/// What is multiplied are the elements `rounded`.
fn problem_of(gemm: &Gemm, inner: usize, rounded: impl Fn(f64) -> f64) -> Problem {
    let mut p = Problem { buffers: vec![], sums: vec![0.0; gemm.m * gemm.n], magnitudes: vec![0.0; gemm.m * gemm.n] };
    for (t, term) in gemm.terms.iter().enumerate() {
        let (a, xs) = stored(10 + 2 * t as u64, &term.a, gemm.m, term.k);
        let (b, ys) = stored(11 + 2 * t as u64, &term.b, term.k, gemm.n);
        let at = |o: &Operand, i: usize, j: usize| if o.transposed { j * o.stride + i } else { i * o.stride + j };
        for i in 0..gemm.m {
            for k in 0..term.k.min(inner) {
                let x = rounded(xs[at(&term.a, i, k)]);
                for j in 0..gemm.n {
                    let product = x * rounded(ys[at(&term.b, k, j)]);
                    p.sums[i * gemm.n + j] += product;
                    p.magnitudes[i * gemm.n + j] += product.abs();
                }
            }
        }
        p.buffers.extend([a, b]);
    }
    p
}

/// A matrix as it is stored, without a gap after its last row.
pub fn stored(seed: u64, operand: &Operand, rows: usize, columns: usize) -> (Buffer, Vec<f64>) {
    let (rows, columns) = if operand.transposed { (columns, rows) } else { (rows, columns) };
    random_buffer(seed, operand.elem, (rows - 1) * operand.stride + columns)
}

/// Rounding errors of sums in f32, and of the result's storage.
fn assert_sums(what: &str, got: &Buffer, want: &[f64], magnitudes: &[f64], output: Elem) {
    for (i, (got, want)) in got.values().iter().zip(want).enumerate() {
        let allowed = magnitudes[i] * 4e-6 + want.abs() * rounding(output);
        assert!((got - want).abs() <= allowed, "{what}: element {i} is {got}, not {want} (allowed {allowed:e})");
    }
}

/// Runs all of them from one shared object and compares.
pub fn check(cases: Vec<(Gemm, Kernel)>) {
    check_rounded(cases, |x| x);
}

/// The same, where kernels round what they multiply.
pub fn check_rounded(cases: Vec<(Gemm, Kernel)>, rounded: impl Fn(f64) -> f64 + Copy) {
    let library = load(&cases.iter().map(|(_, kernel)| kernel).collect::<Vec<_>>());
    for (gemm, kernel) in &cases {
        check_run(gemm, rounded, |operands| library.run(kernel, operands));
    }
}

/// Compares what `run` makes of a product's operands.
pub fn check_run(gemm: &Gemm, rounded: impl Fn(f64) -> f64, run: impl FnOnce(&mut [&mut Buffer])) {
    let mut p = problem_of(gemm, usize::MAX, rounded);
    let output = gemm.epilogue.outputs[0].elem;
    let mut c = Buffer::garbage(output, gemm.m * gemm.n);
    let mut operands: Vec<&mut Buffer> = p.buffers.iter_mut().chain([&mut c]).collect();
    run(&mut operands);
    assert_sums(&format!("{gemm:?}"), &c, &p.sums, &p.magnitudes, output);
}

fn built(gemm: Gemm) -> (Gemm, Kernel) {
    let kernel = super::target().product(&gemm);
    (gemm, kernel)
}

#[test]
fn layouts_and_elems() {
    let mut cases = vec![];
    for form in ["nn", "nt", "tn", "tt"] {
        for elems in [[F32, F32], [F32, Bf16], [Bf16, F32], [Bf16, Bf16]] {
            for (m, n, k, gap) in [(24, 48, 32, 0), (29, 53, 37, 3), (18, 76, 71, 0)] {
                let output = if gap == 0 { F32 } else { elems[0] };
                cases.push(built(plain(m, n, vec![term(m, n, k, form, elems, gap)], output)));
            }
        }
    }
    check(cases);
}

#[test]
fn odd_sizes() {
    let sizes = [
        (1, 1, 1),
        (1, 8, 1),
        (8, 1, 3),
        (3, 5, 7),
        (13, 8, 40),
        (40, 16, 9),
        (5, 100, 64),
        (100, 5, 17),
        (17, 31, 300),
    ];
    let forms = ["nn", "nt", "tn"];
    let case = |(form, &(m, n, k)): (&str, &(usize, usize, usize))| {
        built(plain(m, n, vec![term(m, n, k, form, [F32, F32], 0)], F32))
    };
    check(forms.iter().flat_map(|form| sizes.iter().map(move |size| case((form, size)))).collect());
}

/// Few columns, which are computed as rows: of one tile, of less, and behind several terms.
#[test]
fn few_columns() {
    let mut cases = vec![];
    for form in ["nn", "nt", "tn", "tt"] {
        for elems in [[F32, F32], [F32, Bf16], [Bf16, F32], [Bf16, Bf16]] {
            for (m, n, k) in [(96, 8, 64), (144, 8, 37), (96, 5, 40), (101, 8, 300), (49, 1, 17)] {
                cases.push(built(plain(m, n, vec![term(m, n, k, form, elems, 0)], elems[0])));
            }
        }
    }
    let (m, n) = (144, 8);
    let terms = vec![term(m, n, 50, "tn", [Bf16, Bf16], 0), term(m, n, 9, "tn", [F32, Bf16], 0)];
    cases.push(built(plain(m, n, terms, F32)));
    check(cases);
}

#[test]
fn several_terms() {
    let (m, n) = (50, 60);
    let lora = vec![term(m, n, 96, "nt", [Bf16, Bf16], 0), term(m, n, 8, "nt", [F32, F32], 0)];
    let gradient = vec![
        term(m, n, 33, "nn", [F32, Bf16], 0),
        term(m, n, 11, "nn", [F32, Bf16], 1),
        term(m, n, 5, "tn", [Bf16, F32], 0),
    ];
    check(vec![built(plain(m, n, lora, Bf16)), built(plain(m, n, gradient, F32))]);
}

#[test]
fn epilogues() {
    for (m, n, elem) in [(24, 48, F32), (21, 43, Bf16), (3, 5, F32), (40, 8, Bf16)] {
        let gemm = with_epilogue(m, n, vec![term(m, n, 19, "nt", [F32, F32], 0)], elem);
        check_epilogue(&gemm, &super::target().product(&gemm));
    }
}

/// A product that computes `C += alpha * sum + row`, stored as `elem`, and the sum times the column beside it.
pub fn with_epilogue(m: usize, n: usize, terms: Vec<Term>, elem: Elem) -> Gemm {
    let input = |elem, broadcast| RegionInput { elem, broadcast };
    use RegionValue::{Input, Node};
    let epilogue = Region {
        inputs: vec![
            input(F32, Broadcast::Full),
            input(elem, Broadcast::Full),
            input(elem, Broadcast::Row),
            input(F32, Broadcast::Column),
            input(F32, Broadcast::Scalar),
        ],
        nodes: vec![
            RegionNode { op: ScalarOp::Mul, args: vec![Input(0), Input(4)] },
            RegionNode { op: ScalarOp::Add, args: vec![Node(0), Input(2)] },
            RegionNode { op: ScalarOp::Add, args: vec![Node(1), Input(1)] },
            RegionNode { op: ScalarOp::Mul, args: vec![Input(0), Input(3)] },
        ],
        outputs: vec![RegionOutput { value: Node(2), elem }, RegionOutput { value: Node(3), elem: F32 }],
    };
    Gemm { epilogue, ..plain(m, n, terms, F32) }
}

/// Runs a kernel of [`with_epilogue`] and compares.
pub fn check_epilogue(gemm: &Gemm, kernel: &Kernel) {
    check_epilogue_run(gemm, |operands, aliases| load(&[kernel]).run_aliased(kernel, operands, aliases));
}

/// Compares what `run` makes of the operands of [`with_epilogue`], of which the pairs of operands that it is given share memory.
pub fn check_epilogue_run(gemm: &Gemm, run: impl FnOnce(&mut [&mut Buffer], &[(usize, usize)])) {
    let (m, n, elem) = (gemm.m, gemm.n, gemm.epilogue.outputs[0].elem);
    let mut p = problem(gemm, usize::MAX);
    let (mut c, before) = random_buffer(1, elem, m * n);
    let (mut row, rows) = random_buffer(2, elem, n);
    let (mut column, columns) = random_buffer(3, F32, m);
    let mut alpha = Buffer::floats(F32, &[0.5]);
    let (mut first, mut second) = (c.clone(), Buffer::garbage(F32, m * n));
    let mut operands: Vec<&mut Buffer> = p.buffers.iter_mut().collect();
    operands.extend([&mut c, &mut row, &mut column, &mut alpha, &mut first, &mut second]);
    let accumulated = 2 * gemm.terms.len();
    run(&mut operands, &[(accumulated, accumulated + 4)]);
    let want: Vec<f64> = (0..m * n).map(|i| p.sums[i] * 0.5 + rows[i % n] + before[i]).collect();
    let room: Vec<f64> = p.magnitudes.iter().map(|x| x + 3.0).collect();
    assert_sums("accumulated", &first, &want, &room, elem);
    let want: Vec<f64> = (0..m * n).map(|i| p.sums[i] * columns[i / n]).collect();
    assert_sums("scaled", &second, &want, &room, F32);
}

#[test]
fn rows_stop_at_the_count() {
    let (m, n) = (64, 40);
    let gemm = Gemm { row_limit: Some(100), ..plain(m, n, vec![term(m, n, 16, "nt", [F32, Bf16], 0)], F32) };
    rows_stop(&gemm, &super::target().product(&gemm));
}

/// Whether rows from the limit on are left alone, but for those of the strip in which it lies.
pub fn rows_stop(gemm: &Gemm, kernel: &Kernel) {
    let (m, n, start) = (gemm.m, gemm.n, gemm.row_limit.expect("a limit of rows"));
    let library = load(&[kernel]);
    let mut p = problem(gemm, usize::MAX);
    for rows in [0, 1, 30, m - 1, m] {
        let count = (start + rows) as i32;
        let (mut c, mut count) = (Buffer::floats(F32, &vec![7.0; m * n]), Buffer::ints(&[count]));
        let mut operands: Vec<&mut Buffer> = p.buffers.iter_mut().chain([&mut c, &mut count]).collect();
        library.run(kernel, &mut operands);
        let got = c.values();
        let untouched = (rows * n).next_multiple_of(16 * n).min(m * n);
        assert!(got[untouched..].iter().all(|v| *v == 7.0), "{rows} rows: others are overwritten");
        for (i, got) in got.iter().enumerate().take(rows * n) {
            assert!((got - p.sums[i]).abs() <= p.magnitudes[i] * 4e-6, "{rows} rows: element {i}");
        }
    }
}

/// Steps of K from the limit on hold what must not be read as numbers.
#[test]
fn steps_stop_at_the_count() {
    for gemm in limited() {
        steps_stop(&gemm, &[super::target().product(&gemm)]);
    }
}

/// Products that sum only so many steps.
pub fn limited() -> [Gemm; 4] {
    let (k, start) = (50, 10);
    [(F32, 20, 30), (Bf16, 20, 30), (F32, 48, 8), (Bf16, 96, 8)].map(|(elem, m, n)| {
        let terms = vec![term(m, n, k, "tn", [elem, Bf16], 0)];
        Gemm { inner_limit: Some(start), ..plain(m, n, terms, F32) }
    })
}

/// Whether kernels of one product leave out what is not to be summed.
pub fn steps_stop(gemm: &Gemm, kernels: &[Kernel]) {
    let (m, n) = (gemm.m, gemm.n);
    let library = load(&kernels.iter().collect::<Vec<_>>());
    let start = gemm.inner_limit.expect("a limit of steps");
    let most = gemm.terms.iter().map(|term| term.k).max().expect("a term");
    for count in [0, start, start + 1, start + 20, start + 32, start + most, start + most + 39] {
        let steps = count.saturating_sub(start);
        let mut p = problem(gemm, steps);
        for (i, term) in gemm.terms.iter().enumerate() {
            p.buffers[2 * i] = poisoned(&p.buffers[2 * i], &term.a, term.a.transposed, steps);
            p.buffers[2 * i + 1] = poisoned(&p.buffers[2 * i + 1], &term.b, !term.b.transposed, steps);
        }
        for kernel in kernels {
            let (mut c, mut count) = (Buffer::garbage(F32, m * n), Buffer::ints(&[count as i32]));
            let mut operands: Vec<&mut Buffer> = p.buffers.iter_mut().chain([&mut c, &mut count]).collect();
            library.run(kernel, &mut operands);
            assert_sums(&format!("{steps} steps"), &c, &p.sums, &p.magnitudes, F32);
        }
    }
}

/// An operand with NaN in the steps from `steps` on, which lie in rows or in columns.
fn poisoned(buffer: &Buffer, operand: &Operand, in_rows: bool, steps: usize) -> Buffer {
    let mut values = buffer.values();
    for (i, value) in values.iter_mut().enumerate() {
        let (row, column) = (i / operand.stride, i % operand.stride);
        if steps <= if in_rows { row } else { column } {
            *value = f64::NAN;
        }
    }
    Buffer::floats(operand.elem, &values)
}
