//! Products by clusters of blocks, which copy tiles of B for each other: cuts of few columns and stages, so that small
//! problems have several clusters and walk around the ring.
use super::gemm::{check, check_epilogue, plain, rows_stop, steps_stop, term, with_epilogue};
use super::hopper_gemm::check_same_bits;
use amc_kernels::emit::Elem::{Bf16, F32};
use amc_kernels::gemm::{Gemm, Term};
use amc_kernels::gpu::product_by_warpgroups;
use amc_kernels::tuning::{WarpgroupTuning, hopper_gemm};
use amc_kernels::{Code, Kernel, Machine};

const FORMS: [&str; 4] = ["nn", "nt", "tn", "tt"];
/// Blocks of 128 x 128 in pairs.
const PAIRS: WarpgroupTuning =
    WarpgroupTuning { columns: 128, band: 4, stages: 3, tasks: 132, cluster: 2, least_rows: 1, least_columns: 1 };

fn cut(gemm: Gemm, cut: WarpgroupTuning) -> (Gemm, Kernel) {
    let kernel = product_by_warpgroups(&gemm, cut);
    assert_eq!(blocks_of_a_cluster(&kernel), cut.cluster);
    assert!((kernel.tasks as usize).is_multiple_of(cut.cluster));
    (gemm, kernel)
}

fn blocks_of_a_cluster(kernel: &Kernel) -> usize {
    let Code::Gpu(text, _) = &kernel.code else { panic!("`{}` is no kernel of a GPU's", kernel.symbol) };
    let Some((_, behind)) = text.split_once("nvvm.cluster_dim = array<i32: ") else { return 1 };
    behind.split_once(',').expect("three sizes").0.parse().expect("a number")
}

/// A term whose rows in memory are as far apart as copies want them.
fn copied(m: usize, n: usize, k: usize, form: &str) -> Term {
    let mut term = term(m, n, k, form, [Bf16, Bf16], 0);
    for operand in [&mut term.a, &mut term.b] {
        operand.stride = operand.stride.next_multiple_of(8);
    }
    term
}

/// One row of blocks, so that the second block of a pair has no rows; two; three, so that the last pair's has none.
#[test]
fn layouts() {
    let mut cases = vec![];
    for form in FORMS {
        for (m, n, k) in [(70, 130, 40), (250, 136, 72), (300, 270, 264)] {
            cases.push(cut(plain(m, n, vec![copied(m, n, k, form)], F32), PAIRS));
        }
    }
    check(cases);
}

/// More columns and more blocks of a cluster.
#[test]
fn wide_blocks_and_large_clusters() {
    let wide = WarpgroupTuning { columns: 256, stages: 4, ..PAIRS };
    let mut cases = vec![];
    for form in FORMS {
        for (m, cluster) in [(200, 2), (700, 4)] {
            let gemm = plain(m, 300, vec![copied(m, 300, 330, form)], Bf16);
            cases.push(cut(gemm, WarpgroupTuning { cluster, ..wide }));
        }
    }
    check(cases);
}

/// Fewer clusters than places, in one band and in several, whose last is lower than the others; an odd number of rows
/// of blocks.
#[test]
fn few_tasks() {
    let mut cases = vec![];
    for (m, n, k, tasks, band) in [(300, 390, 200, 2, 4), (1100, 150, 72, 4, 4), (600, 400, 40, 6, 2)] {
        let of = WarpgroupTuning { tasks, band, ..PAIRS };
        cases.push(cut(plain(m, n, vec![copied(m, n, k, "nn")], F32), of));
        let terms = vec![copied(m, n, k, "nt"), term(m, n, 12, "nt", [F32, Bf16], 0), copied(m, n, 16, "tn")];
        cases.push(cut(plain(m, n, terms, Bf16), of));
    }
    assert!(cases.iter().all(|(_, kernel)| kernel.tasks <= 6));
    check(cases);
}

/// Terms whose A threads load, and those whose B they load, too, which no cluster copies: the ring stays in step.
#[test]
fn terms_that_threads_load() {
    let (m, n) = (300, 136);
    let wide = |k, form| term(m, n, k, form, [F32, Bf16], 0);
    let layer = vec![copied(m, n, 330, "nt"), wide(16, "nt")];
    let unaligned = vec![wide(4, "nt"), copied(m, n, 200, "nt"), wide(36, "nt"), copied(m, n, 72, "tt")];
    let gradient = vec![wide(8, "nn"), copied(m, n, 72, "nn"), wide(12, "nt"), copied(m, n, 200, "nn")];
    check([layer, unaligned, gradient].map(|terms| cut(plain(m, n, terms, F32), PAIRS)).into());
}

/// Of the limits some leave a pair its first block's rows alone, some none.
#[test]
fn rows_stop_at_the_count() {
    let (m, n) = (330, 136);
    let terms = vec![copied(m, n, 88, "nt"), term(m, n, 12, "nt", [F32, Bf16], 0)];
    for tasks in [2, 132] {
        let gemm = Gemm { row_limit: Some(100), ..plain(m, n, terms.clone(), F32) };
        let (gemm, kernel) = cut(gemm, WarpgroupTuning { tasks, ..PAIRS });
        rows_stop(&gemm, &kernel);
    }
}

#[test]
fn steps_stop_at_the_count() {
    let (m, n) = (136, 136);
    for form in FORMS {
        let a = if form.starts_with('n') { F32 } else { Bf16 };
        let terms = vec![term(m, n, 96, form, [Bf16, Bf16], 0), term(m, n, 40, form, [a, Bf16], 0)];
        let (gemm, kernel) = cut(Gemm { inner_limit: Some(10), ..plain(m, n, terms, F32) }, PAIRS);
        steps_stop(&gemm, &[kernel]);
    }
    let (m, n) = (300, 200);
    let terms = vec![term(m, n, 77, "nt", [F32, Bf16], 0), copied(m, n, 96, "tn")];
    let gemm = Gemm { inner_limit: Some(10), ..plain(m, n, terms, F32) };
    let (gemm, kernel) = cut(gemm, WarpgroupTuning { tasks: 2, ..PAIRS });
    steps_stop(&gemm, &[kernel]);
}

#[test]
fn epilogues() {
    for (m, n, elem, tasks) in [(300, 136, F32, 2), (140, 131, Bf16, 132)] {
        let terms = vec![copied(m, n, 88, "nt"), copied(m, n, 16, "nn")];
        let (gemm, kernel) = cut(with_epilogue(m, n, terms, elem), WarpgroupTuning { tasks, ..PAIRS });
        check_epilogue(&gemm, &kernel);
    }
}

/// Whether blocks copy alone or together changes no bit.
#[test]
fn clusters_change_no_bit() {
    let (m, n, k) = (500, 300, 200);
    let gemm = plain(m, n, vec![copied(m, n, k, "nt"), term(m, n, 4, "nt", [F32, Bf16], 0)], F32);
    let kernels = [(1, 9), (2, 132), (2, 4)].map(|(cluster, tasks)| {
        let of = WarpgroupTuning { cluster, tasks, band: 4, ..PAIRS };
        let of = if cluster == 1 { WarpgroupTuning { band: 3, ..of } } else { of };
        cut(gemm.clone(), of).1
    });
    check_same_bits(kernels, (m, n, k));
}

/// Which products the table gives clusters: none that would compute many blocks in vain, or take more turns for few, or
/// that copies no B.
#[test]
fn what_takes_clusters() {
    let of = |m, n, terms| blocks_of_a_cluster(&super::target().product(&plain(m, n, terms, F32)));
    for (m, n, clusters) in [(2048, 4096, 2), (896, 4096, 1), (1152, 4096, 2), (1408, 3072, 1)] {
        assert_eq!(hopper_gemm(m, n).expect("warpgroups suit it").cluster, clusters);
        assert_eq!(of(m, n, vec![copied(m, n, 512, "nt")]), clusters);
    }
    assert_eq!(of(2048, 4096, vec![term(2048, 4096, 4, "nt", [F32, Bf16], 0)]), 1);
    assert_eq!(of(2048, 64, vec![copied(2048, 64, 512, "nt")]), 1);
}
