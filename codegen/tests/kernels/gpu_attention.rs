//! Attention in every head size that models have, as a GPU cuts it.
use super::attention::check;
use amc_kernels::emit::Elem::{Bf16, F32};

#[test]
fn heads_of_bf16() {
    for head_dim in [64, 80, 96, 128, 256] {
        check(&(1, 80, 2, 1, head_dim, None, Bf16, &[&[50, 30]]));
    }
    check(&(2, 70, 1, 1, 64, Some(20), Bf16, &[&[70], &[33, 30]]));
}

#[test]
fn heads_of_f32() {
    for head_dim in [64, 256] {
        check(&(1, 70, 1, 1, head_dim, None, F32, &[&[70]]));
    }
}
