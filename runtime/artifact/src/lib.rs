//! The artifact: what `amc compile` writes and `amc run` reads.
//!
//! Invariants:
//! - Nothing here depends on the time, on absolute paths or on map order: equal inputs give equal bytes.
//! - Every address is an offset into one arena, one constant pool or one weight file; the runtime adds base pointers once.
mod plan;
pub mod safetensors;
mod sampler;
mod shard;

pub use plan::*;
pub use sampler::*;
pub use shard::*;
