//! From recipe, config and checkpoint headers to a forward graph and its data.
pub mod arch;
pub mod build;
pub mod chat_template;
pub mod checkpoint;
pub mod config;
pub mod data;
pub mod diagnostic;
pub mod families;
pub mod hub;
pub mod initial;
pub mod model;
pub mod names;
pub mod recipe;
pub mod rope;
pub mod safetensors;
pub mod tokenizer;
