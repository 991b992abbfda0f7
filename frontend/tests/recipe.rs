//! Whole recipes: the guides' form, today's form, overrides, defaults, lock files, hostile files.
use amc_artifact::LrDecay;
use amc_frontend::diagnostic::{Diagnostic, Severity};
use amc_frontend::recipe::*;
use std::path::{Path, PathBuf};

type Loaded = Result<(Recipe, Vec<Diagnostic>), Vec<Diagnostic>>;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes")
}

fn load_file(name: &str, overrides: &[&str]) -> Loaded {
    let overrides: Vec<String> = overrides.iter().map(|it| it.to_string()).collect();
    load(&folder().join(name), &overrides, &|_| None)
}

fn rendered(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(Diagnostic::render).collect::<Vec<_>>().join("\n\n")
}

fn recipe(name: &str, overrides: &[&str]) -> Recipe {
    load_file(name, overrides).unwrap_or_else(|errors| panic!("{name} {overrides:?}:\n{}", rendered(&errors))).0
}

fn first_error(name: &str, overrides: &[&str]) -> String {
    let errors = load_file(name, overrides).expect_err("must be refused");
    let error = errors.iter().find(|it| it.severity == Severity::Error).expect("an error among them");
    error.message.clone()
}

#[test]
fn guide_for_adapters() {
    let recipe = recipe("guide_peft.yaml", &[]);
    assert_eq!(recipe.dialect, Dialect::S25);
    assert_eq!(recipe.seed, 42);
    let steps = &recipe.step_scheduler;
    assert_eq!((steps.global_batch_size, steps.local_batch_size), (32, 8));
    assert_eq!((steps.num_epochs, steps.ckpt_every_steps, steps.val_every_steps), (Some(1), Some(10), Some(10)));
    let peft = recipe.peft.as_ref().unwrap();
    assert!(peft.matches("model.layers.3.mlp.down_proj", true));
    assert!(!peft.matches("lm_head", true));
    assert_eq!((peft.dim, peft.alpha, peft.dropout), (8, 32.0, 0.0));
    assert_eq!(recipe.optimizer.algorithm, Algorithm::Adam);
    assert_eq!((recipe.optimizer.lr, recipe.optimizer.eps, recipe.optimizer.weight_decay), (1e-5, 1e-8, 0.0));
    assert_eq!(recipe.checkpoint.save_consolidated, Consolidated::Every);
    assert!(!recipe.dataloader.shuffle && recipe.validation_dataloader.shuffle);
    assert_eq!(recipe.dataloader.batch_size, Some(8));
    let schedule = recipe.step_schedule(recipe.microbatches_per_epoch(100)).unwrap();
    assert_eq!((schedule.accumulation, schedule.total_steps()), (4, 4));
    assert_eq!(schedule.checkpoint_name(3), "epoch_0_step_4");
    assert!(!schedule.validates_at(3));
    assert_eq!(recipe.lr_schedule(&schedule).unwrap().learning_rate(2), 1e-5);
}

#[test]
fn guide_for_full_tuning() {
    let (recipe, warnings) = load_file("guide_sft.yaml", &[]).unwrap();
    assert!(recipe.peft.is_none());
    assert_eq!(recipe.model.source, ModelSource::Pretrained { name_or_path: "meta-llama/Llama-3.2-1B".into() });
    assert!(recipe.model.config_overrides.is_empty());
    let Dataset::Squad(squad) = &recipe.validation_datasets[0].dataset else { panic!("wanted SQuAD") };
    assert_eq!((squad.split.as_str(), squad.tokens.limit_dataset_samples), ("validation", Some(64)));
    assert_eq!(recipe.validation_datasets[0].name, "default");
    assert_eq!(warnings.len(), 1, "{}", rendered(&warnings));
    assert!(warnings[0].message.contains("`rng.seed` is ignored"));
}

#[test]
fn todays_form() {
    let recipe = recipe("llama3_2_1b_squad.yaml", &[]);
    assert_eq!(recipe.dialect, Dialect::Head);
    let steps = recipe.step_schedule(recipe.microbatches_per_epoch(87599)).unwrap();
    assert_eq!((steps.accumulation, steps.total_steps()), (8, 1369));
    assert_eq!(steps.checkpoint_name(999), "epoch_0_step_999");
    assert!(steps.saves_at(1368) && steps.validates_at(9));
    let rate = recipe.lr_schedule(&steps).unwrap();
    assert_eq!((rate.warmup_steps, rate.decay_steps, rate.decay), (136, 1369, LrDecay::Cosine));
    assert_eq!((rate.init_lr, rate.min_lr), (0.1 * 1e-5, 1e-6));
}

/// The published learning rates of this recipe, run with `max_steps` 100.
#[test]
fn published_rates() {
    let recipe = recipe("llama3_2_1b_squad.yaml", &["step_scheduler.max_steps=100"]);
    let steps = recipe.step_schedule(recipe.microbatches_per_epoch(87599)).unwrap();
    let rate = recipe.lr_schedule(&steps).unwrap();
    assert_eq!(rate.warmup_steps, 10);
    assert!((rate.learning_rate(1) - 1.9e-6).abs() < 1e-18);
    assert!((rate.learning_rate(100) - 1e-6).abs() < 1e-18);
}

#[test]
fn adapters_in_todays_form() {
    let recipe = recipe("llama3_2_1b_squad_peft.yaml", &[]);
    assert_eq!(recipe.peft.unwrap().target_modules, ["*_proj"]);
    assert_eq!(recipe.checkpoint.save_consolidated, Consolidated::Final);
    assert!(recipe.checkpoint.enabled);
    assert_eq!(recipe.dataloader.collate, Collate::Padded { multiple_of: 1 });
}

#[test]
fn benchmark_on_random_tokens() {
    let recipe = recipe("llama3_1_8b_peft_benchmark.yaml", &[]);
    assert_eq!((recipe.dataloader.batch_size, recipe.rows_per_microbatch()), (None, 2));
    let steps = recipe.step_schedule(recipe.microbatches_per_epoch(100_000)).unwrap();
    assert_eq!((steps.accumulation, steps.total_steps()), (16, 10));
    assert_eq!(recipe.optimizer.algorithm, Algorithm::AdamW);
}

#[test]
fn overrides_and_variables() {
    let set = [
        "model.pretrained_model_name_or_path=${MODEL_DIR}/tiny",
        "amc.memory_budget=4GB",
        "peft=none",
        "optimizer.lr=1e-3",
    ];
    let overrides = set.map(str::to_string);
    let environment = |name: &str| (name == "MODEL_DIR").then(|| "/models".to_string());
    let (recipe, _) = load(&folder().join("llama3_2_1b_squad_peft.yaml"), &overrides, &environment).unwrap();
    assert_eq!(recipe.model.source, ModelSource::Pretrained { name_or_path: "/models/tiny".into() });
    assert_eq!(recipe.amc.memory_budget, Some(4_000_000_000));
    assert!(recipe.peft.is_none());
    assert_eq!(recipe.optimizer.lr, 1e-3);
    let errors = load(&folder().join("llama3_2_1b_squad_peft.yaml"), &overrides, &|_| None).unwrap_err();
    assert!(rendered(&errors).contains("the environment variable `MODEL_DIR` is not set"));
}

#[test]
fn cross_checks() {
    let squad = "llama3_2_1b_squad.yaml";
    for (set, wanted) in [
        (
            "step_scheduler.global_batch_size=65",
            "global_batch_size (65) must be divisible by local_batch_size * dp_size (8 * 1)",
        ),
        ("step_scheduler.local_batch_size=0", "wrong value for `step_scheduler.local_batch_size`"),
        ("lr_scheduler.min_lr=1", "`lr_scheduler`: min_lr (1.0) must lie between 0 and max_lr (1e-5)"),
        ("lr_scheduler.lr_decay_style=WSD", "`lr_decay_style: WSD` needs `wsd_decay_steps` and `lr_wsd_decay_style`"),
        ("distributed.tp_size=2", "amc does not support `distributed.tp_size: 2` yet"),
        ("dataloader.batch_size=none", "`dataloader.batch_size: null` is for datasets that yield batches"),
        ("packed_sequence.packing_strategy=neat", "amc does not support neat packing (use thd) yet"),
        ("model.torch_dtype=float16", "amc does not support float16 (bfloat16 and float32 it does) yet"),
        ("quantization.load_in_4bit=true", "amc does not support quantised base weights yet"),
        ("fp8.enabled=true", "amc does not support training in float8 yet"),
        ("optimizer.betas=[0.9]", "wrong value for `optimizer.betas`"),
        ("amc.memory_budget=lots", "wrong value for `amc.memory_budget`"),
        ("amc.vendor=false", "wrong value for `amc.vendor`"),
        ("amc.tf32=some", "wrong value for `amc.tf32`"),
        ("dataset.truncation=true", "`dataset.truncation` needs a `seq_length`"),
        ("step_scheduler.grad_acc_steps=4", "unknown key `grad_acc_steps` in `step_scheduler`"),
        ("checkpoint.max_recent_checkpoints=0", "wrong value for `checkpoint.max_recent_checkpoints`"),
    ] {
        assert_eq!(first_error(squad, &[set]), wanted, "{set}");
    }
    let peft = "llama3_2_1b_squad_peft.yaml";
    assert!(first_error(peft, &["peft.exclude_modules=[\"lm_head\"]"]).contains("mutually exclusive"));
    assert!(first_error(peft, &["peft.match_all_linear=true"]).contains("wants neither"));
    assert!(first_error(peft, &["peft.r=8"]).contains("unknown key `r` in `peft`"));
    assert!(first_error("guide_peft.yaml", &["peft.target_modules=none"]).contains("does not say which modules"));
}

#[test]
fn everything_optional_has_a_default() {
    let text = "recipe: TrainFinetuneRecipeForNextTokenPrediction\n\
        model: {_target_: NeMoAutoModelForCausalLM.from_pretrained, pretrained_model_name_or_path: m, num_hidden_layers: 2}\n\
        dataset: {_target_: make_squad_dataset}\nloss_fn: {_target_: MaskedCrossEntropy}\noptimizer: {_target_: adamw}\n";
    let (recipe, warnings) =
        load_text("r.yaml", text.into(), &[], &|_| None).unwrap_or_else(|it| panic!("{}", rendered(&it)));
    assert!(warnings.is_empty());
    assert_eq!((recipe.step_scheduler.global_batch_size, recipe.step_scheduler.num_epochs), (32, Some(10)));
    assert_eq!((recipe.optimizer.lr, recipe.optimizer.weight_decay), (1e-3, 1e-2));
    assert_eq!((recipe.max_grad_norm, recipe.seed), (1.0, 42));
    assert_eq!(
        recipe.amc,
        Settings {
            memory_budget: None,
            target: "cpu".into(),
            vendor: Vendor::Auto,
            tf32: false,
            threads: None,
            initial_adapter: None
        }
    );
    assert_eq!(recipe.model.config_overrides, [("num_hidden_layers".to_string(), 2.into())]);
    assert!(recipe.dataloader.shuffle && recipe.lr_scheduler.is_none() && recipe.validation_datasets.is_empty());
}

/// `from_config`, every dataset, several validation sets, names that need quoting.
const UNUSUAL: &str = r#"
recipe: {_target_: nemo_automodel.recipes.llm.benchmark.BenchmarkingRecipeForNextTokenPrediction}
seed: 7
model:
  _target_: nemo_automodel.NeMoAutoModelForCausalLM.from_config
  torch_dtype: bf16
  config: {_target_: transformers.AutoConfig.from_pretrained, pretrained_model_name_or_path: "'10'", rope_theta: 1.0e+6, names: [a, "${X,$}{Y}", '"none"'], deep: {x: null}}
peft: {_target_: PeftConfig, exclude_modules: [lm_head], alpha: 0.5, dropout: 0.1, dropout_position: pre, lora_dtype: fp32, lora_A_init: other}
dataset:
  _target_: ColumnMappedTextInstructionDataset
  path_or_dataset_id: [a.jsonl, 'none of these.jsonl']
  column_mapping: {question: "q", answer: "'none'"}
  split: null
  seq_length: 64
  padding: max_length
  truncation: true
  tokenizer: {pretrained_model_name_or_path: tok, add_eos_token: true}
validation_dataset_long-form: {_target_: make_squad_dataset, chat_template: "{% for m in messages %}{{ m }}\n'$5'{% endfor %}"}
validation_dataset.b: {_target_: MockIterableDataset}
validation_dataset_c: none
validation_dataset_d: {_target_: amc.datasets.TokenFile, path: t.jsonl, limit_dataset_samples: 4}
loss_fn: nemo_automodel.components.loss.linear_ce.FusedLinearCrossEntropy
optimizer: {_target_: torch.optim.Adam, lr: 1e5, eps: 1e-20, betas: [0, 0.5]}
lr_scheduler: {lr_decay_style: WSD, wsd_decay_steps: 5, lr_wsd_decay_style: minus_sqrt, end_wd: 0.1, wd_incr_style: cosine, lr_decay_steps: 50}
step_scheduler: {global_batch_size: 6, local_batch_size: 3, num_epochs: null, max_steps: 9, ckpt_every_steps: null, preemption_signal: [2, SIGTERM]}
packed_sequence: {packed_sequence_size: 128, max_packs: 3}
dataloader: {collate_fn: packed_sequence_thd_collater, drop_last: true}
checkpoint: {enabled: false, save_consolidated: false, restore_from: LATEST, max_recent_checkpoints: 2, best_metric_key: b}
amc: {memory_budget: 1GiB, target: "null", vendor: always, tf32: true, threads: 2, initial_adapter: some/folder}
"#;

#[test]
fn lock_files_read_back_to_the_same_recipe() {
    let read = |name: &str, text: String| match load_text(name, text, &[], &|_| None) {
        Ok((recipe, _)) => recipe,
        Err(errors) => panic!("{}", rendered(&errors)),
    };
    let files =
        ["guide_peft", "guide_sft", "llama3_2_1b_squad", "llama3_2_1b_squad_peft", "llama3_1_8b_peft_benchmark"];
    let mut recipes: Vec<Recipe> = files.iter().map(|it| recipe(&format!("{it}.yaml"), &[])).collect();
    recipes.push(read("unusual", UNUSUAL.into()));
    for recipe in recipes {
        let lock = recipe.lock_yaml();
        let (again, warnings) = load_text("recipe.lock.yaml", lock.clone(), &[], &|_| None)
            .unwrap_or_else(|it| panic!("{lock}\n{}", rendered(&it)));
        assert_eq!(again, recipe, "{lock}");
        assert_eq!(again.lock_yaml(), lock);
        assert!(warnings.is_empty(), "{lock}\n{}", rendered(&warnings));
    }
}

#[test]
fn unusual_values_arrive() {
    let (recipe, _) = load_text("r", UNUSUAL.into(), &[], &|_| None).unwrap();
    assert!(recipe.benchmark);
    assert_eq!(recipe.model.source, ModelSource::Config { name_or_path: "10".into() });
    let overrides: Vec<String> =
        recipe.model.config_overrides.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(overrides, ["rope_theta=1000000.0", r#"names=["a","${Y}","none"]"#, r#"deep={"x":null}"#]);
    let names: Vec<&str> = recipe.validation_datasets.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["long-form", "b", "d"]);
    let Dataset::ColumnMapped(mapped) = &recipe.dataset else { panic!("wanted columns") };
    assert_eq!((mapped.columns.answer.as_str(), &mapped.split), ("none", &None));
    assert_eq!(recipe.optimizer.lr, 1e5);
    assert_eq!(recipe.step_scheduler.preemption_signals, ["SIGINT", "SIGTERM"]);
    let steps = recipe.step_schedule(recipe.microbatches_per_epoch(14)).unwrap();
    assert_eq!((steps.microbatches_per_epoch, steps.epochs, steps.total_steps(), steps.checkpoint_every), (4, 5, 9, 2));
}

#[test]
fn bytes_that_are_no_text() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"seed: 1\nmodel: \xff\xfe\n").unwrap();
    let errors = load(file.path(), &[], &|_| None).unwrap_err();
    assert!(rendered(&errors).contains(":2:8"), "{}", rendered(&errors));
    assert!(load(Path::new("/nonexistent/recipe.yaml"), &[], &|_| None).is_err());
}

/// Every recipe that the project ships loads.
#[test]
fn shipped_recipes_load() {
    for file in yaml_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes")) {
        if let Err(errors) = load(&file, &[], &|_| None) {
            panic!("{}:\n{}", file.display(), rendered(&errors));
        }
    }
}

/// With `AMC_RECIPE_CORPUS` set to a folder of other people's recipes: each one loads, or is refused only for what is not
/// supported yet. Prints a line a recipe.
#[test]
fn corpus_is_understood() {
    let Ok(folder) = std::env::var("AMC_RECIPE_CORPUS") else { return };
    let (mut loaded, mut strange) = (0, Vec::new());
    let files = yaml_files(Path::new(&folder));
    for file in &files {
        let errors = match load(file, &[], &|_| None) {
            Ok(_) => Vec::new(),
            Err(all) => all.into_iter().filter(|it| it.severity == Severity::Error).collect::<Vec<_>>(),
        };
        loaded += usize::from(errors.is_empty());
        let reasons: Vec<&str> = errors.iter().map(|it| it.message.as_str()).collect();
        println!("{}: {}", file.display(), if errors.is_empty() { "loads".into() } else { reasons.join("; ") });
        strange.extend(errors.into_iter().filter(|it| !it.message.contains("amc does not support")));
    }
    println!("{loaded} of {} recipes load", files.len());
    assert!(strange.is_empty(), "{}", rendered(&strange));
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(yaml_files(&path));
        } else if path.extension().is_some_and(|it| it == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    files
}
