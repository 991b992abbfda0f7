//! NVIDIA GPUs. Nothing runs on them yet; what is missing is said in a sentence.
use anyhow::{Error, anyhow};
use libloading::Library;

/// The driver's library.
const DRIVER: &str = "libcuda.so.1";

/// Why an artifact for this architecture cannot run here.
pub fn refusal(architecture: &str) -> Error {
    // SAFETY: opening the driver's library runs its initialisers, which programs on CUDA do likewise.
    if let Err(error) = unsafe { Library::new(DRIVER) } {
        return anyhow!(
            "the artifact was compiled for a GPU ({architecture}), and {DRIVER} was not found ({error}): install NVIDIA's \
             driver, or compile with `--target cpu`"
        );
    }
    anyhow!(
        "the artifact was compiled for a GPU ({architecture}), and this amc runs artifacts on CPUs only: compile with \
         `--target cpu`"
    )
}
