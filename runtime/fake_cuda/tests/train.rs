//! Whole runs of the toy on the fake GPU, against those on the CPU and against each other.
mod artifact;
#[path = "../../tests/support/mod.rs"]
mod support;

use amc_artifact::memory::PIECE_BYTES;
use amc_artifact::{Begins, Param, ProgramKind};
use amc_fake_cuda::on_machines;
use amc_runtime::disk::RealDisk;
use amc_runtime::session::{Part, Session, SessionOptions};
use amc_runtime::train::{RunOptions, Summary, Trainer};
use artifact::{PTX, artifact, on_gpu, session};
use std::path::Path;
use support::{RECIPE, Toy, contents, options, temporary, toy, until};

/// Relative; the CPU's kernels compute in f64 between roundings, the GPU's in f32 throughout.
const TOLERANCE: f64 = 2e-4;

fn run(toy: &Toy, checkpoints: &str, options: &RunOptions) -> Summary {
    let session = session(toy).unwrap();
    Trainer::start(session, &toy.run, RECIPE, toy.places(checkpoints), &RealDisk, options).unwrap().run().unwrap()
}

/// The records that a run wrote, but for its times.
fn records(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("training.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_run_on_the_gpu_is_the_run_on_the_cpu() {
    on_machines("a_run_on_the_gpu_is_the_run_on_the_cpu", &["capability=8.0", "capability=12.0 driver=13020"], |_| {
        for sft in [false, true] {
            let folder = temporary();
            let toy = toy(folder.path(), sft);
            let wanted = toy.run(&RealDisk, "cpu", &options()).unwrap();
            let found = run(&toy, "gpu", &options());
            assert_eq!((found.completed_steps, found.losses.len()), (8, 8));
            let close = |found: f64, wanted: f64| (found - wanted).abs() <= TOLERANCE * wanted.abs();
            for (found, wanted) in records(&folder.path().join("gpu")).iter().zip(records(&folder.path().join("cpu"))) {
                for key in ["loss", "grad_norm", "lr"] {
                    let [found, wanted] = [found, &wanted].map(|record| record[key].as_f64().unwrap());
                    assert!(close(found, wanted), "{key}: {found}, wanted {wanted}");
                }
            }
            assert!(close(found.validation[0].1, wanted.validation[0].1), "{:?}", found.validation);
        }
    });
}

#[test]
fn launches_wait_for_what_the_plan_says_and_for_nothing_else() {
    on_machines("launches_wait_for_what_the_plan_says_and_for_nothing_else", &[""], |_| {
        let folder = temporary();
        let toy = toy(folder.path(), false);
        let whole = run(&toy, "whole", &options());
        let mut plan = on_gpu(&toy.plan);
        for launch in plan.programs.iter_mut().flat_map(|program| &mut program.launches) {
            let Begins::InStream { behind, .. } = &mut launch.begins else { panic!("a launch in no stream") };
            behind.clear();
        }
        let session = Session::open(&artifact(&toy, &plan, PTX, "sm_80"), &SessionOptions::default()).unwrap();
        let places = toy.places("early");
        let found = Trainer::start(session, &toy.run, RECIPE, places, &RealDisk, &options()).unwrap().run();
        assert!(found.is_err() || found.unwrap().losses != whole.losses, "without waits nothing changed");
    });
}

#[test]
fn a_run_in_pieces_has_the_bits_of_the_run_in_one() {
    on_machines("a_run_in_pieces_has_the_bits_of_the_run_in_one", &[""], |_| {
        let folder = temporary();
        let toy = toy(folder.path(), false);
        let whole = run(&toy, "whole", &options());
        let mut losses = Vec::new();
        for steps in [2, 4, 8] {
            losses.extend(run(&toy, "pieces", &until(steps)).losses);
        }
        assert_eq!(losses, whole.losses);
        assert_eq!(contents(&folder.path().join("pieces")), contents(&folder.path().join("whole")));
    });
}

#[test]
fn measuring_changes_no_bit_and_times_every_launch() {
    on_machines("measuring_changes_no_bit_and_times_every_launch", &[""], |_| {
        let folder = temporary();
        let toy = toy(folder.path(), false);
        run(&toy, "plain", &until(2));
        let trace = folder.path().join("trace.json");
        run(&toy, "measured", &RunOptions { profile: Some(trace.clone()), ..until(2) });
        assert_eq!(contents(&folder.path().join("measured")), contents(&folder.path().join("plain")));
        let trace: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(trace).unwrap()).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let mut names: Vec<&str> = events.iter().map(|event| event["name"].as_str().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["adam", "backward", "forward", "norm", "sum", "sum"]);
        assert!(events.iter().all(|event| event["dur"].as_f64().unwrap() > 0.0), "{events:?}");
    });
}

#[test]
fn more_arrives_than_pinned_memory_holds() {
    on_machines("more_arrives_than_pinned_memory_holds", &[""], |_| {
        let folder = temporary();
        let mut toy = toy(folder.path(), false);
        let count = 3 * PIECE_BYTES / 4 + 5;
        let big = Param {
            name: "big".into(),
            shape: vec![count],
            value_offset: toy.plan.arena_bytes,
            ..toy.plan.params[0].clone()
        };
        toy.plan.arena_bytes += 4 * count;
        toy.plan.params.push(big);
        // Without training, a parameter is its value alone.
        toy.plan.programs.retain(|program| program.kind == ProgramKind::Evaluate);
        let values: Vec<f32> = (0..count).map(|i| i as f32).collect();
        let mut session = session(&toy).unwrap();
        session.write_param("big", Part::Value, &values).unwrap();
        assert!(session.read_param("big", Part::Value).unwrap() == values);
    });
}

#[test]
fn memory_is_what_was_planned() {
    on_machines("memory_is_what_was_planned", &[""], |_| {
        let folder = temporary();
        let toy = toy(folder.path(), false);
        let summary = run(&toy, "c", &until(1));
        // The frozen tensor takes a multiple of 256 bytes.
        let wanted = toy.plan.arena_bytes + (4u64 * 144).next_multiple_of(256);
        assert_eq!((summary.peak_bytes, summary.planned_bytes), (wanted, wanted));
        let session = session(&toy).unwrap();
        assert_eq!(session.device(), "cuda, Fake GPU, compute capability 9.0, 1.0 GiB, driver for CUDA 12.4");
    });
}
