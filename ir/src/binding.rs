//! What the parameters of an entry function stand for outside the graph.
//!
//! The entry is the last function of its module and is called `main`; the functions before it are one per *kind* of layer,
//! each called once per layer with that layer's weights. T = rows of the batch times their length. Its parameters:
//!
//! | name | type | binding |
//! |---|---|---|
//! | `tokens`, `positions`, `segments`, `labels` | `token[T]`, `position[T]`, `segment[T]`, `label[T]` | input |
//! | `loss_scale` | `loss_scale[1]` | input |
//! | `seed` (only with dropout; layer i gets `derive_seed {index = i}`) | `seed[2]` | input |
//! | `start` (only behind a cache): rows in the cache | `index[1]` | input |
//! | `k_cache.{layer}`, `v_cache.{layer}` | `[capacity, kv_heads·head_dim]` | state |
//! | `rope_cos`, `rope_sin` (a suffix where there are several kinds) | `f32[P, r/2]` | constant |
//! | a weight, called by its checkpoint name, with `[start:rows]` appended for a row slice | | frozen or trainable |
//!
//! The results of `main` are the loss `f32[1]` (train, evaluate), the logits `f32[T, V]` (logits), or the logits
//! `f32[C, V]` of a chunk followed by the updated caches, keys before values, layer by layer (decode).
//!
//! LoRA on a linear: `t = scale(x · Aᵀ) {alpha / r}`, `y = x · Wᵀ + t · Bᵀ`, the stored tensors being
//! `base_model.model.{module}.lora_A.weight` and `….lora_B.weight`.
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
