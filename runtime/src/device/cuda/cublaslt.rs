//! cuBLASLt, the vendor's library of matrix products; or a sentence about what is missing.
//!
//! It is opened where a plan has products for it, so that everything else runs without.
use super::driver::{Context, Gpu};
use super::vendor_library::{Missing, Opened, Release, open};
use anyhow::{Context as _, Result, bail, ensure};
use cudarc::cublaslt::sys;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::PathBuf;

/// Newest first.
const RELEASES: [Release; 2] = [
    Release { driver: 13_000, file: "libcublasLt.so.13", package: "nvidia-cublas", folder: "nvidia/cu13/lib" },
    Release { driver: 12_000, file: "libcublasLt.so.12", package: "nvidia-cublas-cu12", folder: "nvidia/cublas/lib" },
];

/// What a function says of how it went: a `cublasStatus_t`, or a number that this program does not know.
pub type Status = u32;
const SUCCESS: Status = sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS as Status;
pub const NOT_SUPPORTED: Status = sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED as Status;

macro_rules! functions {
    ($($field:ident $name:literal ($($parameter:ty),*) -> $result:ty;)*) => {
        /// The library's functions that products want.
        pub struct Functions {
            $(pub $field: unsafe extern "C" fn($($parameter),*) -> $result,)*
        }

        impl Functions {
            /// # Safety
            /// The library is cuBLASLt; the functions are called only while it is open.
            unsafe fn find(library: &libloading::Library) -> Result<Functions> {
                let missing = |name| {
                    format!("cuBLASLt has no function `{name}`: install another release, or compile with `--no-vendor`")
                };
                Ok(Functions {
                    // SAFETY: the types are those of NVIDIA's `cublasLt.h`.
                    $($field: *unsafe { library.get($name.as_bytes()) }.with_context(|| missing($name))?,)*
                })
            }
        }
    };
}

type Descriptor = sys::cublasLtMatmulDesc_t;
type Layout = sys::cublasLtMatrixLayout_t;
type Preference = sys::cublasLtMatmulPreference_t;

functions! {
    create "cublasLtCreate" (*mut sys::cublasLtHandle_t) -> Status;
    destroy "cublasLtDestroy" (sys::cublasLtHandle_t) -> Status;
    version "cublasLtGetVersion" () -> usize;
    status_name "cublasLtGetStatusName" (Status) -> *const c_char;
    status_text "cublasLtGetStatusString" (Status) -> *const c_char;
    create_descriptor "cublasLtMatmulDescCreate"
        (*mut Descriptor, sys::cublasComputeType_t, sys::cudaDataType_t) -> Status;
    destroy_descriptor "cublasLtMatmulDescDestroy" (Descriptor) -> Status;
    describe "cublasLtMatmulDescSetAttribute"
        (Descriptor, sys::cublasLtMatmulDescAttributes_t, *const c_void, usize) -> Status;
    create_layout "cublasLtMatrixLayoutCreate" (*mut Layout, sys::cudaDataType_t, u64, u64, i64) -> Status;
    destroy_layout "cublasLtMatrixLayoutDestroy" (Layout) -> Status;
    create_preference "cublasLtMatmulPreferenceCreate" (*mut Preference) -> Status;
    destroy_preference "cublasLtMatmulPreferenceDestroy" (Preference) -> Status;
    prefer "cublasLtMatmulPreferenceSetAttribute"
        (Preference, sys::cublasLtMatmulPreferenceAttributes_t, *const c_void, usize) -> Status;
    find_algorithms "cublasLtMatmulAlgoGetHeuristic"
        (
            sys::cublasLtHandle_t, Descriptor, Layout, Layout, Layout, Layout, Preference, c_int,
            *mut sys::cublasLtMatmulHeuristicResult_t, *mut c_int
        ) -> Status;
    multiply "cublasLtMatmul"
        (
            sys::cublasLtHandle_t, Descriptor, *const f32, u64, Layout, u64, Layout, *const f32, u64, Layout, u64,
            Layout, *const sys::cublasLtMatmulAlgo_t, u64, usize, cudarc::driver::sys::CUstream
        ) -> Status;
}

/// The opened library.
pub struct Library {
    pub functions: Functions,
    /// Where it was found.
    file: PathBuf,
    /// Closed when dropped.
    _library: libloading::Library,
}

impl Library {
    /// The newest release that is there and that the driver can run.
    ///
    /// # Errors
    /// There is none, or it lacks a function.
    pub fn open(gpu: &Gpu) -> Result<Library> {
        match open(&RELEASES, gpu) {
            Ok(Opened { file, library }) => {
                // SAFETY: the file is NVIDIA's by its name, and is closed with the functions.
                let functions = unsafe { Functions::find(&library) }.with_context(|| file.display().to_string())?;
                Ok(Library { functions, file, _library: library })
            }
            Err(Missing { reason, wanted: Release { file, package, .. } }) => bail!(
                "this machine has no cuBLASLt for its driver ({reason}), which artifacts want for large products: install \
                 {file} where the loader finds it, or the package {package} into the active virtual environment, or compile \
                 with `amc compile --no-vendor`"
            ),
        }
    }

    /// The library in a line.
    pub fn summary(&self) -> String {
        // SAFETY: it is open, and the function takes nothing.
        let version = unsafe { (self.functions.version)() };
        let (major, minor) = (version / 10_000, version % 10_000 / 100);
        format!("cuBLASLt {major}.{minor} ({})", self.file.display())
    }

    /// Nothing, or `failed` and what the library says of it.
    pub fn said(&self, status: Status, failed: impl std::fmt::Display) -> Result<()> {
        ensure!(status == SUCCESS, "{failed}: {}", self.text(status));
        Ok(())
    }

    fn text(&self, status: Status) -> String {
        // SAFETY: both give a text that lives as long as the library, or nothing.
        let [name, text] = [self.functions.status_name, self.functions.status_text].map(|text| unsafe { text(status) });
        // SAFETY: as above.
        let read = |text: *const c_char| (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy());
        let unknown = || format!("status {status}").into();
        format!("{} ({})", read(name).unwrap_or_else(unknown), read(text).unwrap_or("unknown".into()))
    }
}

/// The library at work in a context.
pub struct Handle {
    raw: sys::cublasLtHandle_t,
    pub library: Library,
}

impl Handle {
    pub fn new(library: Library, _context: &Context) -> Result<Handle> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: a context is current, and the function writes a handle.
        let created = unsafe { (library.functions.create)(&mut raw) };
        library.said(created, format_args!("{} does not start", library.summary()))?;
        Ok(Handle { raw, library })
    }

    pub fn raw(&self) -> sys::cublasLtHandle_t {
        self.raw
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: nobody uses it afterwards. What the library says no longer matters.
        let _ = unsafe { (self.library.functions.destroy)(self.raw) };
    }
}
