//! Whole runs of a toy whose kernels are Rust functions, against arithmetic done by hand and against each other.
mod support;

use amc_artifact::{IGNORED, LrSchedule, Sampler};
use amc_runtime::disk::RealDisk;
use amc_runtime::session::{Part, Session};
use amc_runtime::train::{Places, Resume, RunOptions, Summary, Trainer};
use anyhow::Result;
use std::fs;
use std::path::Path;
use support::{A, RECIPE, Toy, VOCABULARY, W, contents, options, row, temporary, toy, until};

/// Relative; the toy rounds to f32 (and `a` to bf16, in the reference as well) at every step.
const TOLERANCE: f64 = 2e-4;

fn run(toy: &Toy, checkpoints: &str, options: &RunOptions) -> Result<Summary> {
    toy.run(&RealDisk, checkpoints, options)
}

fn error(toy: &Toy, checkpoints: &str, options: &RunOptions) -> String {
    format!("{:#}", run(toy, checkpoints, options).unwrap_err())
}

/// The toy in f64: `base`, `w`, `a` and moments, stepped as the specification says.
struct Reference {
    base: Vec<f64>,
    /// Value, first and second moment of w and of a.
    params: [[Vec<f64>; 3]; 2],
}

impl Reference {
    fn new(session: &Session, base: Vec<f64>) -> Reference {
        let value = |name| session.read_param(name, Part::Value).unwrap().iter().map(|x| f64::from(*x)).collect();
        let zeros = || vec![0.0; VOCABULARY * VOCABULARY];
        Reference { base, params: [W, A].map(|name| [value(name), zeros(), zeros()]) }
    }

    /// Sum of token losses and of gradients over rows, and how many tokens have a label.
    fn losses(&self, rows: &[u32], salt: usize) -> (f64, Vec<f64>, usize) {
        let (mut loss, mut grad, mut count) = (0.0, vec![0.0; VOCABULARY * VOCABULARY], 0);
        for &index in rows {
            let (tokens, labels) = row(index as usize, salt);
            for (token, label) in tokens.iter().zip(&labels).filter(|(_, label)| **label != IGNORED) {
                let cell = |column| *token as usize * VOCABULARY + column;
                let logit = |column: usize| {
                    self.base[cell(column)] + self.params[0][0][cell(column)] + self.params[1][0][cell(column)]
                };
                let sum: f64 = (0..VOCABULARY).map(|column| logit(column).exp()).sum();
                loss += sum.ln() - logit(*label as usize);
                count += 1;
                for column in 0..VOCABULARY {
                    let target = if column == *label as usize { 1.0 } else { 0.0 };
                    grad[cell(column)] += logit(column).exp() / sum - target;
                }
            }
        }
        (loss, grad, count)
    }

    /// One AdamW step; returns the mean loss and the norm of the gradient of both parameters.
    fn step(&mut self, rows: &[u32], t: i32, lr: f64, decay: f64, max_norm: f64) -> (f64, f64) {
        let (loss, mut grad, count) = self.losses(rows, 1);
        grad.iter_mut().for_each(|x| *x /= count as f64);
        let norm = (2.0 * grad.iter().map(|x| x * x).sum::<f64>()).sqrt();
        let clip = (max_norm / (norm + 1e-6)).min(1.0);
        for (index, [value, first, second]) in self.params.iter_mut().enumerate() {
            for cell in 0..grad.len() {
                let slope = grad[cell] * clip;
                first[cell] = 0.9 * first[cell] + 0.1 * slope;
                second[cell] = 0.999 * second[cell] + 0.001 * slope * slope;
                let mean = first[cell] / (1.0 - 0.9f64.powi(t));
                let deviation = (second[cell] / (1.0 - 0.999f64.powi(t))).sqrt();
                value[cell] = value[cell] * (1.0 - lr * decay) - lr * mean / (deviation + 1e-8);
                if index == 1 {
                    value[cell] = half::bf16::from_f32(value[cell] as f32).to_f64();
                }
            }
        }
        (loss / count as f64, norm)
    }
}

#[test]
fn a_run_does_what_the_specification_says() {
    let folder = temporary();
    let toy = toy(folder.path(), false);
    let summary = run(&toy, "c", &options()).unwrap();
    let mut session = toy.session(1);
    session.initialise(toy.run.seed).unwrap();
    let base = (0..VOCABULARY * VOCABULARY).map(|i| f64::from(((i * 37 + 1) % 101) as f32 / 101.0 - 0.5)).collect();
    let mut reference = Reference::new(&session, base);
    let records: Vec<serde_json::Value> = fs::read_to_string(folder.path().join("c/training.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((summary.completed_steps, summary.losses.len(), records.len()), (8, 8, 8));
    for step in 0..8 {
        let sampler = Sampler { ..toy.run.train.sampler };
        let epoch = sampler.epoch(step / 3);
        let rows = epoch.step(step as usize % 3).flatten().copied().collect::<Vec<_>>();
        let lr = toy.run.lr_schedule.learning_rate(step);
        let (loss, norm) = reference.step(&rows, step as i32 + 1, lr, 0.01, 0.3);
        let record = &records[step as usize];
        let close = |key: &str, wanted: f64| {
            let found = record[key].as_f64().unwrap();
            assert!(
                (found - wanted).abs() < TOLERANCE * wanted.abs().max(1e-3),
                "step {step} {key}: {found}, wanted {wanted}"
            );
        };
        close("loss", loss);
        close("grad_norm", norm);
        close("lr", toy.run.lr_schedule.learning_rate(step + 1));
        assert_eq!(record["epoch"], step / 3);
        let labels: usize = rows.iter().map(|&index| row(index as usize, 1).0.len() - 2).sum();
        let tokens: usize = rows.iter().map(|&index| row(index as usize, 1).0.len() - 1).sum();
        assert_eq!(
            (record["num_label_tokens"].as_u64(), record["num_tokens_per_step"].as_u64()),
            (Some(labels as u64), Some(tokens as u64))
        );
    }
    let (loss, _, count) = reference.losses(&[0, 1, 2, 3, 4], 2);
    let found = summary.validation[0].1;
    assert!((found - loss / count as f64).abs() < TOLERANCE, "validation {found}, wanted {}", loss / count as f64);
}

#[test]
fn threads_do_not_change_a_bit() {
    let folder = temporary();
    let toy = toy(folder.path(), false);
    let with = |threads: usize| {
        let name = format!("threads{threads}");
        run(&toy, &name, &RunOptions { threads: Some(threads), ..options() }).unwrap();
        contents(&folder.path().join(name))
    };
    let one = with(1);
    assert_eq!(one, with(2));
    assert_eq!(one, with(5));
}

#[test]
fn a_run_in_pieces_is_the_run_in_one() {
    for sft in [false, true] {
        let folder = temporary();
        let toy = toy(folder.path(), sft);
        let whole = run(&toy, "whole", &options()).unwrap();
        let mut losses = Vec::new();
        // Steps after which a checkpoint is due anyway, so that both directories hold the same ones.
        for steps in [2, 4, 6, 8] {
            losses.extend(run(&toy, "pieces", &until(steps)).unwrap().losses);
        }
        assert_eq!(losses, whole.losses);
        assert_eq!(contents(&folder.path().join("pieces")), contents(&folder.path().join("whole")));
        let again = run(&toy, "pieces", &options()).unwrap();
        assert_eq!((again.completed_steps, again.losses.len()), (8, 0));
    }
}

#[test]
fn records_of_steps_that_are_done_again_are_cut_off() {
    let folder = temporary();
    let toy = toy(folder.path(), false);
    run(&toy, "whole", &options()).unwrap();
    run(&toy, "c", &until(4)).unwrap();
    let path = folder.path().join("c/training.jsonl");
    let mut text = fs::read_to_string(&path).unwrap();
    text.push_str("{\"step\":4,\"epoch\":1,\"loss\":99.0}\n{\"step\":5,\"lo");
    fs::write(&path, text).unwrap();
    run(&toy, "c", &options()).unwrap();
    assert_eq!(contents(&folder.path().join("c")), contents(&folder.path().join("whole")));
}

#[test]
fn resuming_by_name_and_refusing_to_overwrite() {
    let folder = temporary();
    let mut toy = toy(folder.path(), false);
    let whole = run(&toy, "c", &options()).unwrap();
    let checkpoints = folder.path().join("c");
    let from = |name: &str| RunOptions { resume: Some(name.parse().unwrap()), ..options() };
    let elsewhere = checkpoints.join("epoch_1_step_3").to_string_lossy().into_owned();
    assert_eq!(run(&toy, "d", &from(&elsewhere)).unwrap().losses, whole.losses[4..]);
    assert!(error(&toy, "c", &from("epoch_1_step_3")).contains("epoch_1_step_5 is there already"));
    assert!(error(&toy, "c", &from("never")).contains("begin at the start"));
    assert!(error(&toy, "c", &from("epoch_9_step_9")).contains("there is no checkpoint epoch_9_step_9"));
    assert_eq!(run(&toy, "c", &from("LATEST")).unwrap().losses.len(), 0);
    toy.run.checkpoint.restore_from = Some("epoch_1_step_3".into());
    assert!(error(&toy, "c", &options()).contains("epoch_1_step_5 is there already"));
    assert_eq!(run(&toy, "c", &from("auto")).unwrap().losses.len(), 0);
    fs::create_dir(folder.path().join("elsewhere")).unwrap();
    let elsewhere = folder.path().join("elsewhere").to_string_lossy().into_owned();
    assert!(error(&toy, "c", &from(&elsewhere)).contains("not a complete checkpoint of amc"));
    fs::create_dir(checkpoints.join("epoch_0_step_0")).unwrap();
    assert!(error(&toy, "c", &options()).contains("epoch_0_step_0 is not a checkpoint of amc"));
}

#[test]
fn a_damaged_checkpoint_is_set_aside() {
    for file in ["optim/optimizer.safetensors", "state.json"] {
        let folder = temporary();
        let toy = toy(folder.path(), false);
        run(&toy, "whole", &options()).unwrap();
        run(&toy, "c", &until(6)).unwrap();
        let checkpoints = folder.path().join("c");
        let path = checkpoints.join("epoch_1_step_5").join(file);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, [&bytes[..bytes.len() - 3], b"xxx"].concat()).unwrap();
        run(&toy, "c", &options()).unwrap();
        assert!(checkpoints.join("epoch_1_step_5.unreadable").is_dir());
        fs::remove_dir_all(checkpoints.join("epoch_1_step_5.unreadable")).unwrap();
        assert_eq!(contents(&checkpoints), contents(&folder.path().join("whole")));
    }
}

#[test]
fn another_model_is_not_resumed() {
    let folder = temporary();
    let mut toy = toy(folder.path(), false);
    run(&toy, "c", &until(2)).unwrap();
    toy.run.model.name = "other".into();
    assert!(error(&toy, "c", &options()).contains("epoch_0_step_1 (of another model) is there already"));
}

#[test]
fn the_schedule_of_the_checkpoint_wins() {
    let folder = temporary();
    let mut toy = toy(folder.path(), false);
    let whole = run(&toy, "whole", &options()).unwrap();
    run(&toy, "a", &until(4)).unwrap();
    run(&toy, "b", &until(4)).unwrap();
    toy.run.lr_schedule.min_lr = 0.05;
    assert_eq!(run(&toy, "a", &options()).unwrap().losses, whole.losses[4..]);
    toy.run.override_lr_schedule = true;
    let other = run(&toy, "b", &options()).unwrap().losses;
    assert!(other[0] == whole.losses[4] && other[3] != whole.losses[7]);
}

#[test]
fn what_is_missing_is_said_before_the_first_step() {
    let folder = temporary();
    let mut toy = toy(folder.path(), false);
    let error_at = |places| format!("{:#}", toy.run_at(&RealDisk, places, &options()).unwrap_err());
    let shards = Places { shards: folder.path().join("nowhere"), ..toy.places("c") };
    assert!(error_at(shards).contains("run `amc compile` again"));
    assert!(error_at(toy.places("model/config.json")).contains("cannot create checkpoint_dir"));
    toy.run.model.vocabulary = 7;
    assert!(error(&toy, "c", &options()).contains("token ids up to 11, the model has 7"));
    toy.run.model.vocabulary = VOCABULARY as u64;
    toy.run.model.tokenizer_files.push("vocab.json".into());
    assert!(error(&toy, "c", &options()).contains("vocab.json is missing"));
    toy.run.model.tokenizer_files.pop();
    toy.run.train.sampler.rows = 12;
    assert!(error(&toy, "c", &options()).contains("the sampler is for 12 rows, the data has 11"));
    toy.run.train.sampler.rows = 11;
    toy.plan.programs[0].seq = 4;
    toy.plan.programs[0].batch = 4;
    assert!(error(&toy, "c", &options()).contains("fits none of the compiled shapes (4x4)"));
}

#[test]
fn a_directory_has_one_run_at_a_time() {
    let folder = temporary();
    let toy = toy(folder.path(), false);
    let first = Trainer::start(toy.session(1), &toy.run, RECIPE, toy.places("c"), &RealDisk, &options()).unwrap();
    assert!(error(&toy, "c", &options()).contains("another run is using checkpoint_dir"));
    drop(first);
    run(&toy, "c", &options()).unwrap();
}

#[test]
fn a_run_may_start_from_an_adapter() {
    let folder = temporary();
    let mut toy = toy(folder.path(), false);
    run(&toy, "a", &until(4)).unwrap();
    let adapter = folder.path().join("a/LATEST/model");
    toy.run.initial_adapter = Some(adapter.to_string_lossy().into_owned());
    toy.run.lr_schedule = LrSchedule::constant(0.0, 0.0);
    run(&toy, "b", &until(1)).unwrap();
    let values = |folder: &Path| fs::read(folder.join("adapter_model.safetensors")).unwrap();
    assert_eq!(values(&adapter), values(&folder.path().join("b/LATEST/model")));
    toy.run.initial_adapter = Some(folder.path().to_string_lossy().into_owned());
    assert!(error(&toy, "c", &options()).contains("amc.initial_adapter"));
}

#[test]
fn words_for_resuming() {
    let words = ["auto", "never", "LATEST"].map(|word| word.parse::<Resume>().unwrap());
    assert_eq!(words, [Resume::Auto, Resume::Never, Resume::From("LATEST".into())]);
}
