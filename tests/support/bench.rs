//! A folder to run the commands in.
use amc_fake_cuda::put_on;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// A folder with a recipe over the smallest of the oracle's models, which has no tokenizer.
pub struct Bench {
    folder: TempDir,
}

const RECIPE: &str = "\
recipe: TrainFinetuneRecipeForNextTokenPrediction
model:
  _target_: nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained
  pretrained_model_name_or_path: MODEL
dataset:
  _target_: amc.datasets.TokenFile
  path: rows.jsonl
step_scheduler:
  global_batch_size: 64
  local_batch_size: 64
  num_epochs: 2
loss_fn:
  _target_: nemo_automodel.components.loss.masked_ce.MaskedCrossEntropy
optimizer:
  _target_: torch.optim.AdamW
";

impl Bench {
    pub fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/llama");
        std::fs::write(folder.path().join("r.yaml"), RECIPE.replace("MODEL", model.to_str().unwrap())).unwrap();
        let bench = Bench { folder };
        bench.rows(&"{\"input_ids\": [1, 5, 9, 7, 2]}\n".repeat(3));
        bench
    }

    /// The recipe with the same model's config alone, so that its weights are drawn.
    pub fn without_weights(&self) {
        let model = self.path("model");
        std::fs::create_dir(&model).unwrap();
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/llama/config.json");
        std::fs::copy(config, model.join("config.json")).unwrap();
        let lines = RECIPE.replace("from_pretrained", "from_config");
        let text = lines.replace("pretrained_model_name_or_path: MODEL", "config: model");
        std::fs::write(self.path("r.yaml"), text).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn rows(&self, text: &str) {
        std::fs::write(self.path("rows.jsonl"), text).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amc"));
        command.args(arguments).current_dir(self.folder.path()).env("AMC_CACHE", self.path("cache"));
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command on a machine with such a GPU, or none.
    pub fn on_machine(&self, machine: &str, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        let _driver = put_on(&mut command, machine);
        command.output().unwrap()
    }
}
