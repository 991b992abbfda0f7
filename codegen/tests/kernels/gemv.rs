//! Products with few rows go another way than others: their sizes, storage forms, terms and vector lengths.
use super::gemm::{check, plain, term};
use amc_kernels::emit::Elem::{self, Bf16, F32};
use amc_kernels::gemm::Gemm;
use amc_kernels::Kernel;

fn built(gemm: Gemm) -> (Gemm, Kernel) {
    let kernel = gemm.build(&super::target());
    assert!(kernel.symbol.starts_with("gemv_"), "{} is not built for few rows", kernel.symbol);
    (gemm, kernel)
}

#[test]
fn rows_columns_and_depths() {
    let sizes = [(1, 1, 1), (1, 100, 64), (2, 33, 40), (3, 7, 9), (4, 21, 16), (7, 50, 33), (16, 19, 100)];
    let case = |&(m, n, k)| built(plain(m, n, vec![term(m, n, k, "nt", [F32, F32], 3)], F32));
    check(sizes.iter().map(case).collect());
}

#[test]
fn elems_and_terms() {
    let case = |(m, elems): (usize, [Elem; 2])| {
        let terms = vec![term(m, 70, 50, "nt", elems, 1), term(m, 70, 8, "nt", [F32, F32], 0)];
        built(plain(m, 70, terms, elems[0]))
    };
    check([(1, [Bf16, Bf16]), (5, [Bf16, Bf16]), (1, [F32, Bf16]), (6, [Bf16, F32])].map(case).into());
}
