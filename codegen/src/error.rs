//! What can go wrong between kernel text and shared object.

/// An error of code generation; the text says where, what was found, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("kernel `{symbol}`: {stage}: {found}")]
    Kernel { symbol: String, stage: &'static str, found: String },
    #[error("two kernels are named `{symbol}`; the symbol of a kernel must be unique for its text")]
    Duplicate { symbol: String },
    #[error(
        "no linker found on PATH (looked for {looked_for}); install one, such as the package `binutils`, \
         to build the shared object of the kernels"
    )]
    NoLinker { looked_for: String },
    #[error("linker `{linker}` failed: {found}")]
    Link { linker: String, found: String },
    #[error("target `{name}`: {found}; wanted {wanted}")]
    Target { name: String, found: String, wanted: String },
    #[error("LLVM: {0}")]
    Llvm(String),
    #[error("{what}: {error}")]
    Io { what: String, error: std::io::Error },
}
