//! Descriptors, by which `wgmma` finds a matrix in shared memory (PTX ISA, "Matrix descriptor format").
//!
//! Bits 0–13 are the address, 16–29 and 32–45 the leading and the stride offset, all in units of 16 bytes; 62–63 are 1, 2
//! and 3 for the swizzle of 128, 64 and 32 bytes. The stride offset leads from the eight rows of the swizzle's pattern to the
//! next eight. The leading offset counts only where K runs down: from one box, whose rows are lines, to the next.
use crate::emit::{Emitter, Value};

/// The unit of addresses and offsets.
const UNIT: usize = 16;
const ADDRESS_MASK: i64 = 0x3fff;
/// Rows of a swizzle's pattern.
pub const PATTERN_ROWS: usize = 8;

/// The descriptor of a matrix at the beginning of shared memory, of boxes with rows of so many bytes; others have their
/// distance, by [`distance`], added. `leading` is how many bytes lie between boxes where K runs down.
pub fn first(e: &mut Emitter, row_bytes: usize, leading: Option<usize>) -> Value {
    let leading = leading.map_or(1, distance);
    let swizzle = (256 / row_bytes).ilog2() as i64;
    let fixed = (swizzle << 62) | (distance(PATTERN_ROWS * row_bytes) << 32) | (leading << 16);
    let address = e.op("llvm.ptrtoint %shared_memory : !llvm.ptr<3> to i64");
    let (unit, mask, fixed) = (e.index(UNIT as i64), e.index(ADDRESS_MASK), e.index(fixed));
    let address = e.int2("divui", &address, &unit);
    let address = e.int2("andi", &address, &mask);
    e.int2("ori", &address, &fixed)
}

/// The descriptor of the same place with that many bytes between boxes, made of one [`first`] made without.
pub fn leading(e: &mut Emitter, descriptor: &str, bytes: usize) -> Value {
    e.plus(descriptor, (distance(bytes) - 1) << 16)
}

/// What so many bytes are in a descriptor.
pub fn distance(bytes: usize) -> i64 {
    (bytes / UNIT) as i64
}
