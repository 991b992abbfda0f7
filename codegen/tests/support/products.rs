//! Matrix products as linear layers, their gradients and the output head need them, and what is computed on their own
//! beside them.
use super::parts::{glu, glu_gradient, residual, term};
use super::problems::{Amount, Problem, TOKENS, VOCAB, WIDTH, integers, numbers, problem};
use amc_kernels::Target;
use amc_kernels::emit::Elem::{self, Bf16, F32};
use amc_kernels::gemm::{Gemm, Operand, Term};
use amc_kernels::pointwise::Pointwise;
use amc_kernels::region::Region;

/// Columns of most products.
const COLUMNS: usize = 192;
/// Rank of a LoRA.
const RANK: usize = 8;

pub fn all(target: &Target) -> Vec<Problem> {
    let mut list = plain(target);
    list.extend([F32, Bf16].into_iter().flat_map(|elem| fused(elem, target)));
    list.extend([F32, Bf16].into_iter().flat_map(|elem| thin(elem, target)));
    list.extend(head(target));
    list
}

/// The product's problem. `count` is what the limits leave.
fn product(name: String, gemm: &Gemm, count: Option<usize>, target: &Target) -> Problem {
    let matrix = |o: &Operand, rows: usize, columns: usize| {
        numbers(o.elem, o.stride * if o.transposed { columns } else { rows })
    };
    let mut operands: Vec<Vec<u8>> = vec![];
    for term in &gemm.terms {
        operands.extend([matrix(&term.a, gemm.m, term.k), matrix(&term.b, term.k, gemm.n)]);
    }
    operands.extend(region_operands(&gemm.epilogue, 1, gemm.m * gemm.n));
    operands.extend(count.map(|count| integers(1, |_| count as i32)));
    let (rows, depth) = match count {
        Some(count) if gemm.row_limit.is_some() => (count, gemm.depth()),
        Some(count) => (gemm.m, count),
        None => (gemm.m, gemm.depth()),
    };
    problem(name, gemm.build(target), Amount::MultiplyAdds(rows * gemm.n * depth), operands)
}

/// Inputs from `first` on, and outputs; all of them full.
fn region_operands(region: &Region, first: usize, len: usize) -> Vec<Vec<u8>> {
    let inputs = region.inputs[first..].iter().map(|input| input.elem);
    inputs.chain(region.outputs.iter().map(|output| output.elem)).map(|elem| numbers(elem, len)).collect()
}

fn gemm(m: usize, n: usize, terms: Vec<Term>, epilogue: Region) -> Gemm {
    Gemm { m, n, terms, epilogue, row_limit: None, inner_limit: None }
}

/// Products alone: `x Wᵀ`, `dy W` and `dyᵀ x` in the storage forms that recipes lead to.
fn plain(target: &Target) -> Vec<Problem> {
    let mut list = vec![];
    for elems in [[F32, F32], [F32, Bf16], [Bf16, Bf16]] {
        let of =
            [("nt", (TOKENS, COLUMNS, WIDTH)), ("nn", (TOKENS, COLUMNS, WIDTH)), ("tn", (COLUMNS, COLUMNS, TOKENS))];
        for (form, size @ (m, n, k)) in of {
            let [a, b] = elems.map(Elem::name);
            let name = format!("{a} · {b} {form}, {m} x {n} x {k}");
            let gemm = gemm(m, n, vec![term(size, form, elems)], Region::identity(F32, elems[0]));
            list.push(product(name, &gemm, None, target));
        }
    }
    let size = (1, COLUMNS, WIDTH);
    let row = gemm(1, COLUMNS, vec![term(size, "nt", [Bf16, Bf16])], Region::identity(F32, Bf16));
    list.push(product(format!("bf16 · bf16 nt, 1 x {COLUMNS} x {WIDTH}"), &row, None, target));
    list
}

/// A linear layer's product with its LoRA, and what is stored instead of the sum.
fn fused(elem: Elem, target: &Target) -> Vec<Problem> {
    let (m, n) = (TOKENS, COLUMNS);
    let with_lora = |form: &str| [WIDTH, RANK].map(|k| term((m, n, k), form, [elem; 2])).into();
    let named = |what: &str| format!("{} linear + LoRA {what}, {m} x {n} x {WIDTH}", elem.name());
    let pointwise = Pointwise { m, n, region: glu_gradient(elem, elem) };
    let operands = region_operands(&pointwise.region, 0, m * n);
    let alone = format!("silu GLU gradient alone, {}", elem.name());
    vec![
        product(named("+ residual"), &gemm(m, n, with_lora("nt"), residual(elem)), None, target),
        product(named("+ silu GLU"), &gemm(m, n, with_lora("nt"), glu(elem)), None, target),
        product(named("+ silu GLU gradient"), &gemm(m, n, with_lora("nn"), glu_gradient(F32, elem)), None, target),
        problem(alone, pointwise.build(target), Amount::Elements(m * n), operands),
    ]
}

/// LoRA's own products: `x Aᵀ`, `dy B`, and the gradients of A and B.
fn thin(elem: Elem, target: &Target) -> Vec<Problem> {
    let sizes = [
        ("x aᵀ", "nt", (TOKENS, RANK, WIDTH), elem),
        ("dy b", "nn", (TOKENS, RANK, COLUMNS), elem),
        ("gradient of a", "tn", (RANK, WIDTH, TOKENS), F32),
        ("gradient of b", "tn", (COLUMNS, RANK, TOKENS), F32),
    ];
    let problem = |(what, form, size @ (m, n, k), output): (&str, &str, (usize, usize, usize), Elem)| {
        let name = format!("{} LoRA {what}, {m} x {n} x {k}", elem.name());
        product(name, &gemm(m, n, vec![term(size, form, [elem; 2])], Region::identity(F32, output)), None, target)
    };
    sizes.map(problem).into()
}

/// The output head on a block of rows, of which two thirds have a label.
fn head(target: &Target) -> Vec<Problem> {
    let labelled = TOKENS / 3 * 2;
    let logits = gemm(TOKENS, VOCAB, vec![term((TOKENS, VOCAB, WIDTH), "nt", [Bf16; 2])], Region::identity(F32, F32));
    // Gradients of logits lie where the rows of f32 logits began.
    let mut gradient = term((TOKENS, COLUMNS, VOCAB), "nn", [Bf16; 2]);
    gradient.a.stride = 2 * VOCAB;
    let by_rows = gemm(TOKENS, COLUMNS, vec![gradient], Region::identity(F32, Bf16));
    let mut gradient = term((VOCAB, COLUMNS, TOKENS), "tn", [Bf16; 2]);
    gradient.a.stride = 2 * VOCAB;
    let by_weight = gemm(VOCAB, COLUMNS, vec![gradient], residual(F32));
    let limited = |gemm: Gemm| Gemm { row_limit: Some(0), ..gemm };
    let inner = Gemm { inner_limit: Some(0), ..by_weight };
    let named = |what: &str| format!("bf16 head {what}, {labelled} labels of {TOKENS}");
    vec![
        product(named("logits"), &limited(logits), Some(labelled), target),
        product(named("gradient by rows"), &limited(by_rows), Some(labelled), target),
        product(named("gradient by weight"), &inner, Some(labelled), target),
    ]
}
