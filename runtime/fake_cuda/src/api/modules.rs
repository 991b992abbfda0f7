//! Modules, kernels and launches.
use super::{handle, number};
use crate::gpu::{Function, Launch, call_in_context};
use crate::stream::Work;
use amc_ptx::Argument;
use cudarc::driver::sys::{CUfunction, CUfunction_attribute, CUjit_option, CUmodule, CUresult, CUstream};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::rc::Rc;

/// Most threads of a block.
const MOST_THREADS: u32 = 1024;
/// Most shared memory of a block that asks for it.
const MOST_SHARED: u32 = 227 << 10;
/// Shared memory of a block that does not.
const COMMON_SHARED: u32 = 48 << 10;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadDataEx(
    module: *mut CUmodule,
    image: *const c_void,
    count: c_uint,
    options: *mut CUjit_option,
    values: *mut *mut c_void,
) -> CUresult {
    call_in_context(|gpu| {
        let text = unsafe { CStr::from_ptr(image.cast()) }.to_string_lossy();
        match amc_ptx::load(&text) {
            Ok(kernels) => {
                gpu.modules.push(Rc::new(kernels));
                unsafe { module.write(handle(gpu.modules.len() - 1)) };
                Ok(())
            }
            Err(error) => {
                let count = count as usize;
                let (options, values) =
                    unsafe { (std::slice::from_raw_parts(options, count), std::slice::from_raw_parts(values, count)) };
                unsafe { write_log(&error.to_string(), options, values) };
                Err(CUresult::CUDA_ERROR_INVALID_PTX)
            }
        }
    })
}

/// Writes what is wrong into the buffer for it.
unsafe fn write_log(text: &str, options: &[CUjit_option], values: &[*mut c_void]) {
    let value = |wanted| options.iter().position(|option| *option == wanted).map(|at| values[at]);
    let buffer = value(CUjit_option::CU_JIT_ERROR_LOG_BUFFER).expect("a buffer for errors").cast::<u8>();
    let room = value(CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES).expect("the buffer's size") as usize;
    let bytes = &text.as_bytes()[..text.len().min(room - 1)];
    unsafe {
        buffer.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        buffer.add(bytes.len()).write(0);
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleUnload(module: CUmodule) -> CUresult {
    call_in_context(|gpu| {
        gpu.finish()?;
        let number = number(module)?;
        *gpu.modules.get_mut(number).ok_or(CUresult::CUDA_ERROR_INVALID_HANDLE)? = Rc::default();
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleGetFunction(function: *mut CUfunction, module: CUmodule, name: *const c_char) -> CUresult {
    call_in_context(|gpu| {
        let module = gpu.modules.get(number(module)?).ok_or(CUresult::CUDA_ERROR_INVALID_HANDLE)?;
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        let index = module.iter().position(|kernel| kernel.name == name).ok_or(CUresult::CUDA_ERROR_NOT_FOUND)?;
        gpu.functions.push(Function { module: module.clone(), index, most_shared: COMMON_SHARED });
        unsafe { function.write(handle(gpu.functions.len() - 1)) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuFuncSetAttribute(function: CUfunction, which: CUfunction_attribute, value: c_int) -> CUresult {
    call_in_context(|gpu| {
        let function = gpu.functions.get_mut(number(function)?).ok_or(CUresult::CUDA_ERROR_INVALID_HANDLE)?;
        let shared = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        match u32::try_from(value) {
            Ok(bytes) if which == shared && bytes <= MOST_SHARED => function.most_shared = bytes,
            _ => return Err(CUresult::CUDA_ERROR_INVALID_VALUE),
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchKernel(
    function: CUfunction,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    threads_x: c_uint,
    threads_y: c_uint,
    threads_z: c_uint,
    shared_bytes: c_uint,
    stream: CUstream,
    parameters: *mut *mut c_void,
    _extra: *mut *mut c_void,
) -> CUresult {
    call_in_context(|gpu| {
        let function = gpu.functions.get(number(function)?).ok_or(CUresult::CUDA_ERROR_INVALID_HANDLE)?.clone();
        if shared_bytes > function.most_shared || threads_x * threads_y * threads_z > MOST_THREADS {
            return Err(CUresult::CUDA_ERROR_INVALID_VALUE);
        }
        let wanted = &function.module[function.index].parameters;
        let argument = |(i, parameter): (usize, &amc_ptx::Parameter)| {
            // SAFETY: there is a pointer for every parameter, to as many bytes as it has.
            let bytes = unsafe { std::slice::from_raw_parts((*parameters.add(i)).cast(), parameter.bytes as usize) };
            Argument::Bytes(bytes.to_vec())
        };
        let arguments = wanted.iter().enumerate().map(argument).collect();
        let (grid, threads) = ([grid_x, grid_y, grid_z], [threads_x, threads_y, threads_z]);
        gpu.put(number(stream)?, Work::Launch(Launch { function, grid, threads, shared_bytes, arguments }))
    })
}
