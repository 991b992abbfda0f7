//! Every template of a GPU's kernels, at sizes of a Llama of 8 billion parameters or of a small model: what is assembled
//! to see registers and spills.
#[path = "gpu_experts.rs"]
mod experts;

use super::parts::{glu, glu_gradient, residual, term};
use amc_kernels::attention::Attention;
use amc_kernels::cross_entropy::{CompactRows, CrossEntropyRows, GatherRows, ScatterRows};
use amc_kernels::dropout::{DeriveSeed, Dropout};
use amc_kernels::embedding::{Embedding, EmbeddingGrad};
use amc_kernels::emit::Elem::{self, Bf16, F32};
use amc_kernels::gemm::{Gemm, Term};
use amc_kernels::gpu::product_by_warpgroups;
use amc_kernels::grouped::GroupedRows;
use amc_kernels::heads::Heads;
use amc_kernels::norm::{Kind, LayerNorm, NormGrad, NormGradWeight, RmsNorm};
use amc_kernels::optimizer::{Adam, FinishNorm};
use amc_kernels::pointwise::Pointwise;
use amc_kernels::reduce::{Accumulate, ColumnSum, Sum, SumSquares};
use amc_kernels::region::Region;
use amc_kernels::rope::Rope;
use amc_kernels::steps::Steps;
use amc_kernels::tuning::{WarpgroupTuning, hopper_gemm};
use amc_kernels::{Gpu, Kernel, Machine};
use std::collections::HashSet;

const TOKENS: usize = 8192;
const WIDTH: usize = 4096;
const HIDDEN: usize = 14336;
const VOCAB: usize = 128_256;
const RANK: usize = 16;
/// A rank whose rows in bf16 are no multiple of 16 bytes.
const SMALL_RANK: usize = 4;

/// A kernel in words, and itself.
pub type Named = (String, Kernel);

/// Kernels that share a text are there once.
pub fn all(gpu: &Gpu) -> Vec<Named> {
    let mut list = products(gpu);
    list.extend(fused_products(gpu));
    list.extend(product_in_parts(gpu));
    list.extend(head(gpu));
    list.extend([64, 80, 96, 112, 128, 192, 256].into_iter().flat_map(|size| attention(gpu, Bf16, size, None)));
    list.extend([128, 256].into_iter().flat_map(|size| attention(gpu, Bf16, size, Some(1024))));
    list.extend([64, 128].into_iter().flat_map(|size| attention(gpu, F32, size, None)));
    list.extend(attention_variants(gpu));
    list.extend([F32, Bf16].into_iter().flat_map(|elem| rows(gpu, elem)));
    list.extend(loss(gpu));
    list.extend([F32, Bf16].into_iter().flat_map(|elem| flat(gpu, elem)));
    list.extend(sums(gpu));
    list.extend(experts::all(gpu));
    let mut seen = HashSet::new();
    list.retain(|(_, kernel)| seen.insert(kernel.symbol.clone()));
    list
}

fn product(gpu: &Gpu, what: &str, gemm: &Gemm) -> Named {
    (what.into(), gpu.product(gemm))
}

fn gemm(m: usize, n: usize, terms: Vec<Term>, epilogue: Region) -> Gemm {
    Gemm { m, n, terms, epilogue, row_limit: None, inner_limit: None }
}

/// Products alone, in every layout and every cut.
fn products(gpu: &Gpu) -> Vec<Named> {
    let sizes = [
        ("large", (TOKENS, WIDTH, WIDTH)),
        ("narrow", (TOKENS, RANK, WIDTH)),
        ("flat", (RANK, WIDTH, TOKENS)),
        ("small", (256, 192, 576)),
    ];
    let mut list = vec![];
    for elem in [Bf16, F32] {
        for (what, size @ (m, n, _)) in sizes {
            for form in ["nt", "nn", "tn", "tt"] {
                let gemm = gemm(m, n, vec![term(size, form, [elem; 2])], Region::identity(F32, elem));
                list.push(product(gpu, &format!("product, {what}, {form}, {}", elem.name()), &gemm));
            }
        }
    }
    let size @ (m, n, _) = (TOKENS, WIDTH, WIDTH);
    let mixed = gemm(m, n, vec![term(size, "nt", [F32, Bf16])], Region::identity(F32, F32));
    list.push(product(gpu, "product, large, nt, f32 by bf16", &mixed));
    let rounding = Gpu { tf32: true, ..*gpu };
    for (what, size @ (m, n, _)) in sizes {
        for form in ["nt", "nn", "tn"] {
            let gemm = gemm(m, n, vec![term(size, form, [F32; 2])], Region::identity(F32, F32));
            list.push(product(&rounding, &format!("product, {what}, {form}, tf32"), &gemm));
        }
    }
    list
}

/// A linear layer with its LoRA, whose rows of the rank's length are stored as bf16 or, as recipes have it, as f32; and
/// what is stored instead of the sum.
fn fused_products(gpu: &Gpu) -> Vec<Named> {
    let of = |k, form: &str, a| term((TOKENS, HIDDEN, k), form, [a, Bf16]);
    let with = |form, a, epilogue| gemm(TOKENS, HIDDEN, vec![of(WIDTH, form, Bf16), of(RANK, form, a)], epilogue);
    let linear = |form, epilogue| with(form, Bf16, epilogue);
    let wide = with("nt", F32, residual(Bf16));
    let small = gemm(TOKENS, HIDDEN, vec![of(WIDTH, "nt", Bf16), of(SMALL_RANK, "nt", F32)], residual(Bf16));
    let size @ (m, n, _) = (TOKENS, SMALL_RANK, HIDDEN);
    let small_inner = gemm(m, n, vec![term(size, "nn", [Bf16; 2])], Region::identity(F32, F32));
    let gradient = |size @ (m, n, _), elems| gemm(m, n, vec![term(size, "tn", elems)], residual(F32));
    vec![
        product(gpu, "linear + LoRA of rank 4 in f32 + residual, bf16", &small),
        product(gpu, "LoRA's gradient of the inner, rank 4, bf16", &small_inner),
        product(gpu, "linear + LoRA in f32 + residual, bf16", &wide),
        product(gpu, "LoRA's gradient of A, f32 by bf16", &gradient((RANK, WIDTH, TOKENS), [F32, Bf16])),
        product(gpu, "LoRA's gradient of B, bf16 by f32", &gradient((WIDTH, RANK, TOKENS), [Bf16, F32])),
        product(gpu, "linear + LoRA + residual, bf16", &linear("nt", residual(Bf16))),
        product(gpu, "linear + LoRA + GLU, bf16", &linear("nt", glu(Bf16))),
        product(gpu, "linear + LoRA + GLU gradient, bf16", &linear("nn", glu_gradient(F32, Bf16))),
    ]
}

/// LoRA's gradient of B beside keys, of which there are 1024 rows: the sums of its parts, and what adds them.
fn product_in_parts(gpu: &Gpu) -> Vec<Named> {
    let size @ (m, n, _) = (1024, RANK, TOKENS);
    let gemm = gemm(m, n, vec![term(size, "tn", [Bf16, F32])], residual(F32));
    let steps = gpu.product_in_parts(&gemm).expect("few blocks with many steps");
    let kernels = steps.launches.into_iter().map(|(kernel, _)| kernel);
    let names = ["in parts", "its parts added"].map(|what| format!("LoRA's gradient of B, 1024 rows, {what}"));
    names.into_iter().zip(kernels).collect()
}

/// The output head on a block of rows that ends where labels end.
fn head(gpu: &Gpu) -> Vec<Named> {
    let logits = gemm(1024, VOCAB, vec![term((1024, VOCAB, WIDTH), "nt", [Bf16; 2])], Region::identity(F32, F32));
    let mut gradient = term((VOCAB, WIDTH, 1024), "tn", [Bf16; 2]);
    gradient.a.stride = 2 * VOCAB;
    let by_weight = gemm(VOCAB, WIDTH, vec![gradient], residual(F32));
    vec![
        product(gpu, "head, logits, bf16", &Gemm { row_limit: Some(0), ..logits }),
        product(gpu, "head, gradient by weight, bf16", &Gemm { inner_limit: Some(0), ..by_weight }),
    ]
}

/// Attention of heads of one size, and its gradient.
fn attention(gpu: &Gpu, elem: Elem, head_dim: usize, window: Option<usize>) -> Vec<Named> {
    let what = window.map_or(format!("head {head_dim}"), |window| format!("head {head_dim}, window {window}"));
    let (batch, seq, heads, kv_heads, value_dim) = (2, 4096, 32, 8, head_dim);
    let (scale, softcap, alibi) = ((head_dim as f32).powf(-0.5), None, None);
    let attention = Attention { batch, seq, heads, kv_heads, head_dim, value_dim, scale, window, softcap, alibi, elem };
    both_ways(gpu, &what, &attention)
}

/// Gemma 2 caps scores, Baichuan lowers them with the distance, and DeepSeek's values are smaller than its keys.
fn attention_variants(gpu: &Gpu) -> Vec<Named> {
    let plain = |elem, head_dim| {
        let (batch, seq, heads, kv_heads, value_dim) = (2, 4096, 40, 40, head_dim);
        let (scale, window, softcap, alibi) = ((head_dim as f32).powf(-0.5), None, None, None);
        Attention { batch, seq, heads, kv_heads, head_dim, value_dim, scale, window, softcap, alibi, elem }
    };
    let variants = [
        ("head 128, capped", Attention { softcap: Some(50.0), ..plain(Bf16, 128) }),
        ("head 256, capped", Attention { softcap: Some(50.0), ..plain(Bf16, 256) }),
        ("head 64, capped", Attention { softcap: Some(50.0), ..plain(F32, 64) }),
        ("head 128, ALiBi", Attention { alibi: Some(1.0), ..plain(Bf16, 128) }),
        ("head 192, values 128", Attention { value_dim: 128, ..plain(Bf16, 192) }),
    ];
    variants.iter().flat_map(|(what, attention)| both_ways(gpu, what, attention)).collect()
}

fn both_ways(gpu: &Gpu, what: &str, attention: &Attention) -> Vec<Named> {
    let gradients = gpu.attention_gradient(attention).launches.into_iter().map(|(kernel, _)| kernel);
    let kernels = [gpu.attention(attention)].into_iter().chain(gradients);
    kernels.enumerate().map(|(i, k)| (format!("{}, {what}, {}", part(i), attention.elem.name()), k)).collect()
}

fn part(number: usize) -> String {
    if number == 0 { "attention".into() } else { format!("attention gradient {number}") }
}

/// Norms, their gradients, and rope.
fn rows(gpu: &Gpu, elem: Elem) -> Vec<Named> {
    let (rows, n, eps, plus_one) = (TOKENS, WIDTH, 1e-5, false);
    let norm = |residual| RmsNorm { rows, n, eps, plus_one, residual, elem, weight: elem }.build(gpu);
    let layer_norm = LayerNorm { rows, n, eps, plus_one, elem, weight: elem, bias: Some(elem) };
    let grad = |kind, add| NormGrad { rows, n, kind, eps, plus_one, add, elem, weight: elem }.build(gpu);
    let by_weight = |kind| NormGradWeight { rows, n, kind, eps, accumulate: true, elem };
    let (tokens, heads, head_dim, positions) = (TOKENS, 32, 128, 8192);
    let latent = Heads { tokens, heads: 40, sizes: vec![64, 32], shared: true, elem };
    let rope = |inverse| {
        Rope { tokens, heads, head_dim, first: 0, rotary_dim: 128, positions, neighbours: false, inverse, elem }
            .build(gpu)
    };
    let first = 0;
    let neighbours =
        Rope { tokens, heads, head_dim, first, rotary_dim: 128, positions, neighbours: true, inverse: false, elem };
    let kernels = [
        ("norm", norm(false)),
        ("norm of a sum", norm(true)),
        ("norm gradient", grad(Kind::Rms, false)),
        ("norm gradient, added", grad(Kind::Rms, true)),
        ("norm gradient by weight", by_weight(Kind::Rms).build(gpu)),
        ("norm gradient by weight, its end", only(by_weight(Kind::Rms).finish(gpu))),
        ("layer norm", layer_norm.build(gpu)),
        ("layer norm gradient, added", grad(Kind::Layer, true)),
        ("layer norm gradient by weight", by_weight(Kind::Layer).build(gpu)),
        ("rope", rope(false)),
        ("rope, inverse", rope(true)),
        ("rope of neighbours", neighbours.build(gpu)),
        ("heads, taken apart", latent.split(gpu)),
        ("heads, put together", latent.join(gpu)),
    ];
    kernels.map(|(what, kernel)| (format!("{what}, {}", elem.name()), kernel)).into()
}

fn capped_losses(gpu: &Gpu, rows: usize, softcap: Option<f32>, gradient: Option<Elem>) -> Kernel {
    CrossEntropyRows { rows, vocab: VOCAB, logit_scale: 1.0, softcap, gradient }.build(gpu)
}

/// What the loss takes beside its products.
fn loss(gpu: &Gpu) -> Vec<Named> {
    let (tokens, block, width, elem) = (TOKENS, 1024, WIDTH, Bf16);
    let losses = |gradient| capped_losses(gpu, block, None, gradient);
    let kernels = [
        ("cross-entropy, loss alone", losses(None)),
        ("cross-entropy, gradient f32", losses(Some(F32))),
        ("cross-entropy, gradient bf16", losses(Some(Bf16))),
        ("cross-entropy, softcapped, gradient bf16", capped_losses(gpu, block, Some(30.0), Some(Bf16))),
        ("labelled rows, their list", CompactRows { tokens, padded: tokens, block }.build(gpu)),
        ("labelled rows, gathered, bf16", GatherRows { rows: tokens, block, width, elem }.build(gpu)),
        ("labelled rows, scattered, bf16", ScatterRows { tokens, block, width, elem }.build(gpu)),
    ];
    kernels.map(|(what, kernel)| (what.into(), kernel)).into()
}

/// The table of the embedding, dropout, GLU alone, and the optimizer.
fn flat(gpu: &Gpu, elem: Elem) -> Vec<Named> {
    let (tokens, vocab, width) = (TOKENS, VOCAB, WIDTH);
    let embedding = Embedding { tokens, vocab, width, scale: 1.0, table: elem, elem };
    let gradient = EmbeddingGrad { tokens, vocab, width, scale: 1.0, padding: None, accumulate: true, elem };
    let pointwise = |region| Pointwise { m: TOKENS, n: HIDDEN, region }.build(gpu);
    let adam = Adam { n: TOKENS * WIDTH, elem, beta1: 0.9, beta2: 0.999, eps: 1e-8, decoupled: true };
    let kernels = [
        ("embedding", embedding.build(gpu)),
        ("embedding gradient", gradient.build(gpu)),
        ("dropout", Dropout { n: tokens * width, p: 0.1, site: 1, elem }.build(gpu)),
        ("GLU alone", pointwise(glu(elem))),
        ("GLU gradient alone", pointwise(glu_gradient(elem, elem))),
        ("AdamW", adam.build(gpu)),
        ("accumulate", Accumulate { n: tokens * width, elem }.build(gpu)),
    ];
    let columns = gpu.column_sum(&ColumnSum { rows: tokens, n: width, stride: width, elem, accumulate: true });
    let columns = ["column sum, parts", "column sum, joined"].into_iter().zip(launched(columns));
    kernels.into_iter().chain(columns).map(|(what, kernel)| (format!("{what}, {}", elem.name()), kernel)).collect()
}

fn launched(steps: Steps) -> impl Iterator<Item = Kernel> {
    steps.launches.into_iter().map(|(kernel, _)| kernel)
}

fn only(steps: Steps) -> Kernel {
    let [kernel] = launched(steps).collect::<Vec<_>>().try_into().expect("one launch");
    kernel
}

/// Norm of all gradients, the mean of the losses, seeds.
fn sums(gpu: &Gpu) -> Vec<Named> {
    let squares = SumSquares { n: TOKENS * WIDTH };
    let kernels = [
        ("sum", Sum { n: TOKENS }.build(gpu)),
        ("sum of squares", squares.build(gpu)),
        ("norm of all gradients", FinishNorm { parts: squares.parts() }.build(gpu)),
        ("seed", DeriveSeed { index: 1 }.build(gpu)),
    ];
    kernels.map(|(what, kernel)| (what.into(), kernel)).into()
}

/// One each of the main templates, so small that the code is short.
pub fn small(gpu: &Gpu) -> Vec<Named> {
    let (rows, n, elem) = (2, 64, Bf16);
    let norm = RmsNorm { rows, n, eps: 1e-5, plus_one: false, residual: false, elem, weight: elem };
    let narrow = gemm(TOKENS, RANK, vec![term((TOKENS, RANK, 32), "nt", [elem; 2])], Region::identity(F32, elem));
    let (seq, heads, head_dim) = (64, 1, 16);
    let (value_dim, window, softcap, alibi) = (head_dim, None, None, None);
    let attention = Attention {
        batch: 1,
        seq,
        heads,
        kv_heads: heads,
        head_dim,
        value_dim,
        scale: 0.25,
        window,
        softcap,
        alibi,
        elem,
    };
    let adam = Adam { n: 256, elem, beta1: 0.9, beta2: 0.999, eps: 1e-8, decoupled: true };
    let kernels = [
        ("norm", norm.build(gpu)),
        ("product", gpu.product(&narrow)),
        ("attention", gpu.attention(&attention)),
        ("adamw", adam.build(gpu)),
    ];
    kernels.map(|(what, kernel)| (what.into(), kernel)).into()
}

/// The product of warpgroups, as small as it gets, alone and in a cluster.
pub fn small_hopper(gpu: &Gpu) -> Vec<Named> {
    let of = |size @ (m, n, _)| gemm(m, n, vec![term(size, "nt", [Bf16; 2])], Region::identity(F32, Bf16));
    let pair = WarpgroupTuning { columns: 128, ..hopper_gemm(TOKENS, WIDTH).expect("warpgroups suit it") };
    let by_cluster = product_by_warpgroups(&of((256, 128, 64)), pair);
    let of_experts = gpu.grouped_rows(&GroupedRows { groups: 2, gemm: of((256, 64, 64)) });
    vec![
        product(gpu, "product_by_warpgroups", &of((128, 64, 64))),
        ("product_by_cluster".into(), by_cluster),
        ("product_of_experts".into(), of_experts),
    ]
}
