//! Tuning as data: a row for each kind of vector unit, with the figures that justify it.

/// What the matrix product template chooses from on one kind of CPU.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GemmTuning {
    /// Register tiles, rows by vectors.
    pub tiles: &'static [(usize, usize)],
    /// Depth (elements of K, all terms together) up to which a tile is computed in one go.
    pub whole_depth: usize,
    /// Depth of a block where K is longer than that.
    pub block_depth: usize,
    /// Bytes of a packed block of A, which stays in the second-level cache while panels of B pass by.
    pub a_block_bytes: usize,
    /// Steps of K that one turn of the tile's loop takes.
    pub unroll: usize,
}

const AVX2: GemmTuning = GemmTuning {
    tiles: &[(4, 3), (6, 2), (12, 1)],
    whole_depth: 2048,
    block_depth: 1024,
    a_block_bytes: 192 << 10,
    unroll: 4,
};

const AVX512: GemmTuning = GemmTuning {
    tiles: &[(8, 3), (12, 2), (14, 1)],
    whole_depth: 2048,
    block_depth: 1024,
    a_block_bytes: 384 << 10,
    unroll: 4,
};

/// The row for vectors of `lanes` f32.
pub fn gemm(lanes: usize) -> &'static GemmTuning {
    if lanes >= 16 { &AVX512 } else { &AVX2 }
}
