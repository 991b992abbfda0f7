//! Runs a GPU's kernels on a GPU. Where `AMC_TEST_GPU` is set there must be one, whose driver is found as by `amc run`; kernels for
//! another architecture than its own are interpreted as ever.
use crate::interpreted::{geometry, parameters};
use amc_kernels::Kernel;
use amc_kernels::emit::Elem;
use amc_kernels::gpu::tensor_map::TensorMap;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{
    self, CUdevice_attribute as Attribute, CUfunction_attribute, CUtensorMapDataType, CUtensorMapFloatOOBfill,
    CUtensorMapInterleave, CUtensorMapL2promotion, CUtensorMapSwizzle as Swizzle,
};
use std::ffi::{CString, c_void};
use std::ops::Range;

/// The variable that asks for it.
const VARIABLE: &str = "AMC_TEST_GPU";
/// Bytes before and behind an operand that nothing may touch, and what they hold.
const FENCE: usize = 1024;
const MARK: u8 = 0xA5;

/// A module of PTX that the driver has compiled.
pub struct OnDevice {
    module: sys::CUmodule,
    stream: sys::CUstream,
}

/// A kernel's parameter: of one operand, or of several.
enum Argument {
    Addresses(Vec<sys::CUdeviceptr>),
    Maps(Vec<sys::CUtensorMap>),
}

/// What the driver did, or a failed test.
fn done<T>(result: Result<T, DriverError>, what: &str) -> T {
    result.unwrap_or_else(|error| panic!("the GPU's driver: {what}: {error}"))
}

/// The compute capability of the GPU to test on, if one is asked for; the calling thread can use it then.
fn gpu() -> Option<(i32, i32)> {
    std::env::var_os(VARIABLE)?;
    done(result::init(), "cuInit");
    let device = done(result::device::get(0), "cuDeviceGet");
    // SAFETY: the driver has just given the device; its primary context is kept until the process ends.
    let context = done(unsafe { result::primary_ctx::retain(device) }, "cuDevicePrimaryCtxRetain");
    // SAFETY: as above.
    done(unsafe { result::ctx::set_current(context) }, "cuCtxSetCurrent");
    // SAFETY: as above.
    let number = |attribute| done(unsafe { result::device::get_attribute(device, attribute) }, "cuDeviceGetAttribute");
    Some((
        number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
        number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
    ))
}

impl OnDevice {
    /// The text, which is for Hopper alone or for GPUs from Ampere on; nothing where no GPU is asked for, or it is none of these.
    pub fn load(text: &str, hopper: bool) -> Option<OnDevice> {
        let capability = gpu()?;
        if (hopper && capability != (9, 0)) || capability < (8, 0) {
            return None;
        }
        let text = CString::new(text).expect("PTX has no zero byte");
        let mut module = std::ptr::null_mut();
        // SAFETY: the text ends with a zero; there are no options.
        let loaded = unsafe {
            let none = std::ptr::null_mut();
            sys::cuModuleLoadDataEx(&mut module, text.as_ptr().cast(), 0, none, none.cast())
        };
        done(loaded.result(), "cuModuleLoadDataEx");
        let stream = done(result::stream::create(result::stream::StreamKind::NonBlocking), "cuStreamCreate");
        Some(OnDevice { module, stream })
    }

    /// What operands with these contents hold after a launch; `aliases` are pairs that share the first one's memory.
    pub fn run(&self, kernel: &Kernel, contents: &[&[u8]], aliases: &[(usize, usize)]) -> Vec<Vec<u8>> {
        let memory: Vec<sys::CUdeviceptr> = contents.iter().map(|bytes| self.put(bytes)).collect();
        let owner = |i: usize| aliases.iter().find(|alias| alias.1 == i).map_or(i, |alias| alias.0);
        let geometry = geometry(kernel);
        let argument = |operands: Range<usize>| {
            let map = geometry.maps.iter().find(|map| map.operand == operands.start);
            let addresses = operands.map(|i| memory[owner(i)] + FENCE as u64);
            match map {
                None => Argument::Addresses(addresses.collect()),
                Some(map) => Argument::Maps(addresses.map(|address| encoded(map, address)).collect()),
            }
        };
        let arguments: Vec<Argument> = parameters(geometry, memory.len()).into_iter().map(argument).collect();
        self.launch(kernel, &arguments);
        let found = (0..memory.len()).map(|i| self.get(memory[owner(i)], contents[i].len(), kernel, i)).collect();
        // SAFETY: the launch that used the memory was waited for.
        memory.into_iter().for_each(|address| done(unsafe { result::free_sync(address) }, "cuMemFree"));
        found
    }

    fn launch(&self, kernel: &Kernel, arguments: &[Argument]) {
        let geometry = geometry(kernel);
        let name = CString::new(kernel.symbol.as_str()).expect("a symbol has no zero byte");
        // SAFETY: the module lives as long as `self`.
        let function = done(unsafe { result::module::get_function(self.module, name) }, "cuModuleGetFunction");
        let shared = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let bytes = geometry.shared_bytes as i32;
        // SAFETY: the function was just found.
        done(unsafe { result::function::set_function_attribute(function, shared, bytes) }, "cuFuncSetAttribute");
        let parameter = |argument: &Argument| match argument {
            Argument::Addresses(addresses) => addresses.as_ptr().cast_mut().cast::<c_void>(),
            Argument::Maps(maps) => maps.as_ptr().cast_mut().cast(),
        };
        let mut parameters: Vec<*mut c_void> = arguments.iter().map(parameter).collect();
        let (grid, block) = ((kernel.tasks, 1, 1), (geometry.threads, 1, 1));
        let shared = geometry.shared_bytes;
        // SAFETY: the kernel takes an address or a map for each operand, of memory as large as the template says, which is what
        // is tested; the driver copies parameters before it returns.
        done(
            unsafe { result::launch_kernel(function, grid, block, shared, self.stream, &mut parameters) },
            "cuLaunchKernel",
        );
        // SAFETY: the stream lives as long as `self`.
        done(unsafe { result::stream::synchronize(self.stream) }, &kernel.symbol);
    }

    /// Memory of the GPU with these bytes between two fences.
    fn put(&self, bytes: &[u8]) -> sys::CUdeviceptr {
        let fenced = [&[MARK; FENCE], bytes, &[MARK; FENCE]].concat();
        // SAFETY: the memory has the size of what is copied, which lives until the copy was waited for.
        unsafe {
            let address = done(result::malloc_sync(fenced.len()), "cuMemAlloc");
            done(result::memcpy_htod_async(address, &fenced, self.stream), "cuMemcpyHtoD");
            done(result::stream::synchronize(self.stream), "cuStreamSynchronize");
            address
        }
    }

    /// What memory holds between its fences.
    fn get(&self, address: sys::CUdeviceptr, count: usize, kernel: &Kernel, operand: usize) -> Vec<u8> {
        let mut fenced = vec![0; count + 2 * FENCE];
        // SAFETY: the memory has that size, and what is copied to lives until the copy was waited for.
        unsafe {
            done(result::memcpy_dtoh_async(&mut fenced, address, self.stream), "cuMemcpyDtoH");
            done(result::stream::synchronize(self.stream), "cuStreamSynchronize");
        }
        let (before, behind) = (&fenced[..FENCE], &fenced[FENCE + count..]);
        let whole = before.iter().chain(behind).all(|byte| *byte == MARK);
        assert!(whole, "{}: it wrote beside operand {operand}", kernel.symbol);
        fenced[FENCE..FENCE + count].to_vec()
    }
}

/// A matrix's map.
fn encoded(map: &TensorMap, address: u64) -> sys::CUtensorMap {
    assert_eq!(map.elem, Elem::Bf16);
    let swizzle = match map.box_row_bytes {
        32 => Swizzle::CU_TENSOR_MAP_SWIZZLE_32B,
        64 => Swizzle::CU_TENSOR_MAP_SWIZZLE_64B,
        _ => Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
    };
    let (sizes, pitch) = ([map.columns as u64, map.rows as u64], [2 * map.stride as u64]);
    let (box_sizes, element_strides) = ([map.box_columns() as u32, map.box_rows as u32], [1, 1]);
    let mut encoded = sys::CUtensorMap { opaque: [0; 16] };
    // SAFETY: the driver reads arrays of two dimensions (one pitch) and writes a map; it does not follow the address.
    let result = unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut encoded,
            CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            sizes.len() as u32,
            address as *mut _,
            sizes.as_ptr(),
            pitch.as_ptr(),
            box_sizes.as_ptr(),
            element_strides.as_ptr(),
            CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    done(result.result(), "cuTensorMapEncodeTiled");
    encoded
}
