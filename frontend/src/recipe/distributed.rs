//! `distributed`: read for its sizes, which must all be one.
use super::node::{Node, Value};
use super::reader::{Log, Section};
use super::targets::Kind;
use crate::diagnostic::Diagnostic;

/// Sizes of the mesh. A missing or null size means one here.
const SIZES: [&str; 6] = ["dp_size", "dp_replicate_size", "tp_size", "pp_size", "cp_size", "ep_size"];

/// Options that change nothing on one device.
const WITHOUT_EFFECT: [&str; 34] = [
    "sequence_parallel",
    "tp_plan",
    "patch_is_packed_sequence",
    "mp_policy",
    "offload_policy",
    "autocast_dtype",
    "activation_checkpointing",
    "activation_checkpointing_scope",
    "defer_fsdp_grad_sync",
    "reshard_after_forward",
    "enable_async_tensor_parallel",
    "enable_compile",
    "enable_fsdp2_prefetch",
    "fsdp2_backward_prefetch_depth",
    "fsdp2_forward_prefetch_depth",
    "pipeline",
    "moe",
    "use_hf_tp_plan",
    "backend",
    "world_size",
    "device",
    "broadcast_buffers",
    "find_unused_parameters",
    "static_graph",
    "bucket_cap_mb",
    "gradient_as_bucket_view",
    "megatron_fsdp_unit_modules",
    "zero_dp_strategy",
    "init_fsdp_with_meta_device",
    "grad_reduce_in_fp32",
    "preserve_fp32_weights",
    "overlap_grad_reduce",
    "overlap_param_gather",
    "check_for_nan_in_grad",
];

/// Further options of megatron_fsdp.
const MEGATRON: [&str; 6] = [
    "report_nan_in_param_grad",
    "average_in_collective",
    "disable_bucketing",
    "calculate_per_token_loss",
    "keep_fp8_transpose_cache",
    "nccl_ub",
];

/// Checks `distributed`; nothing of it is kept.
pub(super) fn check(root: &Node, log: &Log) {
    let Some(section) = Section::open("distributed", root.get("distributed"), log) else { return };
    section.target(Kind::Distributed, false);
    section.ignore(&WITHOUT_EFFECT);
    section.ignore(&MEGATRON);
    let strategies = ["fsdp2", "ddp", "megatron_fsdp", "megatron-fsdp", "mfsdp", "none"].map(|name| (name, ()));
    section.choice("strategy", &strategies);
    for key in SIZES {
        let Some(node) = section.get(key) else { continue };
        match node.value {
            Value::Int(1) => {}
            Value::Int(size) if size > 1 => {
                let error = Diagnostic::error(format!("amc does not support `distributed.{key}: {size}` yet"));
                log.push(error.at(&node.span, "wanted 1 or none").help("amc trains on one device for now"));
            }
            _ => section.wrong(key, node, "1 or none"),
        }
    }
    section.finish();
}
