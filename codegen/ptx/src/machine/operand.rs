//! An operand of `wgmma` in shared memory: what its descriptor says about where its elements lie.
//!
//! Shared memory is seen in chunks of 16 bytes. A swizzled operand has rows as long as the swizzle's span, eight of
//! which make a pattern; rows run along k, or, transposed, along the other dimension. Without swizzle the eight rows of
//! a pattern are single chunks. The stride offset leads from eight rows to the next eight; the leading offset from one
//! row's end to where it goes on, in layouts where that is elsewhere.
use super::matrix::from_tf32;
use crate::{op::Element, ops::half, tensor_map::Swizzle};

pub const CHUNK_BYTES: u64 = 16;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Operand {
    start: u64,
    leading: u64,
    stride: u64,
    swizzle: Swizzle,
    element: Element,
    /// M of A, N of B.
    pub rows: usize,
    pub k: usize,
    transposed: bool,
}

/// 16 bytes: elements of one row at consecutive k, or, transposed, of one k in consecutive rows.
pub struct Chunk {
    pub address: u64,
    row: usize,
    k: usize,
}

impl Operand {
    /// From the bits of a descriptor.
    ///
    /// # Errors
    /// Bits that mean nothing, or a start in the middle of a swizzle's pattern.
    pub fn new(bits: u64, element: Element, rows: usize, k: usize, transposed: bool) -> Result<Operand, String> {
        let field = |from: u32| (bits >> from & 0x3fff) << 4;
        let swizzle = match bits >> 62 {
            0 => Swizzle::None,
            1 => Swizzle::Bytes128,
            2 => Swizzle::Bytes64,
            _ => Swizzle::Bytes32,
        };
        let start = field(0);
        if bits >> 49 & 7 != 0 || bits >> 52 & 0x3ff != 0 {
            return Err(format!("descriptor {bits:#018x} has a base offset or unknown bits, wanted zeros"));
        }
        if transposed && element == Element::Tf32 {
            return Err("a transposed operand of 32-bit elements".to_owned());
        }
        if swizzle != Swizzle::None && start % swizzle.period() >= swizzle.span() {
            let period = swizzle.period();
            return Err(format!("an operand at {start:#x}, inside of its swizzle's pattern of {period} bytes"));
        }
        Ok(Operand { start, leading: field(16), stride: field(32), swizzle, element, rows, k, transposed })
    }

    /// All chunks with elements of the given rows.
    pub fn chunks_of_rows(&self, first: usize, count: usize) -> impl Iterator<Item = Chunk> {
        let (operand, per_chunk) = (*self, self.per_chunk());
        let (row_step, k_step) = if self.transposed { (per_chunk, 1) } else { (1, per_chunk) };
        (first..first + count).step_by(row_step).flat_map(move |row| {
            (0..operand.k).step_by(k_step).map(move |k| Chunk { address: operand.address(row, k), row, k })
        })
    }

    /// Writes a chunk's elements to a matrix of rows of k.
    pub fn place(&self, chunk: &Chunk, bytes: &[u8], numbers: &mut [f32]) {
        let element = |i: usize| match self.element {
            Element::Bf16 => half::from_bf16(u32::from(u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]))),
            Element::F16 => half::from_f16(u32::from(u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]))),
            Element::Tf32 => from_tf32(u32::from_le_bytes(std::array::from_fn(|b| bytes[4 * i + b]))),
        };
        for i in 0..self.per_chunk() {
            let (row, k) = if self.transposed { (chunk.row + i, chunk.k) } else { (chunk.row, chunk.k + i) };
            numbers[row * self.k + k] = element(i);
        }
    }

    fn element_bytes(&self) -> u64 {
        if self.element == Element::Tf32 { 4 } else { 2 }
    }

    fn per_chunk(&self) -> usize {
        (CHUNK_BYTES / self.element_bytes()) as usize
    }

    /// The shared address of the chunk that starts with element (row, k).
    fn address(&self, row: usize, k: usize) -> u64 {
        let (row, k, bytes) = (row as u64, k as u64, self.element_bytes());
        // Along the contiguous dimension, and across it.
        let (along, across) = if self.transposed { (row * bytes, k) } else { (k * bytes, row) };
        let span = self.swizzle.span();
        let address = match (self.swizzle, self.transposed) {
            (Swizzle::None, false) => along / span * self.leading + across / 8 * self.stride + across % 8 * span,
            (Swizzle::None, true) => along / span * self.stride + across / 8 * self.leading + across % 8 * span,
            (_, false) => along + across / 8 * self.stride + across % 8 * span,
            (_, true) => along % span + along / span * self.leading + across / 8 * self.stride + across % 8 * span,
        };
        self.swizzle.apply(self.start + address)
    }
}
