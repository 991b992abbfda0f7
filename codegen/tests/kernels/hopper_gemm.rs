//! Products by warpgroups, in every cut of the tuning table, with sizes that divide nothing.
use super::gemm::{check, check_epilogue, plain, rows_stop, steps_stop, term, with_epilogue};
use crate::harness::{Buffer, load, random_buffer};
use amc_kernels::emit::Elem::{Bf16, F32};
use amc_kernels::gemm::Gemm;
use amc_kernels::gpu::product_by_warpgroups;
use amc_kernels::tuning::{WarpgroupTuning, hopper_gemm};
use amc_kernels::{Kernel, Machine};

const FORMS: [&str; 4] = ["nn", "nt", "tn", "tt"];

/// The kernel, which is one of warpgroups with blocks of so many columns.
fn built(gemm: Gemm, columns: usize) -> (Gemm, Kernel) {
    let kernel = super::target().product(&gemm);
    assert!(kernel.symbol.starts_with(&format!("gemm_wg{columns}_")), "{gemm:?}: {}", kernel.symbol);
    (gemm, kernel)
}

/// The kernel without clusters and with so few tasks that each computes several blocks.
fn shared_out(gemm: Gemm, tasks: usize) -> (Gemm, Kernel) {
    let cut = hopper_gemm(gemm.m, gemm.n).expect("warpgroups suit it");
    let kernel = product_by_warpgroups(&gemm, WarpgroupTuning { tasks, ..cut.alone() });
    assert_eq!(kernel.tasks as usize, tasks);
    (gemm, kernel)
}

/// Rows with and without gaps; results of both storage forms, at columns that are stored four at a time and alone.
#[test]
fn layouts() {
    let mut cases = vec![];
    for form in FORMS {
        for (m, n, k, gap, output) in [(72, 40, 64, 0, F32), (136, 72, 200, 8, Bf16), (200, 136, 24, 16, F32)] {
            cases.push(built(plain(m, n, vec![term(m, n, k, form, [Bf16, Bf16], gap)], output), 64));
        }
    }
    for (m, n, k) in [(65, 33, 1), (130, 67, 77), (129, 190, 512)] {
        // Rows in memory are multiples of 16 bytes apart, whatever they hold.
        let mut odd = term(m, n, k, "nt", [Bf16, Bf16], 0);
        [odd.a.stride, odd.b.stride] = [k.next_multiple_of(8); 2];
        cases.push(built(plain(m, n, vec![odd], Bf16), 64));
    }
    check(cases);
}

/// So large results that they are cut into larger blocks, which walk more than once around the ring.
#[test]
fn cuts() {
    let of = |(m, n, k, form, columns)| built(plain(m, n, vec![term(m, n, k, form, [Bf16, Bf16], 0)], F32), columns);
    check([(1160, 1176, 456, "nt", 128), (1160, 1176, 72, "tt", 128)].map(of).into());
    check([(808, 3400, 328, "nt", 256), (808, 3400, 72, "tn", 256)].map(of).into());
}

/// More blocks down than a band has, not a multiple of it.
#[test]
fn bands() {
    let (m, n) = (2184, 600);
    check(vec![built(plain(m, n, vec![term(m, n, 40, "nt", [Bf16, Bf16], 0)], F32), 64)]);
}

/// Fewer tasks than blocks: as many blocks for each, and one more for some; rings that a block walks around more than once, in
/// part, or so little that the next block's tiles are on their way before its own are multiplied.
#[test]
fn few_tasks() {
    let mut cases = vec![];
    for (m, n, k, tasks) in [(200, 190, 72, 2), (300, 150, 600, 2), (390, 130, 40, 4), (140, 200, 300, 1)] {
        cases.push(shared_out(plain(m, n, vec![term(m, n, k, "nn", [Bf16, Bf16], (8 - n % 8) % 8)], F32), tasks));
        let mut terms = vec![term(m, n, k, "nt", [Bf16, Bf16], 0), term(m, n, 12, "nt", [F32, Bf16], 0)];
        terms.extend([term(m, n, 16, "nt", [F32, Bf16], 0), term(m, n, 4, "nt", [Bf16, Bf16], 0)]);
        cases.push(shared_out(plain(m, n, terms, Bf16), tasks));
    }
    check(cases);
    let large = |(m, n, k, tasks)| shared_out(plain(m, n, vec![term(m, n, k, "nt", [Bf16, Bf16], 0)], F32), tasks);
    check([(1160, 1176, 136, 25), (808, 3400, 72, 31)].map(large).into());
}

/// Sizes as models have them, of which the compiler knows that tiles fill the ring's turns and blocks the result.
#[test]
fn powers_of_two() {
    let of = |form| shared_out(plain(512, 256, vec![term(512, 256, 512, form, [Bf16, Bf16], 0)], Bf16), 2);
    check(FORMS.map(of).into());
}

#[test]
fn few_tasks_with_epilogues_and_limits() {
    let (m, n) = (330, 136);
    let terms = vec![term(m, n, 88, "nt", [Bf16, Bf16], 0), term(m, n, 12, "nt", [F32, Bf16], 0)];
    let (gemm, kernel) = shared_out(with_epilogue(m, n, terms.clone(), Bf16), 4);
    check_epilogue(&gemm, &kernel);
    let (gemm, kernel) = shared_out(Gemm { row_limit: Some(100), ..plain(m, n, terms, F32) }, 2);
    rows_stop(&gemm, &kernel);
    let mut terms = vec![term(m, n, 96, "tn", [Bf16, Bf16], 0), term(m, n, 40, "nt", [F32, Bf16], 0)];
    terms[0].a.stride = m.next_multiple_of(8);
    let (gemm, kernel) = shared_out(Gemm { inner_limit: Some(10), ..plain(m, n, terms, F32) }, 2);
    steps_stop(&gemm, &[kernel]);
}

/// Which task computes a block changes no bit.
#[test]
fn any_number_of_tasks_gives_the_same_bits() {
    let (m, n, k) = (300, 150, 200);
    let gemm = plain(m, n, vec![term(m, n, k, "nt", [Bf16, Bf16], 0), term(m, n, 4, "nt", [F32, Bf16], 0)], F32);
    check_same_bits([1, 2, 9].map(|tasks| shared_out(gemm.clone(), tasks).1), (m, n, k));
}

/// Checks that kernels of a product of bf16, and of four steps of an f32 matrix besides, give one result.
pub fn check_same_bits(kernels: [Kernel; 3], (m, n, k): (usize, usize, usize)) {
    let library = load(&kernels.iter().collect::<Vec<_>>());
    let results = kernels.each_ref().map(|kernel| {
        let sizes = [(Bf16, m * k), (Bf16, n * k), (F32, m * 4), (Bf16, n * 4)];
        let mut operands: Vec<Buffer> = sizes.map(|(elem, count)| random_buffer(count as u64, elem, count).0).into();
        operands.push(Buffer::garbage(F32, m * n));
        library.run(kernel, &mut operands.iter_mut().collect::<Vec<_>>());
        operands.pop().expect("the result")
    });
    assert!(results[0] == results[1] && results[0] == results[2]);
}

/// A layer's weight beside its LoRA, and gradients that three layers add up, each stored in its own way.
#[test]
fn terms() {
    let (m, n) = (136, 104);
    let of = |k, form, gap| term(m, n, k, form, [Bf16, Bf16], gap);
    let lora = vec![of(600, "nt", 0), of(8, "nt", 0)];
    let gradients = vec![of(72, "nn", 8), of(16, "tn", 0), of(200, "tt", 0)];
    check([lora, gradients].map(|terms| built(plain(m, n, terms, Bf16), 64)).into());
}

/// Sums in f32 times a matrix of bf16: of any rank, in the layouts that a LoRA and its gradient need, before or behind.
#[test]
fn wide_terms() {
    let (m, n) = (136, 104);
    let of = |k, form, a| term(m, n, k, form, [a, Bf16], 0);
    let mut odd = of(9, "nt", F32);
    odd.b.stride = 16;
    let lora = vec![of(600, "nt", Bf16), of(16, "nt", F32)];
    let gradient = vec![of(8, "nn", F32), of(72, "nn", Bf16), of(8, "nn", F32), of(200, "nn", Bf16)];
    let long = vec![of(72, "nt", Bf16), of(200, "nn", F32)];
    check([lora, gradient, long, vec![odd]].map(|terms| built(plain(m, n, terms, F32), 64)).into());
    let large = |(m, n, columns)| {
        let terms = vec![term(m, n, 64, "nt", [Bf16, Bf16], 0), term(m, n, 24, "nt", [F32, Bf16], 0)];
        built(plain(m, n, terms, F32), columns)
    };
    check([(1160, 1176, 128), (808, 3400, 256)].map(large).into());
}

/// Ranks whose rows no copy takes, shorter than a product's steps and longer than a tile, beside terms in the ring.
#[test]
fn unaligned_ranks() {
    let of = |m, n, k, form, a| term(m, n, k, form, [a, Bf16], 0);
    let mut cases = vec![];
    for (rank, a) in [(4, F32), (6, Bf16), (12, F32), (36, F32), (100, Bf16)] {
        let (m, n) = (136, 104);
        let layer = vec![of(m, n, 600, "nt", Bf16), of(m, n, rank, "nt", a)];
        let gradient = vec![of(m, n, rank, "nn", a), of(m, n, 72, "nn", Bf16), of(m, n, rank, "nn", a)];
        cases.extend([layer, gradient].map(|terms| built(plain(m, n, terms, F32), 64)));
    }
    let (m, n) = (130, 67);
    let mut aligned_a = of(m, n, 20, "nt", Bf16);
    aligned_a.a.stride = 24;
    cases.push(built(plain(m, n, vec![aligned_a], Bf16), 64));
    let large = |(m, n, columns)| {
        let terms = vec![of(m, n, 20, "nt", Bf16), of(m, n, 64, "nt", Bf16), of(m, n, 4, "nt", F32)];
        built(plain(m, n, terms, F32), columns)
    };
    cases.extend([(1160, 1176, 128), (808, 3400, 256)].map(large));
    check(cases);
}

#[test]
fn epilogues() {
    for (m, n, elem) in [(136, 72, F32), (72, 136, Bf16), (130, 71, Bf16)] {
        let mut terms = vec![term(m, n, 88, "nt", [Bf16, Bf16], 0), term(m, n, 16, "nn", [Bf16, Bf16], 0)];
        terms[1].b.stride = n.next_multiple_of(8);
        let (gemm, kernel) = built(with_epilogue(m, n, terms, elem), 64);
        check_epilogue(&gemm, &kernel);
    }
}

#[test]
fn rows_stop_at_the_count() {
    let (m, n) = (200, 104);
    let terms = vec![term(m, n, 72, "nt", [Bf16, Bf16], 0)];
    let (gemm, kernel) = built(Gemm { row_limit: Some(100), ..plain(m, n, terms, F32) }, 64);
    rows_stop(&gemm, &kernel);
}

/// Limits within a tile, at its end, and beyond; in the second term, too.
#[test]
fn steps_stop_at_the_count() {
    let (m, n) = (136, 72);
    for form in FORMS {
        let a = if form.starts_with('n') { F32 } else { Bf16 };
        let terms = vec![term(m, n, 96, form, [Bf16, Bf16], 0), term(m, n, 40, form, [a, Bf16], 0)];
        let (gemm, kernel) = built(Gemm { inner_limit: Some(10), ..plain(m, n, terms, F32) }, 64);
        steps_stop(&gemm, &[kernel]);
    }
    for a in [F32, Bf16] {
        let terms = vec![term(m, n, 77, "nt", [a, Bf16], 0), term(m, n, 96, "tn", [Bf16, Bf16], 0)];
        let (gemm, kernel) = built(Gemm { inner_limit: Some(10), ..plain(m, n, terms, F32) }, 64);
        steps_stop(&gemm, &[kernel]);
    }
}

/// What warpgroups cannot compute, or would waste most of, is left to the kernels of any GPU.
#[test]
fn other_products() {
    let mut cases = vec![];
    let odd = |m, n, k| term(m, n, k, "nt", [Bf16, Bf16], 0);
    for (m, n, term) in [
        (64, 256, odd(64, 256, 64)),
        (256, 32, odd(256, 32, 64)),
        (136, 72, odd(136, 72, 260)),
        (136, 70, term(136, 70, 64, "nn", [Bf16, Bf16], 0)),
        (136, 72, term(136, 72, 64, "nt", [F32, F32], 0)),
        (136, 72, term(136, 72, 64, "tn", [F32, Bf16], 0)),
    ] {
        let gemm = plain(m, n, vec![term], F32);
        let kernel = super::target().product(&gemm);
        assert!(!kernel.symbol.starts_with("gemm_wg"), "{gemm:?}: {}", kernel.symbol);
        cases.push((gemm, kernel));
    }
    check(cases);
}
