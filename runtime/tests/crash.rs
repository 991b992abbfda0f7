//! Runs that die: at every change to the disk, at random instants by a kill, and by a polite signal.
mod support;

use amc_runtime::checkpoint::State;
use amc_runtime::disk::{Disk, Fill, RealDisk};
use anyhow::{Result, bail};
use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use support::kernels::PAUSE;
use support::{contents, options, temporary, toy, until};

/// A disk that dies at one operation, in the middle of it where it has a middle, and is dead from then on.
struct DyingDisk {
    left: Cell<u64>,
}

impl DyingDisk {
    /// `Ok(true)`: alive; `Ok(false)`: dies in this operation.
    fn next(&self) -> Result<bool> {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        if left == 0 {
            bail!("the disk is dead");
        }
        Ok(left > 1)
    }
}

impl Disk for DyingDisk {
    fn create_dir(&self, path: &Path) -> Result<()> {
        if self.next()? { RealDisk.create_dir(path) } else { bail!("died") }
    }

    fn write(&self, path: &Path, fill: Fill) -> Result<()> {
        if self.next()? {
            return RealDisk.write(path, fill);
        }
        let mut bytes = Vec::new();
        fill(&mut bytes)?;
        fs::write(path, &bytes[..bytes.len() / 2])?;
        bail!("died")
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        if self.next()? { RealDisk.rename(from, to) } else { bail!("died") }
    }

    fn link(&self, target: &Path, link: &Path) -> Result<()> {
        if self.next()? { RealDisk.link(target, link) } else { bail!("died") }
    }

    fn remove(&self, path: &Path) -> Result<()> {
        if self.next()? {
            return RealDisk.remove(path);
        }
        if path.is_dir() {
            fs::remove_file(path.join("config.yaml")).ok();
        }
        bail!("died")
    }
}

/// What has a final name is whole, and links point at such.
fn assert_sound(checkpoints: &Path) {
    for entry in fs::read_dir(checkpoints).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let final_name = name.starts_with("epoch_") && !name.contains('.');
        if final_name || name == "LATEST" || name == "LOWEST_VAL" {
            State::read(&path).unwrap().verify(&path).unwrap();
        }
    }
}

#[test]
fn death_at_any_change_to_the_disk_loses_nothing_announced() {
    for sft in [false, true] {
        let folder = temporary();
        let mut toy = toy(folder.path(), sft);
        toy.run.checkpoint.keep = Some(1);
        toy.run(&RealDisk, "whole", &until(5)).unwrap();
        let whole = contents(&folder.path().join("whole"));
        let mut deaths = 0;
        for operations in 1.. {
            let name = format!("c{operations}");
            let checkpoints = folder.path().join(&name);
            let disk = DyingDisk { left: Cell::new(operations) };
            if toy.run(&disk, &name, &until(5)).is_ok() {
                break;
            }
            deaths += 1;
            assert_sound(&checkpoints);
            toy.run(&RealDisk, &name, &until(5)).unwrap();
            assert_eq!(contents(&checkpoints), whole, "died in operation {operations}");
            fs::remove_dir_all(&checkpoints).unwrap();
        }
        assert!(deaths > 50, "{deaths} deaths");
    }
}

/// Not a test of its own: what the tests below start, and kill.
#[test]
fn child() {
    let Ok(folder) = std::env::var("AMC_TOY_FOLDER") else { return };
    PAUSE.store(2, Ordering::Relaxed);
    let mut toy = toy(Path::new(&folder), false);
    toy.run.preemption_signals = vec![15];
    toy.run(&RealDisk, "c", &options()).unwrap();
}

fn start_child(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact"])
        .env("AMC_TOY_FOLDER", folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn kills_at_random_instants() {
    let folder = temporary();
    let mut whole = toy(folder.path(), false);
    whole.run.preemption_signals = vec![15];
    whole.run(&RealDisk, "whole", &options()).unwrap();
    let mut died = 0;
    for kill in 0..20u64 {
        let mut child = start_child(folder.path());
        std::thread::sleep(Duration::from_millis(20 + kill * 37 % 61));
        child.kill().unwrap();
        died += u32::from(!child.wait().unwrap().success());
        if folder.path().join("c").is_dir() {
            assert_sound(&folder.path().join("c"));
        }
    }
    assert!(died > 0, "every child was done before it was killed");
    assert!(start_child(folder.path()).wait().unwrap().success());
    assert_eq!(contents(&folder.path().join("c")), contents(&folder.path().join("whole")));
}

#[test]
fn a_signal_ends_the_run_with_a_checkpoint() {
    let folder = temporary();
    let whole = toy(folder.path(), false);
    whole.run(&RealDisk, "whole", &options()).unwrap();
    let mut child = start_child(folder.path());
    let journal = folder.path().join("c/training.jsonl");
    let begin = Instant::now();
    while fs::read_to_string(&journal).unwrap_or_default().is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(20), "the child does not begin");
        std::thread::sleep(Duration::from_millis(1));
    }
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(status.success() && child.wait().unwrap().success());
    let latest = State::read(&folder.path().join("c/LATEST")).unwrap();
    let records = fs::read_to_string(&journal).unwrap().lines().count() as u64;
    assert!(latest.completed_steps == records && records < 8, "{records} records");
    let rest = whole.run(&RealDisk, "c", &options()).unwrap();
    assert_eq!(rest.losses.len() as u64, 8 - records);
    let values = "epoch_2_step_7/model/adapter_model.safetensors";
    assert_eq!(
        fs::read(folder.path().join("c").join(values)).unwrap(),
        fs::read(folder.path().join("whole").join(values)).unwrap()
    );
}
