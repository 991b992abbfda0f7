//! What the counts of instructions are taken of, and how.
pub mod callgrind;
mod experts;
pub mod golden;
pub mod loops;
mod parts;
pub mod problems;
mod products;
