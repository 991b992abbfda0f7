//! What the counts of instructions are taken of, and how.
pub mod callgrind;
pub mod loops;
pub mod problems;
mod products;
