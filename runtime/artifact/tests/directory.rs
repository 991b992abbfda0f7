//! The artifact's directory: what is written is what is opened, and nothing else is.
use amc_artifact::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn contents() -> Contents {
    let header = Header {
        compiler: "0.1.0".into(),
        target: TargetInfo { kind: TargetKind::Cpu, cpu: "x86-64-v3".into(), features: vec!["avx2".into()] },
        libraries: Vec::new(),
        recipe: hash_bytes(b"seed: 1\n"),
        model_files: Vec::new(),
        memory: vec![PhaseMemory { phase: "train".into(), state: 64, activations: 0, scratch: 0, weights: 0 }],
    };
    let launch = Launch {
        kernel: 0,
        tasks: 1,
        args: vec![Arg::Arena(0), Arg::Constant(1)],
        label: "x".into(),
        begins: Begins::BehindAll,
        module: String::new(),
    };
    let program = Program {
        name: "train".into(),
        kind: ProgramKind::Train,
        batch: 1,
        seq: 8,
        inputs: vec![Port { name: "tokens".into(), storage: Storage::I32, shape: vec![8], offset: 0 }],
        outputs: Vec::new(),
        launches: vec![launch],
        buffers: Vec::new(),
    };
    Contents {
        header,
        plan: Plan {
            arena_bytes: 64,
            kernels: vec![Kernel { symbol: "k".into(), work: Work::default(), code: Code::Cpu }],
            constants: vec![1, 2],
            programs: vec![program],
            ..Plan::default()
        },
        run: Some(run()),
        recipe: "seed: 1\n".into(),
        recipe_lock: "seed: 1\nmax_steps: 4\n".into(),
        kernels: Some(b"not really code".to_vec()),
        ir: BTreeMap::from([("00-forward.amc".to_string(), "func @main() {}\n".to_string())]),
    }
}

fn run() -> RunConfig {
    let sampler = Sampler {
        rows: 8,
        shuffle: true,
        seed: 42,
        replicas: 1,
        rank: 0,
        local_batch_size: 2,
        accumulation: 2,
        drop_last: false,
    };
    RunConfig {
        seed: 42,
        model: ModelConfig {
            name: "models/tiny".into(),
            revision: None,
            config_overrides: serde_json::Map::new(),
            vocabulary: 32,
            config_files: vec!["config.json".into()],
            tokenizer: None,
            tokenizer_files: vec!["tokenizer.json".into()],
            tied: vec!["lm_head.weight".into()],
            parameters: 1000,
        },
        peft: Some(PeftExport {
            rank: 8,
            alpha: 32.into(),
            target_modules: vec!["model.layers.0.self_attn.q_proj".into()],
            automodel: serde_json::Map::new(),
        }),
        optimizer: OptimizerConfig { name: "AdamW".into(), beta1: 0.9, beta2: 0.999, eps: 1e-8 },
        max_norm: f64::INFINITY,
        schedule: StepSchedule {
            microbatches_per_epoch: 4,
            accumulation: 2,
            epochs: 1,
            max_steps: 2,
            checkpoint_every: 10,
            checkpoint_every_epoch: true,
            validate_every: None,
            validate_at_checkpoints: true,
            first_number: 0,
        },
        lr_schedule: LrSchedule::constant(0.1 + 0.2, 0.0),
        override_lr_schedule: false,
        train: TrainData { shard: hash_bytes(b"shard"), sampler },
        validation: vec![ValidationData { name: "default".into(), shard: hash_bytes(b"other") }],
        checkpoint: CheckpointConfig {
            enabled: true,
            dir: "checkpoints/".into(),
            consolidated: Consolidated::Final,
            best_metric: "default".into(),
            keep: Some(2),
            restore_from: None,
        },
        initial_adapter: None,
        preemption_signals: vec![15],
        threads: Some(2),
    }
}

/// The names and bytes of all files below a directory.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_string_lossy().into_owned();
                all.insert(name, fs::read(path).unwrap());
            }
        }
    }
    all
}

fn open_error(dir: &Path) -> String {
    format!("{:#}", Artifact::open(dir).unwrap_err())
}

#[test]
fn the_code_of_every_target_has_its_place() {
    let temporary = tempfile::tempdir().unwrap();
    for (kind, name) in [
        (TargetKind::Cpu, Some("kernels/kernels.so")),
        (TargetKind::Cuda, Some("kernels/kernels.ptx")),
        (TargetKind::Null, None),
    ] {
        let dir = temporary.path().join(format!("{kind:?}"));
        let mut contents = contents();
        contents.header.target.kind = kind;
        contents.kernels = name.is_none().then(|| b"code".to_vec());
        let error = format!("{:#}", Artifact::write(&dir, &contents).unwrap_err());
        assert!(error.contains(&format!("target {kind:?} with")), "{error}");
        contents.kernels = name.map(|_| b"code".to_vec());
        Artifact::write(&dir, &contents).unwrap();
        assert_eq!(Artifact::open(&dir).unwrap().kernels_path(), name.map(|name| dir.join(name)));
    }
}

#[test]
fn what_is_written_is_opened() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("deep/artifact");
    Artifact::write(&dir, &contents()).unwrap();
    let artifact = Artifact::open(&dir).unwrap();
    let meant = contents();
    assert_eq!((artifact.plan, artifact.run, artifact.recipe), (meant.plan, meant.run, meant.recipe));
    assert_eq!(artifact.header, meant.header);
    run().check().unwrap();
    let names: Vec<_> = files(&dir).into_keys().collect();
    let wanted = [
        "ir/00-forward.amc",
        "kernels/kernels.so",
        "manifest.json",
        "plan.bin",
        "recipe.lock.yaml",
        "recipe.yaml",
        "run.json",
    ];
    assert_eq!(names, wanted);
}

#[test]
fn equal_contents_are_equal_bytes() {
    let temporary = tempfile::tempdir().unwrap();
    let (a, b) = (temporary.path().join("a"), temporary.path().join("somewhere/else/b"));
    Artifact::write(&a, &contents()).unwrap();
    Artifact::write(&b, &contents()).unwrap();
    assert_eq!(files(&a), files(&b));
    compare(&a, &b).unwrap();
    Artifact::write(&b, &Contents { recipe: "seed: 2\n".into(), ..contents() }).unwrap();
    assert_eq!(compare(&a, &b).unwrap_err().to_string(), "recipe.yaml differs");
}

#[test]
fn an_artifact_is_replaced_whole_and_nothing_else_is() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("artifact");
    Artifact::write(&dir, &contents()).unwrap();
    let newer = Contents { recipe: "seed: 2\n".into(), ir: BTreeMap::new(), ..contents() };
    Artifact::write(&dir, &newer).unwrap();
    assert_eq!(Artifact::open(&dir).unwrap().recipe, "seed: 2\n");
    assert!(!dir.join("ir").exists());
    let broken = Contents { kernels: None, ..contents() };
    assert!(Artifact::write(&dir, &broken).is_err());
    assert_eq!(Artifact::open(&dir).unwrap().recipe, "seed: 2\n");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 1, "leftovers");

    let home = temporary.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("thesis.tex"), "years of work").unwrap();
    let error = format!("{:#}", Artifact::write(&home, &contents()).unwrap_err());
    assert!(error.contains("holds other files"), "{error}");
    assert!(home.join("thesis.tex").exists());
}

#[test]
fn a_changed_file_is_named() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("artifact");
    for name in ["plan.bin", "run.json", "recipe.yaml", "kernels/kernels.so", "ir/00-forward.amc"] {
        Artifact::write(&dir, &contents()).unwrap();
        let path = dir.join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = open_error(&dir);
        assert!(error.contains(name) && error.contains("run `amc compile` again"), "{error}");
        fs::remove_file(&path).unwrap();
        assert!(open_error(&dir).contains(name));
    }
    assert!(open_error(temporary.path()).contains("`amc compile` makes one"));
}

/// Rewrites a file and its hash, as somebody would who made the artifact by hand.
fn forge(dir: &Path, name: &str, bytes: &[u8]) {
    fs::write(dir.join(name), bytes).unwrap();
    let path = dir.join("manifest.json");
    let mut manifest: Manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest.files.insert(name.into(), hash_bytes(bytes));
    fs::write(path, serde_json::to_vec(&manifest).unwrap()).unwrap();
}

#[test]
fn garbage_is_an_error_and_never_a_panic() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("artifact");
    Artifact::write(&dir, &contents()).unwrap();
    let plan = fs::read(dir.join("plan.bin")).unwrap();
    for cut in 0..plan.len() {
        forge(&dir, "plan.bin", &plan[..cut]);
        open_error(&dir);
    }
    for index in 0..plan.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = plan.clone();
            bytes[index] = value;
            forge(&dir, "plan.bin", &bytes);
            if let Ok(artifact) = Artifact::open(&dir) {
                artifact.plan.validate().unwrap();
            }
        }
    }
    forge(&dir, "plan.bin", &[plan.as_slice(), &[0]].concat());
    assert!(open_error(&dir).contains("1 bytes too many"));
    forge(&dir, "plan.bin", &plan);
    forge(&dir, "run.json", b"{}");
    assert!(open_error(&dir).contains("run.json has not the form of a run"));
}

#[test]
fn manifests_of_strangers() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("artifact");
    Artifact::write(&dir, &contents()).unwrap();
    let text = fs::read_to_string(dir.join("manifest.json")).unwrap();
    let with = |from: &str, to: &str| {
        fs::write(dir.join("manifest.json"), text.replace(from, to)).unwrap();
        open_error(&dir)
    };
    let schema = |n: u32| format!("\"schema\": {n}");
    let found = with(&schema(SCHEMA), &schema(SCHEMA + 1));
    assert!(found.contains(&format!("has schema {}, this amc reads {SCHEMA}", SCHEMA + 1)));
    assert!(with("recipe.yaml", "../recipe.yaml").contains("not a plain relative path"));
    assert!(with("recipe.yaml", "/etc/hostname").contains("not a plain relative path"));
    assert!(with("plan.bin", "plan.tar").contains("plan.tar"));
    assert!(with("{", "[").contains("is not JSON"));
}

#[test]
fn a_changed_model_file_is_named() {
    let temporary = tempfile::tempdir().unwrap();
    fs::write(temporary.path().join("model.safetensors"), "weights").unwrap();
    let file = InputFile::of(temporary.path(), "model.safetensors").unwrap();
    file.verify(temporary.path()).unwrap();
    fs::write(temporary.path().join("model.safetensors"), "Weights").unwrap();
    let error = file.verify(temporary.path()).unwrap_err().to_string();
    assert!(error.contains("model.safetensors changed since it was compiled"), "{error}");
}
