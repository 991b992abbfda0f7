//! `manifest.json`: what an artifact was built from, for and by, and a hash of each of its files.
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path};

/// Version of the artifact's format; a reader refuses every other.
pub const SCHEMA: u32 = 10;

/// The table of contents of an artifact.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub schema: u32,
    pub header: Header,
    /// blake3 of every other file of the artifact, by its path relative to the artifact.
    pub files: BTreeMap<String, String>,
}

/// What the compiler knows about an artifact beyond its files.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Version of `amc` that compiled it.
    pub compiler: String,
    pub target: TargetInfo,
    /// Libraries of the GPU's vendor that a run opens beside the driver's.
    pub libraries: Vec<String>,
    /// blake3 of the recipe as it was compiled, overrides included.
    pub recipe: String,
    /// Files of the model folder that the run reads, by their names in that folder.
    pub model_files: Vec<InputFile>,
    /// Exact memory, by phase.
    pub memory: Vec<PhaseMemory>,
}

/// What the code was generated for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetInfo {
    pub kind: TargetKind,
    /// LLVM's name of the processor, such as `znver3`, or of the GPU's architecture, such as `sm_80`.
    pub cpu: String,
    /// CPU features that the code uses, by LLVM's names (`avx2`, `fma`); checked before the code is loaded.
    pub features: Vec<String>,
}

/// A kind of device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
    /// Obeys every verb and does nothing; has no code.
    Null,
}

/// A file outside the artifact, pinned by its contents.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputFile {
    pub name: String,
    pub bytes: u64,
    pub blake3: String,
}

impl InputFile {
    /// Describes the file `name` of `folder` as it is now.
    pub fn of(folder: &Path, name: &str) -> Result<InputFile> {
        let (blake3, bytes) = hash_file(&folder.join(name))?;
        Ok(InputFile { name: name.to_string(), bytes, blake3 })
    }

    /// Checks that `folder` still holds the file with the same contents.
    pub fn verify(&self, folder: &Path) -> Result<()> {
        ensure_plain_relative(&self.name)?;
        let path = folder.join(&self.name);
        let (blake3, bytes) = hash_file(&path)?;
        ensure!(
            blake3 == self.blake3,
            "{} changed since it was compiled: {bytes} bytes with hash {blake3}, compiled from {} bytes with hash {}; \
             restore the file or run `amc compile` again",
            path.display(),
            self.bytes,
            self.blake3
        );
        Ok(())
    }
}

/// Memory that one phase of a run touches, in bytes: loading, each program, saving. What is constant is
/// [`crate::memory::PROCESS_BYTES`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseMemory {
    /// `load`, the name of a program, or `save`.
    pub phase: String,
    /// Parameters, gradients and optimizer state in the arena.
    pub state: u64,
    /// Activations and inputs in the arena; of `load` and `save` the buffer that tensors pass through.
    pub activations: u64,
    /// Scratch of one thread.
    pub scratch: u64,
    /// Frozen tensors and constants that it reads.
    pub weights: u64,
}

/// Hex blake3 of some bytes.
pub fn hash_bytes(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Hex blake3 and size of a file, read in pieces so that it never stands in memory as a whole.
pub fn hash_file(path: &Path) -> Result<(String, u64)> {
    let context = || format!("cannot read {}", path.display());
    let mut file = std::fs::File::open(path).with_context(context)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        let count = file.read(&mut buffer).with_context(context)?;
        if count == 0 {
            return Ok((hasher.finalize().to_hex().to_string(), total));
        }
        hasher.update(&buffer[..count]);
        total += count as u64;
    }
}

/// Refuses names that would leave the folder they are relative to.
pub(crate) fn ensure_plain_relative(name: &str) -> Result<()> {
    let mut parts = Path::new(name).components().peekable();
    let plain = parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)));
    ensure!(plain && !name.contains('\0'), "file name {name:?} is not a plain relative path");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        ensure_plain_relative("kernels/kernels.so").unwrap();
        for name in ["", ".", "..", "/etc/passwd", "a/../../b", "a\0b"] {
            assert!(ensure_plain_relative(name).is_err(), "{name:?}");
        }
    }
}
