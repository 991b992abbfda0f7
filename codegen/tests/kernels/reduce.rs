//! Sums.
use crate::harness::*;
use amc_kernels::Machine;
use amc_kernels::emit::Elem;
use amc_kernels::reduce::{Accumulate, ColumnSum, Sum, SumSquares};

#[test]
fn columns() {
    for (rows, n, stride, elem, accumulate) in [
        (5, 70, 70, Elem::F32, false),
        (3, 32, 32, Elem::Bf16, true),
        (1, 1, 1, Elem::F32, true),
        (9, 13, 26, Elem::Bf16, false),
        // What a GPU sums in parts.
        (600, 264, 272, Elem::Bf16, true),
        (513, 66, 66, Elem::F32, false),
        (70, 300, 300, Elem::F32, true),
    ] {
        let steps = super::target().column_sum(&ColumnSum { rows, n, stride, elem, accumulate });
        let (mut x, xs) = random_buffer(1, elem, rows * stride);
        let (mut sum, before) = random_buffer(2, Elem::F32, n);
        run_steps(&steps, &mut [&mut x, &mut sum], &[]);
        let column =
            |j: usize| xs.iter().skip(j).step_by(stride).sum::<f64>() + if accumulate { before[j] } else { 0.0 };
        let absolute = 1e-6 + 1e-8 * rows as f64;
        assert_close("column sums", &sum, &(0..n).map(column).collect::<Vec<_>>(), 1e-6, absolute);
    }
}

#[test]
fn flat() {
    for n in [1, 31, 32, 40_000] {
        let (sum, squares) = (Sum { n }.build(&super::target()), SumSquares { n }.build(&super::target()));
        let add = Accumulate { n, elem: Elem::Bf16 }.build(&super::target());
        let library = load(&[&sum, &squares, &add]);
        let (mut x, xs) = random_buffer(1, Elem::F32, n);
        let mut total = Buffer::garbage(Elem::F32, 1);
        library.run(&sum, &mut [&mut x, &mut total]);
        assert_close("sum", &total, &[xs.iter().sum()], 1e-5, 1e-4);
        let mut partials = Buffer::garbage(Elem::F32, SumSquares { n }.parts());
        library.run(&squares, &mut [&mut x, &mut partials]);
        let square: f64 = partials.values().iter().sum();
        let want: f64 = xs.iter().map(|x| x * x).sum();
        assert!((square - want).abs() <= 1e-5 * want, "sum of squares {square}, not {want}");
        let (mut narrow, narrows) = random_buffer(2, Elem::Bf16, n);
        library.run(&add, &mut [&mut narrow, &mut x]);
        let want: Vec<f64> = xs.iter().zip(&narrows).map(|(a, b)| a + b).collect();
        assert_close("accumulated", &x, &want, 1e-6, 1e-7);
    }
}
