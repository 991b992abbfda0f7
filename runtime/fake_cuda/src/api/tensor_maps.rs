//! Tensor maps.
use crate::gpu::call;
use amc_ptx::{Swizzle, TENSOR_MAP_BYTES, TensorElement, TensorMap};
use cudarc::driver::sys::{
    CUresult, CUtensorMap, CUtensorMapDataType as DataType, CUtensorMapFloatOOBfill as Outside,
    CUtensorMapInterleave as Interleave, CUtensorMapL2promotion as Promotion, CUtensorMapSwizzle as Shuffle,
};
use std::ffi::c_void;

/// The interpreter's form of a map, by the driver's rules; interleaved layouts are not supported.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuTensorMapEncodeTiled(
    map: *mut CUtensorMap,
    data_type: DataType,
    rank: u32,
    address: *mut c_void,
    sizes: *const u64,
    strides: *const u64,
    box_sizes: *const u32,
    element_strides: *const u32,
    interleave: Interleave,
    swizzle: Shuffle,
    _promotion: Promotion,
    outside: Outside,
) -> CUresult {
    call(|_| {
        let element = match data_type {
            DataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 => TensorElement::Bf16,
            DataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT32 => TensorElement::F32,
            DataType::CU_TENSOR_MAP_DATA_TYPE_INT32 => TensorElement::U32,
            _ => return Err(CUresult::CUDA_ERROR_INVALID_VALUE),
        };
        let swizzle = match swizzle {
            Shuffle::CU_TENSOR_MAP_SWIZZLE_NONE => Swizzle::None,
            Shuffle::CU_TENSOR_MAP_SWIZZLE_32B => Swizzle::Bytes32,
            Shuffle::CU_TENSOR_MAP_SWIZZLE_64B => Swizzle::Bytes64,
            Shuffle::CU_TENSOR_MAP_SWIZZLE_128B => Swizzle::Bytes128,
            _ => return Err(CUresult::CUDA_ERROR_INVALID_VALUE),
        };
        let plain = (1..=5).contains(&rank) && interleave == Interleave::CU_TENSOR_MAP_INTERLEAVE_NONE;
        if !plain || !(map as usize).is_multiple_of(align_of::<CUtensorMap>()) {
            return Err(CUresult::CUDA_ERROR_INVALID_VALUE);
        }
        let rank = rank as usize;
        // SAFETY: there are so many sizes, and a stride less.
        let description = unsafe {
            TensorMap {
                element,
                address: address as u64,
                sizes: std::slice::from_raw_parts(sizes, rank).to_vec(),
                strides: if rank > 1 { std::slice::from_raw_parts(strides, rank - 1).to_vec() } else { vec![] },
                box_sizes: std::slice::from_raw_parts(box_sizes, rank).to_vec(),
                element_strides: std::slice::from_raw_parts(element_strides, rank).to_vec(),
                swizzle,
                fill_nan: outside != Outside::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            }
        };
        let bytes = description.encode().map_err(|_| CUresult::CUDA_ERROR_INVALID_VALUE)?;
        // SAFETY: the caller gives room for a map, whose alignment was checked.
        unsafe { map.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), TENSOR_MAP_BYTES) };
        Ok(())
    })
}
