//! The text form: [`print`] writes a module, [`parse()`] reads it back. The two agree by a round trip in every test.
//!
//! ```text
//! // a comment to the end of the line
//! func @layer(%0 "x": f32[4,8], %1 "weight": f32[8]) {
//!   %2 = rms_norm %0, %1 {eps = 1e-5, plus_one = false} : f32[4,8]
//!   return %2
//! }
//! ```
mod parse;
mod print;
#[cfg(test)]
mod tests;

pub use parse::parse;
pub use print::print;
