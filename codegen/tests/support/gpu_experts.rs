//! What mixtures of experts take, at the sizes of Mixtral 8x7B and of Qwen3 30B-A3B.
use super::Named;
use crate::parts::{residual, term};
use amc_kernels::emit::Elem::{self, Bf16, F32};
use amc_kernels::experts::{Gather, GroupRows, Route, RouteGrad, SumRows};
use amc_kernels::gemm::Gemm;
use amc_kernels::grouped::{GroupedDepth, GroupedRows};
use amc_kernels::reduce::RowSum;
use amc_kernels::region::Region;
use amc_kernels::{Gpu, Machine};

const TOKENS: usize = 8192;
const RANK: usize = 16;

/// Experts, how many a token has, its width, an expert's.
type Sizes = (usize, usize, usize, usize);
const MIXTRAL: Sizes = (8, 2, 4096, 14336);
const QWEN: Sizes = (128, 8, 2048, 768);

pub fn all(gpu: &Gpu) -> Vec<Named> {
    let mut list = products(gpu, MIXTRAL, [Bf16; 2]);
    list.extend(products(gpu, QWEN, [Bf16; 2]));
    list.extend(products(gpu, MIXTRAL, [F32; 2]));
    let (groups, k, width, _) = QWEN;
    list.push(by_rows(gpu, "LoRA of experts, f32 by bf16", (groups, TOKENS * k, 768, RANK), "nt", [F32, Bf16]));
    list.push(by_rows(gpu, "LoRA of experts, rank 4, f32 by bf16", (groups, TOKENS * k, 768, 4), "nt", [F32, Bf16]));
    list.push(by_rows(
        gpu,
        "LoRA of experts, gradient, f32 by bf16",
        (groups, TOKENS * k, width, RANK),
        "nn",
        [F32, Bf16],
    ));
    list.push(by_rows(gpu, "LoRA of experts, narrow", (groups, TOKENS * k, RANK, width), "nt", [Bf16; 2]));
    for (experts, k, ..) in [MIXTRAL, QWEN] {
        for normalize in [true, false] {
            let what = if normalize { "normalised" } else { "as they are" };
            let (tokens, of) = (TOKENS, format!("{k} of {experts}, {what}"));
            list.push((format!("router, {of}"), Route { tokens, experts, k, normalize }.build(gpu)));
            list.push((format!("router gradient, {of}"), RouteGrad { tokens, experts, k, normalize }.build(gpu)));
        }
        let steps = GroupRows { slots: TOKENS * k, groups: experts }.steps(gpu);
        let named = |(i, (kernel, _))| (format!("rows by expert {i}, {experts}"), kernel);
        list.extend(steps.launches.into_iter().enumerate().map(named));
        let (tokens, elem) = (TOKENS, Bf16);
        list.push((format!("rows to experts, {k}"), Gather { tokens, k, width, elem }.build(gpu)));
        list.push((format!("rows from experts, {k}"), SumRows { tokens, k, width, elem }.build(gpu)));
    }
    let sum = RowSum { rows: TOKENS * k, n: width, region: Region::identity(Bf16, F32) };
    list.push(("row sum, bf16".into(), sum.build(gpu)));
    list
}

/// Forward, gradient by the input, gradient by the matrices.
fn products(gpu: &Gpu, (groups, k, width, hidden): Sizes, elems: [Elem; 2]) -> Vec<Named> {
    let rows = TOKENS * k;
    let of = |what: &str| format!("{what} of {groups} experts");
    let depth = |accumulate| GroupedDepth { groups, rows, m: hidden, n: width, elems, accumulate };
    vec![
        by_rows(gpu, &of("product"), (groups, rows, hidden, width), "nt", elems),
        by_rows(gpu, &of("gradient by input"), (groups, rows, width, hidden), "nn", elems),
        (of(&format!("gradient by matrix, {},", elems[0].name())), gpu.grouped_depth(&depth(false))),
        (of(&format!("gradient by matrix, added, {},", elems[0].name())), gpu.grouped_depth(&depth(true))),
    ]
}

/// Added to what is there, as gradients by inputs and adapters are.
fn by_rows(
    gpu: &Gpu,
    what: &str,
    (groups, m, n, k): (usize, usize, usize, usize),
    form: &str,
    elems: [Elem; 2],
) -> Named {
    let epilogue = if form == "nn" { residual(elems[1]) } else { Region::identity(F32, elems[0]) };
    let terms = vec![term((m, n, k), form, elems)];
    let gemm = Gemm { m, n, terms, epilogue, row_limit: None, inner_limit: None };
    (format!("{what}, {form}, {}", elems[0].name()), gpu.grouped_rows(&GroupedRows { groups, gemm }))
}
