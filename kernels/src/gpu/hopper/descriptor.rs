//! Descriptors, by which `wgmma` finds a matrix in shared memory (PTX ISA, "Matrix descriptor format").
//!
//! Bits 0–13 are the address, 16–29 and 32–45 the leading and the stride offset, all in units of 16 bytes; 62–63 are 1 for
//! the swizzle of 128 bytes. The stride offset leads from eight rows of the swizzle's pattern to the next eight. The leading
//! offset counts only where K runs down: from one box of 64 lines to the next.
use super::SWIZZLE_PERIOD;
use crate::emit::{Emitter, Value};

/// The unit of addresses and offsets.
const UNIT: usize = 16;
const ADDRESS_MASK: i64 = 0x3fff;

/// The descriptor of a swizzled matrix at the beginning of shared memory; others have their distance, by [`distance`], added.
/// `leading` is how many bytes lie between boxes of 64 lines where K runs down.
pub fn first(e: &mut Emitter, leading: Option<usize>) -> Value {
    let leading = leading.map_or(1, distance);
    let fixed = (1i64 << 62) | (distance(SWIZZLE_PERIOD) << 32) | (leading << 16);
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
