//! The main kernels on small problems of SmolLM2's proportions, with operands: what their instructions are counted on.
use super::{experts, products};
use amc_kernels::attention::Attention;
use amc_kernels::attention_cached::AttentionCached;
use amc_kernels::cross_entropy::{CompactRows, CrossEntropyRows, GatherRows, ScatterRows};
use amc_kernels::dropout::Dropout;
use amc_kernels::embedding::{Embedding, EmbeddingGrad};
use amc_kernels::emit::Elem::{self, Bf16, F32};
use amc_kernels::heads::Heads;
use amc_kernels::norm::{Kind, LayerNorm, NormGrad, NormGradWeight, RmsNorm};
use amc_kernels::optimizer::Adam;
use amc_kernels::reduce::{ColumnSum, SumSquares};
use amc_kernels::rope::Rope;
use amc_kernels::{Kernel, Target};

/// Rows of a batch.
pub const TOKENS: usize = 96;
/// Entries of a token.
pub const WIDTH: usize = 576;
/// Rows of the output head.
pub const VOCAB: usize = 1000;

/// A kernel and what it is run on.
pub struct Problem {
    /// The kernel in words.
    pub name: String,
    pub kernel: Kernel,
    pub operands: Vec<Vec<u8>>,
    pub amount: Amount,
}

/// What a kernel's instructions are related to.
#[derive(Clone, Copy)]
pub enum Amount {
    MultiplyAdds(usize),
    Elements(usize),
}

impl Amount {
    pub fn count(self) -> usize {
        let (Amount::MultiplyAdds(count) | Amount::Elements(count)) = self;
        count
    }
}

/// All problems, their kernels built for `target`.
pub fn all(target: &Target) -> Vec<Problem> {
    let mut list = products::all(target);
    list.extend([F32, Bf16].into_iter().flat_map(|elem| attention(elem, target)));
    list.extend([F32, Bf16].into_iter().flat_map(|elem| norms(elem, target)));
    list.extend(loss(target));
    list.extend(lookups(target));
    list.extend(states(target));
    list.extend(experts::all(target));
    list
}

pub fn problem(name: impl Into<String>, kernel: Kernel, amount: Amount, operands: Vec<Vec<u8>>) -> Problem {
    Problem { name: name.into(), kernel, operands, amount }
}

/// Numbers between -1 and 1, or labels and positions where the elem is an integer: always the same.
pub fn numbers(elem: Elem, count: usize) -> Vec<u8> {
    let number = |i: usize| (i * 7919 % 2003) as f32 / 1001.0 - 1.0;
    match elem {
        F32 => (0..count).flat_map(|i| number(i).to_le_bytes()).collect(),
        Bf16 => (0..count).flat_map(|i| ((number(i).to_bits() >> 16) as u16).to_le_bytes()).collect(),
        Elem::I32 => integers(count, |i| (i * 37 % VOCAB) as i32),
    }
}

pub fn integers(count: usize, value: impl Fn(usize) -> i32) -> Vec<u8> {
    (0..count).flat_map(|i| value(i).to_le_bytes()).collect()
}

/// Causal attention over two documents that were packed into a row, with its variants, and over a cache.
fn attention(elem: Elem, target: &Target) -> Vec<Problem> {
    let (heads, kv_heads, head_dim, value_dim, scale) = (3, 1, 64, 64, 0.125);
    let (window, softcap, alibi) = (None, None, None);
    let seq: usize = LENGTHS.iter().sum();
    let attention =
        Attention { batch: 1, seq, heads, kv_heads, head_dim, value_dim, scale, window, softcap, alibi, elem };
    let (chunk, capacity) = (1, seq);
    let cached =
        AttentionCached { chunk, capacity, heads, kv_heads, head_dim, value_dim, scale, window, softcap, alibi, elem };
    let (token, kv) = (|| numbers(elem, heads * head_dim), || numbers(elem, seq * kv_heads * head_dim));
    let workspace = numbers(F32, attention.workspace_len(target));
    let name = |kind: &str| format!("{kind}, {}", elem.name());
    let finished = Amount::Elements(2 * seq * kv_heads * head_dim);
    let amount = Amount::MultiplyAdds(seq * heads * head_dim * 2);
    let cache = vec![token(), kv(), kv(), integers(1, |_| seq as i32 - 1), token()];
    let mut problems = both_ways(&attention, "", target);
    problems.extend([
        problem(
            name("attention gradient, its end"),
            attention.gradient_finish(target),
            finished,
            vec![workspace, kv(), kv()],
        ),
        problem(name("attention with a cache"), cached.build(target), amount, cache),
    ]);
    let capped = Attention { softcap: Some(2.0), ..attention.clone() };
    problems.extend(both_ways(&capped, ", capped", target));
    problems.extend(both_ways(&Attention { alibi: Some(1.0), ..attention }, ", ALiBi", target));
    problems
}

/// The documents of attention's row.
const LENGTHS: [usize; 2] = [128, 64];

/// Attention and its gradient, but for the end of that.
fn both_ways(a: &Attention, variant: &str, target: &Target) -> Vec<Problem> {
    let (q, kv) =
        (|| numbers(a.elem, a.seq * a.heads * a.head_dim), || numbers(a.elem, a.seq * a.kv_heads * a.head_dim));
    let (lse, workspace) = (|| numbers(F32, a.seq * a.heads), numbers(F32, a.workspace_len(target)));
    let segments = || integers(a.seq, |i| if i < LENGTHS[0] { 1 } else { 2 });
    let pairs: usize = LENGTHS.iter().map(|length| length * (length + 1) / 2).sum();
    let amount = |products: usize| Amount::MultiplyAdds(pairs * a.heads * a.head_dim * products);
    let name = |kind: &str| format!("{kind}{variant}, {}", a.elem.name());
    let forward = vec![q(), kv(), kv(), segments(), q(), lse()];
    let gradient = vec![q(), kv(), kv(), segments(), q(), lse(), q(), q(), workspace];
    vec![
        problem(name("attention"), a.forward(target), amount(2), forward),
        problem(name("attention gradient"), a.gradient(target), amount(5), gradient),
    ]
}

/// Norms, their gradients, and rope.
fn norms(elem: Elem, target: &Target) -> Vec<Problem> {
    let (rows, n, eps) = (TOKENS, WIDTH, 1e-5);
    let amount = Amount::Elements(rows * n);
    let (x, weight) = (|| numbers(elem, rows * n), || numbers(elem, n));
    let named = |kind: &str| format!("{kind}, {}", elem.name());
    let norm = |residual| RmsNorm { rows, n, eps, plus_one: false, residual, elem, weight: elem }.build(target);
    let layer_norm = LayerNorm { rows, n, eps, plus_one: false, elem, weight: elem, bias: Some(elem) };
    let grad = |kind, add| NormGrad { rows, n, kind, eps, plus_one: false, add, elem, weight: elem }.build(target);
    let by_weight = |kind, name: &str| {
        let grad = NormGradWeight { rows, n, kind, eps, accumulate: true, elem };
        problem(named(name), grad.build(target), amount, vec![x(), x(), numbers(F32, grad.parts(target) * n)])
    };
    let (tokens, heads, head_dim, positions) = (TOKENS, WIDTH / 64, 64, 512);
    let rope = Rope {
        tokens,
        heads,
        head_dim,
        first: 0,
        rotary_dim: head_dim,
        positions,
        neighbours: false,
        inverse: false,
        elem,
    };
    let parts = Heads { tokens, heads: WIDTH / 96, sizes: vec![64, 32], shared: false, elem };
    let neighbours = Rope { neighbours: true, ..rope.clone() };
    let table = || numbers(F32, positions * head_dim / 2);
    let place = integers(tokens, |i| i as i32);
    vec![
        problem(named("rms_norm"), norm(false), amount, vec![x(), weight(), x()]),
        problem(named("rms_norm of a sum"), norm(true), amount, vec![x(), x(), weight(), x(), x()]),
        problem(named("rms_norm gradient"), grad(Kind::Rms, false), amount, vec![x(), weight(), x(), x()]),
        problem(named("rms_norm gradient, added"), grad(Kind::Rms, true), amount, vec![x(), weight(), x(), x(), x()]),
        by_weight(Kind::Rms, "rms_norm gradient by weight"),
        problem(named("layer_norm"), layer_norm.build(target), amount, vec![x(), weight(), weight(), x()]),
        problem(named("layer_norm gradient"), grad(Kind::Layer, false), amount, vec![x(), weight(), x(), x()]),
        by_weight(Kind::Layer, "layer_norm gradient by weight"),
        problem(named("split_heads"), parts.split(target), amount, vec![x(), x(), x()]),
        problem(named("join_heads"), parts.join(target), amount, vec![x(), x(), x()]),
        problem(
            named("rope of neighbours"),
            neighbours.build(target),
            amount,
            vec![x(), place.clone(), table(), table(), x()],
        ),
        problem(named("rope"), rope.build(target), amount, vec![x(), place, table(), table(), x()]),
    ]
}

/// What the loss takes beside its products: every third token has no label.
fn loss(target: &Target) -> Vec<Problem> {
    let (tokens, block, width) = (TOKENS, TOKENS, WIDTH);
    let labels = || integers(tokens, |i| if i % 3 == 0 { -100 } else { (i * 37 % VOCAB) as i32 });
    let labelled = (0..tokens).filter(|i| i % 3 != 0).collect::<Vec<_>>();
    let index = || integers(tokens, |i| labelled.get(i).map_or(0, |t| *t as i32));
    let count = || integers(1, |_| labelled.len() as i32);
    let ints = || integers(tokens, |_| 0);
    let (x, logits) = (|| numbers(Bf16, tokens * width), || numbers(F32, tokens * VOCAB));
    let rows = |softcap, gradient| {
        CrossEntropyRows { rows: block, vocab: VOCAB, logit_scale: 1.0, softcap, gradient }.build(target)
    };
    let compact = CompactRows { tokens, padded: tokens, block }.build(target);
    let gather = GatherRows { rows: tokens, block, width, elem: Bf16 }.build(target);
    let scatter = ScatterRows { tokens, block, width, elem: Bf16 }.build(target);
    let moved = Amount::Elements(tokens * width);
    let losses = |softcap: Option<f32>, gradient: Option<Elem>| {
        let cap = if softcap.is_some() { "softcapped, " } else { "" };
        let what = gradient.map_or("loss alone".into(), |e| format!("{} gradient", e.name()));
        let name = format!("cross_entropy, {cap}{what}");
        let operands = vec![logits(), labels(), count(), numbers(F32, 1), numbers(F32, tokens)];
        problem(name, rows(softcap, gradient), Amount::Elements(labelled.len() * VOCAB), operands)
    };
    vec![
        problem("compact_rows", compact, Amount::Elements(tokens), vec![labels(), ints(), ints(), count()]),
        problem("gather_rows, bf16", gather, moved, vec![x(), index(), count(), x()]),
        losses(None, None),
        losses(None, Some(F32)),
        losses(None, Some(Bf16)),
        losses(Some(30.0), Some(Bf16)),
        problem("scatter_rows, bf16", scatter, moved, vec![x(), index(), count(), labels(), x()]),
    ]
}

/// The table of the embedding, and dropout.
fn lookups(target: &Target) -> Vec<Problem> {
    let (tokens, vocab, width, elem) = (TOKENS, VOCAB, WIDTH, Bf16);
    let amount = Amount::Elements(tokens * width);
    let (ids, x) = (|| numbers(Elem::I32, tokens), || numbers(elem, tokens * width));
    let embedding = Embedding { tokens, vocab, width, scale: 1.0, table: elem, elem }.build(target);
    let accumulate = true;
    let grad = EmbeddingGrad { tokens, vocab, width, scale: 1.0, padding: None, accumulate, elem }.build(target);
    let dropout = Dropout { n: tokens * width, p: 0.1, site: 1, elem }.build(target);
    vec![
        problem("embedding, bf16", embedding, amount, vec![numbers(elem, vocab * width), ids(), x()]),
        problem("embedding gradient, bf16", grad, amount, vec![ids(), x(), numbers(F32, vocab * width)]),
        problem("dropout, bf16", dropout, amount, vec![x(), integers(2, |i| i as i32), x()]),
    ]
}

/// Sums over gradients, and the optimizer.
fn states(target: &Target) -> Vec<Problem> {
    let (rows, n) = (TOKENS, WIDTH);
    let len = rows * n;
    let squares = SumSquares { n: len };
    let sum = ColumnSum { rows, n, stride: n, elem: Bf16, accumulate: true }.build(target);
    let adam = |elem| {
        let kernel = Adam { n: len, elem, beta1: 0.9, beta2: 0.999, eps: 1e-8, decoupled: true }.build(target);
        let state = [elem, F32, F32, F32].map(|elem| numbers(elem, len));
        let operands = state.into_iter().chain((0..5).map(|_| numbers(F32, 1))).collect();
        problem(format!("adamw, {}", elem.name()), kernel, Amount::Elements(len), operands)
    };
    let partials = numbers(F32, squares.parts());
    vec![
        problem("sum_squares", squares.build(target), Amount::Elements(len), vec![numbers(F32, len), partials]),
        problem("column_sum, bf16", sum, Amount::Elements(len), vec![numbers(Bf16, len), numbers(F32, n)]),
        adam(F32),
        adam(Bf16),
    ]
}
