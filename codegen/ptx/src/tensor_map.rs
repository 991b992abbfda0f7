//! Tensor maps: how a bulk copy finds a box of a tensor in global memory and lays it out in shared memory.
//!
//! The description has the values that `cuTensorMapEncodeTiled` takes, under the same rules, so that a runtime and this
//! interpreter can share it. The 128 bytes of an encoded map are this crate's own; a kernel never looks into them.

/// What `cuTensorMapEncodeTiled` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMap {
    pub element: TensorElement,
    /// Of the tensor's first element; a multiple of 16.
    pub address: u64,
    /// Elements by dimension, the innermost first: 1 to 5 of them.
    pub sizes: Vec<u64>,
    /// Bytes from one index to the next, for all dimensions but the innermost; multiples of 16.
    pub strides: Vec<u64>,
    /// Elements of a box by dimension, up to 256 each.
    pub box_sizes: Vec<u32>,
    /// Elements from one of the box to the next. Only 1 is supported.
    pub element_strides: Vec<u32>,
    pub swizzle: Swizzle,
    /// Elements of a box outside of the tensor are NaN instead of zero.
    pub fill_nan: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorElement {
    U8,
    U16,
    U32,
    U64,
    F16,
    Bf16,
    F32,
    F64,
}

/// Which address bits are exchanged, so that columns of a box spread over the banks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swizzle {
    None,
    Bytes32,
    Bytes64,
    Bytes128,
}

/// Bytes of an encoded map.
pub const TENSOR_MAP_BYTES: usize = 128;
const MARK: [u8; 4] = *b"tmap";
const ELEMENTS: [TensorElement; 8] = [
    TensorElement::U8,
    TensorElement::U16,
    TensorElement::U32,
    TensorElement::U64,
    TensorElement::F16,
    TensorElement::Bf16,
    TensorElement::F32,
    TensorElement::F64,
];
const SWIZZLES: [Swizzle; 4] = [Swizzle::None, Swizzle::Bytes32, Swizzle::Bytes64, Swizzle::Bytes128];

impl TensorElement {
    pub fn bytes(self) -> u64 {
        match self {
            TensorElement::U8 => 1,
            TensorElement::U16 | TensorElement::F16 | TensorElement::Bf16 => 2,
            TensorElement::U32 | TensorElement::F32 => 4,
            TensorElement::U64 | TensorElement::F64 => 8,
        }
    }

    fn nan(self) -> Option<u64> {
        match self {
            TensorElement::F16 | TensorElement::Bf16 => Some(0x7fff),
            TensorElement::F32 => Some(0x7fff_ffff),
            TensorElement::F64 => Some(u64::MAX >> 1),
            _ => None,
        }
    }
}

impl Swizzle {
    /// Bytes of a row that the pattern permutes, in pieces of 16.
    pub fn span(self) -> u64 {
        match self {
            Swizzle::None => 16,
            Swizzle::Bytes32 => 32,
            Swizzle::Bytes64 => 64,
            Swizzle::Bytes128 => 128,
        }
    }

    /// Bytes after which the pattern repeats.
    pub fn period(self) -> u64 {
        8 * self.span()
    }

    /// The shared address that holds what an unswizzled layout has at `address`.
    pub fn apply(self, address: u64) -> u64 {
        address ^ (address >> 3 & (self.span() - 16))
    }
}

impl TensorMap {
    pub fn rank(&self) -> usize {
        self.sizes.len()
    }

    /// Bytes of a whole box, which is what a load's mbarrier is told.
    pub fn box_bytes(&self) -> u64 {
        self.box_sizes.iter().map(|size| u64::from(*size)).product::<u64>() * self.element.bytes()
    }

    /// Bytes of a box's innermost row.
    pub fn row_bytes(&self) -> u64 {
        u64::from(self.box_sizes[0]) * self.element.bytes()
    }

    /// What elements outside of the tensor are.
    pub fn fill(&self) -> u64 {
        if self.fill_nan { self.element.nan().unwrap_or(0) } else { 0 }
    }

    /// The 128 bytes that a kernel gets.
    ///
    /// # Errors
    /// The rule of `cuTensorMapEncodeTiled` that a value breaks, or a value that this interpreter does not support.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        self.check()?;
        let mut bytes = MARK.to_vec();
        bytes.push(ELEMENTS.iter().position(|e| *e == self.element).unwrap_or(0) as u8);
        bytes.push(SWIZZLES.iter().position(|s| *s == self.swizzle).unwrap_or(0) as u8);
        bytes.extend([self.rank() as u8, u8::from(self.fill_nan)]);
        bytes.extend(self.address.to_le_bytes());
        for i in 0..5 {
            // Sizes up to 2^32 and box sizes up to 256 are stored less 1.
            bytes.extend((self.sizes.get(i).copied().unwrap_or(1) as u32).wrapping_sub(1).to_le_bytes());
            bytes.extend(self.box_sizes.get(i).copied().unwrap_or(1).to_le_bytes());
            bytes.extend(self.strides.get(i).copied().unwrap_or(0).to_le_bytes());
        }
        bytes.resize(TENSOR_MAP_BYTES, 0);
        Ok(bytes)
    }

    /// Reads back what [`Self::encode`] wrote; none if the bytes are no map.
    pub fn decode(bytes: &[u8]) -> Option<TensorMap> {
        let (mark, rest) = bytes.split_first_chunk::<4>()?;
        let ([element, swizzle, rank, fill_nan], rest) = rest.split_first_chunk::<4>()?;
        let (address, rest) = rest.split_first_chunk::<8>()?;
        if *mark != MARK {
            return None;
        }
        let (mut sizes, mut box_sizes, mut strides) = (Vec::new(), Vec::new(), Vec::new());
        for dimension in rest.chunks_exact(16).take(usize::from(*rank)) {
            let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| dimension[at + i]));
            sizes.push(u64::from(word(0)) + 1);
            box_sizes.push(word(4));
            strides.push(u64::from(word(8)) | u64::from(word(12)) << 32);
        }
        strides.pop();
        Some(TensorMap {
            element: *ELEMENTS.get(usize::from(*element))?,
            address: u64::from_le_bytes(*address),
            element_strides: vec![1; sizes.len()],
            sizes,
            strides,
            box_sizes,
            swizzle: *SWIZZLES.get(usize::from(*swizzle))?,
            fill_nan: *fill_nan != 0,
        })
    }

    fn check(&self) -> Result<(), String> {
        let rank = self.rank();
        let lengths = [self.strides.len() + 1, self.box_sizes.len(), self.element_strides.len()];
        if !(1..=5).contains(&rank) || lengths != [rank; 3] {
            return Err(format!(
                "a tensor map of rank {rank}, with {lengths:?} strides and sizes; wanted 1 to 5 of all"
            ));
        }
        if !self.address.is_multiple_of(16) {
            return Err(format!("address {:#x} of a tensor is not a multiple of 16", self.address));
        }
        if let Some(size) = self.sizes.iter().find(|size| !(1..=1 << 32).contains(*size)) {
            return Err(format!("a tensor of {size} elements in a dimension, wanted 1 to 2^32"));
        }
        if let Some(stride) = self.strides.iter().find(|stride| **stride % 16 != 0 || **stride >= 1 << 40) {
            return Err(format!("a stride of {stride} bytes, wanted a multiple of 16 below 2^40"));
        }
        if let Some(size) = self.box_sizes.iter().find(|size| !(1..=256).contains(*size)) {
            return Err(format!("a box of {size} elements in a dimension, wanted 1 to 256"));
        }
        if self.element_strides.iter().any(|stride| *stride != 1) {
            return Err(format!("element strides {:?}; only 1 is supported", self.element_strides));
        }
        self.check_row()
    }

    fn check_row(&self) -> Result<(), String> {
        let (row, span) = (self.row_bytes(), self.swizzle.span());
        if row % 16 != 0 {
            return Err(format!("a box row of {row} bytes, wanted a multiple of 16"));
        }
        if self.swizzle != Swizzle::None && row != span {
            return Err(format!("a box row of {row} bytes with swizzle {:?}; only {span} is supported", self.swizzle));
        }
        if self.fill_nan && self.element.nan().is_none() {
            return Err(format!("elements of type {:?} cannot be filled with NaN", self.element));
        }
        Ok(())
    }
}
