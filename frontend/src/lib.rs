//! From recipe, config and checkpoint headers to a forward graph and its data.
pub mod arch;
pub mod build;
pub mod checkpoint;
pub mod config;
pub mod diagnostic;
pub mod families;
pub mod model;
pub mod names;
pub mod recipe;
pub mod rope;
pub mod safetensors;
pub mod chat_template;
pub mod data;
pub mod hub;
pub mod tokenizer;
