//! Kernels that memory bounds, of a step over 2 x 512 tokens.
use crate::case::Case;
use crate::rounds::Operand;
use crate::rounds::Use::{self, Read, Update, Write};
use amc_kernels::Target;
use amc_kernels::cross_entropy::{CompactRows, CrossEntropyRows, GatherRows, ScatterRows};
use amc_kernels::embedding::{Embedding, EmbeddingGrad};
use amc_kernels::emit::Elem::{self, Bf16, F32};
use amc_kernels::norm::{Kind, LayerNorm, NormGrad, NormGradWeight, RmsNorm};
use amc_kernels::optimizer::Adam;
use amc_kernels::pointwise::Pointwise;
use amc_kernels::reduce::SumSquares;
use amc_kernels::region::{Broadcast, Region, RegionInput, RegionNode, RegionOutput, RegionValue, ScalarOp};
use amc_kernels::rope::Rope;

const TOKENS: usize = 1024;
const WIDTH: usize = 576;
const VOCAB: usize = 49152;
/// Rows of a block of logits.
const BLOCK: usize = 256;
const EPS: f32 = 1e-5;

pub fn cases(target: &Target) -> Vec<Case> {
    let of_layers = [norms, ropes, others];
    let stored =
        [F32, Bf16].into_iter().flat_map(|elem| of_layers.into_iter().flat_map(move |cases| cases(elem, target)));
    stored.chain(whole_step(target)).collect()
}

fn norms(elem: Elem, target: &Target) -> Vec<Case> {
    let (rows, n, eps) = (TOKENS, WIDTH, EPS);
    let x = |usage| Operand::floats(usage, elem, rows * n);
    let w = Operand::floats(Read, Bf16, n);
    let norm = RmsNorm { rows, n, eps, plus_one: false, residual: false, elem, weight: Bf16 };
    let layer_norm = LayerNorm { rows, n, eps, plus_one: false, elem, weight: Bf16, bias: Some(Bf16) };
    let gradient = |kind| NormGrad { rows, n, kind, eps, plus_one: false, add: true, elem, weight: Bf16 };
    let by_weight = |kind| NormGradWeight { rows, n, kind, eps, accumulate: true, elem };
    let partials = Operand::floats(Write, F32, by_weight(Kind::Rms).parts(target) * n);
    let size = format!("{rows} x {n}");
    let case = |role, kernel, operands| Case::new(role, size.clone(), elem, kernel, operands);
    let dx = |role, kind| case(role, gradient(kind).build(target), vec![x(Read), w, x(Read), x(Read), x(Write)]);
    let dw = |role, kind| case(role, by_weight(kind).build(target), vec![x(Read), x(Read), partials]);
    vec![
        case("norm", norm.build(target), vec![x(Read), w, x(Write)]),
        dx("norm: dx", Kind::Rms),
        dw("norm: dw", Kind::Rms),
        case("layer norm", layer_norm.build(target), vec![x(Read), w, w, x(Write)]),
        dx("layer norm: dx", Kind::Layer),
        dw("layer norm: dw", Kind::Layer),
    ]
}

fn ropes(elem: Elem, target: &Target) -> Vec<Case> {
    let table = Operand::floats(Read, F32, 512 * 32);
    let positions = Operand::ints(Read, TOKENS, |i| (i % 512) as i32);
    let case = |heads| {
        let rope = Rope {
            tokens: TOKENS,
            heads,
            head_dim: 64,
            first: 0,
            rotary_dim: 64,
            positions: 512,
            neighbours: false,
            inverse: false,
            elem,
        };
        let x = |usage| Operand::floats(usage, elem, TOKENS * heads * 64);
        let size = format!("{TOKENS} x {heads} x 64");
        Case::new("rope", size, elem, rope.build(target), vec![x(Read), positions, table, table, x(Write)])
    };
    vec![case(9), case(3)]
}

/// Ids of tokens, no two the same.
fn ids(count: usize) -> Operand {
    Operand::ints(Read, count, |i| (i * 7919 % VOCAB) as i32)
}

/// Numbers of rows, and how many of them a block has.
fn listed(usage: Use) -> [Operand; 2] {
    [Operand::ints(usage, TOKENS, |i| i as i32), Operand::ints(usage, TOKENS / BLOCK, |_| BLOCK as i32)]
}

fn others(elem: Elem, target: &Target) -> Vec<Case> {
    let n = 1536;
    let glu = Pointwise { m: TOKENS, n, region: glu(elem) };
    let x = |usage| Operand::floats(usage, elem, TOKENS * n);
    let rows = |usage| Operand::floats(usage, elem, TOKENS * WIDTH);
    let table = Operand::floats(Read, Bf16, VOCAB * WIDTH).touching(TOKENS * WIDTH);
    let [index, counts] = listed(Read);
    let look_up = Embedding { tokens: TOKENS, vocab: VOCAB, width: WIDTH, scale: 1.0, table: Bf16, elem };
    let gather = GatherRows { rows: TOKENS, block: BLOCK, width: WIDTH, elem };
    let scatter = ScatterRows { tokens: TOKENS, block: BLOCK, width: WIDTH, elem };
    let size = format!("{TOKENS} x {WIDTH}");
    let case = |role, kernel, operands| Case::new(role, size.clone(), elem, kernel, operands);
    vec![
        Case::new("silu · up", format!("{TOKENS} x {n}"), elem, glu.build(target), vec![x(Read), x(Read), x(Write)]),
        case("embedding", look_up.build(target), vec![table, ids(TOKENS), rows(Write)]),
        case("gather rows", gather.build(target), vec![rows(Read), index, counts, rows(Write)]),
        case("scatter rows", scatter.build(target), vec![rows(Read), index, counts, ids(TOKENS), rows(Write)]),
        loss(elem, target),
    ]
}

/// The loss of a block of logits, and its gradient in their place.
fn loss(elem: Elem, target: &Target) -> Case {
    let loss = CrossEntropyRows { rows: BLOCK, vocab: VOCAB, logit_scale: 1.0, softcap: None, gradient: Some(elem) };
    let operands = vec![
        Operand::floats(Update, F32, BLOCK * VOCAB),
        ids(BLOCK),
        Operand::ints(Read, 1, |_| BLOCK as i32),
        Operand::floats(Read, F32, 1),
        Operand::floats(Write, F32, BLOCK),
    ];
    Case::new("cross-entropy", format!("{BLOCK} x {VOCAB}"), elem, loss.build(target), operands)
}

/// `silu(gate) · up`
fn glu(elem: Elem) -> Region {
    use RegionValue::{Input, Node};
    Region {
        inputs: vec![RegionInput { elem, broadcast: Broadcast::Full }; 2],
        nodes: vec![
            RegionNode { op: ScalarOp::Silu, args: vec![Input(0)] },
            RegionNode { op: ScalarOp::Mul, args: vec![Node(0), Input(1)] },
        ],
        outputs: vec![RegionOutput { value: Node(1), elem }],
    }
}

/// Once a step: which rows have labels, the gradient of the embedding; and for the adapters, and for the embedding
/// alone, the norm of the gradient and the optimizer.
fn whole_step(target: &Target) -> Vec<Case> {
    let compact = CompactRows { tokens: TOKENS, padded: TOKENS, block: BLOCK };
    let [index, counts] = listed(Write);
    let operands = vec![ids(TOKENS), index, index, counts];
    let mut cases = vec![Case::new("list of labels", TOKENS.to_string(), Elem::I32, compact.build(target), operands)];
    for elem in [F32, Bf16] {
        cases.push(embedding_gradient(elem, target));
    }
    for n in [2_442_240, VOCAB * WIDTH] {
        cases.extend([F32, Bf16].map(|elem| optimizer(n, elem, target)));
        let norm = SumSquares { n };
        let operands = vec![Operand::floats(Read, F32, n), Operand::floats(Write, F32, norm.parts())];
        cases.push(Case::new("norm of the gradient", n.to_string(), F32, norm.build(target), operands));
    }
    cases
}

fn embedding_gradient(elem: Elem, target: &Target) -> Case {
    let (tokens, vocab, width) = (TOKENS, VOCAB, WIDTH);
    let gradient = EmbeddingGrad { tokens, vocab, width, scale: 1.0, padding: None, accumulate: true, elem };
    let sums = Operand::floats(Update, F32, vocab * width).touching(tokens * width);
    let operands = vec![ids(tokens), Operand::floats(Read, elem, tokens * width), sums];
    Case::new("embedding: dw", format!("{tokens} x {width}"), elem, gradient.build(target), operands)
}

fn optimizer(n: usize, elem: Elem, target: &Target) -> Case {
    let adam = Adam { n, elem, beta1: 0.9, beta2: 0.999, eps: 1e-8, decoupled: true };
    let state = [elem, F32, F32, F32].map(|elem| Operand::floats(Update, elem, n));
    let operands = state.into_iter().chain([Operand::floats(Read, F32, 1); 5]).collect();
    Case::new("adamw", n.to_string(), elem, adam.build(target), operands)
}
