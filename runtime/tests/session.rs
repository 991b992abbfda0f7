//! Opening artifacts: what is checked before any code runs, and the device that does nothing.
mod support;

use amc_artifact::*;
use amc_runtime::ModelWeights;
use amc_runtime::device::missing_features;
use amc_runtime::disk::RealDisk;
use amc_runtime::session::{Part, Session, SessionOptions};
use amc_runtime::train::Trainer;
use half::bf16;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use support::kernels::table;
use support::{A, RECIPE, Toy, VOCABULARY, W, contents, options, temporary, toy};

fn artifact(toy: &Toy, kind: TargetKind, features: &[&str]) -> Artifact {
    let dir = toy.folder.join("artifact");
    let features = features.iter().map(|name| name.to_string()).collect();
    let model_files = match kind {
        TargetKind::Cpu => vec![InputFile::of(&toy.model_folder(), "model.safetensors").unwrap()],
        TargetKind::Cuda | TargetKind::Null => Vec::new(),
    };
    let contents = Contents {
        header: Header {
            compiler: "0".into(),
            target: TargetInfo { kind, cpu: "somecpu".into(), features },
            libraries: Vec::new(),
            recipe: hash_bytes(RECIPE.as_bytes()),
            model_files,
            memory: Vec::new(),
        },
        plan: toy.plan.clone(),
        run: Some(toy.run.clone()),
        recipe: RECIPE.into(),
        recipe_lock: RECIPE.into(),
        kernels: (kind != TargetKind::Null).then(|| b"no code".to_vec()),
        ir: BTreeMap::new(),
    };
    Artifact::write(&dir, &contents).unwrap();
    Artifact::open(&dir).unwrap()
}

fn open_error(artifact: &Artifact) -> String {
    match Session::open(artifact, &SessionOptions::default()) {
        Ok(_) => panic!("a session of something broken"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn the_null_device_trains_without_a_model() {
    let folder = temporary();
    let mut toy = toy(folder.path(), false);
    toy.plan.arena_bytes = 1 << 50;
    let artifact = artifact(&toy, TargetKind::Null, &[]);
    fs::remove_dir_all(toy.model_folder()).unwrap();
    let places = || amc_runtime::train::Places { model: None, ..toy.places("c") };
    let session = Session::open(&artifact, &SessionOptions::default()).unwrap();
    let trainer = Trainer::start(session, &toy.run, RECIPE, places(), &RealDisk, &options()).unwrap();
    let summary = trainer.run().unwrap();
    assert_eq!((summary.completed_steps, summary.losses), (8, vec![0.0; 8]));
    assert!(contents(&folder.path().join("c")).contains_key("epoch_2_step_7/model/adapter_model.safetensors"));
}

#[test]
fn what_the_cpu_lacks_is_named() {
    let folder = temporary();
    let toy = toy(folder.path(), false);
    let wanted = ["avx512fp16", "avx512bf16", "avx512f"];
    let Some(missing) = missing_features(&wanted.map(String::from)).pop() else { return };
    let error = open_error(&artifact(&toy, TargetKind::Cpu, &["sse3", &missing]));
    assert!(error.contains(&format!("compiled for somecpu, which has {missing}; this CPU has not")), "{error}");
}

#[test]
fn a_model_that_is_gone_or_changed_is_named() {
    let folder = temporary();
    let toy = toy(folder.path(), false);
    let artifact = artifact(&toy, TargetKind::Cpu, &[]);
    assert!(open_error(&artifact).contains("cannot load the compiled kernels"));
    let weights = toy.model_folder().join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).unwrap();
    let error = open_error(&artifact);
    assert!(error.contains("changed since it was compiled") && error.contains("run `amc compile` again"), "{error}");
    fs::remove_dir_all(toy.model_folder()).unwrap();
    let error = open_error(&artifact);
    assert!(error.contains("is not here") && error.contains("run `amc compile` again"), "{error}");
}

#[test]
fn tensors_are_checked_against_the_plan() {
    let folder = temporary();
    let toy = toy(folder.path(), false);
    let error = |change: &dyn Fn(&mut Plan)| {
        let mut plan = toy.plan.clone();
        change(&mut plan);
        let model = ModelWeights::open(&toy.model_folder()).unwrap();
        match Session::with_symbols(plan, Box::new(table()), model, Some(1)) {
            Ok(_) => panic!("a session of a plan that does not fit"),
            Err(error) => format!("{error:#}"),
        }
    };
    assert!(error(&|plan| plan.weights[0].name = "bias".into()).contains("there is no tensor `bias`"));
    let shape = error(&|plan| plan.weights[0].shape = vec![6, 24]);
    assert!(shape.contains("`base` has shape [12, 12], compiled for [6, 24]"), "{shape}");
    assert!(error(&|plan| plan.kernels[0].symbol = "missing".into()).contains("no kernel `missing`"));
    assert!(error(&|plan| plan.programs[0].launches[0].kernel = 9).contains("kernel 9 of 5"));
}

#[test]
fn ports_and_parameters_take_what_fits_and_give_it_back() {
    let folder = temporary();
    let toy = toy(folder.path(), false);
    let mut session = toy.session(1);
    let id = session.program("train").unwrap();
    assert!(session.program("nothing").unwrap_err().to_string().contains("the plan has train, evaluate, update"));
    assert!(session.write(id, "tokens", &[0i32; 3]).unwrap_err().to_string().contains("holds 16 elements, not 3"));
    assert!(session.write(id, "tokens", &[0f32; 16]).unwrap_err().to_string().contains("holds I32, not F32"));
    assert!(session.write(id, "tokns", &[0i32; 16]).unwrap_err().to_string().contains("no input `tokns`"));
    let values: Vec<f32> = (0..VOCABULARY * VOCABULARY).map(|i| i as f32 / 7.0).collect();
    for (name, part) in [(W, Part::Value), (A, Part::Gradient), (A, Part::ExpAvg), (A, Part::ExpAvgSq)] {
        session.write_param(name, part, &values).unwrap();
        assert_eq!(session.read_param(name, part).unwrap(), values);
    }
    session.write_param(A, Part::Value, &values).unwrap();
    let rounded: Vec<f32> = values.iter().map(|value| bf16::from_f32(*value).to_f32()).collect();
    assert_eq!(session.read_param(A, Part::Value).unwrap(), rounded);
    assert!(session.write_param(A, Part::Value, &values[1..]).is_err());
}

#[test]
fn weights_of_another_dtype_are_converted() {
    let folder = temporary();
    let mut toy = toy(folder.path(), true);
    toy.plan.weights.push(WeightTensor {
        name: "a".into(),
        storage: Storage::F32,
        shape: vec![12, 12],
        init: Init::Checkpoint,
    });
    toy.plan.params[0].storage = Storage::Bf16;
    let mut session = toy.session(1);
    session.initialise(0).unwrap();
    let stored = safetensors::Weights::open(&toy.model_folder()).unwrap();
    let wide: Vec<f32> =
        stored.tensor("w").unwrap().bytes.as_chunks().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect();
    let rounded: Vec<f32> = wide.iter().map(|value| bf16::from_f32(*value).to_f32()).collect();
    assert_eq!(session.read_param("w", Part::Value).unwrap(), rounded);
}

#[test]
fn first_values_depend_on_seed_and_name_alone() {
    let folder = temporary();
    let toy = toy(folder.path(), false);
    let values = |plan: Plan, seed| {
        let model = ModelWeights::open(Path::new(&toy.model_folder())).unwrap();
        let mut session = Session::with_symbols(plan, Box::new(table()), model, Some(1)).unwrap();
        session.initialise(seed).unwrap();
        session.read_param(A, Part::Value).unwrap()
    };
    let first = values(toy.plan.clone(), 1);
    assert_eq!(first, values(Plan { params: toy.plan.params.iter().rev().cloned().collect(), ..toy.plan.clone() }, 1));
    assert_ne!(first, values(toy.plan.clone(), 2));
    let square = first.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / first.len() as f64;
    let wanted = 2.0 / 24.0;
    assert!((square / wanted - 1.0).abs() < 0.35, "variance {square}, wanted {wanted}");
    let mut kaiming = toy.plan.clone();
    kaiming.params[1].init = Init::KaimingUniform;
    let uniform = values(kaiming, 1);
    let bound = (1.0f32 / 12.0).sqrt();
    assert!(uniform.iter().all(|x| x.abs() <= bound * 1.01) && uniform.iter().any(|x| x.abs() > 0.9 * bound));
}
