//! The loss at the output head: rows with a label are gathered into blocks, a block's logits become losses and, in place,
//! gradients, and the gradients of the rows are scattered back.
//!
//! A label below 0 means that the row has none. `counts[b]` is the number of gathered rows in block `b`; gathered rows are
//! in the order of the tokens, so all blocks are full up to one, and those behind it empty.
mod rows;
mod softmax;

pub use rows::{CompactRows, GatherRows, ScatterRows};
pub use softmax::CrossEntropyRows;
