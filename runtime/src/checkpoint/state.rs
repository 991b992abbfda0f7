//! `state.json`: what a checkpoint is a checkpoint of, and the hash of each of its files.
use amc_artifact::{LrSchedule, Plan, RunConfig, hash_bytes, hash_file};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Its name; a folder that has it is complete.
pub const STATE_FILE: &str = "state.json";
const FORMAT: u32 = 1;

/// What a run needs to go on beside its tensors. The data order and all random numbers follow from the step.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    pub format: u32,
    /// Optimizer steps done.
    pub completed_steps: u64,
    /// Epoch of the last of them.
    pub epoch: u64,
    pub signature: Signature,
    /// The loss that ranks checkpoints, where there was a validation.
    pub validation_loss: Option<f64>,
    /// The schedule that the run follows; on resuming it wins over the recipe's unless that says otherwise.
    pub lr_schedule: LrSchedule,
    /// blake3 by path relative to the checkpoint.
    pub files: BTreeMap<String, String>,
}

/// What must agree for a checkpoint to be continued.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// As the recipe names it.
    pub model: String,
    pub peft: bool,
    /// blake3 over name, storage and shape of every parameter.
    pub parameters: String,
}

impl Signature {
    pub fn of(plan: &Plan, run: &RunConfig) -> Signature {
        let rows = plan.params.iter().map(|param| format!("{} {:?} {:?}\n", param.name, param.storage, param.shape));
        let parameters = hash_bytes(rows.collect::<String>().as_bytes());
        Signature { model: run.model.name.clone(), peft: run.peft.is_some(), parameters }
    }
}

impl State {
    pub fn new(completed_steps: u64, epoch: u64, signature: Signature, lr_schedule: LrSchedule) -> State {
        let files = BTreeMap::new();
        State { format: FORMAT, completed_steps, epoch, signature, validation_loss: None, lr_schedule, files }
    }

    /// Reads the state of a checkpoint.
    pub fn read(folder: &Path) -> Result<State> {
        let path = folder.join(STATE_FILE);
        let text = std::fs::read(&path)
            .with_context(|| format!("{} is not a complete checkpoint of amc: no {STATE_FILE}", folder.display()))?;
        let state: State = serde_json::from_slice(&text).with_context(|| format!("{} is malformed", path.display()))?;
        ensure!(state.format == FORMAT, "{} has format {}, wanted {FORMAT}", path.display(), state.format);
        Ok(state)
    }

    /// Compares every file of the checkpoint with its hash.
    pub fn verify(&self, folder: &Path) -> Result<()> {
        for (name, wanted) in &self.files {
            let (found, _) = hash_file(&folder.join(name))?;
            ensure!(found == *wanted, "{} is damaged: {name} has hash {found}, wanted {wanted}", folder.display());
        }
        Ok(())
    }
}
