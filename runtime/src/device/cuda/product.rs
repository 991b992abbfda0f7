//! A product that cuBLASLt computes: what the library is told of it, and the algorithm that it has chosen.
//!
//! Invariants:
//! - The algorithm is chosen once, when the plan is loaded, by the library's own rules and without measuring anything: from the
//!   product, the GPU and the library's release alone.
//! - Parts of a sum are joined in an order of their own: none is added where another block adds, so the same GPU and the same
//!   release give the same bits.
//! - It uses no memory of the GPU but its operands and the planned workspace.
use super::cublaslt::{Handle, NOT_SUPPORTED, Status};
use super::stream::Stream;
use amc_artifact::{Matrix, OPERAND_ALIGNMENT, Storage, VendorProduct};
use anyhow::{Result, bail, ensure};
use cudarc::cublaslt::sys::{
    self, cublasLtMatmulDescAttributes_t as About, cublasLtMatmulPreferenceAttributes_t as Preferred,
    cublasLtReductionScheme_t as Reduction,
};
use std::ffi::c_void;
use std::rc::Rc;

/// `cublasOperation_t`.
const PLAIN: i32 = 0;
const TRANSPOSED: i32 = 1;

/// A product, ready to be launched.
pub struct Product {
    pub symbol: String,
    algorithm: sys::cublasLtMatmulAlgo_t,
    adds: bool,
    workspace_bytes: usize,
    // Fields are dropped in this order: the library is closed after what it made.
    parts: Parts,
    handle: Rc<Handle>,
}

/// What the library made of a product. It takes matrices column by column, and what is stored row by row is, column by column,
/// the transposed matrix: so `D = A · B` is `Dᵀ = Bᵀ · Aᵀ` to it, whose first factor is our B.
struct Parts {
    descriptor: Owned<sys::cublasLtMatmulDescOpaque_t>,
    first: Owned<sys::cublasLtMatrixLayoutOpaque_t>,
    second: Owned<sys::cublasLtMatrixLayoutOpaque_t>,
    /// C and D.
    result: Owned<sys::cublasLtMatrixLayoutOpaque_t>,
}

/// Something that the library made, and how it is given back.
struct Owned<T> {
    raw: *mut T,
    destroy: unsafe extern "C" fn(*mut T) -> Status,
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: it was made once, and whoever has it keeps the library open.
        let _ = unsafe { (self.destroy)(self.raw) };
    }
}

impl Product {
    /// # Errors
    /// What the library says of the product, or that it cannot compute it within the workspace.
    pub fn new(handle: &Rc<Handle>, symbol: &str, product: &VendorProduct) -> Result<Product> {
        let parts = Parts::new(handle, product)?;
        let workspace_bytes = product.workspace_bytes as usize;
        let algorithm = parts.algorithm(handle, workspace_bytes)?;
        let (symbol, adds) = (symbol.to_string(), product.adds);
        Ok(Product { symbol, algorithm, adds, workspace_bytes, parts, handle: handle.clone() })
    }

    /// Puts it into the stream, with the addresses of a launch.
    ///
    /// # Safety
    /// The addresses are those of A, B, C where it adds, D and workspace, of memory that lives until the launch, or a graph of
    /// it, is done with.
    pub unsafe fn launch(&self, stream: &Stream, addresses: &[u64]) -> Result<()> {
        let [a, b, ref added @ .., d, workspace] = *addresses else { bail!("too few operands") };
        ensure!(added.len() == usize::from(self.adds), "{} operands", addresses.len());
        // What is not added is not read, yet wants an address.
        let c = added.first().copied().unwrap_or(d);
        let (alpha, beta) = (1f32, if self.adds { 1f32 } else { 0f32 });
        let Parts { descriptor, first, second, result } = &self.parts;
        // SAFETY: the factors are read, and kept in a graph, before the function returns; the rest is the caller's promise.
        let status = unsafe {
            (self.handle.library.functions.multiply)(
                self.handle.raw(),
                descriptor.raw,
                &alpha,
                b,
                first.raw,
                a,
                second.raw,
                &beta,
                c,
                result.raw,
                d,
                result.raw,
                &self.algorithm,
                workspace,
                self.workspace_bytes,
                stream.raw(),
            )
        };
        self.handle.library.said(status, "cuBLASLt refuses it")
    }
}

impl Parts {
    fn new(handle: &Handle, product: &VendorProduct) -> Result<Parts> {
        let (library, functions) = (&handle.library, &handle.library.functions);
        let mut raw = std::ptr::null_mut();
        let (compute, scale) = (sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, sys::cudaDataType_t::CUDA_R_32F);
        // SAFETY: the function writes a descriptor.
        let created = unsafe { (functions.create_descriptor)(&mut raw, compute, scale) };
        library.said(created, "cannot describe a product to cuBLASLt")?;
        let descriptor = Owned { raw, destroy: functions.destroy_descriptor };
        let turned = [(About::CUBLASLT_MATMUL_DESC_TRANSA, product.b), (About::CUBLASLT_MATMUL_DESC_TRANSB, product.a)];
        for (attribute, factor) in turned {
            let operation = if factor.transposed { TRANSPOSED } else { PLAIN };
            let value = std::ptr::from_ref(&operation).cast::<c_void>();
            // SAFETY: the function copies a number of that size.
            let set = unsafe { (functions.describe)(descriptor.raw, attribute, value, size_of_val(&operation)) };
            library.said(set, "cannot describe a product to cuBLASLt")?;
        }
        let layout = |matrix: Matrix| layout(handle, &matrix);
        Ok(Parts {
            descriptor,
            first: layout(product.b())?,
            second: layout(product.a())?,
            result: layout(product.result())?,
        })
    }

    /// The algorithm that the library thinks best.
    fn algorithm(&self, handle: &Handle, workspace_bytes: usize) -> Result<sys::cublasLtMatmulAlgo_t> {
        let (library, functions) = (&handle.library, &handle.library.functions);
        let preference = preference(handle, workspace_bytes)?;
        let (mut found, mut best) = (0, std::mem::MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::uninit());
        let Parts { descriptor, first, second, result } = self;
        // SAFETY: all of it lives; the function writes at most one result, and how many it wrote.
        let status = unsafe {
            (functions.find_algorithms)(
                handle.raw(),
                descriptor.raw,
                first.raw,
                second.raw,
                result.raw,
                result.raw,
                preference.raw,
                1,
                best.as_mut_ptr(),
                &mut found,
            )
        };
        if status != NOT_SUPPORTED {
            library.said(status, "cuBLASLt cannot choose an algorithm")?;
        }
        ensure!(
            status != NOT_SUPPORTED && found == 1,
            "{} has no algorithm for it that keeps to {workspace_bytes} bytes of workspace: compile with `amc compile \
             --no-vendor`",
            library.summary()
        );
        // SAFETY: the function has written one. Of its status it is not known whether Rust has a name for it.
        Ok(unsafe { (*best.as_ptr()).algo })
    }
}

/// A stored matrix as the library sees it.
fn layout(handle: &Handle, matrix: &Matrix) -> Result<Owned<sys::cublasLtMatrixLayoutOpaque_t>> {
    let (library, functions) = (&handle.library, &handle.library.functions);
    let storage = match matrix.storage {
        Storage::F32 => sys::cudaDataType_t::CUDA_R_32F,
        Storage::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
        Storage::I32 => sys::cudaDataType_t::CUDA_R_32I,
    };
    let mut raw = std::ptr::null_mut();
    // SAFETY: the function writes a layout.
    let created =
        unsafe { (functions.create_layout)(&mut raw, storage, matrix.columns, matrix.rows, matrix.stride as i64) };
    library.said(created, format_args!("cannot describe {matrix:?} to cuBLASLt"))?;
    Ok(Owned { raw, destroy: functions.destroy_layout })
}

/// What an algorithm has to keep to.
fn preference(handle: &Handle, workspace_bytes: usize) -> Result<Owned<sys::cublasLtMatmulPreferenceOpaque_t>> {
    let (library, functions) = (&handle.library, &handle.library.functions);
    const FAILED: &str = "cannot tell cuBLASLt what an algorithm has to keep to";
    let mut raw = std::ptr::null_mut();
    // SAFETY: the function writes a preference.
    library.said(unsafe { (functions.create_preference)(&mut raw) }, FAILED)?;
    let preference = Owned { raw, destroy: functions.destroy_preference };
    let prefer = |attribute, value: *const c_void, bytes| {
        // SAFETY: the function copies so many bytes.
        library.said(unsafe { (functions.prefer)(preference.raw, attribute, value, bytes) }, FAILED)
    };
    let most = workspace_bytes as u64;
    prefer(Preferred::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::ptr::from_ref(&most).cast(), size_of_val(&most))?;
    // Parts of a sum may go through the workspace, from where they are added in order, and never straight into the result.
    let numbers = [
        (
            Preferred::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
            Reduction::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32,
        ),
        (Preferred::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, OPERAND_ALIGNMENT as u32),
        (Preferred::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, OPERAND_ALIGNMENT as u32),
        (Preferred::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, OPERAND_ALIGNMENT as u32),
        (Preferred::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, OPERAND_ALIGNMENT as u32),
    ];
    for (attribute, number) in numbers {
        prefer(attribute, std::ptr::from_ref(&number).cast(), size_of_val(&number))?;
    }
    Ok(preference)
}
