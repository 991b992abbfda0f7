//! Scalar functions against f64, and the layouts of a pointwise kernel.
use crate::harness::*;
use amc_kernels::emit::Elem;
use amc_kernels::pointwise::Pointwise;
use amc_kernels::region::*;
use crate::erf::erf;

/// The kernel of one op on full inputs.
fn kernel_of(op: ScalarOp, elem: Elem, n: usize) -> amc_kernels::Kernel {
    let full = RegionInput { elem, broadcast: Broadcast::Full };
    let region = Region {
        inputs: vec![full; op.arity()],
        nodes: vec![RegionNode { op, args: (0..op.arity()).map(RegionValue::Input).collect() }],
        outputs: vec![RegionOutput { value: RegionValue::Node(0), elem }],
    };
    Pointwise { m: 2, n: n / 2, region }.build(&super::target())
}

/// Where results are rounded to bf16, hardware may approximate; what is stored must be as good as rounded.
#[test]
fn functions_in_bf16() {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let gelu_tanh = |x: f64| x * sigmoid((8.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3)));
    let functions: [(ScalarOp, &dyn Fn(f64) -> f64); 6] = [
        (ScalarOp::Exp, &|x| x.exp()),
        (ScalarOp::Tanh, &|x| x.tanh()),
        (ScalarOp::Erf, &erf),
        (ScalarOp::Sigmoid, &sigmoid),
        (ScalarOp::Silu, &|x| x * sigmoid(x)),
        (ScalarOp::GeluTanh, &gelu_tanh),
    ];
    let mut arguments: Vec<f64> = (-400..400).map(|i| f64::from(i) / 100.0).chain((-70..70).map(f64::from)).collect();
    arguments.extend([100.0, -100.0, 1e-20, f64::NAN]);
    for (op, f) in functions {
        let n = arguments.len();
        let kernel = kernel_of(op, Elem::Bf16, n);
        let (mut x, mut y) = (Buffer::floats(Elem::Bf16, &arguments), Buffer::garbage(Elem::Bf16, n));
        load(&[&kernel]).run(&kernel, &mut [&mut x, &mut y]);
        for (x, y) in x.values().into_iter().zip(y.values()) {
            let want = f(x);
            let near = (y - want).abs() <= 1.01 / 256.0 * want.abs() + 1e-37;
            let overflows = want > 3.4e38 && y == f64::INFINITY;
            assert!(near || overflows || (y.is_nan() && want.is_nan()), "{} of {x} is {y}, not {want}", op.name());
        }
    }
}

#[test]
fn gelu_is_near_everywhere() {
    let kernel = kernel_of(ScalarOp::Gelu, Elem::F32, 4002);
    let x: Vec<f64> = (-2000..=2001).map(|i| f64::from(i) / 250.0).collect();
    let mut x = Buffer::floats(Elem::F32, &x);
    let mut y = Buffer::garbage(Elem::F32, 4002);
    load(&[&kernel]).run(&kernel, &mut [&mut x, &mut y]);
    let want: Vec<f64> = x.values().iter().map(|x| 0.5 * x * (1.0 + erf(x / 2f64.sqrt()))).collect();
    assert_close("gelu", &y, &want, 5e-7, 3e-7);
}

#[test]
fn edges_of_the_range() {
    let infinity = f64::INFINITY;
    let rows: Vec<(ScalarOp, Vec<(f64, f64)>)> = vec![
        (ScalarOp::Exp, vec![(-infinity, 0.0), (-90.0, 0.0), (89.0, infinity), (infinity, infinity), (0.0, 1.0)]),
        (ScalarOp::Log, vec![(0.0, -infinity), (infinity, infinity), (1.0, 0.0), (-1.0, f64::NAN)]),
        (ScalarOp::Tanh, vec![(-infinity, -1.0), (50.0, 1.0), (infinity, 1.0), (0.0, 0.0)]),
        (ScalarOp::Erf, vec![(-infinity, -1.0), (50.0, 1.0), (0.0, 0.0)]),
        (ScalarOp::Sigmoid, vec![(-infinity, 0.0), (-200.0, 0.0), (200.0, 1.0), (0.0, 0.5)]),
    ];
    for (op, pairs) in rows {
        let (x, want): (Vec<f64>, Vec<f64>) = pairs.into_iter().chain([(f64::NAN, f64::NAN)]).unzip();
        // Once by vectors and once by single elements.
        for repeats in [2, 4] {
            let (x, want) = (x.repeat(repeats), want.repeat(repeats));
            let kernel = kernel_of(op, Elem::F32, x.len());
            let mut y = Buffer::garbage(Elem::F32, x.len());
            load(&[&kernel]).run(&kernel, &mut [&mut Buffer::floats(Elem::F32, &x), &mut y]);
            for ((x, y), want) in x.iter().zip(y.values()).zip(&want) {
                assert!(y == *want || (y.is_nan() && want.is_nan()), "{} of {x} is {y}, not {want}", op.name());
            }
        }
    }
}

/// `(x * column + row) / scale` and `max(x, row)`, from and to bf16.
fn broadcasting(m: usize, n: usize, elem: Elem) -> Pointwise {
    let input = |elem, broadcast| RegionInput { elem, broadcast };
    use RegionValue::{Input, Node};
    let region = Region {
        inputs: vec![
            input(elem, Broadcast::Full),
            input(Elem::F32, Broadcast::Column),
            input(elem, Broadcast::Row),
            input(Elem::F32, Broadcast::Scalar),
        ],
        nodes: vec![
            RegionNode { op: ScalarOp::Mul, args: vec![Input(0), Input(1)] },
            RegionNode { op: ScalarOp::Add, args: vec![Node(0), Input(2)] },
            RegionNode { op: ScalarOp::Div, args: vec![Node(1), Input(3)] },
            RegionNode { op: ScalarOp::Max, args: vec![Input(0), Input(2)] },
        ],
        outputs: vec![RegionOutput { value: Node(2), elem }, RegionOutput { value: Node(3), elem: Elem::F32 }],
    };
    Pointwise { m, n, region }
}

#[test]
fn inputs_are_broadcast_and_outputs_may_overwrite() {
    let cases = [(3, 37, Elem::F32), (5, 64, Elem::Bf16), (1, 1, Elem::Bf16), (2, 17, Elem::Bf16), (9, 72, Elem::F32)];
    for (m, n, elem) in cases {
        let kernel = broadcasting(m, n, elem).build(&super::target());
        let (mut x, xs) = random_buffer(1, elem, m * n);
        let (mut column, columns) = random_buffer(2, Elem::F32, m);
        let (mut row, rows) = random_buffer(3, elem, n);
        let mut scale = Buffer::floats(Elem::F32, &[3.0]);
        let mut first = x.clone();
        let mut second = Buffer::garbage(Elem::F32, m * n);
        let operands = &mut [&mut x, &mut column, &mut row, &mut scale, &mut first, &mut second];
        load(&[&kernel]).run_aliased(&kernel, operands, &[(0, 4)]);
        let value = |i: usize| (xs[i] * columns[i / n] + rows[i % n]) / 3.0;
        assert_close("quotient", &first, &(0..m * n).map(value).collect::<Vec<_>>(), rounding(elem), 1e-7);
        let value = |i: usize| xs[i].max(rows[i % n]);
        assert_close("maximum", &second, &(0..m * n).map(value).collect::<Vec<_>>(), 0.0, 0.0);
    }
}

#[test]
fn flat_problems_of_many_tasks() {
    for (n, elem) in [(333, Elem::F32), (334, Elem::F32), (332, Elem::F32), (336, Elem::Bf16)] {
        let region = Region::identity(Elem::Bf16, elem);
        let kernel = Pointwise { m: 37, n, region }.build(&super::target());
        assert!(kernel.tasks > 2, "{} tasks", kernel.tasks);
        let (mut x, xs) = random_buffer(4, Elem::Bf16, 37 * n);
        let mut y = Buffer::garbage(elem, 37 * n);
        load(&[&kernel]).run(&kernel, &mut [&mut x, &mut y]);
        assert_close("copy", &y, &xs, 0.0, 0.0);
    }
}
