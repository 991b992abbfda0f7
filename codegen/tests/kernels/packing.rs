//! Products of matrices that were packed before: the bits that they have of the same ones as they are stored.
use super::gemm::{plain, stored, term};
use crate::harness::*;
use amc_kernels::emit::Elem::{Bf16, F32};
use amc_kernels::gemm::plan::Plan;
use amc_kernels::gemm::{Gemm, Packing};
use amc_kernels::{Kernel, Pairs, Target};

/// A product of one packed term and one that is not: its kernel, that of the same product as it is stored, and the packing kernel.
struct Case {
    gemm: Gemm,
    packing: Packing,
    kernels: [Kernel; 3],
}

impl Case {
    fn new(gemm: Gemm, plan: &Plan) -> Case {
        let term = &gemm.terms[0];
        let packing = Packing { k: term.k, n: gemm.n, stored: term.b, panel: plan.panel(term) };
        let mut packed = gemm.clone();
        packed.terms[0].packed = true;
        let kernels = [gemm.build_with(plan), packed.build_with(plan), packing.build()];
        Case { gemm, packing, kernels }
    }

    fn check(&self, library: &Loaded) {
        let mut buffers: Vec<Buffer> = (self.gemm.terms.iter().enumerate())
            .flat_map(|(t, term)| {
                let seed = 2 * t as u64;
                let (a, _) = stored(seed, &term.a, self.gemm.m, term.k);
                [a, stored(seed + 1, &term.b, term.k, self.gemm.n).0]
            })
            .collect();
        let [plain, on_packed, pack] = &self.kernels;
        let mut copy = Buffer::garbage(F32, self.packing.bytes() / 4);
        library.run(pack, &mut [&mut buffers[1], &mut copy]);
        let result = |kernel, buffers: &mut Vec<Buffer>| {
            let mut c = Buffer::garbage(F32, self.gemm.m * self.gemm.n);
            let mut operands: Vec<&mut Buffer> = buffers.iter_mut().chain([&mut c]).collect();
            library.run(kernel, &mut operands);
            c
        };
        let wanted = result(plain, &mut buffers);
        buffers[1] = copy;
        assert!(result(on_packed, &mut buffers) == wanted, "{:?} by {}", self.gemm, on_packed.symbol);
    }
}

/// Whole panels and a part of one, K in one go and in blocks, an odd number of steps.
#[test]
fn packed_before() {
    let lanes = super::target().lanes;
    let ways = [
        ((61, 90, 71), None, 4, 2),
        ((61, 90, 71), Some(16), 4, 1),
        ((24, 6 * lanes, 64), Some(32), 8, 3),
        ((5, 3 * lanes, 1), None, 4, 1),
    ];
    let mut cases = vec![];
    for form in ["nt", "nn"] {
        for (elem, pairs) in [(F32, None), (Bf16, Some(Pairs::Widened))] {
            for ((m, n, k), block_depth, m_cache, panels) in ways {
                let terms = vec![term(m, n, k, form, [elem; 2], 1), term(m, n, 9, form, [F32, F32], 2)];
                let plan =
                    Plan { lanes, rows: 4, vectors: 3, m_block: 16, panels, m_cache, block_depth, unroll: 4, pairs };
                cases.push(Case::new(plain(m, n, terms, F32), &plan));
            }
        }
    }
    let mut kernels: Vec<&Kernel> = cases.iter().flat_map(|case| &case.kernels).collect();
    kernels.sort_by_key(|kernel| &kernel.symbol);
    kernels.dedup();
    let library = load(&kernels);
    cases.iter().for_each(|case| case.check(&library));
}

/// What is packed before takes no more memory than as it is stored, and no product is worse for it.
#[test]
fn what_is_worth_packing() {
    let target: Target = super::target();
    let packs = |(m, n, k), form, elems| {
        let gemm = plain(m, n, vec![term(m, n, k, form, elems, 0)], F32);
        gemm.packing(0, &target).map(|(packing, times)| (packing.bytes(), times))
    };
    let pairs = target.pairs.is_some();
    let copy = |bytes| pairs.then_some(bytes);
    assert_eq!(packs((1024, 576, 1536), "nt", [F32, F32]).map(|found| found.0), Some(4 * 576 * 1536));
    assert_eq!(packs((1024, 576, 1536), "nt", [Bf16, Bf16]).map(|found| found.0), copy(2 * 576 * 1536));
    assert_eq!(packs((1024, 576, 1536), "nt", [F32, Bf16]), None, "it would be widened");
    assert_eq!(packs((1, 576, 1536), "nt", [F32, F32]), None, "a row reads it once");
    assert_eq!(packs((1024, 8, 1536), "nt", [F32, F32]), None, "it is turned over");
}
