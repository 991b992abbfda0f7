//! Element types and tensor types.
use std::fmt;

macro_rules! dtypes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// What an element is. The integer kinds say what the number means, so that ops can refuse a wrong one.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub enum DType { $($(#[$doc])* $variant),* }
        impl DType {
            pub const ALL: &'static [DType] = &[$(DType::$variant),*];
            /// Its name in the text form.
            pub fn name(self) -> &'static str {
                match self { $(DType::$variant => $name),* }
            }
            pub fn from_name(name: &str) -> Option<DType> {
                match name { $($name => Some(DType::$variant),)* _ => None }
            }
        }
    };
}

dtypes! {
    F32 = "f32",
    Bf16 = "bf16",
    /// A token id.
    Token = "token",
    /// A token's place in its document.
    Position = "position",
    /// The document of a token within its row: 0 is padding.
    Segment = "segment",
    /// The token to predict; -100 where nothing is supervised.
    Label = "label",
    /// One over the number of supervised tokens of the whole optimizer step (an f32).
    LossScale = "loss_scale",
    /// Two words of a random key.
    Seed = "seed",
    /// A row number.
    Index = "index",
}

impl DType {
    /// Whether arithmetic is allowed on it.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::Bf16)
    }
    /// Bytes of one element in memory.
    pub fn bytes(self) -> usize {
        if self == DType::Bf16 { 2 } else { 4 }
    }
}

/// A dense row-major tensor.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Type {
    pub dtype: DType,
    pub shape: Vec<usize>,
}

impl Type {
    pub fn new(dtype: DType, shape: impl Into<Vec<usize>>) -> Type {
        Type { dtype, shape: shape.into() }
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype.bytes()
    }
    /// The same shape with another element type.
    pub fn with_dtype(&self, dtype: DType) -> Type {
        Type { dtype, shape: self.shape.clone() }
    }
    /// `[rows, columns]` of a matrix.
    pub fn matrix(&self) -> Option<(usize, usize)> {
        match self.shape[..] {
            [m, n] => Some((m, n)),
            _ => None,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let sizes: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        write!(f, "{}[{}]", self.dtype.name(), sizes.join(","))
    }
}
