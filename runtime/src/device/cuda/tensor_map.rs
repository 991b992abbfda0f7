//! Tensor maps: the driver's form of what the plan says of a matrix, made once, when the plan is loaded.
use super::driver::{Said, ensure_function};
use amc_artifact::{Storage, TensorMap};
use anyhow::{Result, bail};
use cudarc::driver::sys::{
    self, CUtensorMapDataType as DataType, CUtensorMapFloatOOBfill as Outside, CUtensorMapInterleave as Interleave,
    CUtensorMapL2promotion as Promotion, CUtensorMapSwizzle as Swizzle,
};

/// The driver's function that makes maps.
const ENCODER: &str = "cuTensorMapEncodeTiled";

/// Checks that the driver makes maps: [`encoded`] would panic.
///
/// # Errors
/// A driver without the function.
pub fn ensure_driver_encodes() -> Result<()> {
    ensure_function(ENCODER)
}

/// The map of a matrix whose first element is at `address` of the GPU's memory. It holds the address, not the memory.
///
/// # Errors
/// What the driver says of the map.
pub fn encoded(map: &TensorMap, address: u64) -> Result<sys::CUtensorMap> {
    let data_type = match map.storage {
        Storage::F32 => DataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        Storage::Bf16 => DataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        Storage::I32 => DataType::CU_TENSOR_MAP_DATA_TYPE_INT32,
    };
    let swizzle = match map.box_row_bytes {
        32 => Swizzle::CU_TENSOR_MAP_SWIZZLE_32B,
        64 => Swizzle::CU_TENSOR_MAP_SWIZZLE_64B,
        128 => Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
        bytes => bail!("a tensor map of boxes with rows of {bytes} bytes, wanted 32, 64 or 128"),
    };
    // The innermost dimension first.
    let sizes = [map.columns, map.rows];
    let pitch = [map.stride * map.storage.bytes()];
    let (box_sizes, element_strides) = ([map.box_columns(), map.box_rows], [1, 1]);
    let mut encoded = sys::CUtensorMap { opaque: [0; 16] };
    // SAFETY: the driver has the function, reads arrays of two dimensions (one pitch) and writes a map; it does not follow the
    // address.
    let result = unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut encoded,
            data_type,
            sizes.len() as u32,
            address as *mut _,
            sizes.as_ptr(),
            pitch.as_ptr(),
            box_sizes.as_ptr(),
            element_strides.as_ptr(),
            Interleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            Promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            Outside::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    result.result().said(format_args!("cannot make a tensor map of {map:?} at {address:#x}"))?;
    Ok(encoded)
}
