//! The fake GPU: its memory, the host's pinned memory, its modules, and the first thing that went wrong.
use crate::settings::Settings;
use amc_ptx::{Argument, FaultKind, Kernel};
use cudarc::driver::sys::CUresult;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

thread_local! {
    /// What the thread's calls are about. A context is current on the thread that asked for it, so no other thread has one.
    static GPU: RefCell<Gpu> = RefCell::new(Gpu::new());
}

/// Everything behind the driver's functions.
pub struct Gpu {
    pub settings: Settings,
    pub initialised: bool,
    /// How often the primary context was retained.
    pub contexts: u32,
    pub machine: amc_ptx::Device,
    /// Bytes of each allocation, by its address.
    pub allocations: BTreeMap<u64, u64>,
    /// Pinned memory, by its address.
    pub pinned: BTreeMap<u64, Box<[u64]>>,
    pub modules: Vec<Rc<Vec<Kernel>>>,
    pub functions: Vec<Function>,
    pub streams: crate::stream::Streams,
    pub products: crate::products::Products,
    /// The error that every call gives, and what happened.
    failed: Option<(CUresult, String)>,
}

/// A kernel of a module.
#[derive(Clone)]
pub struct Function {
    pub module: Rc<Vec<Kernel>>,
    pub index: usize,
    /// Most dynamic shared memory that a launch may ask for.
    pub most_shared: u32,
}

/// A launch with its arguments.
#[derive(Clone)]
pub struct Launch {
    pub function: Function,
    pub grid: [u32; 3],
    pub threads: [u32; 3],
    pub shared_bytes: u32,
    pub arguments: Vec<Argument>,
}

/// Does `work` on the GPU as a driver's function would: not before `cuInit`, and not after a failure.
pub fn call(work: impl FnOnce(&mut Gpu) -> Result<(), CUresult>) -> CUresult {
    GPU.with_borrow_mut(|gpu| {
        if !gpu.initialised {
            return CUresult::CUDA_ERROR_NOT_INITIALIZED;
        }
        if let Some((error, _)) = gpu.failed {
            return error;
        }
        work(gpu).err().unwrap_or(CUresult::CUDA_SUCCESS)
    })
}

/// Like [`call`], for what needs a context.
pub fn call_in_context(work: impl FnOnce(&mut Gpu) -> Result<(), CUresult>) -> CUresult {
    call(|gpu| if gpu.contexts > 0 { work(gpu) } else { Err(CUresult::CUDA_ERROR_INVALID_CONTEXT) })
}

/// Looks at the GPU, whatever its state.
pub fn look<T>(work: impl FnOnce(&mut Gpu) -> T) -> T {
    GPU.with_borrow_mut(work)
}

impl Gpu {
    fn new() -> Gpu {
        Gpu {
            settings: Settings::from_environment(),
            initialised: false,
            contexts: 0,
            machine: amc_ptx::Device::new(),
            allocations: BTreeMap::new(),
            pinned: BTreeMap::new(),
            modules: Vec::new(),
            functions: Vec::new(),
            streams: Default::default(),
            products: Default::default(),
            failed: None,
        }
    }

    pub fn free_bytes(&self) -> u64 {
        self.settings.memory - self.allocations.values().sum::<u64>()
    }

    /// Nothing works any more.
    pub fn fail(&mut self, error: CUresult, what: String) -> CUresult {
        self.failed = Some((error, what));
        error
    }

    /// What happened, if `error` is what every call gives.
    pub fn failure(&self, error: CUresult) -> Option<&str> {
        self.failed.as_ref().filter(|(failed, _)| *failed == error).map(|(_, what)| what.as_str())
    }

    /// The range of a live allocation that begins there.
    pub fn check(&self, address: u64, bytes: u64) -> Result<(), CUresult> {
        let found = self.allocations.range(..=address).next_back();
        let inside = found.is_some_and(|(begin, size)| address + bytes <= begin + size);
        if inside { Ok(()) } else { Err(CUresult::CUDA_ERROR_INVALID_VALUE) }
    }

    /// Whether a range is pinned memory.
    pub fn is_pinned(&self, address: u64, bytes: u64) -> bool {
        let found = self.pinned.range(..=address).next_back();
        found.is_some_and(|(begin, memory)| address + bytes <= begin + 8 * memory.len() as u64)
    }

    /// Runs a kernel to its end.
    pub fn run(&mut self, launch: &Launch) -> Result<(), CUresult> {
        let kernel = &launch.function.module[launch.function.index];
        let shape = amc_ptx::Launch {
            dynamic_shared: launch.shared_bytes.into(),
            ..amc_ptx::Launch::new(launch.grid, launch.threads)
        };
        let Err(error) = self.machine.launch(kernel, &shape, &launch.arguments) else { return Ok(()) };
        let code = match &error {
            amc_ptx::Error::Fault(fault) => match fault.kind {
                FaultKind::OutOfBounds { .. } => CUresult::CUDA_ERROR_ILLEGAL_ADDRESS,
                FaultKind::Misaligned { .. } => CUresult::CUDA_ERROR_MISALIGNED_ADDRESS,
                _ => CUresult::CUDA_ERROR_LAUNCH_FAILED,
            },
            _ => CUresult::CUDA_ERROR_LAUNCH_FAILED,
        };
        Err(self.fail(code, error.to_string()))
    }
}
