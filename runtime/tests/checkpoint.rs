//! What stands in a checkpoint, which ones stay, and where the links point.
mod support;

use amc_artifact::safetensors::{SafetensorsFile, Weights};
use amc_artifact::{Consolidated, LrSchedule};
use amc_runtime::disk::RealDisk;
use amc_runtime::session::{Part, Session};
use amc_runtime::train::RunOptions;
use half::bf16;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use support::{A, RECIPE, Toy, W, contents, options, temporary, toy, until};

fn run(toy: &Toy, options: &RunOptions) {
    toy.run(&RealDisk, "c", options).unwrap();
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Folders and links of a checkpoint directory.
fn names(dir: &Path) -> Vec<String> {
    let all = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = all.filter(|name| name.starts_with("epoch") || name.starts_with('L')).collect();
    names.sort();
    names
}

/// The session at the end of a run, by resuming it.
fn resumed(toy: &Toy, folder: &Path) -> Session {
    let mut session = toy.session(1);
    amc_runtime::checkpoint::restore(&mut session, &toy.run, folder).unwrap();
    session
}

#[test]
fn an_adapter_has_the_files_that_peft_wants() {
    let folder = temporary();
    let toy = toy(folder.path(), false);
    run(&toy, &options());
    let last = folder.path().join("c/epoch_2_step_7");
    let files: Vec<_> = contents(&last).into_keys().collect();
    let wanted = [
        "config.yaml",
        "losses.json",
        "model/adapter_config.json",
        "model/adapter_model.safetensors",
        "model/automodel_peft_config.json",
        "model/tokenizer.json",
        "optim/optimizer.safetensors",
        "state.json",
        "step_scheduler.json",
    ];
    assert_eq!(files, wanted);
    assert_eq!(fs::read_to_string(last.join("config.yaml")).unwrap(), RECIPE);
    assert_eq!(read_json(&last.join("step_scheduler.json")), json!({"step": 8, "epoch": 2}));
    let losses = read_json(&last.join("losses.json"));
    assert!(losses["train_loss"].is_f64() && losses["val_loss"].is_f64(), "{losses}");
    let config = fs::read_to_string(last.join("model/adapter_config.json")).unwrap();
    let keys: Vec<_> = config.lines().filter_map(|line| line.strip_prefix("  \"")?.split('"').next()).collect();
    assert!(keys.is_sorted() && keys.len() == 9, "{config}");
    assert!(config.contains("\"lora_alpha\": 32,") && config.contains("\"r\": 8,"), "{config}");
    let adapter = SafetensorsFile::open(&last.join("model/adapter_model.safetensors")).unwrap();
    assert_eq!(adapter.metadata()["format"], "pt");
    let shapes: Vec<_> = adapter.tensors().iter().map(|(name, info)| (name.as_str(), info.dtype.name())).collect();
    assert_eq!(shapes, [(A, "BF16"), (W, "F32")]);
}

#[test]
fn restoring_gives_back_every_bit() {
    let folder = temporary();
    let toy = toy(folder.path(), false);
    run(&toy, &options());
    let last = folder.path().join("c/LATEST");
    let session = resumed(&toy, &last);
    let values = SafetensorsFile::open(&last.join("model/adapter_model.safetensors")).unwrap();
    let stored: Vec<f32> =
        values.tensor(A).unwrap().bytes.as_chunks().0.iter().map(|x| bf16::from_le_bytes(*x).to_f32()).collect();
    assert_eq!(session.read_param(A, Part::Value).unwrap(), stored);
    let moments = SafetensorsFile::open(&last.join("optim/optimizer.safetensors")).unwrap();
    assert_eq!(moments.metadata()["step"], "8");
    for (part, name) in [(Part::ExpAvg, "exp_avg"), (Part::ExpAvgSq, "exp_avg_sq")] {
        let view = moments.tensor(&format!("state.{W}.{name}")).unwrap();
        let stored: Vec<f32> = view.bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
        assert_eq!(session.read_param(W, part).unwrap(), stored);
        assert!(stored.iter().any(|x| *x != 0.0));
    }
}

#[test]
fn a_full_model_is_split_and_typed_as_its_base() {
    let folder = temporary();
    let mut toy = toy(folder.path(), true);
    toy.run.checkpoint.consolidated = Consolidated::Final;
    run(&toy, &options());
    assert!(!folder.path().join("c/epoch_1_step_5/model/consolidated").exists());
    let model = folder.path().join("c/epoch_2_step_7/model");
    let files: Vec<_> = contents(&model).into_keys().collect();
    let wanted = [
        "consolidated/config.json",
        "consolidated/model-00001-of-00001.safetensors",
        "consolidated/model.safetensors.index.json",
        "consolidated/tokenizer.json",
        "shard-00001-model-00001-of-00001.safetensors",
    ];
    assert_eq!(files, wanted);
    let index = read_json(&model.join("consolidated/model.safetensors.index.json"));
    assert_eq!(index["metadata"], json!({"total_size": 144 * (4 + 4 + 2)}));
    let written = Weights::open(&model.join("consolidated")).unwrap();
    let base = Weights::open(&toy.model_folder()).unwrap();
    assert_eq!(written.tensor("base").unwrap(), base.tensor("base").unwrap());
    let session = resumed(&toy, &model.join(".."));
    let trained: Vec<u8> =
        session.read_param("w", Part::Value).unwrap().iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(written.tensor("w").unwrap().bytes, trained);
    assert_ne!(written.tensor("w").unwrap().bytes, base.tensor("w").unwrap().bytes);
    assert_eq!(written.info("a").unwrap().dtype.name(), "BF16");
}

#[test]
fn a_full_model_is_cast_to_the_dtype_of_its_base_and_leaves_tied_tensors_out() {
    let folder = temporary();
    let mut toy = toy(folder.path(), true);
    // The plan keeps `a` in f32, while the base stores bf16; the head is a copy of `base`.
    toy.plan.params[1].storage = amc_artifact::Storage::F32;
    toy.plan.programs.iter_mut().for_each(|program| program.launches.clear());
    toy.run.model.tied = vec!["base".into()];
    run(&toy, &until(1));
    let model = folder.path().join("c/epoch_0_step_0/model");
    let written = Weights::open(&model.join("consolidated")).unwrap();
    let base = Weights::open(&toy.model_folder()).unwrap();
    assert_eq!(written.tensor("a").unwrap(), base.tensor("a").unwrap());
    assert!(written.info("base").is_none());
    let shard = SafetensorsFile::open(&model.join("shard-00001-model-00001-of-00001.safetensors")).unwrap();
    assert_eq!(shard.tensors()["a"].dtype.name(), "F32");
}

#[test]
fn a_full_model_has_the_config_that_it_was_trained_with() {
    let folder = temporary();
    let mut toy = toy(folder.path(), true);
    let overrides = json!({"rope_theta": 500.0, "rope_scaling": {"factor": 2.0}});
    toy.run.model.config_overrides = overrides.as_object().unwrap().clone();
    run(&toy, &until(1));
    let config = read_json(&folder.path().join("c/epoch_0_step_0/model/consolidated/config.json"));
    assert_eq!(config, json!({"file": "config.json", "rope_theta": 500.0, "rope_scaling": {"factor": 2.0}}));
}

#[test]
fn old_checkpoints_go_but_what_a_link_targets_stays() {
    let folder = temporary();
    let mut toy = toy(folder.path(), false);
    toy.run.checkpoint.keep = Some(2);
    // After the second step the rate is so high that the validation loss rises.
    toy.run.lr_schedule = LrSchedule { init_lr: 0.0, warmup_steps: 1, max_lr: 50.0, ..LrSchedule::constant(50.0, 0.0) };
    toy.run.lr_schedule.decay_steps = 100;
    run(&toy, &options());
    let dir = folder.path().join("c");
    let losses: Vec<f64> = fs::read_to_string(dir.join("validation.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["val_loss"].as_f64().unwrap())
        .collect();
    assert!(losses[1..].iter().all(|loss| *loss > losses[0]), "{losses:?}");
    let wanted = ["LATEST", "LOWEST_VAL", "epoch_0_step_1", "epoch_1_step_5", "epoch_2_step_7"];
    assert_eq!(names(&dir), wanted);
    assert_eq!(fs::read_link(dir.join("LATEST")).unwrap(), Path::new("epoch_2_step_7"));
    assert_eq!(fs::read_link(dir.join("LOWEST_VAL")).unwrap(), Path::new("epoch_0_step_1"));
}

#[test]
fn steps_counted_from_one_have_names_from_one() {
    let folder = temporary();
    let mut toy = toy(folder.path(), false);
    toy.run.schedule.first_number = 1;
    run(&toy, &until(3));
    let dir = folder.path().join("c");
    assert_eq!(names(&dir), ["LATEST", "LOWEST_VAL", "epoch_0_step_2", "epoch_0_step_3"]);
    run(&toy, &options());
    let steps: Vec<u64> = fs::read_to_string(dir.join("training.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn named_sets_have_files_of_their_own_and_one_of_them_ranks() {
    let folder = temporary();
    let mut toy = toy(folder.path(), false);
    let mut second = toy.run.validation[0].clone();
    toy.run.validation[0].name = "easy".into();
    second.name = "hard".into();
    toy.run.validation.push(second);
    toy.run.checkpoint.best_metric = "hard".into();
    run(&toy, &until(2));
    let dir = folder.path().join("c");
    let losses = read_json(&dir.join("LOWEST_VAL/losses.json"));
    assert_eq!(losses["val_loss"]["easy"], losses["val_loss"]["hard"]);
    assert!(dir.join("validation_easy.jsonl").is_file() && dir.join("validation_hard.jsonl").is_file());
}

#[test]
fn without_checkpoints_there_are_still_records() {
    let folder = temporary();
    let mut toy = toy(folder.path(), false);
    toy.run.checkpoint.enabled = false;
    run(&toy, &options());
    let dir = folder.path().join("c");
    assert!(names(&dir).is_empty());
    assert_eq!(fs::read_to_string(dir.join("training.jsonl")).unwrap().lines().count(), 8);
    run(&toy, &options());
    assert_eq!(fs::read_to_string(dir.join("training.jsonl")).unwrap().lines().count(), 8);
}
