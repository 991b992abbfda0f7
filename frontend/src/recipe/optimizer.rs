//! `optimizer`, `loss_fn` and `clip_grad_norm`.
use super::model::required;
use super::node::{Node, Value};
use super::reader::{Log, Section, number_of, resolve_target};
use super::targets::{Kind, Target};

#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    pub algorithm: Algorithm,
    pub lr: f64,
    pub betas: [f64; 2],
    pub eps: f64,
    pub weight_decay: f64,
}

/// What weight decay means: Adam adds it to the gradient, AdamW shrinks the weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Adam,
    AdamW,
}

/// How the loss is computed; the value is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    MaskedCrossEntropy,
    /// The output head belongs to the loss, so that logits need not exist.
    FusedLinearCrossEntropy,
}

/// Reads `optimizer`, with PyTorch's defaults and checks.
pub(super) fn read(root: &Node, log: &Log) -> Option<Optimizer> {
    let section = required(root, "optimizer", log)?;
    let Some(target) = section.target(Kind::Optimizer, true) else {
        section.ignore_rest();
        return None;
    };
    let algorithm = if target == Target::AdamW { Algorithm::AdamW } else { Algorithm::Adam };
    section.ignore(&["foreach", "fused", "capturable", "differentiable"]);
    section.refuse_if_set("amsgrad", "amsgrad");
    section.refuse_if_set("maximize", "maximising the loss");
    section.refuse_if_set("param_group_overrides", "optimizer settings by parameter group");
    let optimizer = Optimizer {
        algorithm,
        lr: positive_or_zero(&section, "lr").unwrap_or(1e-3),
        betas: betas(&section).unwrap_or([0.9, 0.999]),
        eps: positive_or_zero(&section, "eps").unwrap_or(1e-8),
        weight_decay: positive_or_zero(&section, "weight_decay").unwrap_or(if algorithm == Algorithm::AdamW {
            1e-2
        } else {
            0.0
        }),
    };
    section.finish();
    Some(optimizer)
}

/// A number of at least 0 under `key`.
pub(super) fn positive_or_zero(section: &Section, key: &'static str) -> Option<f64> {
    section.number(key, "a number of at least 0", |it| it >= 0.0)
}

fn betas(section: &Section) -> Option<[f64; 2]> {
    section.typed("betas", "two numbers from 0 to less than 1", |value| {
        let Value::List(items) = value else { return None };
        let numbers: Option<Vec<f64>> = items.iter().map(|it| number_of(&it.value)).collect();
        let betas: [f64; 2] = numbers?.try_into().ok()?;
        betas.iter().all(|it| (0.0..1.0).contains(it)).then_some(betas)
    })
}

/// Reads `loss_fn`: a dotted name, or a mapping with `_target_` and arguments.
pub(super) fn read_loss(root: &Node, log: &Log) -> Option<Loss> {
    let target = match root.get("loss_fn") {
        Some(node) if matches!(node.value, Value::Text(_)) => resolve_target("loss_fn", Kind::Loss, node, log),
        _ => read_loss_section(required(root, "loss_fn", log)?),
    };
    match target? {
        Target::FusedLinearCrossEntropy => Some(Loss::FusedLinearCrossEntropy),
        _ => Some(Loss::MaskedCrossEntropy),
    }
}

fn read_loss_section(section: Section) -> Option<Target> {
    let target = section.target(Kind::Loss, true);
    section.ignore(&["fp32_upcast", "chunk_len", "compile"]);
    section.refuse_if_set("logit_softcapping", "capping the logits in the loss");
    if let Some(node) = section.get("ignore_index")
        && !matches!(node.value, Value::Int(-100))
    {
        section.unsupported("ignore_index", node, "an ignore_index other than -100");
    }
    if let Some(node) = section.get("reduction")
        && !matches!(&node.value, Value::Text(text) if text == "sum")
    {
        section.unsupported(
            "reduction",
            node,
            "a reduction other than sum (over tokens, then divided by their number)",
        );
    }
    if target.is_none() {
        section.ignore_rest();
    }
    section.finish();
    target
}

/// Reads `clip_grad_norm`: the largest L2 norm of the gradient, 1 unless given.
pub(super) fn read_clip(root: &Node, log: &Log) -> f64 {
    let section = Section::open_or_empty("clip_grad_norm", root, log);
    let max_norm = section.number("max_norm", "a number greater than 0", |it| it > 0.0).unwrap_or(1.0);
    section.finish();
    max_norm
}

/// Reads `seed`; warns where `rng.seed`, which nobody reads, says otherwise.
pub(super) fn read_seed(root: &Node, log: &Log) -> u64 {
    let seed = match root.get("seed") {
        Some(Node { value: Value::Int(number), .. }) if *number >= 0 => *number as u64,
        Some(node) if !node.is_null() => {
            let label = format!("found {}, wanted an integer of at least 0", node.describe());
            log.error(&node.span, "wrong value for `seed`", label);
            42
        }
        _ => 42,
    };
    if let Some(node) = root.get("rng").and_then(|rng| rng.get("seed"))
        && !matches!(node.value, Value::Int(number) if number == seed as i64)
    {
        let label = format!("the seed is {seed}; set the top-level `seed` to change it");
        log.warning(&node.span, "`rng.seed` is ignored, here and in Automodel", label);
    }
    seed
}
