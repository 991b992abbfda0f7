//! PTX that the driver has compiled for the GPU, and the kernels in it.
use super::callee::Argument;
use super::driver::{Context, Said};
use super::stream::Stream;
use amc_artifact::Block;
use anyhow::{Context as _, Result};
use cudarc::driver::result;
use cudarc::driver::sys::{self, CUfunction_attribute as Attribute, CUjit_option as JitOption};
use std::ffi::{CString, c_void};

/// Bytes for what the driver's compiler has to say.
const LOG_BYTES: usize = 16 << 10;
/// Shared memory that a block may have without asking for more.
const COMMON_SHARED_BYTES: u32 = 48 << 10;

/// A loaded module; its kernels live as long as it does.
pub struct Module {
    raw: sys::CUmodule,
}

/// A kernel of a module.
pub struct Kernel {
    function: sys::CUfunction,
    pub symbol: String,
    block: Block,
}

impl Module {
    /// Has the driver compile the text.
    ///
    /// # Errors
    /// What the driver's compiler says of it.
    pub fn load(_context: &Context, ptx: &[u8]) -> Result<Module> {
        let text = CString::new(ptx).context("the artifact's PTX holds a zero byte: run `amc compile` again")?;
        let mut log = vec![0u8; LOG_BYTES];
        let mut options = [JitOption::CU_JIT_ERROR_LOG_BUFFER, JitOption::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), LOG_BYTES as *mut c_void];
        let (mut raw, count) = (std::ptr::null_mut(), options.len() as u32);
        // SAFETY: the text ends with a zero; the options are a buffer and its size, passed as a pointer, which both live.
        let loaded = unsafe {
            let text = text.as_ptr().cast();
            sys::cuModuleLoadDataEx(&mut raw, text, count, options.as_mut_ptr(), values.as_mut_ptr())
        };
        let said = String::from_utf8_lossy(log.split(|byte| *byte == 0).next().unwrap_or_default());
        let failed = "the NVIDIA driver cannot load the compiled kernels";
        match said.trim() {
            "" => loaded.result().said(failed)?,
            said => loaded.result().said(format_args!("{failed}: {said}"))?,
        }
        Ok(Module { raw })
    }

    /// The kernel of that name, launched with that block.
    pub fn kernel(&self, symbol: &str, block: &Block) -> Result<Kernel> {
        let name = CString::new(symbol).with_context(|| format!("kernel symbol {symbol:?}"))?;
        // SAFETY: the module lives.
        let function = unsafe { result::module::get_function(self.raw, name) };
        let function = function.said(format_args!("the compiled kernels lack `{symbol}`: run `amc compile` again"))?;
        if block.shared_bytes > COMMON_SHARED_BYTES {
            let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function was just found.
            let set =
                unsafe { result::function::set_function_attribute(function, attribute, block.shared_bytes as i32) };
            set.said(format_args!("kernel `{symbol}` cannot have {} bytes of shared memory", block.shared_bytes))?;
        }
        Ok(Kernel { function, symbol: symbol.into(), block: block.clone() })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: nobody launches its kernels afterwards.
        let _ = unsafe { result::module::unload(self.raw) };
    }
}

impl Kernel {
    /// The block of threads that a task is.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// Puts a launch of `tasks` blocks into the stream.
    ///
    /// # Safety
    /// The module lives; `args` are what the kernel takes: so many addresses, maps and arrays of them, of memory that it may
    /// use as the plan says and that lives until the launch, or a graph of it, is done with.
    pub unsafe fn launch(&self, stream: &Stream, tasks: u32, args: &[Argument]) -> Result<(), result::DriverError> {
        let parameter = |arg: &Argument| match arg {
            Argument::Address(address) => std::ptr::from_ref(address).cast_mut().cast::<c_void>(),
            Argument::Map(map) => std::ptr::from_ref::<sys::CUtensorMap>(map).cast_mut().cast(),
            Argument::Addresses(addresses) => addresses.as_ptr().cast_mut().cast(),
            Argument::Maps(maps) => maps.as_ptr().cast_mut().cast(),
        };
        let mut parameters: Vec<*mut c_void> = args.iter().map(parameter).collect();
        let Block { threads, shared_bytes, .. } = self.block;
        let (grid, block) = ((tasks, 1, 1), (threads, 1, 1));
        // SAFETY: the driver copies the parameters before it returns; the rest is the caller's promise.
        unsafe { result::launch_kernel(self.function, grid, block, shared_bytes, stream.raw(), &mut parameters) }
    }
}
