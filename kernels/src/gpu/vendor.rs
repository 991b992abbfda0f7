//! Products that the vendor's library, cuBLASLt, computes instead of a kernel of ours.
//!
//! The library can do sums of one term, of two bf16 matrices, stored as f32 or bf16, and it can add a matrix that is stored as
//! the result is. It knows no limits and no other epilogue. What it can, it does where the tuning table says so
//! ([`crate::tuning::vendor_product`]).
use super::Gpu;
use super::tensor_map::TensorMap;
use crate::emit::Elem;
use crate::gemm::{Gemm, Operand};
use crate::loops::digest;
use crate::region::{Broadcast, Region, RegionInput, RegionValue, ScalarOp};
use crate::tuning::vendor_product;
use crate::{Code, Kernel};

/// Which products go to the vendor's library.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vendor {
    Never,
    /// Those of the tuning table.
    Tuned,
    /// All that it can do.
    Always,
}

/// `D[m, n] = A · B`, or `A · B + C`, of bf16 matrices, summed in f32.
///
/// Operands, in order: A, B, C where it adds, D (which may be C), workspace. All begin at multiples of 16 bytes, and so do
/// their rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VendorProduct {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    /// Stored `[m, k]`, or `[k, m]` if transposed.
    pub a: Operand,
    /// Stored `[k, n]`, or `[n, k]` if transposed.
    pub b: Operand,
    /// How C and D are stored, without gaps.
    pub out: Elem,
    pub adds: bool,
    pub workspace_bytes: usize,
}

/// The product as the library's, if it is to compute it.
pub(super) fn product(gemm: &Gemm, gpu: &Gpu) -> Option<Kernel> {
    let row = match gpu.vendor {
        Vendor::Never => return None,
        Vendor::Tuned => vendor_product(gpu.arch),
        Vendor::Always => vendor_product(gpu.arch).without_limits(),
    };
    let product = VendorProduct::of(gemm, row.workspace_bytes)?;
    row.takes(&product).then(|| product.kernel(gemm))
}

impl VendorProduct {
    /// The product, if the library can compute it.
    fn of(gemm: &Gemm, workspace_bytes: usize) -> Option<VendorProduct> {
        let [term] = gemm.terms[..] else { return None };
        let (out, adds) = stored(&gemm.epilogue)?;
        let result = Operand { elem: out, transposed: false, stride: gemm.n };
        let factors = [term.a, term.b];
        let suits = factors.iter().all(|factor| factor.elem == Elem::Bf16 && TensorMap::suits(factor));
        let limited = gemm.row_limit.is_some() || gemm.inner_limit.is_some();
        let product =
            VendorProduct { m: gemm.m, n: gemm.n, k: term.k, a: term.a, b: term.b, out, adds, workspace_bytes };
        (suits && !limited && TensorMap::suits(&result)).then_some(product)
    }

    fn kernel(self, gemm: &Gemm) -> Kernel {
        let adds = if self.adds { "_add" } else { "" };
        let symbol = format!("cublaslt_{}{adds}_{:08x}", gemm.name(), digest(&format!("{self:?}")) as u32);
        let work = gemm.work("product_vendor");
        Kernel { symbol, code: Code::Vendor(self), tasks: 1, scratch_bytes: 0, work }
    }
}

/// How an epilogue stores the sum, and whether it first adds a matrix that is stored so too; none where it does anything else.
fn stored(epilogue: &Region) -> Option<(Elem, bool)> {
    let [output] = epilogue.outputs[..] else { return None };
    match (&epilogue.inputs[1..], &epilogue.nodes[..], output.value) {
        ([], [], RegionValue::Input(0)) => Some((output.elem, false)),
        ([added], [node], RegionValue::Node(0)) => {
            let (sum, other) = (RegionValue::Input(0), RegionValue::Input(1));
            let adds = node.op == ScalarOp::Add && (node.args == [sum, other] || node.args == [other, sum]);
            let alike = *added == RegionInput { elem: output.elem, broadcast: Broadcast::Full };
            (adds && alike).then_some((output.elem, true))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::Term;
    use crate::gpu::Arch;
    use crate::region::{RegionNode, RegionOutput};

    fn gemm(m: usize, n: usize, k: usize) -> Gemm {
        let a = Operand { elem: Elem::Bf16, transposed: false, stride: k };
        let b = Operand { elem: Elem::Bf16, transposed: true, stride: k };
        let epilogue = Region::identity(Elem::F32, Elem::Bf16);
        Gemm { m, n, terms: vec![Term { k, a, b, packed: false }], epilogue, row_limit: None, inner_limit: None }
    }

    /// The sum and a matrix of `elem`, joined by `op`, stored as `out`.
    fn joined(op: ScalarOp, elem: Elem, broadcast: Broadcast, out: Elem) -> Region {
        let args = vec![RegionValue::Input(1), RegionValue::Input(0)];
        Region {
            inputs: vec![RegionInput { elem: Elem::F32, broadcast: Broadcast::Full }, RegionInput { elem, broadcast }],
            nodes: vec![RegionNode { op, args }],
            outputs: vec![RegionOutput { value: RegionValue::Node(0), elem: out }],
        }
    }

    fn chosen(gemm: &Gemm, vendor: Vendor) -> Option<VendorProduct> {
        let kernel = product(gemm, &Gpu { arch: Arch::Sm90a, vendor, tf32: false })?;
        let Code::Vendor(product) = kernel.code else { panic!("{} has code", kernel.symbol) };
        Some(product)
    }

    fn can(change: impl FnOnce(&mut Gemm)) -> bool {
        let mut gemm = gemm(24, 16, 40);
        change(&mut gemm);
        chosen(&gemm, Vendor::Always).is_some()
    }

    #[test]
    fn the_library_does_what_it_can_and_nothing_else() {
        use Broadcast::{Full, Row};
        use Elem::{Bf16, F32};
        let epilogue = |region| can(|gemm| gemm.epilogue = region);
        assert!(can(|_| {}) && epilogue(Region::identity(F32, F32)));
        assert!(epilogue(joined(ScalarOp::Add, F32, Full, F32)) && epilogue(joined(ScalarOp::Add, Bf16, Full, Bf16)));
        assert!(!epilogue(joined(ScalarOp::Mul, F32, Full, F32)) && !epilogue(joined(ScalarOp::Sub, F32, Full, F32)));
        assert!(!epilogue(joined(ScalarOp::Add, F32, Row, F32)) && !epilogue(joined(ScalarOp::Add, Bf16, Full, F32)));
        let twice = |gemm: &mut Gemm| gemm.epilogue.nodes[0].args = vec![RegionValue::Input(1); 2];
        assert!(!can(|gemm| {
            gemm.epilogue = joined(ScalarOp::Add, F32, Full, F32);
            twice(gemm);
        }));
        assert!(!can(|gemm| gemm.epilogue.outputs.push(gemm.epilogue.outputs[0])));
        assert!(!can(|gemm| gemm.terms.push(gemm.terms[0])));
        assert!(!can(|gemm| gemm.terms[0].a.elem = F32) && !can(|gemm| gemm.terms[0].b.elem = F32));
        assert!(!can(|gemm| gemm.row_limit = Some(0)) && !can(|gemm| gemm.inner_limit = Some(0)));
        // Rows of 82 bytes, and a result with rows of 34 bytes.
        assert!(!can(|gemm| gemm.terms[0].a.stride = 41) && !can(|gemm| gemm.terms[0].b.stride = 41));
        assert!(!can(|gemm| gemm.n = 17));
    }

    #[test]
    fn the_table_leaves_it_what_is_large_and_plain() {
        let large = gemm(4096, 4096, 4096);
        let found = chosen(&large, Vendor::Tuned).expect("a large product");
        assert_eq!((found.m, found.n, found.k, found.out, found.adds), (4096, 4096, 4096, Elem::Bf16, false));
        assert_eq!(chosen(&large, Vendor::Never), None);
        let gradient = Gemm { epilogue: joined(ScalarOp::Add, Elem::F32, Broadcast::Full, Elem::F32), ..large.clone() };
        assert!(chosen(&gradient, Vendor::Tuned).is_some_and(|product| product.adds));
        let residual = Gemm { epilogue: joined(ScalarOp::Add, Elem::Bf16, Broadcast::Full, Elem::Bf16), ..large };
        assert_eq!(chosen(&residual, Vendor::Tuned), None);
        assert!(chosen(&residual, Vendor::Always).is_some_and(|product| product.adds));
        for small in [gemm(512, 4096, 4096), gemm(4096, 512, 4096), gemm(4096, 4096, 128)] {
            assert_eq!(chosen(&small, Vendor::Tuned), None);
            assert!(chosen(&small, Vendor::Always).is_some());
        }
    }

    #[test]
    fn other_products_have_other_symbols() {
        let gpu = Gpu { arch: Arch::Sm80, vendor: Vendor::Always, tf32: false };
        let symbol = |change: &dyn Fn(&mut Gemm)| {
            let mut gemm = gemm(24, 16, 40);
            change(&mut gemm);
            product(&gemm, &gpu).expect("a product of the library's").symbol
        };
        let changes: [&dyn Fn(&mut Gemm); 5] = [
            &|_| {},
            &|gemm| gemm.terms[0].a.stride = 48,
            &|gemm| gemm.terms[0].b.transposed = false,
            &|gemm| gemm.epilogue = Region::identity(Elem::F32, Elem::F32),
            &|gemm| gemm.epilogue = joined(ScalarOp::Add, Elem::Bf16, Broadcast::Full, Elem::Bf16),
        ];
        let symbols: std::collections::BTreeSet<String> = changes.iter().map(|change| symbol(*change)).collect();
        assert_eq!(symbols.len(), changes.len(), "{symbols:?}");
    }
}
