//! A model small enough to train by hand, as a plan whose kernels are Rust functions.
//!
//! Logits of the token after `t` are row `t` of `base + w + a`: `base` frozen, `w` f32, `a` bf16. A task is a row, so
//! tasks are independent.
#![allow(dead_code)] // each test file uses a part
pub mod kernels;

use kernels::table;

use amc_artifact::safetensors::{Dtype, TensorData, write};
use amc_artifact::*;
use amc_runtime::ModelWeights;
use amc_runtime::disk::Disk;
use amc_runtime::session::Session;
use amc_runtime::train::{Places, RunOptions, Summary, Trainer};
use anyhow::Result;
use half::bf16;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Tokens that there are; the matrices are square.
pub const VOCABULARY: usize = 12;
const CELLS: u64 = (VOCABULARY * VOCABULARY) as u64;
/// Rows and tokens of a row of the compiled batch.
pub const BATCH: usize = 2;
pub const SEQUENCE: usize = 8;
pub const W: &str = "base_model.model.w.lora_A.weight";
pub const A: &str = "base_model.model.a.lora_A.weight";

/// A parameter's name, how it begins, and where its value stands.
fn param(name: &str, storage: Storage, init: Init, at: u64) -> Param {
    let side = VOCABULARY as u64;
    let part = |index: u64| at + index * CELLS * 4;
    Param {
        name: name.into(),
        storage,
        shape: vec![side, side],
        init,
        value_offset: part(0),
        grad_offset: part(1),
        exp_avg_offset: part(2),
        exp_avg_sq_offset: part(3),
    }
}

/// Addresses in the arena behind the parameters.
mod at {
    pub const A: u64 = 16 * super::CELLS;
    const PORTS: u64 = 32 * super::CELLS;
    pub const TOKENS: u64 = PORTS;
    pub const LABELS: u64 = PORTS + 64;
    pub const SEGMENTS: u64 = PORTS + 128;
    pub const SCALARS: u64 = PORTS + 192;
    pub const RESULT: u64 = PORTS + 256;
    pub const PARTS: u64 = PORTS + 320;
    pub const END: u64 = PORTS + 448;
}

fn launch(kernel: u32, tasks: usize, args: &[Arg]) -> Launch {
    Launch {
        kernel,
        tasks: tasks as u32,
        args: args.to_vec(),
        label: String::new(),
        begins: Begins::BehindAll,
        module: String::new(),
    }
}

/// The toy's plan; `sft` makes `w` the checkpoint's tensor, trained in place.
pub fn plan(sft: bool) -> Plan {
    let side = VOCABULARY as u64;
    let w = if sft { param("w", Storage::F32, Init::Checkpoint, 0) } else { param(W, Storage::F32, Init::Zeros, 0) };
    let a = param(if sft { "a" } else { A }, Storage::Bf16, Init::XavierNormal, at::A);
    let a = if sft { Param { init: Init::Checkpoint, ..a } } else { a };
    let port = |name: &str, storage, count, offset| Port { name: name.into(), storage, shape: vec![count], offset };
    let places = (BATCH * SEQUENCE) as u64;
    let ints = |name, offset| port(name, Storage::I32, places, offset);
    let float = |name, offset| port(name, Storage::F32, 1, offset);
    let inputs = vec![
        ints("tokens", at::TOKENS),
        ints("labels", at::LABELS),
        ints("segments", at::SEGMENTS),
        float("loss_scale", at::SCALARS),
    ];
    let matrices = [Arg::Weight { tensor: 0, offset: 0 }, Arg::Arena(w.value_offset), Arg::Arena(a.value_offset)];
    let batch = [Arg::Arena(at::TOKENS), Arg::Arena(at::LABELS), Arg::Arena(at::SCALARS), Arg::Arena(at::PARTS)];
    let forward = [&matrices[..], &batch[..]].concat();
    let backward = [&forward[..], &[Arg::Arena(w.grad_offset), Arg::Arena(a.grad_offset)]].concat();
    let total = launch(2, 1, &[Arg::Arena(at::PARTS), Arg::Arena(at::RESULT)]);
    let of_batch = |name: &str, kind, launches| Program {
        name: name.into(),
        kind,
        batch: BATCH as u64,
        seq: SEQUENCE as u64,
        inputs: inputs.clone(),
        outputs: vec![float("loss", at::RESULT)],
        launches,
        buffers: Vec::new(),
    };
    let state = |param: &Param| {
        [param.value_offset, param.grad_offset, param.exp_avg_offset, param.exp_avg_sq_offset].map(Arg::Arena)
    };
    let tail = [Arg::Arena(at::SCALARS), Arg::Arena(at::RESULT)];
    let update = Program {
        name: "update".into(),
        kind: ProgramKind::Update,
        batch: 0,
        seq: 0,
        inputs: ["learning_rate", "weight_decay", "bias_correction1", "bias_correction2", "max_norm"]
            .iter()
            .enumerate()
            .map(|(index, name)| float(name, at::SCALARS + 4 * index as u64))
            .collect(),
        outputs: vec![float("grad_norm", at::RESULT)],
        launches: vec![
            launch(3, 1, &[Arg::Arena(w.grad_offset), Arg::Arena(a.grad_offset), Arg::Arena(at::RESULT)]),
            launch(4, VOCABULARY, &[&state(&w)[..], &state(&a)[..], &tail[..]].concat()),
        ],
        buffers: Vec::new(),
    };
    Plan {
        arena_bytes: at::END,
        scratch_bytes: 8 * VOCABULARY as u64,
        kernels: ["forward", "backward", "sum", "norm", "adam"]
            .map(|symbol| Kernel { symbol: symbol.into(), work: Work::default(), code: Code::Cpu })
            .to_vec(),
        constants: Vec::new(),
        weights: vec![WeightTensor {
            name: "base".into(),
            storage: Storage::F32,
            shape: vec![side, side],
            init: Init::Checkpoint,
        }],
        programs: vec![
            of_batch("train", ProgramKind::Train, vec![launch(1, VOCABULARY, &backward), total.clone()]),
            of_batch("evaluate", ProgramKind::Evaluate, vec![launch(0, VOCABULARY, &forward), total]),
            update,
        ],
        params: vec![w, a],
    }
}

/// A folder with a model, token shards, and room for checkpoints.
pub struct Toy {
    pub folder: PathBuf,
    pub plan: Plan,
    pub run: RunConfig,
}

pub const RECIPE: &str = "# the toy\nseed: 7\n";

/// Prepares a toy in `folder`: 11 rows of data, 2 rows a microbatch, 2 microbatches a step, so 3 steps an epoch.
pub fn toy(folder: &Path, sft: bool) -> Toy {
    let model = folder.join("model");
    fs::create_dir_all(&model).unwrap();
    let numbers = |seed: u32| (0..CELLS as u32).map(move |i| ((i * 37 + seed) % 101) as f32 / 101.0 - 0.5);
    let bytes = |seed| numbers(seed).flat_map(f32::to_le_bytes).collect::<Vec<_>>();
    let narrow = numbers(3).flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect::<Vec<_>>();
    let shape = [VOCABULARY as u64; 2];
    let (base, w) = (bytes(1), bytes(2));
    let tensor = |name, dtype, bytes| TensorData { name, dtype, shape: &shape, bytes };
    let tensors = [tensor("base", Dtype::F32, &base), tensor("w", Dtype::F32, &w), tensor("a", Dtype::Bf16, &narrow)];
    write(&model.join("model.safetensors"), &tensors, &[("format", "pt")]).unwrap();
    for name in ["config.json", "tokenizer.json"] {
        fs::write(model.join(name), format!("{{\"file\": \"{name}\"}}")).unwrap();
    }
    let shards = folder.join("shards");
    fs::create_dir_all(&shards).unwrap();
    let train = shard(&shards, 11, 1);
    let validation = shard(&shards, 5, 2);
    Toy { folder: folder.to_path_buf(), plan: plan(sft), run: run_config(&model, sft, train, validation) }
}

/// The data of row `row`: tokens and labels.
pub fn row(row: usize, salt: usize) -> (Vec<i32>, Vec<i32>) {
    let length = 3 + (row * 5 + salt) % (SEQUENCE - 2);
    let tokens: Vec<i32> = (0..length).map(|i| ((i * (row + salt) + 3 * row + i * i) % VOCABULARY) as i32).collect();
    let next = tokens.iter().skip(1).copied().chain([IGNORED]);
    let labels = next.enumerate().map(|(i, label)| if i == 0 { IGNORED } else { label }).collect();
    (tokens, labels)
}

fn shard(folder: &Path, rows: usize, salt: usize) -> String {
    let mut bytes = Vec::new();
    let mut writer = ShardWriter::new(&mut bytes, VOCABULARY as u64).unwrap();
    for index in 0..rows {
        let (tokens, labels) = row(index, salt);
        let positions: Vec<i32> = (0..tokens.len() as i32).collect();
        let segments = vec![1; tokens.len()];
        let view = Row { tokens: &tokens, labels: &labels, positions: &positions, segments: &segments };
        writer.push(&view).unwrap();
    }
    let (_, hash) = writer.finish().unwrap();
    fs::write(shard_path(folder, &hash), bytes).unwrap();
    hash.to_hex().to_string()
}

fn run_config(model: &Path, sft: bool, train: String, validation: String) -> RunConfig {
    let sampler = Sampler {
        rows: 11,
        shuffle: true,
        seed: 5,
        replicas: 1,
        rank: 0,
        local_batch_size: 2,
        accumulation: 2,
        drop_last: false,
    };
    let peft = PeftExport {
        rank: 8,
        alpha: 32.into(),
        target_modules: vec!["a".into(), "w".into()],
        automodel: serde_json::from_str("{\"dropout\": 0.0}").unwrap(),
    };
    RunConfig {
        seed: 7,
        model: ModelConfig {
            name: model.to_string_lossy().into_owned(),
            revision: None,
            config_overrides: serde_json::Map::new(),
            vocabulary: VOCABULARY as u64,
            config_files: vec!["config.json".into()],
            tokenizer: None,
            tokenizer_files: vec!["tokenizer.json".into()],
            tied: Vec::new(),
            parameters: 3 * CELLS,
        },
        peft: (!sft).then_some(peft),
        optimizer: OptimizerConfig { name: "AdamW".into(), beta1: 0.9, beta2: 0.999, eps: 1e-8 },
        max_norm: 0.3,
        schedule: StepSchedule {
            microbatches_per_epoch: 6,
            accumulation: 2,
            epochs: 3,
            max_steps: 8,
            checkpoint_every: 2,
            checkpoint_every_epoch: true,
            validate_every: None,
            validate_at_checkpoints: true,
            first_number: 0,
        },
        lr_schedule: LrSchedule {
            warmup_steps: 2,
            decay_steps: 8,
            decay: LrDecay::Cosine,
            init_lr: 0.01,
            min_lr: 0.001,
            ..LrSchedule::constant(0.1, 0.01)
        },
        override_lr_schedule: false,
        train: TrainData { shard: train, sampler },
        validation: vec![ValidationData { name: "default".into(), shard: validation }],
        checkpoint: CheckpointConfig {
            enabled: true,
            dir: "checkpoints/".into(),
            consolidated: Consolidated::Every,
            best_metric: "default".into(),
            keep: None,
            restore_from: None,
        },
        initial_adapter: None,
        preemption_signals: Vec::new(),
        threads: None,
    }
}

impl Toy {
    pub fn model_folder(&self) -> PathBuf {
        self.folder.join("model")
    }

    pub fn session(&self, threads: usize) -> Session {
        let model = ModelWeights::open(&self.model_folder()).unwrap();
        Session::with_symbols(self.plan.clone(), Box::new(table()), model, Some(threads)).unwrap()
    }

    /// The folders of a run that writes into the folder `checkpoints`.
    pub fn places(&self, checkpoints: &str) -> Places {
        Places {
            model: Some(self.model_folder()),
            shards: self.folder.join("shards"),
            checkpoints: self.folder.join(checkpoints),
        }
    }

    /// A run that writes into the folder `checkpoints`.
    pub fn run(&self, disk: &dyn Disk, checkpoints: &str, options: &RunOptions) -> Result<Summary> {
        self.run_at(disk, self.places(checkpoints), options)
    }

    pub fn run_at(&self, disk: &dyn Disk, places: Places, options: &RunOptions) -> Result<Summary> {
        let session = self.session(options.threads.unwrap_or(1));
        Trainer::start(session, &self.run, RECIPE, places, disk, options)?.run()
    }
}

/// A quiet run to the end, on two threads.
pub fn options() -> RunOptions {
    RunOptions { quiet: true, threads: Some(2), ..RunOptions::default() }
}

/// A quiet run that stops early.
pub fn until(steps: u64) -> RunOptions {
    RunOptions { steps: Some(steps), ..options() }
}

/// A temporary folder, in memory where the machine offers that: these tests sync hundreds of files.
pub fn temporary() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let inside = memory.is_dir().then(|| tempfile::tempdir_in(memory).ok()).flatten();
    inside.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

/// Everything below a folder that a run decides: files by relative name, links by target; times taken out of records.
pub fn contents(folder: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut todo = vec![folder.to_path_buf()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
            if let Ok(target) = fs::read_link(&path) {
                all.insert(name, format!("-> {}", target.display()));
            } else if path.is_dir() {
                todo.push(path);
            } else if name.ends_with(".jsonl") {
                all.insert(name, timeless(&fs::read_to_string(&path).unwrap()));
            } else {
                all.insert(name, hash_bytes(&fs::read(&path).unwrap()));
            }
        }
    }
    all
}

fn timeless(records: &str) -> String {
    let without_times = |line: &str| {
        let mut record: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        for key in ["timestamp", "mem", "tps", "tps_per_gpu"] {
            record.remove(key);
        }
        serde_json::to_string(&record).unwrap()
    };
    records.lines().map(|line| without_times(line) + "\n").collect()
}
