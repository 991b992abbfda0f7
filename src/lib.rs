//! The `amc` binary's parts, as a library so that the tests of `tests/` can use them.
pub mod commands;
#[cfg(feature = "compiler")]
pub mod compiler;
pub mod report;
