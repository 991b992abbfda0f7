//! Executes artifacts: loads the plan and its code, trains, saves. Never sees the IR and links no compiler.
//!
//! Invariants:
//! - Memory is allocated once, when an artifact is loaded; a step computes no shapes, looks up no names, allocates nothing
//!   on the device.
//! - Equal artifacts give equal bits on the same kind of device, whatever the number of threads and however often the run
//!   was stopped and resumed.
pub mod checkpoint;
mod data;
pub mod device;
pub mod disk;
mod element;
mod host;
pub mod locate;
mod params;
mod programs;
mod report;
pub mod session;
pub mod train;
mod weights;

pub use element::Element;
pub use host::{Moment, others_seconds};
pub use weights::ModelWeights;
