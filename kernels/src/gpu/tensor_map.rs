//! Tensor maps: what a kernel gets in place of the address of a matrix that it copies box by box.
//!
//! A map is a parameter of 128 bytes, or one of an array of them that is one parameter, passed by value (`__grid_constant__`):
//! a launch, or a graph that holds it, keeps its copy, so no map lives in memory of the device. Boxes have rows of 128, 64 or 32 bytes and lie in shared memory under the
//! swizzle of as many bytes (PTX ISA, "Tensor swizzling modes"), which `wgmma` reads; elements of a box outside of the
//! matrix are zeros.
use super::block::{Block, OperandArray};
use crate::emit::{Elem, Emitter, Value};
use crate::gemm::Operand;

/// Bytes of the longest row of a box.
pub const BOX_ROW_BYTES: usize = 128;
/// Bytes of a map.
pub const MAP_BYTES: usize = 128;
const ADDRESS_BYTES: usize = 8;
/// Bytes of a box's row, and of the rows that its swizzle permutes, the longest first.
const BOX_ROWS_BYTES: [usize; 3] = [BOX_ROW_BYTES, 64, 32];
/// Rows of a matrix are multiples of so many bytes apart, and it begins at one.
const PITCH_BYTES: usize = 16;

/// A matrix that a kernel copies box by box.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TensorMap {
    /// Which operand of the kernel it is.
    pub operand: usize,
    pub elem: Elem,
    /// As it is stored.
    pub rows: usize,
    pub columns: usize,
    /// Elements from one row to the next.
    pub stride: usize,
    /// Rows of a box, up to 256.
    pub box_rows: usize,
    /// Bytes of a row of a box: 128, 64 or 32.
    pub box_row_bytes: usize,
}

/// Bytes of the longest row of a box that divides so many bytes, if there is one.
pub fn whole_box_row(bytes: usize) -> Option<usize> {
    BOX_ROWS_BYTES.into_iter().find(|row_bytes| bytes.is_multiple_of(*row_bytes))
}

impl TensorMap {
    /// Whether a matrix can be copied so (`cuTensorMapEncodeTiled`: strides are multiples of 16 bytes).
    pub fn suits(operand: &Operand) -> bool {
        (operand.stride * operand.elem.bytes() as usize).is_multiple_of(PITCH_BYTES)
    }

    /// Elements of a box's row.
    pub fn box_columns(&self) -> usize {
        self.box_row_bytes / self.elem.bytes() as usize
    }
}

impl Emitter {
    /// The map of an operand, which is given to the kernel instead of its address.
    pub(super) fn tensor_map(&mut self, map: TensorMap) -> Value {
        let TensorMap { operand, elem, rows, columns, stride, box_rows, .. } = map;
        // A part of the text, so that kernels with other maps have other symbols.
        self.line(format!(
            "// operand {operand} is a map of {rows} x {columns} {}, {stride} apart, in boxes of {box_rows} x {}",
            elem.name(),
            map.box_columns()
        ));
        self.block.as_mut().expect("only a block has tensor maps").add_map(map);
        self.arg(operand)
    }

    /// The maps of `count` operands from the map's own on, which all look like it.
    pub(super) fn tensor_maps(&mut self, map: TensorMap, count: usize) -> Value {
        let maps = self.tensor_map(map);
        self.block
            .as_mut()
            .expect("only a block has tensor maps")
            .add_array(OperandArray { first: map.operand, count });
        maps
    }

    /// One of several maps, by its number.
    pub(super) fn map_of(&mut self, maps: &str, index: &str) -> Value {
        let ty = format!("!llvm.array<{MAP_BYTES} x i8>");
        self.op(format!("llvm.getelementptr inbounds {maps}[{index}] : (!llvm.ptr, i64) -> !llvm.ptr, {ty}"))
    }
}

impl Block {
    /// The parameter's attributes, for operands that are maps or begin an array.
    pub(super) fn parameter_attributes(&self, operand: usize) -> String {
        let is_map = self.maps().iter().any(|map| map.operand == operand);
        let (alignment, bytes) = match (is_map, self.array_of(operand)) {
            (true, array) => (64, MAP_BYTES * array.map_or(1, |array| array.count)),
            (false, Some(array)) => (ADDRESS_BYTES, ADDRESS_BYTES * array.count),
            (false, None) => return String::new(),
        };
        format!(" {{llvm.align = {alignment} : i64, llvm.byval = !llvm.array<{bytes} x i8>, nvvm.grid_constant}}")
    }
}
