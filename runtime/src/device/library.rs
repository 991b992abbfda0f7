//! Kernels from the shared object of an artifact.
use super::{KernelFn, Symbols};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// An opened shared object; closed when dropped.
pub struct Library {
    path: PathBuf,
    library: libloading::Library,
}

impl Library {
    /// Opens the shared object.
    ///
    /// # Safety
    /// The file is what amc compiled for this CPU: its hash was compared with the manifest's and the manifest is the
    /// user's own. Its kernels keep to the plan that was compiled with it.
    pub unsafe fn open(path: &Path) -> Result<Library> {
        let absolute = std::path::absolute(path)?;
        // SAFETY: kernels have no initialisers; the rest is the caller's promise.
        let library = unsafe { libloading::Library::new(&absolute) }
            .with_context(|| format!("cannot load the compiled kernels {}", path.display()))?;
        Ok(Library { path: path.to_path_buf(), library })
    }
}

// SAFETY: the promise given to `open`; the library stays open as long as the table lives.
unsafe impl Symbols for Library {
    fn resolve(&self, name: &str) -> Result<KernelFn> {
        // SAFETY: every symbol that a plan names has the calling convention of kernels.
        let symbol = unsafe { self.library.get::<KernelFn>(name.as_bytes()) };
        let symbol = symbol.with_context(|| format!("{} has no kernel `{name}`", self.path.display()))?;
        Ok(*symbol)
    }
}
