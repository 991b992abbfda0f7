//! Which lines of the recipe a launch is there for.
use super::yaml::{KeyLines, key_lines};
use amc_artifact::{Arg, Launch, Param, Plan, Program, ProgramKind};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a rule looks at.
pub struct Subject<'a> {
    pub kind: ProgramKind,
    pub family: &'a str,
    /// The ops of the launch's label, such as `matmul + scale`.
    pub ops: &'a str,
    /// Whether it touches the value or the gradient of a LoRA matrix.
    pub adapter: bool,
}

/// A reason why launches are what they are, and the keys of the recipe that give it.
struct Rule {
    why: &'static str,
    keys: &'static [&'static str],
    /// Whether a key that the recipe leaves out points to its default in recipe.lock.yaml.
    defaults: bool,
    applies: fn(&Subject) -> bool,
}

/// From the most to the least specific, the order in which a reader wants them.
const RULES: &[Rule] = &[
    Rule {
        why: "the optimizer's arithmetic",
        keys: &["optimizer"],
        defaults: true,
        applies: |it| it.kind == ProgramKind::Update && it.ops.contains("adam"),
    },
    Rule {
        why: "the norm of the gradient, and how far it is clipped",
        keys: &["clip_grad_norm"],
        defaults: true,
        applies: |it| it.kind == ProgramKind::Update && it.ops.contains("clip_coefficient"),
    },
    Rule {
        why: "dropout before the LoRA matrices",
        keys: &["peft.dropout", "peft.dropout_position"],
        defaults: true,
        applies: |it| it.family == "dropout",
    },
    Rule { why: "a LoRA matrix takes part", keys: &["peft"], defaults: false, applies: |it| it.adapter },
    Rule {
        why: "the loss",
        keys: &["loss_fn"],
        defaults: true,
        applies: |it| LOSS_OPS.contains(&it.ops) || it.family == "cross_entropy",
    },
    Rule {
        why: "the GPU's vendor computes it",
        keys: &["amc.vendor"],
        defaults: true,
        applies: |it| it.family == "product_vendor",
    },
    Rule {
        why: "documents of a row do not see each other",
        keys: &["packed_sequence"],
        defaults: false,
        applies: |it| it.family.starts_with("attention"),
    },
    Rule {
        why: "gradients of several microbatches add up",
        keys: &["step_scheduler.global_batch_size", "step_scheduler.local_batch_size"],
        defaults: true,
        applies: |it| it.kind == ProgramKind::Train && it.ops.contains("accumulate"),
    },
    Rule {
        why: "rows and tokens of a batch",
        keys: &["dataset", "packed_sequence", "step_scheduler.local_batch_size"],
        defaults: false,
        applies: |it| it.kind == ProgramKind::Train,
    },
    Rule {
        why: "rows and tokens of a batch",
        keys: &["validation_dataset", "validation_dataloader"],
        defaults: false,
        applies: |it| it.kind == ProgramKind::Evaluate,
    },
    Rule {
        why: "what is computed again to keep to the memory budget",
        keys: &["amc.memory_budget"],
        defaults: false,
        applies: |it| it.kind == ProgramKind::Train,
    },
    Rule {
        why: "the model: its shape, its dtype, its weights",
        keys: &["model"],
        defaults: true,
        applies: |it| it.kind != ProgramKind::Update,
    },
];

/// What the launches of linear + cross-entropy say they do.
const LOSS_OPS: &[&str] =
    &["compact_rows", "gather_rows", "logits", "softmax", "input_gradient", "weight_gradient", "scatter_rows", "sum"];

/// The recipe's two texts, and the rules that point into them.
pub struct Links {
    /// The name of the file and its text.
    documents: [(&'static str, String); 2],
    /// Lines of every rule, by index into `RULES`: document, key, first and last line.
    places: Vec<Vec<(usize, KeyLines)>>,
    /// Bytes of the arena that belong to LoRA matrices: first byte to the byte behind.
    adapter: BTreeMap<u64, u64>,
}

impl Links {
    /// `recipe` as it was read, `lock` with every default written out.
    pub fn new(recipe: &str, lock: &str, plan: &Plan) -> Links {
        let keys = [key_lines(recipe), key_lines(lock)];
        let find = |key: &str, defaults: bool| {
            let documents = if defaults { 0..2 } else { 0..1 };
            let found = |document: usize| keys[document].iter().find(|lines| lines.path == key);
            documents.into_iter().find_map(|document| Some((document, found(document)?.clone())))
        };
        let places = |rule: &Rule| rule.keys.iter().filter_map(|key| find(key, rule.defaults)).collect();
        Links {
            documents: [("recipe.yaml", recipe.into()), ("recipe.lock.yaml", lock.into())],
            places: RULES.iter().map(places).collect(),
            adapter: plan.params.iter().filter(|param| is_adapter(param)).flat_map(ranges).collect(),
        }
    }

    /// Indices of the rules that hold for a launch and point somewhere.
    pub fn of(&self, plan: &Plan, program: &Program, launch: &Launch) -> Vec<usize> {
        let label = launch.label.split_once(": ").map_or("", |(_, rest)| rest);
        let subject = Subject {
            kind: program.kind,
            family: &plan.kernels[launch.kernel as usize].work.family,
            ops: label.strip_prefix('%').and_then(|rest| rest.split_once(' ')).map_or(label, |(_, ops)| ops),
            adapter: program.kind != ProgramKind::Update && launch.args.iter().any(|arg| self.is_adapter(arg)),
        };
        let holds = |index: &usize| !self.places[*index].is_empty() && (RULES[*index].applies)(&subject);
        (0..RULES.len()).filter(holds).collect()
    }

    fn is_adapter(&self, arg: &Arg) -> bool {
        let Arg::Arena(at) = arg else { return false };
        self.adapter.range(..=at).next_back().is_some_and(|(_, end)| at < end)
    }

    pub fn json(&self) -> Value {
        let place = |(document, lines): &(usize, KeyLines)| json!([document, lines.path, lines.first, lines.last]);
        let rules = RULES.iter().zip(&self.places);
        let rules = rules
            .map(|(rule, places)| json!({"why": rule.why, "places": places.iter().map(place).collect::<Vec<_>>()}));
        let document = |(name, text): &(&str, String)| json!({"name": name, "text": text});
        json!({"documents": self.documents.iter().map(document).collect::<Vec<_>>(), "rules": rules.collect::<Vec<_>>()})
    }
}

fn is_adapter(param: &Param) -> bool {
    param.name.contains(".lora_A.") || param.name.contains(".lora_B.")
}

/// Where a parameter's value and gradient are.
fn ranges(param: &Param) -> [(u64, u64); 2] {
    let elements: u64 = param.shape.iter().product();
    let range = |first: u64, bytes: u64| (first, first + bytes);
    [range(param.value_offset, elements * param.storage.bytes()), range(param.grad_offset, elements * 4)]
}
