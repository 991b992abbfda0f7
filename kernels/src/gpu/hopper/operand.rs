//! A matrix of a product, and how its tiles lie in shared memory.
//!
//! A tile has some *lines* (rows of A, columns of B) and [`DEPTH`] steps of K. Where K runs along the rows in memory, a tile
//! is one box, a line in each of its rows. Otherwise it is a box for every 64 lines, a step in each of its rows. Either
//! way it is as large, and rows are 128 bytes, swizzled. The blocks of a cluster copy equal parts of a tile of B, each
//! a box or several of its own.
use super::DEPTH;
use crate::emit::Elem;
use crate::gemm::Operand;
use crate::gpu::tensor_map::{BOX_ROW_BYTES, TensorMap};

/// Lines of a box's row where K runs down.
pub const BOX_LINES: usize = BOX_ROW_BYTES / 2;

pub struct Matrix<'a> {
    pub operand: &'a Operand,
    /// Whether K runs along the rows in memory.
    pub along: bool,
    /// Rows of A, columns of B.
    pub lines: usize,
    pub steps: usize,
    /// Lines of a tile, a multiple of 64.
    pub tile_lines: usize,
    /// Blocks of a cluster that copy a part of a tile each, some lines, for all of them; 1 where a block copies its
    /// own.
    pub parts: usize,
}

impl Matrix<'_> {
    /// The map that copies its tiles.
    pub fn map(&self, operand: usize) -> TensorMap {
        let (rows, columns) = if self.along { (self.lines, self.steps) } else { (self.steps, self.lines) };
        let box_rows = if self.along { self.part_lines() } else { DEPTH };
        let (stride, box_row_bytes) = (self.operand.stride, BOX_ROW_BYTES);
        TensorMap { operand, elem: Elem::Bf16, rows, columns, stride, box_rows, box_row_bytes }
    }

    /// Lines of a part of a tile.
    pub fn part_lines(&self) -> usize {
        self.tile_lines / self.parts
    }

    /// Boxes of a part of a tile: the first line of each, and where it begins in the part, in bytes.
    pub fn boxes(&self) -> Vec<(usize, usize)> {
        let lines = if self.along { self.part_lines() } else { BOX_LINES };
        (0..self.part_lines()).step_by(lines).map(|line| (line, self.line_at(line))).collect()
    }

    /// Bytes between its boxes in a tile, where it has several.
    pub fn leading(&self) -> Option<usize> {
        (!self.along).then_some(DEPTH * BOX_ROW_BYTES)
    }

    /// Where a line that begins a pattern of the swizzle is in a tile, in bytes.
    pub fn line_at(&self, line: usize) -> usize {
        if self.along { line * BOX_ROW_BYTES } else { line / BOX_LINES * DEPTH * BOX_ROW_BYTES }
    }

    /// Bytes from one step of K to another that a product begins with, a multiple of 16.
    pub fn step_at(&self, step: usize) -> usize {
        if self.along { step * 2 } else { step * BOX_ROW_BYTES }
    }
}
