//! The driver's functions, by the names and types of NVIDIA's `cuda.h`. Handles are numbers from 1 on.
//!
//! The pointers that they get are the caller's: as `cuda.h` has it, every result pointer can be written, and every range is
//! as long as the number beside it says.
#![allow(non_snake_case)]
mod cublaslt;
mod memory;
mod modules;
mod nccl;
mod streams;
mod tensor_maps;

use crate::gpu::{call, call_in_context, look};
use cudarc::driver::sys::{CUcontext, CUdevice, CUdevice_attribute, CUresult};
use std::ffi::{CString, c_char, c_int};

/// The handle of the thing with that number.
fn handle<T>(number: usize) -> *mut T {
    (number + 1) as *mut T
}

/// The number that a handle stands for.
fn number<T>(handle: *mut T) -> Result<usize, CUresult> {
    (handle as usize).checked_sub(1).ok_or(CUresult::CUDA_ERROR_INVALID_HANDLE)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuInit(_flags: u32) -> CUresult {
    look(|gpu| {
        gpu.initialised = gpu.settings.devices > 0;
        if gpu.initialised { CUresult::CUDA_SUCCESS } else { CUresult::CUDA_ERROR_NO_DEVICE }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> CUresult {
    unsafe { version.write(look(|gpu| gpu.settings.driver)) };
    CUresult::CUDA_SUCCESS
}

/// The string lives as long as the process, as a driver's does.
unsafe fn give(text: String, result: *mut *const c_char) -> CUresult {
    let text = CString::new(text.replace('\0', " ")).expect("zeros were replaced");
    unsafe { result.write(text.into_raw()) };
    CUresult::CUDA_SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorName(error: CUresult, name: *mut *const c_char) -> CUresult {
    unsafe { give(format!("{error:?}"), name) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorString(error: CUresult, text: *mut *const c_char) -> CUresult {
    let what = look(|gpu| gpu.failure(error).map_or("of the fake driver".into(), String::from));
    unsafe { give(what, text) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> CUresult {
    call(|gpu| {
        unsafe { count.write(gpu.settings.devices) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGet(device: *mut CUdevice, ordinal: c_int) -> CUresult {
    call(|gpu| {
        if !(0..gpu.settings.devices).contains(&ordinal) {
            return Err(CUresult::CUDA_ERROR_INVALID_DEVICE);
        }
        unsafe { device.write(ordinal) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, bytes: c_int, _device: CUdevice) -> CUresult {
    call(|_| {
        let text = c"Fake GPU".to_bytes_with_nul();
        assert!(text.len() <= bytes as usize, "room for a name");
        unsafe { name.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len()) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, which: CUdevice_attribute, _: CUdevice) -> CUresult {
    call(|gpu| {
        let (major, minor) = gpu.settings.capability;
        let found = match which {
            CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR => major,
            CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR => minor,
            _ => return Err(CUresult::CUDA_ERROR_INVALID_VALUE),
        };
        unsafe { value.write(found) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: CUdevice) -> CUresult {
    call(|gpu| {
        unsafe { bytes.write(gpu.settings.memory as usize) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut CUcontext, device: CUdevice) -> CUresult {
    call(|gpu| {
        gpu.contexts += 1;
        unsafe { context.write(handle(device as usize)) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: CUdevice) -> CUresult {
    call_in_context(|gpu| {
        gpu.contexts -= 1;
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxSetCurrent(_context: CUcontext) -> CUresult {
    call_in_context(|_| Ok(()))
}
