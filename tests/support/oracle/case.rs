//! What a case folder holds.
use super::run::Mode;
use amc_artifact::safetensors::{Dtype, SafetensorsFile};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A batch as the programs take it.
#[derive(Clone)]
pub struct Batch {
    pub tokens: Vec<i32>,
    pub positions: Vec<i32>,
    pub segments: Vec<i32>,
    pub labels: Vec<i32>,
}

pub struct Case {
    pub folder: PathBuf,
    /// Rows of the batch, and their padded length.
    pub batch: usize,
    pub seq: usize,
    /// Real tokens of each row.
    pub lengths: Vec<usize>,
    rows: Vec<(Vec<i32>, Vec<i32>)>,
    expected: Value,
    tensors: Option<SafetensorsFile>,
}

/// What stands for a tensor in `expected.json`.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    pub l2: f64,
    pub max: f64,
    pub sum: f64,
    pub probe: f64,
}

/// The numbers of one mode.
pub struct Expected {
    pub logits: Option<Summary>,
    pub logits_tensor: Option<Vec<f32>>,
    pub losses: Vec<f64>,
    pub gradients: BTreeMap<String, Summary>,
    pub gradient_tensors: BTreeMap<String, Vec<f32>>,
    pub near_zero: BTreeSet<String>,
}

impl Case {
    pub fn read(folder: &Path) -> Result<Case> {
        let file = SafetensorsFile::open(&folder.join("batch.safetensors"))?;
        let ids = file.tensor("input_ids")?;
        let (batch, seq) = (ids.shape[0] as usize, ids.shape[1] as usize);
        let [ids, labels, mask] = ["input_ids", "labels", "attention_mask"].map(|name| integers(&file, name));
        let (ids, labels, mask) = (ids?, labels?, mask?);
        let mut rows = vec![];
        for row in 0..batch {
            let range = row * seq..(row + 1) * seq;
            let length = mask[range.clone()].iter().filter(|m| **m != 0).count();
            ensure!(
                mask[range.start..range.start + length].iter().all(|m| *m == 1),
                "row {row} is not padded at its end"
            );
            let ids = ids[range.start..range.start + length].to_vec();
            let mut targets = labels[range.start + 1..range.start + length].to_vec();
            targets.push(-100);
            rows.push((ids, targets));
        }
        let text = std::fs::read_to_string(folder.join("expected.json")).context("expected.json")?;
        let tensors = folder.join("expected.safetensors");
        Ok(Case {
            folder: folder.into(),
            batch,
            seq,
            lengths: rows.iter().map(|row| row.0.len()).collect(),
            rows,
            expected: serde_json::from_str(&text).context("expected.json")?,
            tensors: tensors.is_file().then(|| SafetensorsFile::open(&tensors)).transpose()?,
        })
    }

    /// Tokens of all documents together.
    pub fn total(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// Supervised tokens.
    pub fn supervised(&self) -> usize {
        self.rows.iter().flat_map(|row| &row.1).filter(|label| **label != -100).count()
    }

    /// The tokens of every document.
    pub fn texts(&self) -> impl Iterator<Item = Vec<u32>> {
        self.rows.iter().map(|(ids, _)| ids.iter().map(|id| *id as u32).collect())
    }

    /// Every document in a row of `seq`.
    pub fn padded(&self, seq: usize) -> Batch {
        let mut batch = Batch::empty(self.batch * seq);
        for (row, (ids, labels)) in self.rows.iter().enumerate() {
            batch.put(row * seq, 1, ids, labels);
        }
        batch
    }

    /// All documents in one row.
    pub fn packed(&self) -> Batch {
        let mut batch = Batch::empty(self.total());
        for ((ids, labels), (i, start)) in self.rows.iter().zip(self.document_starts().into_iter().enumerate()) {
            batch.put(start, i as i32 + 1, ids, labels);
        }
        batch
    }

    /// The packed row as often as the case has rows, to fit the same program as the documents apart.
    pub fn packed_twice(&self) -> Batch {
        let one = self.packed();
        let repeat = |values: &[i32]| values.repeat(self.batch);
        Batch {
            tokens: repeat(&one.tokens),
            positions: repeat(&one.positions),
            segments: repeat(&one.segments),
            labels: repeat(&one.labels),
        }
    }

    /// Where each document starts in the packed row.
    pub fn document_starts(&self) -> Vec<usize> {
        self.lengths.iter().scan(0, |at, n| Some(std::mem::replace(at, *at + n))).collect()
    }

    /// The rows of `values` [batch · seq, n] that are no padding.
    pub fn real_rows(&self, values: &[f32]) -> Vec<f32> {
        let n = values.len() / (self.batch * self.seq);
        let rows = self.lengths.iter().enumerate();
        rows.flat_map(|(row, length)| values[row * self.seq * n..][..length * n].to_vec()).collect()
    }

    /// What it has numbers for.
    pub fn modes(&self) -> Vec<Mode> {
        let experts = self.folder.join(Mode::ExpertLora.adapter()).is_file().then_some(Mode::ExpertLora);
        [Mode::Full, Mode::Lora].into_iter().chain(experts).collect()
    }

    pub fn expected(&self, mode: Mode) -> Expected {
        let (prefix, losses) = match mode {
            Mode::Full => ("", "sft_losses"),
            Mode::Lora => ("lora_", "lora_losses"),
            Mode::ExpertLora => ("expert_lora_", "expert_lora_losses"),
        };
        let gradients: BTreeMap<String, Summary> =
            entries(&self.expected[format!("{prefix}grads")]).map(|(k, v)| (k.clone(), summary(v))).collect();
        let tensor = |name: String| self.tensors.as_ref().and_then(|file| floats(file, &name));
        let key = |name: &str| format!("{prefix}grad.{name}");
        let near_zero = match mode {
            Mode::Full => "grad_near_zero",
            Mode::Lora => "lora_grad_near_zero",
            Mode::ExpertLora => "expert_lora_grad_near_zero",
        };
        Expected {
            logits: self.expected.get(format!("{prefix}logits")).map(summary),
            logits_tensor: tensor(format!("{prefix}logits")).map(|logits| self.real_rows(&logits)),
            losses: list(&self.expected[losses]).filter_map(Value::as_f64).collect(),
            gradient_tensors: gradients.keys().filter_map(|k| Some((k.clone(), tensor(key(k))?))).collect(),
            gradients,
            near_zero: list(&self.expected[near_zero]).filter_map(Value::as_str).map(String::from).collect(),
        }
    }
}

impl Batch {
    fn empty(n: usize) -> Batch {
        Batch { tokens: vec![0; n], positions: vec![0; n], segments: vec![0; n], labels: vec![-100; n] }
    }

    fn put(&mut self, start: usize, segment: i32, ids: &[i32], labels: &[i32]) {
        for (i, (id, label)) in ids.iter().zip(labels).enumerate() {
            self.tokens[start + i] = *id;
            self.positions[start + i] = i as i32;
            self.segments[start + i] = segment;
            self.labels[start + i] = *label;
        }
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn summary(value: &Value) -> Summary {
    let number = |key: &str| value[key].as_f64().unwrap_or(f64::NAN);
    Summary { l2: number("l2"), max: number("max"), sum: number("sum"), probe: number("probe") }
}

fn integers(file: &SafetensorsFile, name: &str) -> Result<Vec<i32>> {
    let view = file.tensor(name)?;
    ensure!(view.dtype == Dtype::I64, "`{name}` is {}, wanted I64", view.dtype);
    let value = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("eight bytes")) as i32;
    Ok(view.bytes.chunks_exact(8).map(value).collect())
}

/// An f32 tensor of a file, if it is there.
pub fn floats(file: &SafetensorsFile, name: &str) -> Option<Vec<f32>> {
    let view = file.tensor(name).ok()?;
    let value = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four bytes"));
    (view.dtype == Dtype::F32).then(|| view.bytes.chunks_exact(4).map(value).collect())
}
