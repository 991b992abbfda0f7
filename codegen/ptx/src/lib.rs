//! An interpreter for the PTX that LLVM writes for our kernels, so that they can be tested on a machine without a GPU.
//!
//! It runs a kernel as a GPU would, warp by warp, and ends with a fault wherever a GPU's behaviour is undefined: an
//! access out of bounds or misaligned, a read of memory or of a register that nobody wrote, a data race, a barrier that
//! not all threads come to. It models neither speed nor the rounding of approximate functions and tensor cores.
//!
//! ```
//! let module = amc_ptx::load(
//!     ".version 8.3 .target sm_90a .address_size 64
//!      .visible .entry one(.param .u64 out) {
//!         .reg .b64 %rd<2>;
//!         ld.param.b64 %rd1, [out];
//!         st.global.b32 [%rd1], 1;
//!         ret;
//!      }",
//! )?;
//! let mut device = amc_ptx::Device::new();
//! let out = device.allocate("out", 4);
//! let launch = amc_ptx::Launch::new([1, 1, 1], [1, 1, 1]);
//! device.launch(&module[0], &launch, &[amc_ptx::Argument::U64(out)])?;
//! assert_eq!(device.read(out, 4)?, [1, 0, 0, 0]);
//! # Ok::<(), amc_ptx::Error>(())
//! ```
mod control_flow;
mod decode;
mod error;
mod machine;
mod op;
mod ops;
mod parse;
mod program;
mod tensor_map;

pub use error::{Error, Fault, FaultKind, Place};
pub use machine::launch::{Argument, Device, Launch, Mode, Statistics};
pub use parse::{Parameter, ParseError, Space};
pub use program::Kernel;
pub use tensor_map::{Swizzle, TENSOR_MAP_BYTES, TensorElement, TensorMap};

/// The kernels of a PTX file.
///
/// # Errors
/// Text that is not PTX, or an instruction that this interpreter does not know, by its line.
pub fn load(source: &str) -> Result<Vec<Kernel>, Error> {
    decode::decode(&parse::parse(source)?)
}
