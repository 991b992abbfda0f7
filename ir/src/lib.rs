//! The intermediate representation: a module of straight-line typed functions, its text, verifier and interpreter.
//!
//! Invariants, kept by construction and checked by [`verify`]:
//! 1. A function is a list of instructions; an operand is a parameter or a result of an earlier instruction.
//! 2. Every value has one type, the one that its op infers from the operand types; all sizes are known.
//! 3. Values are immutable. A state (a gradient, a moment, a cache) is passed in and passed out; the op that updates it
//!    consumes the old value, which nothing may use afterwards ([`op::OpDef::in_place`]).
//! 4. A call names an earlier function of the module, so there is no recursion.
//! 5. What a token, segment, position, label or loss scale is, its type says; ops refuse the wrong one.
pub mod binding;
pub mod diag;
pub mod eval;
pub mod graph;
pub mod id;
pub mod op;
pub mod ops;
pub mod text;
pub mod types;
pub mod verify;

pub use binding::{Binding, Bindings, Init, Tensor as BoundTensor, View};
pub use graph::{Function, Inst, InstKind, Module, Param};
pub use id::{FuncId, Value};
pub use ops::Op;
pub use types::{DType, Type};
