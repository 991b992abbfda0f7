//! The artifact: what `amc compile` writes and `amc run` reads.
//!
//! Invariants:
//! - Nothing here depends on the time, on absolute paths or on map order: equal inputs give equal bytes.
//! - Every address is an offset into one arena, one constant pool or one weight file; the runtime adds base pointers once.
mod artifact;
mod cache;
mod forecast;
pub mod hub_cache;
mod manifest;
pub mod memory;
pub mod philox;
mod plan;
pub mod rates;
mod run_config;
pub mod safetensors;
mod sampler;
mod schedule;
mod shard;
mod validate;
mod vendor;

pub use artifact::*;
pub use cache::*;
pub use forecast::*;
pub use manifest::*;
pub use plan::*;
pub use run_config::*;
pub use sampler::*;
pub use schedule::*;
pub use shard::*;
pub use validate::tensor_bytes;
pub use vendor::*;
