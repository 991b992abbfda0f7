//! What the parameters of an entry function stand for outside the graph.
use std::collections::BTreeMap;

/// Rows `start..start + rows` of a stored tensor (the whole of it for a vector or where nothing is fused).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    pub tensor: String,
    pub start: usize,
    pub rows: usize,
}

/// The meaning of one parameter of an entry function.
#[derive(Clone, PartialEq, Debug)]
pub enum Binding {
    /// Filled by the caller before each run; the parameter's name is the port's.
    Input,
    /// A tensor that never changes.
    Frozen(View),
    /// A tensor that is trained.
    Trainable(View),
    /// The f32 gradient of a trained tensor.
    Gradient(View),
    /// Memory that lives as long as the run, such as a key/value cache; starts as zeros.
    State,
    /// Bytes made at compile time.
    Constant(Vec<u8>),
}

/// The first value of a trained tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Init {
    Checkpoint,
    Zeros,
    XavierNormal,
    KaimingUniform,
}

/// A stored tensor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tensor {
    pub ty: crate::Type,
    pub trainable: bool,
    pub init: Init,
}

/// Bindings by parameter name, and the stored tensors they view.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Bindings {
    pub params: BTreeMap<String, Binding>,
    pub tensors: BTreeMap<String, Tensor>,
}
