//! Memory and copies.
use super::number;
use crate::gpu::call_in_context;
use crate::stream::{Source, Work};
use cudarc::driver::sys::{CUdeviceptr, CUresult, CUstream};
use std::ffi::{c_uchar, c_uint, c_void};

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> CUresult {
    call_in_context(|gpu| {
        unsafe {
            free.write(gpu.free_bytes() as usize);
            total.write(gpu.settings.memory as usize);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAlloc_v2(address: *mut CUdeviceptr, bytes: usize) -> CUresult {
    call_in_context(|gpu| {
        let bytes = bytes as u64;
        match bytes {
            0 => Err(CUresult::CUDA_ERROR_INVALID_VALUE),
            _ if bytes > gpu.free_bytes() => Err(CUresult::CUDA_ERROR_OUT_OF_MEMORY),
            _ => {
                let number = gpu.allocations.len();
                let begin = gpu.machine.allocate(&format!("allocation {number}"), bytes);
                gpu.allocations.insert(begin, bytes);
                unsafe { address.write(begin) };
                Ok(())
            }
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemFree_v2(address: CUdeviceptr) -> CUresult {
    call_in_context(|gpu| {
        gpu.finish()?;
        gpu.allocations.remove(&address).map(drop).ok_or(CUresult::CUDA_ERROR_INVALID_VALUE)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemHostAlloc(pointer: *mut *mut c_void, bytes: usize, _flags: c_uint) -> CUresult {
    call_in_context(|gpu| {
        let mut memory = vec![0u64; bytes.div_ceil(8)].into_boxed_slice();
        let begin = memory.as_mut_ptr();
        gpu.pinned.insert(begin as u64, memory);
        unsafe { pointer.write(begin.cast()) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemFreeHost(pointer: *mut c_void) -> CUresult {
    call_in_context(|gpu| {
        gpu.finish()?;
        gpu.pinned.remove(&(pointer as u64)).map(drop).ok_or(CUresult::CUDA_ERROR_INVALID_VALUE)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: CUdeviceptr,
    from: *const c_void,
    bytes: usize,
    stream: CUstream,
) -> CUresult {
    call_in_context(|gpu| {
        gpu.check(to, bytes as u64)?;
        // Other memory than pinned is copied before the call returns.
        let from = if gpu.is_pinned(from as u64, bytes as u64) {
            Source::Pinned(from as u64)
        } else {
            Source::Copied(unsafe { std::slice::from_raw_parts(from.cast(), bytes) }.to_vec())
        };
        gpu.put(number(stream)?, Work::Upload { to, from, bytes: bytes as u64 })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: CUdeviceptr,
    bytes: usize,
    stream: CUstream,
) -> CUresult {
    call_in_context(|gpu| {
        gpu.check(from, bytes as u64)?;
        gpu.put(number(stream)?, Work::Download { to: to as u64, from, bytes: bytes as u64 })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemsetD8Async(to: CUdeviceptr, value: c_uchar, count: usize, stream: CUstream) -> CUresult {
    call_in_context(|gpu| {
        gpu.check(to, count as u64)?;
        gpu.put(number(stream)?, Work::Fill { to, bytes: vec![value; count] })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemsetD32Async(to: CUdeviceptr, value: c_uint, count: usize, stream: CUstream) -> CUresult {
    call_in_context(|gpu| {
        if !gpu.is_pinned(to, 4 * count as u64) {
            gpu.check(to, 4 * count as u64)?;
        }
        gpu.put(number(stream)?, Work::Fill { to, bytes: value.to_le_bytes().repeat(count) })
    })
}
