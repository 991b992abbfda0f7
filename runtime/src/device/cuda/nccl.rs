//! NCCL, the vendor's library of collectives, which only runs on several GPUs would want: whether it is there.
use super::driver::Gpu;
use super::vendor_library::{Missing, Release, open};
use anyhow::{Context as _, Result, bail, ensure};
use std::ffi::c_int;

/// Both have the same name.
const RELEASES: [Release; 2] = [
    Release { driver: 13_000, file: "libnccl.so.2", package: "nvidia-nccl-cu13", folder: "nvidia/nccl/lib" },
    Release { driver: 12_000, file: "libnccl.so.2", package: "nvidia-nccl-cu12", folder: "nvidia/nccl/lib" },
];

/// The library in a line: its version and where it was found.
///
/// # Errors
/// There is none, or it says no version.
pub fn summary(gpu: &Gpu) -> Result<String> {
    let opened = match open(&RELEASES, gpu) {
        Ok(opened) => opened,
        Err(Missing { reason, wanted: Release { file, package, .. } }) => bail!(
            "{reason}; {file} is neither where the loader finds it nor in the active virtual environment, where the package \
             {package} puts it (a run on one GPU wants none)"
        ),
    };
    let file = opened.file.display();
    let mut version: c_int = 0;
    // SAFETY: the type is that of NVIDIA's `nccl.h`, and the library is open until this returns.
    let status = unsafe {
        let get = opened.library.get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"ncclGetVersion");
        get.with_context(|| format!("{file} has no function `ncclGetVersion`: it is no NCCL"))?(&mut version)
    };
    ensure!(status == 0, "{file}: NCCL says status {status} when it is asked for its version");
    let (major, minor, patch) = (version / 10_000, version % 10_000 / 100, version % 100);
    Ok(format!("{major}.{minor}.{patch} ({file})"))
}
