//! A CUDA driver without a GPU, for tests of the runtime: a shared object with the driver's functions, as many as the
//! runtime calls, whose kernels run in the PTX interpreter. It has cuBLASLt's functions too, and one of NCCL's, under whose names
//! it is found as well, so that both work on one memory and the same streams.
//!
//! It is stricter than a driver. What is put into a stream is done as late as CUDA allows: when somebody waits for it. So a
//! missing wait shows, as does pinned memory that changes before its copy is done. A graph does its work in another order
//! each time, of those that it allows. What an interpreted kernel does wrong is
//! the description of the error that every call gives from then on.
//!
//! The variable [`SETTINGS`] describes the machine, such as `devices=1 capability=8.0 memory=1048576 driver=12040`; each
//! word may be left out.
mod api;
mod capture;
mod gpu;
mod machines;
mod products;
mod settings;
mod stream;

pub use machines::{NO_DRIVER, on_machines, put_on};
pub use settings::SETTINGS;
