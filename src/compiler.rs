//! From a model folder and a request to an artifact: what the sub-commands share.
pub mod adapter;
pub mod budget;
pub mod calibrate;
pub mod emit;
pub mod forecast;
pub mod generator;
pub mod model;
pub mod project;
pub mod recipe;
pub mod unit;
