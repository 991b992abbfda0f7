//! `amc merge`: adds an adapter's product to the weights that it belongs to.
use amc_artifact::safetensors::{Dtype, SafetensorsFile, TensorData, TensorView, Weights, write};
use anyhow::{Context, Result, bail, ensure};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Merge a LoRA adapter into its base model.
#[derive(clap::Args)]
pub struct Arguments {
    /// The folder of a PEFT adapter.
    adapter: PathBuf,
    /// The folder to write; it must not exist yet.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// The base model's folder, where it is not the one that the adapter names.
    #[arg(long, value_name = "DIR")]
    model: Option<String>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let config = arguments.adapter.join("adapter_config.json");
    let text = std::fs::read(&config).with_context(|| format!("cannot read {}", config.display()))?;
    let config: serde_json::Value =
        serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", config.display()))?;
    let (base, revision) = match (&arguments.model, config["base_model_name_or_path"].as_str()) {
        (Some(model), _) => (model.as_str(), None),
        (None, Some(named)) => (named, config["revision"].as_str()),
        (None, None) => bail!("the adapter does not name its base model: give --model"),
    };
    let folder = amc_runtime::locate::model_folder(base, revision)?;
    let adapter = SafetensorsFile::open(&arguments.adapter.join("adapter_model.safetensors"))?;
    let merger = Merger { adapter: &adapter, scale: scale(&config)?, merged: Default::default() };
    ensure!(!arguments.output.exists(), "{} exists already: give a new folder", arguments.output.display());
    let parent = arguments.output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let temporary = tempfile::Builder::new().prefix(".amc-merge-").tempdir_in(parent)?;
    merger.write(&folder, temporary.path())?;
    std::fs::rename(temporary.keep(), &arguments.output)
        .with_context(|| format!("cannot write {}", arguments.output.display()))?;
    let (adapter, output) = (arguments.adapter.display(), arguments.output.display());
    Ok(writeln!(std::io::stdout(), "merged {adapter} into {output}")?)
}

fn scale(config: &serde_json::Value) -> Result<f64> {
    let number = |key: &str| config[key].as_f64().with_context(|| format!("adapter_config.json: `{key}` is no number"));
    for key in ["use_dora", "use_rslora"] {
        ensure!(config[key] != true, "adapter_config.json: `{key}` is not supported");
    }
    let rank = number("r")?;
    ensure!(rank > 0.0, "adapter_config.json: `r` is {rank}");
    Ok(number("lora_alpha")? / rank)
}

struct Merger<'a> {
    adapter: &'a SafetensorsFile,
    scale: f64,
    merged: std::cell::Cell<usize>,
}

impl Merger<'_> {
    fn write(&self, folder: &Path, output: &Path) -> Result<()> {
        for file in Weights::open(folder)?.files() {
            let name = file.path().file_name().context("a weight file has a name")?;
            self.write_file(file, &output.join(name))?;
        }
        let pairs = self.adapter.tensors().keys().filter(|name| name.ends_with(".lora_A.weight")).count();
        ensure!(
            self.merged.get() == pairs,
            "the adapter has {pairs} pairs of matrices, the model in {} has weights for {} of them",
            folder.display(),
            self.merged.get()
        );
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let weights = path.extension().is_some_and(|e| e == "safetensors" || e == "bin" || e == "gguf");
            if path.is_file() && !weights {
                std::fs::copy(&path, output.join(path.file_name().context("a file has a name")?))?;
            }
        }
        Ok(())
    }

    fn write_file(&self, file: &SafetensorsFile, path: &Path) -> Result<()> {
        let names: Vec<&String> = file.tensors().keys().collect();
        let views: Vec<TensorView> = names.iter().map(|name| file.tensor(name)).collect::<Result<_>>()?;
        let changed: Vec<Option<Vec<u8>>> =
            names.iter().zip(&views).map(|(name, view)| self.merge(name, view)).collect::<Result<_>>()?;
        let tensors: Vec<TensorData> = names
            .iter()
            .zip(&views)
            .zip(&changed)
            .map(|((name, view), changed)| TensorData {
                name,
                dtype: view.dtype,
                shape: view.shape,
                bytes: changed.as_deref().unwrap_or(view.bytes),
            })
            .collect();
        write(path, &tensors, &[("format", "pt")])
    }

    /// The merged bytes of a weight that has an adapter, computed in f64 and rounded once.
    fn merge(&self, name: &str, weight: &TensorView) -> Result<Option<Vec<u8>>> {
        let Some(module) = name.strip_suffix(".weight") else { return Ok(None) };
        let matrix = |which: &str| format!("base_model.model.{module}.lora_{which}.weight");
        if !self.adapter.tensors().contains_key(&matrix("A")) {
            return Ok(None);
        }
        let (a, b) = (self.adapter.tensor(&matrix("A"))?, self.adapter.tensor(&matrix("B"))?);
        let (&[rank, inputs], &[outputs, rank_b]) = (a.shape, b.shape) else { bail!("`{}` is no matrix", matrix("A")) };
        ensure!(
            rank == rank_b && weight.shape == [outputs, inputs],
            "`{name}` is {:?}, the adapter's matrices are {:?} and {:?}",
            weight.shape,
            a.shape,
            b.shape
        );
        let (a, b, mut w) = (floats(&a)?, floats(&b)?, floats(weight)?);
        let (rank, inputs) = (rank as usize, inputs as usize);
        for (row, b) in w.chunks_mut(inputs).zip(b.chunks(rank)) {
            for (b, a) in b.iter().zip(a.chunks(inputs)) {
                let factor = self.scale * b;
                row.iter_mut().zip(a).for_each(|(w, a)| *w += factor * a);
            }
        }
        self.merged.set(self.merged.get() + 1);
        Ok(Some(bytes(weight.dtype, &w)))
    }
}

fn floats(view: &TensorView) -> Result<Vec<f64>> {
    Ok(match view.dtype {
        Dtype::F32 => view.bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f64).collect(),
        Dtype::Bf16 => view.bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f64()).collect(),
        other => bail!("a tensor is {other}, wanted F32 or BF16"),
    })
}

fn bytes(dtype: Dtype, values: &[f64]) -> Vec<u8> {
    match dtype {
        Dtype::Bf16 => values.iter().flat_map(|x| half::bf16::from_f64(*x).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect(),
    }
}
