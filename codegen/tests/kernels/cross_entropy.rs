//! The steps of the loss at the output head.
use crate::harness::*;
use amc_kernels::cross_entropy::{CompactRows, CrossEntropyRows, GatherRows, ScatterRows};
use amc_kernels::emit::Elem;

/// Labels of `tokens` rows, about `share` of them below 0.
fn labels(tokens: usize, share: f64) -> Vec<i32> {
    let unlabelled = [-100, -1];
    let label = |(i, x): (usize, &f64)| if (x + 1.0) / 2.0 < share { unlabelled[i % 2] } else { (i * 7 % 5) as i32 };
    random(tokens as u64, tokens).iter().enumerate().map(label).collect()
}

/// Numbers and labels of the labelled rows, then zeros, and the number of rows in every block.
fn compacted(labels: &[i32], padded: usize, block: usize) -> [Vec<i32>; 3] {
    let mut index: Vec<i32> = (0..labels.len() as i32).filter(|&t| labels[t as usize] >= 0).collect();
    let total = index.len();
    let mut compact: Vec<i32> = index.iter().map(|&t| labels[t as usize]).collect();
    index.resize(padded, 0);
    compact.resize(padded, 0);
    let counts = (0..padded / block).map(|b| total.saturating_sub(b * block).min(block) as i32).collect();
    [index, compact, counts]
}

/// Tokens, block, width, storage, share of rows without a label.
const CASES: [(usize, usize, usize, Elem, f64); 6] = [
    (20, 8, 33, Elem::F32, 0.4),
    (16, 8, 64, Elem::Bf16, 0.0),
    (13, 4, 5, Elem::Bf16, 1.0),
    (1, 1, 1, Elem::F32, 0.0),
    (2600, 256, 16, Elem::F32, 0.7),
    (70, 64, 9, Elem::Bf16, 0.9),
];

#[test]
fn rows_are_gathered_and_scattered_back() {
    for (tokens, block, width, elem, share) in CASES {
        let padded = tokens.div_ceil(block) * block;
        let compact = CompactRows { tokens, padded, block }.build(&super::target());
        let gather = GatherRows { rows: padded, block, width, elem }.build(&super::target());
        let scatter = ScatterRows { tokens, block, width, elem }.build(&super::target());
        let library = load(&[&compact, &gather, &scatter]);
        let labels = labels(tokens, share);
        let wanted = compacted(&labels, padded, block);
        let mut label_buffer = Buffer::ints(&labels);
        let mut index = Buffer::garbage(Elem::I32, padded);
        let mut compact_labels = Buffer::garbage(Elem::I32, padded);
        let mut counts = Buffer::garbage(Elem::I32, padded / block);
        library.run(&compact, &mut [&mut label_buffer, &mut index, &mut compact_labels, &mut counts]);
        assert_eq!([&index, &compact_labels, &counts], wanted.each_ref().map(|w| Buffer::ints(w)).each_ref());

        let (mut x, xs) = random_buffer(2, elem, tokens * width);
        let mut gathered = Buffer::garbage(elem, padded * width);
        library.run(&gather, &mut [&mut x, &mut index, &mut counts, &mut gathered]);
        let mut want = vec![0.0; padded * width];
        let total = labels.iter().filter(|l| **l >= 0).count();
        for (to, &from) in want.chunks_mut(width).zip(&wanted[0]).take(total) {
            to.copy_from_slice(&xs[from as usize * width..][..width]);
        }
        assert_close("gathered", &gathered, &want, 0.0, 0.0);

        let mut dx = Buffer::garbage(elem, tokens * width);
        let operands = &mut [&mut gathered, &mut index, &mut counts, &mut label_buffer, &mut dx];
        library.run(&scatter, operands);
        let labelled = |i: usize| labels[i / width] >= 0;
        let want: Vec<f64> = xs.iter().enumerate().map(|(i, x)| if labelled(i) { *x } else { 0.0 }).collect();
        assert_close("scattered", &dx, &want, 0.0, 0.0);
    }
}

/// A logit under its cap, and the derivative.
fn capped(z: f64, cap: Option<f32>) -> (f64, f64) {
    let Some(cap) = cap.map(f64::from) else { return (z, 1.0) };
    let tanh = (z / cap).tanh();
    (cap * tanh, 1.0 - tanh * tanh)
}

#[test]
fn losses_and_gradients() {
    let cases = [
        (3, 2, 1000, 1.0, None),
        (4, 4, 37, 0.25, None),
        (2, 0, 9, 1.0, None),
        (1, 1, 1, 2.0, None),
        (2, 1, 5001, -3.0, None),
        (4, 3, 8, 1.0, None),
        (4, 4, 37, 0.25, Some(30.0)),
        (3, 2, 1003, 1.0, Some(200.0)),
        (2, 2, 5, -1.0, Some(400.0)),
    ];
    for (rows, used, vocab, logit_scale, softcap) in cases {
        let problem = CrossEntropyRows { rows, vocab, logit_scale, softcap, gradient: Some(Elem::F32) };
        let with = problem.build(&super::target());
        let without = CrossEntropyRows { gradient: None, ..problem.clone() }.build(&super::target());
        let narrow = CrossEntropyRows { gradient: Some(Elem::Bf16), ..problem }.build(&super::target());
        let library = load(&[&with, &without, &narrow]);
        let values: Vec<f64> = random(3, rows * vocab).iter().map(|x| x * 20.0 + 300.0).collect();
        let mut logits = Buffer::floats(Elem::F32, &values);
        let values = logits.values();
        let label = |r: usize| (r * 31 + vocab - 1) % vocab;
        let mut labels = Buffer::ints(&(0..rows).map(|r| label(r) as i32).collect::<Vec<_>>());
        let (mut count, mut scale) = (Buffer::ints(&[used as i32]), Buffer::floats(Elem::F32, &[0.125]));
        let (mut losses, mut want_losses, mut want) = (Buffer::garbage(Elem::F32, rows), vec![], vec![]);
        for (r, row) in values.chunks(vocab).enumerate() {
            let z = row.iter().map(|x| x * f64::from(logit_scale));
            let (z, slopes): (Vec<f64>, Vec<f64>) = z.map(|z| capped(z, softcap)).unzip();
            let top = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = z.iter().map(|z| (z - top).exp()).sum();
            let lives = f64::from(u8::from(r < used));
            want_losses.push(lives * (top + sum.ln() - z[label(r)]) * 0.125);
            let factor = lives * f64::from(logit_scale) * 0.125;
            let target = |v: usize| f64::from(u8::from(v == label(r)));
            let gradient = |(v, z): (usize, &f64)| ((z - top).exp() / sum - target(v)) * factor * slopes[v];
            want.extend(z.iter().enumerate().map(gradient));
        }
        library.run(&without, &mut [&mut logits, &mut labels, &mut count, &mut scale, &mut losses]);
        assert_close("losses alone", &losses, &want_losses, 2e-6, 5e-6);
        assert_close("untouched logits", &logits, &values, 0.0, 0.0);
        let mut halves = logits.clone();
        library.run(&narrow, &mut [&mut halves, &mut labels, &mut count, &mut scale, &mut losses]);
        for (r, want) in want.chunks(vocab).enumerate() {
            assert_close(
                "narrow gradients",
                &halves.part(Elem::Bf16, 2 * vocab * r, vocab),
                want,
                rounding(Elem::Bf16),
                1e-7,
            );
        }
        losses = Buffer::garbage(Elem::F32, rows);
        library.run(&with, &mut [&mut logits, &mut labels, &mut count, &mut scale, &mut losses]);
        assert_close("losses", &losses, &want_losses, 2e-6, 5e-6);
        assert_close("gradients", &logits, &want, 1e-4, 1e-7);
    }
}

#[test]
fn labels_outside_the_vocabulary_match_nothing() {
    let kernel = CrossEntropyRows { rows: 2, vocab: 2, logit_scale: 1.0, softcap: None, gradient: Some(Elem::F32) }
        .build(&super::target());
    let mut logits = Buffer::floats(Elem::F32, &[0.0; 4]);
    let (mut count, mut scale) = (Buffer::ints(&[2]), Buffer::floats(Elem::F32, &[1.0]));
    let mut losses = Buffer::garbage(Elem::F32, 2);
    let operands = &mut [&mut logits, &mut Buffer::ints(&[2, i32::MAX]), &mut count, &mut scale, &mut losses];
    load(&[&kernel]).run(&kernel, operands);
    assert_close("gradients", &logits, &[0.5; 4], 1e-6, 0.0);
    assert_close("losses", &losses, &[std::f64::consts::LN_2; 2], 1e-6, 0.0);
}
