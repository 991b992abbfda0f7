//! Table lookup and its gradient.
use crate::harness::*;
use amc_kernels::embedding::{Embedding, EmbeddingGrad};
use amc_kernels::emit::Elem;

/// Ids with repetitions and, if wanted, some outside the table.
fn ids(tokens: usize, vocab: usize, strays: bool) -> Vec<i32> {
    let id = |t: usize| (t * t * 3 + t) % vocab;
    let strange = [-1, vocab as i32, i32::MIN, i32::MAX];
    (0..tokens).map(|t| if strays && t % 3 == 1 { strange[t / 3 % 4] } else { id(t) as i32 }).collect()
}

/// Tokens, vocabulary, width, whether ids stray.
const CASES: [(usize, usize, usize, bool); 4] =
    [(7, 5, 70, false), (12, 9, 130, true), (1, 1, 1, false), (40, 3, 64, true)];

#[test]
fn rows_are_looked_up() {
    for (tokens, vocab, width, strays) in CASES {
        for (table_elem, elem) in [(Elem::F32, Elem::F32), (Elem::Bf16, Elem::Bf16), (Elem::Bf16, Elem::F32)] {
            let scale = 1.7_f32;
            let kernel = Embedding { tokens, vocab, width, scale, table: table_elem, elem }.build(&super::target());
            let (mut table, values) = random_buffer(1, table_elem, vocab * width);
            let ids = ids(tokens, vocab, strays);
            let mut x = Buffer::garbage(elem, tokens * width);
            load(&[&kernel]).run(&kernel, &mut [&mut table, &mut Buffer::ints(&ids), &mut x]);
            let value =
                |id: i32, j: usize| if (0..vocab as i32).contains(&id) { values[id as usize * width + j] } else { 0.0 };
            let want: Vec<f64> =
                ids.iter().flat_map(|&id| (0..width).map(move |j| value(id, j) * f64::from(scale))).collect();
            assert_close("embedding", &x, &want, rounding(elem), 0.0);
        }
    }
}

#[test]
fn gradients_are_summed_per_row() {
    for (tokens, vocab, width, strays) in CASES {
        for (accumulate, padding, elem) in
            [(false, None, Elem::F32), (true, Some(0), Elem::Bf16), (false, Some(vocab - 1), Elem::F32)]
        {
            let scale = 0.3_f32;
            let kernel =
                EmbeddingGrad { tokens, vocab, width, scale, padding, accumulate, elem }.build(&super::target());
            let ids = ids(tokens, vocab, strays);
            let (mut dy, dys) = random_buffer(1, elem, tokens * width);
            let (mut grad, before) = random_buffer(2, Elem::F32, vocab * width);
            load(&[&kernel]).run(&kernel, &mut [&mut Buffer::ints(&ids), &mut dy, &mut grad]);
            let mut want = if accumulate { before } else { vec![0.0; vocab * width] };
            for (&id, dy) in ids.iter().zip(dys.chunks(width)) {
                if (0..vocab as i32).contains(&id) && padding != Some(id as usize) {
                    want[id as usize * width..].iter_mut().zip(dy).for_each(|(w, d)| *w += d * f64::from(scale));
                }
            }
            assert_close("gradient", &grad, &want, 1e-6, 1e-6);
        }
    }
}
