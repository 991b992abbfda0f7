//! The reader and writer of safetensors files, which the runtime shares.
pub use amc_artifact::safetensors::*;
