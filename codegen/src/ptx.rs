//! Kernels of a GPU as one text of PTX.
use crate::machine::Compiler;
use crate::{Error, emitted, ensure_distinct, processors};
use amc_kernels::{Gpu, Kernel};

/// The line that ends what every module begins with.
const LAST_OF_HEAD: &str = ".address_size 64\n";

/// Compiles `kernels`, but for those that a library computes, into one module of PTX that has their symbols as entries.
///
/// # Errors
/// A kernel that MLIR or LLVM refuses, two kernels with one symbol.
pub fn ptx(kernels: &[Kernel], gpu: Gpu) -> Result<String, Error> {
    ensure_distinct(kernels)?;
    let kernels: Vec<&Kernel> = kernels.iter().filter(|kernel| kernel.text().is_some()).collect();
    let modules = emitted(&kernels, processors(), || Compiler::for_gpu(gpu), Compiler::ptx)?;
    let version = Gpu::PTX_VERSION;
    let mut text = format!(".version {}.{}\n.target {}\n{LAST_OF_HEAD}", version / 10, version % 10, gpu.name());
    for (kernel, module) in kernels.iter().zip(modules) {
        let module = String::from_utf8_lossy(&module);
        let (_, body) = module.split_once(LAST_OF_HEAD).ok_or_else(|| Error::Kernel {
            symbol: kernel.symbol.clone(),
            stage: "LLVM's PTX",
            found: "no `.address_size 64`".into(),
        })?;
        text += body;
    }
    Ok(text)
}
