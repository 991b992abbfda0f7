//! Rotary embedding, and that the inverse undoes it.
use crate::harness::*;
use amc_kernels::emit::Elem;
use amc_kernels::rope::Rope;

#[test]
fn rotates_and_rotates_back() {
    let cases = [
        (5, 3, 64, 0, 64, Elem::F32),
        (4, 2, 20, 0, 12, Elem::F32),
        (3, 1, 8, 0, 8, Elem::Bf16),
        (2, 2, 40, 0, 34, Elem::Bf16),
        (3, 2, 45, 5, 38, Elem::F32),
        (2, 3, 24, 8, 16, Elem::Bf16),
    ];
    for (case, neighbours) in cases.into_iter().flat_map(|case| [(case, false), (case, true)]) {
        let (tokens, heads, head_dim, first, rotary_dim, elem) = case;
        let problem =
            Rope { tokens, heads, head_dim, first, rotary_dim, positions: 7, neighbours, inverse: false, elem };
        let forward = problem.build(&super::target());
        let inverse = Rope { inverse: true, ..problem }.build(&super::target());
        let library = load(&[&forward, &inverse]);
        let (width, half) = (heads * head_dim, rotary_dim / 2);
        let (mut x, xs) = random_buffer(1, elem, tokens * width);
        let places: Vec<usize> = (0..tokens).map(|t| (t * 3 + 2) % 7).collect();
        let mut positions = Buffer::ints(&places.iter().map(|&p| p as i32).collect::<Vec<_>>());
        let angles = random(2, 7 * half);
        let mut cos = Buffer::floats(Elem::F32, &angles.iter().map(|a| a.cos()).collect::<Vec<_>>());
        let mut sin = Buffer::floats(Elem::F32, &angles.iter().map(|a| a.sin()).collect::<Vec<_>>());
        let mut y = Buffer::garbage(elem, tokens * width);
        library.run(&forward, &mut [&mut x, &mut positions, &mut cos, &mut sin, &mut y]);
        let value = |i: usize| {
            let t = i / width;
            let Some(j) = (i % head_dim).checked_sub(first).filter(|j| *j < rotary_dim) else { return xs[i] };
            let (pair, is_first, apart) =
                if neighbours { (j / 2, j.is_multiple_of(2), 1) } else { (j % half, j < half, half) };
            let angle = angles[places[t] * half + pair];
            let turned = if is_first { -xs[i + apart] } else { xs[i - apart] };
            xs[i] * angle.cos() + turned * angle.sin()
        };
        let want: Vec<f64> = (0..xs.len()).map(value).collect();
        assert_close("rotated", &y, &want, rounding(elem), 2e-7);
        let mut back = y.clone();
        library.run_aliased(&inverse, &mut [&mut y, &mut positions, &mut cos, &mut sin, &mut back], &[(0, 4)]);
        assert_close("rotated back", &back, &xs, rounding(elem) * 2.0, rounding(elem) * 2.0);
    }
}

#[test]
fn positions_beyond_the_table_are_clamped() {
    let kernel = Rope {
        tokens: 2,
        heads: 1,
        head_dim: 2,
        first: 0,
        rotary_dim: 2,
        positions: 1,
        neighbours: false,
        inverse: false,
        elem: Elem::F32,
    }
    .build(&super::target());
    let (mut x, xs) = random_buffer(1, Elem::F32, 4);
    let (mut cos, mut sin) = (Buffer::floats(Elem::F32, &[1.0]), Buffer::floats(Elem::F32, &[0.0]));
    let mut y = Buffer::garbage(Elem::F32, 4);
    load(&[&kernel]).run(&kernel, &mut [&mut x, &mut Buffer::ints(&[i32::MAX, -5]), &mut cos, &mut sin, &mut y]);
    assert_close("unturned", &y, &xs, 0.0, 0.0);
}
