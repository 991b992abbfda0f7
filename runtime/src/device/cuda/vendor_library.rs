//! Libraries of NVIDIA's that a machine may have: which release, and from where.
//!
//! A file is looked for by the name of its release, as the loader knows it; the name without a number is a link that only packages for
//! developers bring. Then in the active virtual environment for Python, where NVIDIA's packages put it.
use super::driver::{Gpu, loader_says};
use std::path::{Path, PathBuf};

/// The environment variable with the folder of the active virtual environment for Python.
const ENVIRONMENT: &str = "VIRTUAL_ENV";

/// A release of a library.
pub struct Release {
    /// The oldest CUDA whose driver it runs on: 1000 times its major and 10 times its minor number.
    pub driver: i32,
    pub file: &'static str,
    /// NVIDIA's package for Python that has the file, and where it puts that.
    pub package: &'static str,
    pub folder: &'static str,
}

/// An opened release.
pub struct Opened {
    /// Where it was found.
    pub file: PathBuf,
    /// Closed when dropped.
    pub library: libloading::Library,
}

/// Why there is none: the loader's reason, and the release that this machine would take.
pub struct Missing<'a> {
    pub reason: String,
    pub wanted: &'a Release,
}

/// Opens the first of the releases that is there and that the GPU's driver can run. The last runs on every driver.
pub fn open<'a>(releases: &'a [Release], gpu: &Gpu) -> Result<Opened, Missing<'a>> {
    let mut reason = String::new();
    let fitting = || releases.iter().filter(|release| release.driver <= gpu.driver());
    for file in fitting().flat_map(Release::places) {
        // SAFETY: NVIDIA's libraries have no initialisers that ask anything of the program.
        match unsafe { libloading::Library::new(&file) } {
            Ok(library) => return Ok(Opened { file, library }),
            Err(error) => reason = loader_says(&error),
        }
    }
    Err(Missing { reason, wanted: fitting().next().or(releases.last()).expect("a library has releases") })
}

impl Release {
    /// Where its file is looked for: where the loader does, then in the active virtual environment.
    fn places(&self) -> Vec<PathBuf> {
        let environment = std::env::var_os(ENVIRONMENT).map(PathBuf::from);
        let installed = environment.map(|root| self.installed(&root)).unwrap_or_default();
        std::iter::once(PathBuf::from(self.file)).chain(installed).collect()
    }

    /// What the versions of Python in a virtual environment have of it, in order of their names.
    fn installed(&self, root: &Path) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(root.join("lib")) else { return Vec::new() };
        let file = |version: PathBuf| version.join("site-packages").join(self.folder).join(self.file);
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| file(entry.path())).collect();
        files.retain(|file| file.is_file());
        files.sort();
        files
    }
}
