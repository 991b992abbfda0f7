//! What mixtures of experts take beside dense layers, on small problems.
use super::parts::term;
use super::problems::{Amount, Problem, TOKENS, WIDTH, integers, numbers, problem};
use amc_kernels::emit::Elem::{self, Bf16, F32};
use amc_kernels::experts::{Gather, GroupRows, Route, RouteGrad, SumRows};
use amc_kernels::gemm::Gemm;
use amc_kernels::grouped::{GroupedDepth, GroupedRows};
use amc_kernels::region::Region;
use amc_kernels::steps::Slot;
use amc_kernels::{Machine, Target};

/// Experts, and how many a token has.
const EXPERTS: usize = 8;
const CHOSEN: usize = 2;
const SLOTS: usize = TOKENS * CHOSEN;
/// Columns of an expert.
const COLUMNS: usize = 192;

pub fn all(target: &Target) -> Vec<Problem> {
    let mut list = [F32, Bf16].into_iter().flat_map(|elem| products(elem, target)).collect::<Vec<_>>();
    list.extend(routes(target));
    list.extend(sorting(target));
    list.extend([F32, Bf16].into_iter().flat_map(|elem| rows(elem, target)));
    list
}

/// Where each expert's rows begin: none of the first has any, others an odd number.
fn offsets() -> Vec<u8> {
    integers(EXPERTS + 1, |e| (SLOTS * e.saturating_sub(1) / (EXPERTS - 1)) as i32)
}

/// The expert of every slot.
fn chosen() -> Vec<u8> {
    integers(SLOTS, |slot| (slot * slot % 7 + 1) as i32)
}

fn products(elem: Elem, target: &Target) -> Vec<Problem> {
    let (m, n, k) = (SLOTS, COLUMNS, WIDTH);
    let terms = vec![term((m, n, k), "nt", [elem; 2])];
    let gemm = Gemm { m, n, terms, epilogue: Region::identity(F32, elem), row_limit: None, inner_limit: None };
    let forward = GroupedRows { groups: EXPERTS, gemm };
    let mut operands = vec![numbers(elem, m * k), offsets(), numbers(elem, m * n)];
    operands.extend((0..EXPERTS).map(|_| numbers(elem, n * k)));
    let by_matrix = GroupedDepth { groups: EXPERTS, rows: m, m: n, n: k, elems: [elem; 2], accumulate: true };
    let mut gradient = vec![numbers(elem, m * n), numbers(elem, m * k), offsets()];
    gradient.extend((0..EXPERTS).map(|_| numbers(F32, n * k)));
    let amount = Amount::MultiplyAdds(m * n * k);
    let name = |what: &str| format!("{what}, {}", elem.name());
    vec![
        problem(name("product of experts"), target.grouped_rows(&forward), amount, operands),
        problem(name("product of experts, gradient by matrix"), target.grouped_depth(&by_matrix), amount, gradient),
    ]
}

fn routes(target: &Target) -> Vec<Problem> {
    let (tokens, experts, k, normalize) = (TOKENS, EXPERTS, CHOSEN, true);
    let (logits, weights) = (|| numbers(F32, tokens * experts), || numbers(F32, SLOTS));
    let amount = Amount::Elements(tokens * experts);
    let route = Route { tokens, experts, k, normalize }.build(target);
    let gradient = RouteGrad { tokens, experts, k, normalize }.build(target);
    vec![
        problem("router", route, amount, vec![logits(), weights(), chosen()]),
        problem("router, gradient", gradient, amount, vec![logits(), chosen(), weights(), logits()]),
    ]
}

fn sorting(target: &Target) -> Vec<Problem> {
    let steps = GroupRows { slots: SLOTS, groups: EXPERTS }.steps(target);
    let operands = [chosen(), offsets(), chosen(), chosen()];
    let launches = steps.launches.into_iter().enumerate().map(|(i, (kernel, slots))| {
        let given = slots.iter().map(|slot| match slot {
            Slot::Operand(i) => operands[*i].clone(),
            Slot::Temporary(i) => vec![0; steps.temporaries[*i]],
        });
        problem(format!("rows by expert, step {i}"), kernel, Amount::Elements(SLOTS), given.collect())
    });
    launches.collect()
}

fn rows(elem: Elem, target: &Target) -> Vec<Problem> {
    let (tokens, k, width) = (TOKENS, CHOSEN, WIDTH);
    let slots = || integers(SLOTS, |slot| (slot * 5 % SLOTS) as i32);
    let (few, many) = (numbers(elem, tokens * width), numbers(elem, SLOTS * width));
    let amount = Amount::Elements(SLOTS * width);
    let gather = Gather { tokens, k, width, elem }.build(target);
    let sum = SumRows { tokens, k, width, elem }.build(target);
    let name = |what: &str| format!("{what}, {}", elem.name());
    vec![
        problem(name("rows to experts"), gather, amount, vec![few.clone(), slots(), many.clone()]),
        problem(name("rows from experts"), sum, amount, vec![many, slots(), few]),
    ]
}
