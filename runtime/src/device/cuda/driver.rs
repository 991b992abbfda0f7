//! The NVIDIA driver, the GPU that it offers, and a context on it; or a sentence about what is missing.
//!
//! The driver is found when it is first asked for, so the program needs none to build or to run elsewhere.
use anyhow::{Result, anyhow, bail, ensure};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUresult};
use std::error::Error;
use std::ffi::CStr;
use std::fmt::Display;

/// The file name of the driver's library.
const LIBRARY: &str = "libcuda.so.1";
/// The oldest CUDA whose driver has every function that is called here and reads the PTX of every kernel: 1000 times its major
/// and 10 times its minor number.
const OLDEST_DRIVER: i32 = 12_010;

/// The driver's errors as ours.
pub trait Said<T> {
    /// The result, or `failed` and what the driver says of it.
    fn said(self, failed: impl Display) -> Result<T>;
}

impl<T> Said<T> for Result<T, DriverError> {
    fn said(self, failed: impl Display) -> Result<T> {
        self.map_err(|error| anyhow!("{failed}: {} ({})", text(error.error_name()), text(error.error_string())))
    }
}

/// The driver's text, if it has one.
fn text(found: Result<&CStr, DriverError>) -> String {
    found.map_or("unknown".into(), |text| text.to_string_lossy().into_owned())
}

/// The first GPU that the driver shows.
pub struct Gpu {
    device: sys::CUdevice,
    /// The driver's name of it.
    pub name: String,
    /// Major and minor number of its compute capability.
    pub capability: (i32, i32),
    /// The CUDA version that the driver is for, in [`OLDEST_DRIVER`]'s form.
    driver: i32,
    bytes: usize,
}

impl Gpu {
    /// # Errors
    /// No driver, one that is too old or does not start, or no GPU.
    pub fn find() -> Result<Gpu> {
        ensure_driver()?;
        let driver = driver_version()?;
        ensure!(
            driver >= OLDEST_DRIVER,
            "the NVIDIA driver is for CUDA {}, wanted {} or later: install a newer driver",
            version(driver),
            version(OLDEST_DRIVER)
        );
        let count = match result::init() {
            Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => 0,
            started => started.and_then(|()| result::device::get_count()).said("the NVIDIA driver does not start")?,
        };
        ensure!(
            count > 0,
            "the NVIDIA driver shows no GPU: look whether one is there and CUDA_VISIBLE_DEVICES names it"
        );
        Gpu::of(driver).said("cannot ask the GPU what it is")
    }

    fn of(driver: i32) -> Result<Gpu, DriverError> {
        let device = result::device::get(0)?;
        // SAFETY: the driver has just given the device.
        let attribute = |attribute| unsafe { result::device::get_attribute(device, attribute) };
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        // SAFETY: as above.
        let bytes = unsafe { result::device::total_mem(device)? };
        Ok(Gpu { device, name: result::device::get_name(device)?, capability: (major, minor), driver, bytes })
    }

    /// Checks that code for `arch`, such as `sm_80` or `sm_90a`, runs here.
    ///
    /// # Errors
    /// Another compute capability, or a name of another form.
    pub fn ensure_runs(&self, arch: &str) -> Result<()> {
        let Some((wanted, only)) = parse_arch(arch) else {
            bail!("the artifact was compiled for the GPU `{arch}`, wanted a name like sm_80: run `amc compile` again")
        };
        let (major, minor) = self.capability;
        let runs = if only { self.capability == wanted } else { self.capability >= wanted };
        let later = if only { "" } else { " or later" };
        ensure!(
            runs,
            "the artifact was compiled for {arch}, GPUs of compute capability {}.{}{later}; {} has {major}.{minor}: compile \
             it for this GPU with `amc compile --target`, or run it on another",
            wanted.0,
            wanted.1,
            self.name
        );
        Ok(())
    }

    /// The CUDA version that the driver is for, in [`OLDEST_DRIVER`]'s form.
    pub fn driver(&self) -> i32 {
        self.driver
    }

    /// The GPU in a line.
    pub fn summary(&self) -> String {
        let (major, minor) = self.capability;
        let gib = self.bytes as f64 / (1u64 << 30) as f64;
        let driver = version(self.driver);
        format!("{}, compute capability {major}.{minor}, {gib:.1} GiB, driver for CUDA {driver}", self.name)
    }
}

/// The compute capability that an architecture names, and whether code for it runs on no other.
fn parse_arch(arch: &str) -> Option<((i32, i32), bool)> {
    let rest = arch.strip_prefix("sm_")?;
    let (digits, only) = rest.strip_suffix('a').map_or((rest, false), |digits| (digits, true));
    let number: i32 = digits.parse().ok().filter(|number| (10..1000).contains(number))?;
    Some(((number / 10, number % 10), only))
}

fn version(driver: i32) -> String {
    format!("{}.{}", driver / 1000, driver % 1000 / 10)
}

/// What the loader says of a library, which is behind the error: that itself says only that it failed.
pub fn loader_says(error: &libloading::Error) -> String {
    error.source().map_or("not found".into(), |reason| reason.to_string())
}

/// Calls before this one has succeeded would panic.
fn ensure_driver() -> Result<()> {
    // SAFETY: the driver's library has no initialisers that ask anything of the program.
    if unsafe { sys::is_culib_present() } {
        return Ok(());
    }
    // SAFETY: as above.
    let error = unsafe { libloading::Library::new(LIBRARY) }.err();
    let reason = error.as_ref().map_or("not found".into(), loader_says);
    bail!(
        "this machine has no NVIDIA driver ({reason}): install one for CUDA {} or later, which brings {LIBRARY} (the CUDA \
         toolkit is not needed), or compile for the CPU with `amc compile --target cpu`",
        version(OLDEST_DRIVER)
    )
}

/// Calls of a function that the driver lacks would panic.
///
/// # Errors
/// A driver without it.
pub fn ensure_function(name: &str) -> Result<()> {
    // SAFETY: the library was found when the GPU was.
    let library = unsafe { sys::culib() };
    // SAFETY: the symbol is only looked for.
    let found = unsafe { library.get::<unsafe extern "C" fn()>(name.as_bytes()) };
    ensure!(
        found.is_ok(),
        "the NVIDIA driver has no function `{name}`, which the compiled kernels want: install a newer one"
    );
    Ok(())
}

fn driver_version() -> Result<i32> {
    let mut version = 0;
    // SAFETY: the library is there, and the function writes one number.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().said("cannot ask the NVIDIA driver for its version")?;
    Ok(version)
}

/// The primary context of a GPU, current on the thread that made it; given back when dropped. Whatever else is made of the
/// driver is used on that thread, and dropped before.
pub struct Context {
    device: sys::CUdevice,
    /// Contexts are current on one thread: this keeps them there.
    _thread: std::marker::PhantomData<*const ()>,
}

impl Context {
    pub fn new(gpu: &Gpu) -> Result<Context> {
        // SAFETY: the driver gave the device.
        let raw = unsafe { result::primary_ctx::retain(gpu.device) }.said("cannot use the GPU")?;
        let context = Context { device: gpu.device, _thread: std::marker::PhantomData };
        // SAFETY: the context was just retained.
        unsafe { result::ctx::set_current(raw) }.said("cannot use the GPU")?;
        Ok(context)
    }

    /// Bytes of the GPU's memory that nobody has, and of all of it.
    pub fn free_and_total(&self) -> Result<(usize, usize)> {
        result::mem_get_info().said("cannot ask how much memory the GPU has")
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it was retained once. What the driver says no longer matters.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_and_versions() {
        let known = [("sm_80", ((8, 0), false)), ("sm_90a", ((9, 0), true)), ("sm_120", ((12, 0), false))];
        for (name, wanted) in known {
            assert_eq!(parse_arch(name), Some(wanted));
        }
        for name in ["", "sm_", "sm_9", "sm_a", "znver3", "sm_99999"] {
            assert_eq!(parse_arch(name), None, "{name}");
        }
        assert_eq!([11040, 12000, 13010].map(version), ["11.4", "12.0", "13.1"]);
    }
}
