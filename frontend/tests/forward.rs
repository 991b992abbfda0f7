//! The forward graph of every oracle case, run by the reference interpreter in f64, against the reference
//! implementation's loss and logits in f32; with and without the case's adapter.
use amc_frontend::build::{Built, Dropout, Lora, Purpose, Request, build};
use amc_frontend::config::Config;
use amc_frontend::model::Model;
use amc_frontend::names::Names;
use amc_frontend::safetensors::{Dtype, SafetensorsFile, Weights};
use amc_ir::eval::{Tensor, eval};
use amc_ir::{Binding, DType, Init, View};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Losses are means of a few dozen f32 terms near 5; logits sums of 64 products near 1.
const LOSS_TOLERANCE: f64 = 1e-5;
const LOGITS_TOLERANCE: f64 = 1e-5;
/// Chunks and whole rows are both computed in f64, in another order.
const CHUNK_TOLERANCE: f64 = 1e-9;

struct Case {
    folder: PathBuf,
    model: Model,
    weights: Weights,
    adapter: SafetensorsFile,
    expected: Value,
    inputs: BTreeMap<&'static str, Tensor>,
    batch: usize,
    seq: usize,
}

impl Case {
    fn open(folder: PathBuf) -> Case {
        let config = Config::load(&folder.join("config.json")).unwrap();
        let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
        let batch = SafetensorsFile::open(&folder.join("batch.safetensors")).unwrap();
        let shape = batch.tensor("input_ids").unwrap().shape.to_vec();
        let (rows, seq) = (shape[0] as usize, shape[1] as usize);
        Case {
            model: Model::read(&config).unwrap(),
            weights: Weights::open(&folder).unwrap(),
            adapter: SafetensorsFile::open(&folder.join("adapter/adapter_model.safetensors")).unwrap(),
            expected: serde_json::from_str(&text).unwrap(),
            inputs: inputs(&batch, rows, seq),
            batch: rows,
            seq,
            folder,
        }
    }

    fn built(&self, purpose: Purpose, lora: Option<&Lora>) -> Built {
        self.built_for(purpose, lora, self.batch, self.seq)
    }

    fn built_for(&self, purpose: Purpose, lora: Option<&Lora>, batch: usize, seq: usize) -> Built {
        let tensors = Names::new(&self.model).tensors();
        let stored: BTreeMap<String, DType> = tensors.into_keys().map(|name| (name, DType::F32)).collect();
        let request = Request {
            model: &self.model,
            stored: &stored,
            compute: DType::F32,
            batch,
            seq,
            purpose,
            lora,
            train_all: false,
        };
        build(&request).unwrap()
    }

    fn lora(&self) -> Lora {
        let text = std::fs::read_to_string(self.folder.join("adapter/adapter_config.json")).unwrap();
        let config: Value = serde_json::from_str(&text).unwrap();
        let (rank, alpha) = (config["r"].as_u64().unwrap(), config["lora_alpha"].as_f64().unwrap());
        let modules = Names::new(&self.model).modules().into_iter().map(|module| module.name);
        let adapted =
            |name: &String| self.adapter.tensors().contains_key(&format!("base_model.model.{name}.lora_A.weight"));
        Lora {
            modules: modules.filter(adapted).collect(),
            rank: rank as usize,
            scale: (alpha / rank as f64) as f32,
            init: Init::XavierNormal,
            dtype: None,
            dropout: None,
        }
    }

    /// The first result of the graph.
    fn run(&self, built: &Built) -> Tensor {
        let args: Vec<Tensor> =
            built.module.entry().params.iter().map(|p| self.arg(built, &p.name, &p.ty.shape)).collect();
        eval(&built.module, &args).swap_remove(0)
    }

    fn arg(&self, built: &Built, name: &str, shape: &[usize]) -> Tensor {
        match &built.bindings.params[name] {
            Binding::Input => self.inputs[name].clone(),
            Binding::Frozen(view) | Binding::Trainable(view) => self.stored(view, shape),
            Binding::Constant(bytes) => Tensor::new(shape, floats(Dtype::F32, bytes)),
            other => panic!("{name}: {other:?}"),
        }
    }

    fn stored(&self, view: &View, shape: &[usize]) -> Tensor {
        let tensor = self.weights.tensor(&view.tensor).or_else(|_| self.adapter.tensor(&view.tensor)).unwrap();
        let all = floats(tensor.dtype, tensor.bytes);
        let width = all.len() / tensor.shape[0] as usize;
        Tensor::new(shape, all[view.start * width..(view.start + view.rows) * width].to_vec())
    }

    fn check_loss(&self, lora: Option<&Lora>, key: &str) {
        let found = self.run(&self.built(Purpose::Loss, lora)).data[0];
        let wanted = self.expected[key].as_f64().unwrap();
        assert!((found - wanted).abs() < LOSS_TOLERANCE, "{}: {key} {found}, wanted {wanted}", self.folder.display());
    }

    fn check_logits(&self, lora: Option<&Lora>, key: &str) {
        let logits = self.run(&self.built(Purpose::Logits, lora));
        let rows = logits.data.chunks(self.model.vocab).zip(&self.inputs["segments"].data);
        let seen: Vec<f64> = rows.filter(|(_, segment)| **segment > 0.0).flat_map(|(row, _)| row.to_vec()).collect();
        let found = [
            ("l2", seen.iter().map(|x| x * x).sum::<f64>().sqrt()),
            ("max", seen.iter().fold(0.0, |top: f64, x| top.max(x.abs()))),
            ("probe", seen.iter().enumerate().map(|(i, x)| x * (0.5 * (i + 1) as f64).cos()).sum()),
        ];
        for (what, found) in found {
            let wanted = self.expected[key][what].as_f64().unwrap();
            let scale = self.expected[key]["l2"].as_f64().unwrap();
            let close = (found - wanted).abs() < LOGITS_TOLERANCE * scale;
            assert!(close, "{}: {what} of {key} {found}, wanted {wanted}", self.folder.display());
        }
    }
}

/// The inputs of a graph from a batch as transformers takes it: labels are shifted there, targets here.
fn inputs(batch: &SafetensorsFile, rows: usize, seq: usize) -> BTreeMap<&'static str, Tensor> {
    let read = |name: &str| {
        let bytes = batch.tensor(name).unwrap().bytes.chunks_exact(8);
        bytes.map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect::<Vec<f64>>()
    };
    let all = rows * seq;
    let unshifted = read("labels");
    let labels = (0..all).map(|t| if t % seq == seq - 1 { -100.0 } else { unshifted[t + 1] });
    let labels: Vec<f64> = labels.collect();
    let supervised = labels.iter().filter(|label| **label >= 0.0).count();
    BTreeMap::from([
        ("tokens", Tensor::new([all], read("input_ids"))),
        ("positions", Tensor::new([all], (0..all).map(|t| (t % seq) as f64).collect())),
        ("segments", Tensor::new([all], read("attention_mask"))),
        ("labels", Tensor::new([all], labels)),
        ("loss_scale", Tensor::scalar(1.0 / supervised as f64)),
    ])
}

fn floats(dtype: Dtype, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
        Dtype::Bf16 => {
            bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes(b.try_into().unwrap()).to_f64()).collect()
        }
        other => panic!("{other}"),
    }
}

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/oracle");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.join("config.json").exists());
    folders.sort();
    assert!(folders.len() >= 20, "found {} cases", folders.len());
    folders.into_iter().map(Case::open).collect()
}

#[test]
fn loss_and_logits_are_those_of_the_reference() {
    for case in cases() {
        case.check_loss(None, "loss_ce");
        case.check_logits(None, "logits");
    }
}

#[test]
fn adapters_change_loss_and_logits_as_in_the_reference() {
    for case in cases() {
        let lora = case.lora();
        case.check_loss(Some(&lora), "lora_loss");
        case.check_logits(Some(&lora), "lora_logits");
    }
}

#[test]
fn chunks_behind_a_cache_give_the_logits_of_the_whole_row() {
    const CHUNK: usize = 8;
    for case in cases() {
        let whole = case.run(&case.built(Purpose::Logits, None));
        let built = case.built_for(Purpose::Decode { capacity: case.seq, longest: case.seq }, None, 1, CHUNK);
        let params = &built.module.entry().params;
        let mut caches: Vec<Tensor> = vec![];
        for start in (0..case.seq).step_by(CHUNK) {
            let mut kept = caches.into_iter();
            let args = params.iter().map(|p| match (p.name.as_str(), &built.bindings.params[&p.name]) {
                ("start", _) => Tensor::scalar(start as f64),
                (name, Binding::Input) => Tensor::new([CHUNK], case.inputs[name].data[start..start + CHUNK].to_vec()),
                (_, Binding::State) => kept.next().unwrap_or_else(|| Tensor::zeros(&p.ty.shape)),
                (name, _) => case.arg(&built, name, &p.ty.shape),
            });
            let args: Vec<Tensor> = args.collect();
            let mut results = eval(&built.module, &args);
            caches = results.split_off(1);
            let wanted = &whole.data[start * case.model.vocab..];
            let off = results[0].data.iter().zip(wanted).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
            assert!(off < CHUNK_TOLERANCE, "{}: chunk at {start} is off by {off}", case.folder.display());
        }
    }
}

#[test]
fn a_kind_of_layer_is_one_function() {
    for case in cases() {
        let dropout = Lora { dropout: Some(Dropout { p: 0.1, on_input: true }), ..case.lora() };
        for lora in [None, Some(&dropout)] {
            let built = case.built(Purpose::Loss, lora);
            assert_eq!(built.module.functions.len(), case.model.kinds.len() + 1, "{}", case.folder.display());
        }
    }
}

/// PEFT drops the input of a module once, however many matrices the module fuses.
#[test]
fn blocks_of_one_module_share_the_dropout_of_its_input() {
    let case = cases().into_iter().find(|case| case.folder.ends_with("phi3")).unwrap();
    let sites = |on_input: bool| {
        let lora = Lora { dropout: Some(Dropout { p: 0.1, on_input }), ..case.lora() };
        let built = case.built(Purpose::Loss, Some(&lora));
        let ops = built.module.functions[0].insts.iter().filter_map(|inst| inst.op());
        let sites = ops.filter_map(|op| match op {
            amc_ir::Op::Dropout(dropout) => Some(dropout.site),
            _ => None,
        });
        sites.collect::<Vec<usize>>()
    };
    assert_eq!(sites(true), [0, 0, 0, 1, 2, 2, 3]);
    assert_eq!(sites(false), [0, 1, 2, 3, 4, 5, 6]);
}
