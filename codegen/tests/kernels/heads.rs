//! Heads of several parts, taken apart and put together.
use crate::harness::*;
use amc_kernels::emit::Elem;
use amc_kernels::heads::Heads;

/// Tokens, heads, sizes of the parts, whether the last is shared, storage.
const CASES: [(usize, usize, &[usize], bool, Elem); 7] = [
    (5, 3, &[64, 32], false, Elem::F32),
    (4, 4, &[8, 16], true, Elem::F32),
    (3, 2, &[7, 13, 1], false, Elem::Bf16),
    (2, 5, &[33, 9], true, Elem::Bf16),
    (2, 1, &[4], true, Elem::F32),
    (1, 3, &[1, 2, 40], true, Elem::F32),
    (2, 19, &[8, 4], true, Elem::Bf16),
];

/// The place in the whole and in its part of every element of part `i`.
fn places(tokens: usize, heads: usize, sizes: &[usize], i: usize, shared: bool) -> Vec<(usize, usize)> {
    let (head, first): (usize, usize) = (sizes.iter().sum(), sizes[..i].iter().sum());
    let mut places = vec![];
    for (t, h) in (0..tokens).flat_map(|t| (0..heads).map(move |h| (t, h))) {
        for e in 0..sizes[i] {
            let of_part = if shared { t * sizes[i] + e } else { (t * heads + h) * sizes[i] + e };
            places.push(((t * heads + h) * head + first + e, of_part));
        }
    }
    places
}

#[test]
fn parts_are_taken_out_and_put_back() {
    for (tokens, heads, sizes, shared, elem) in CASES {
        let problem = Heads { tokens, heads, sizes: sizes.into(), shared, elem };
        let (split, join) = (problem.split(&super::target()), problem.join(&super::target()));
        let library = load(&[&split, &join]);
        let whole = tokens * heads * sizes.iter().sum::<usize>();
        let is_shared = |i: usize| shared && i + 1 == sizes.len();
        let width = |i: usize| tokens * sizes[i] * if is_shared(i) { 1 } else { heads };
        let (mut x, xs) = random_buffer(1, elem, whole);
        let mut parts: Vec<Buffer> = (0..sizes.len()).map(|i| Buffer::garbage(elem, width(i))).collect();
        let mut operands: Vec<&mut Buffer> = [&mut x].into_iter().chain(&mut parts).collect();
        library.run(&split, &mut operands);
        let mut back = vec![0.0; whole];
        for (i, part) in parts.iter().enumerate() {
            let mut want = vec![0.0; width(i)];
            let places = places(tokens, heads, sizes, i, is_shared(i));
            places.iter().for_each(|(from, to)| want[*to] += xs[*from]);
            let exact = if is_shared(i) { rounding(elem) } else { 0.0 };
            assert_close("part", part, &want, exact, exact);
            places.iter().for_each(|(to, from)| back[*to] = part.values()[*from]);
        }
        let mut joined = Buffer::garbage(elem, whole);
        let mut operands: Vec<&mut Buffer> = parts.iter_mut().chain([&mut joined]).collect();
        library.run(&join, &mut operands);
        assert_close("joined", &joined, &back, 0.0, 0.0);
    }
}
