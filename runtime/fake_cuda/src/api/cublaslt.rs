//! cuBLASLt, by the names and types of NVIDIA's `cublasLt.h`: of its functions those that the runtime calls. It is stricter than
//! the library: it takes nothing that adds in an order of its own, and what is wrong is the text of the status.
use super::{give, handle, number};
use crate::gpu::{Gpu, call_in_context, look};
use crate::products::{Algorithm, Description, Element, Kind, Layout, Preference, Product};
use crate::stream::Work;
use cudarc::cublaslt::sys::{
    cublasComputeType_t as Compute, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t as About, cublasLtMatmulHeuristicResult_t, cublasLtMatmulPreference_t,
    cublasLtMatmulPreferenceAttributes_t as Preferred, cublasLtMatrixLayout_t, cublasLtReductionScheme_t as Reduction,
    cublasStatus_t as Status, cudaDataType_t as DataType,
};
use cudarc::driver::sys::{CUresult, CUstream};
use std::ffi::{c_char, c_int, c_void};

/// The version that it gives itself out for.
const VERSION: usize = 120_900;
/// What an algorithm's first word is.
const ALGORITHM: u64 = 0x616d_6321;

/// Does `work` in a context; what is wrong is kept for [`cublasLtGetStatusString`].
fn blas(work: impl FnOnce(&mut Gpu) -> Result<(), String>) -> Status {
    let mut status = Status::CUBLAS_STATUS_SUCCESS;
    let called = call_in_context(|gpu| {
        if let Err(said) = work(gpu) {
            gpu.products.said = said;
            status = Status::CUBLAS_STATUS_INVALID_VALUE;
        }
        Ok(())
    });
    if called == CUresult::CUDA_SUCCESS { status } else { Status::CUBLAS_STATUS_NOT_INITIALIZED }
}

/// What a handle stands for.
fn live<T: Copy, H>(made: &[Option<T>], handle: *mut H) -> Result<T, String> {
    let found = number(handle).ok().and_then(|number| *made.get(number)?);
    found.ok_or_else(|| format!("{} that does not exist", std::any::type_name::<T>()))
}

/// Keeps something new, and writes its handle.
unsafe fn make<T, H>(made: &mut Vec<Option<T>>, new: T, result: *mut *mut H) -> Result<(), String> {
    made.push(Some(new));
    unsafe { result.write(handle(made.len() - 1)) };
    Ok(())
}

fn destroy<T, H>(made: &mut [Option<T>], handle: *mut H) -> Result<(), String> {
    let found = number(handle).ok().and_then(|number| made.get_mut(number)?.take());
    found.map(drop).ok_or_else(|| "what does not exist is given back".into())
}

/// The value of an attribute, of which so many bytes were given.
unsafe fn value<T: Copy>(value: *const c_void, bytes: usize) -> Result<T, String> {
    let size = size_of::<T>();
    if bytes == size {
        Ok(unsafe { value.cast::<T>().read_unaligned() })
    } else {
        Err(format!("{bytes} bytes, wanted {size}"))
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtCreate(result: *mut cublasLtHandle_t) -> Status {
    blas(|gpu| {
        gpu.products.handles += 1;
        unsafe { result.write(handle(0)) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtDestroy(_handle: cublasLtHandle_t) -> Status {
    blas(|gpu| {
        gpu.products.handles = gpu.products.handles.checked_sub(1).ok_or("a handle that does not exist")?;
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtGetVersion() -> usize {
    VERSION
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtGetStatusName(status: Status) -> *const c_char {
    let mut text = std::ptr::null();
    unsafe { give(format!("{status:?}"), &mut text) };
    text
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtGetStatusString(_status: Status) -> *const c_char {
    let mut text = std::ptr::null();
    unsafe { give(look(|gpu| gpu.products.said.clone()), &mut text) };
    text
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatmulDescCreate(
    result: *mut cublasLtMatmulDesc_t,
    compute: Compute,
    scale: DataType,
) -> Status {
    blas(|gpu| {
        if compute != Compute::CUBLAS_COMPUTE_32F || scale != DataType::CUDA_R_32F {
            return Err(format!("sums in {compute:?}, factors in {scale:?}"));
        }
        unsafe { make(&mut gpu.products.descriptions, Description::default(), result) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatmulDescDestroy(description: cublasLtMatmulDesc_t) -> Status {
    blas(|gpu| destroy(&mut gpu.products.descriptions, description))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatmulDescSetAttribute(
    description: cublasLtMatmulDesc_t,
    which: About,
    given: *const c_void,
    bytes: usize,
) -> Status {
    blas(|gpu| {
        let mut changed = live(&gpu.products.descriptions, description)?;
        let transposed = match unsafe { value::<i32>(given, bytes)? } {
            0 => false,
            1 => true,
            other => return Err(format!("operation {other}")),
        };
        match which {
            About::CUBLASLT_MATMUL_DESC_TRANSA => changed.first_transposed = transposed,
            About::CUBLASLT_MATMUL_DESC_TRANSB => changed.second_transposed = transposed,
            other => return Err(format!("{other:?}")),
        }
        gpu.products.descriptions[number(description).expect("it lives")] = Some(changed);
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatrixLayoutCreate(
    result: *mut cublasLtMatrixLayout_t,
    data_type: DataType,
    rows: u64,
    columns: u64,
    stride: i64,
) -> Status {
    blas(|gpu| {
        let element = match data_type {
            DataType::CUDA_R_32F => Element::F32,
            DataType::CUDA_R_16BF => Element::Bf16,
            other => return Err(format!("a matrix of {other:?}")),
        };
        let stride = u64::try_from(stride).map_err(|_| format!("a stride of {stride}"))?;
        unsafe { make(&mut gpu.products.layouts, Layout { element, rows, columns, stride }, result) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatrixLayoutDestroy(layout: cublasLtMatrixLayout_t) -> Status {
    blas(|gpu| destroy(&mut gpu.products.layouts, layout))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatmulPreferenceCreate(result: *mut cublasLtMatmulPreference_t) -> Status {
    blas(|gpu| unsafe { make(&mut gpu.products.preferences, Preference::default(), result) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatmulPreferenceDestroy(preference: cublasLtMatmulPreference_t) -> Status {
    blas(|gpu| destroy(&mut gpu.products.preferences, preference))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatmulPreferenceSetAttribute(
    preference: cublasLtMatmulPreference_t,
    which: Preferred,
    given: *const c_void,
    bytes: usize,
) -> Status {
    blas(|gpu| {
        let mut changed = live(&gpu.products.preferences, preference)?;
        let small = || unsafe { value::<u32>(given, bytes) };
        match which {
            Preferred::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES => changed.workspace = unsafe { value(given, bytes)? },
            Preferred::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK => changed.reductions = small()?,
            Preferred::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES => changed.alignments[0] = small()?,
            Preferred::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES => changed.alignments[1] = small()?,
            Preferred::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES => changed.alignments[2] = small()?,
            Preferred::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES => changed.alignments[3] = small()?,
            other => return Err(format!("{other:?}")),
        }
        gpu.products.preferences[number(preference).expect("it lives")] = Some(changed);
        Ok(())
    })
}

/// The product that is described.
fn kind(
    gpu: &Gpu,
    description: cublasLtMatmulDesc_t,
    [first, second, added, result]: [cublasLtMatrixLayout_t; 4],
) -> Result<Kind, String> {
    let layout = |handle| live(&gpu.products.layouts, handle);
    let description = live(&gpu.products.descriptions, description)?;
    let kind = Kind { description, first: layout(first)?, second: layout(second)?, result: layout(result)? };
    if layout(added)? != kind.result {
        return Err("what is added is not stored as the result".into());
    }
    kind.fault().map_or(Ok(kind), Err)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatmulAlgoGetHeuristic(
    _handle: cublasLtHandle_t,
    description: cublasLtMatmulDesc_t,
    first: cublasLtMatrixLayout_t,
    second: cublasLtMatrixLayout_t,
    added: cublasLtMatrixLayout_t,
    result: cublasLtMatrixLayout_t,
    preference: cublasLtMatmulPreference_t,
    wanted: c_int,
    results: *mut cublasLtMatmulHeuristicResult_t,
    found: *mut c_int,
) -> Status {
    unsafe { found.write(0) };
    if look(|gpu| gpu.settings.algorithms) == 0 {
        return Status::CUBLAS_STATUS_NOT_SUPPORTED;
    }
    blas(|gpu| {
        let kind = kind(gpu, description, [first, second, added, result])?;
        let preference = live(&gpu.products.preferences, preference)?;
        let in_order = Reduction::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        if wanted < 1 || preference.reductions & !in_order != 0 {
            return Err(format!("sums joined as {} says, in an order of their own", preference.reductions));
        }
        gpu.products.algorithms.push(Algorithm { kind, preference });
        let mut data = [0; 8];
        (data[0], data[1]) = (ALGORITHM, gpu.products.algorithms.len() as u64 - 1);
        let best = cublasLtMatmulHeuristicResult_t {
            algo: cublasLtMatmulAlgo_t { data },
            workspaceSize: preference.workspace as usize,
            state: Status::CUBLAS_STATUS_SUCCESS,
            wavesCount: 1.0,
            reserved: [0; 4],
        };
        unsafe {
            results.write(best);
            found.write(1);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatmul(
    _handle: cublasLtHandle_t,
    description: cublasLtMatmulDesc_t,
    alpha: *const f32,
    first: u64,
    first_layout: cublasLtMatrixLayout_t,
    second: u64,
    second_layout: cublasLtMatrixLayout_t,
    beta: *const f32,
    added: u64,
    added_layout: cublasLtMatrixLayout_t,
    result: u64,
    result_layout: cublasLtMatrixLayout_t,
    algorithm: *const cublasLtMatmulAlgo_t,
    workspace: u64,
    workspace_bytes: usize,
    stream: CUstream,
) -> Status {
    blas(|gpu| {
        if gpu.settings.multiplies == 0 {
            return Err("of the fake library".into());
        }
        let kind = kind(gpu, description, [first_layout, second_layout, added_layout, result_layout])?;
        let data = unsafe { (*algorithm).data };
        let found = gpu.products.algorithms.get(data[1] as usize).filter(|_| data[0] == ALGORITHM);
        let algorithm = *found.ok_or("an algorithm that nobody has found")?;
        let product = Product {
            kind,
            alpha: unsafe { *alpha },
            beta: unsafe { *beta },
            addresses: [first, second, added, result],
            workspace: (workspace, workspace_bytes as u64),
        };
        if let Some(fault) = algorithm.fault(&product, |address, bytes| gpu.check(address, bytes).is_ok()) {
            return Err(fault);
        }
        let put = number(stream).and_then(|stream| gpu.put(stream, Work::Product(product)));
        put.map_err(|error| format!("{error:?}"))
    })
}
