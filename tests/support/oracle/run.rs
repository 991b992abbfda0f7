//! Compiles a case and runs its programs.
use super::case::{Batch, Case};
use crate::stages::reversed;
use amc::compiler::emit::{Destination, Papers, emit};
use amc::compiler::model::{self, LoadedModel};
use amc::compiler::unit::{Dumps, unit};
use amc_artifact::Artifact;
use amc_artifact::safetensors::SafetensorsFile;
use amc_frontend::build::{Lora, Purpose, Request};
use amc_ir::{DType, Init};
use amc_passes::pass::Recompute;
use amc_passes::plan::{Optimizer, Unit, assemble};
use amc_runtime::session::{Part, Session, SessionOptions};
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// What is trained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Full,
    Lora,
    /// Adapters of experts too.
    ExpertLora,
}

impl Mode {
    /// The file of the adapters that are trained.
    pub fn adapter(self) -> &'static str {
        match self {
            Mode::ExpertLora => "adapter_experts/adapter_model.safetensors",
            Mode::Full | Mode::Lora => "adapter/adapter_model.safetensors",
        }
    }
}

/// A case loaded into a session.
pub struct Runner {
    session: Session,
    scale: f32,
    _folder: tempfile::TempDir,
}

impl Runner {
    pub fn compile(case: &Case, mode: Mode, target: &str) -> Result<Runner> {
        let model = model::load(&case.folder, &[], Some(DType::F32), true)?;
        let adapter = SafetensorsFile::open(&case.folder.join(mode.adapter()))?;
        let lora = (mode != Mode::Full).then(|| lora(case, &adapter)).transpose()?;
        let units = units(case, &model, lora.as_ref())?;
        let optimizer = Optimizer { beta1: 0.9, beta2: 0.999, eps: 1e-8, decoupled: true };
        let folder = tempfile::tempdir()?;
        let dir = folder.path().join("artifact");
        let destination = Destination::parse(target)?;
        let files = model.weight_files()?;
        let assembled = assemble(&units, Some(optimizer), destination.machine().as_ref(), u64::MAX);
        emit(&dir, &assembled, &destination, &case.folder, &files, Papers::default())?;
        let mut artifact = Artifact::open(&dir)?;
        artifact.plan = reversed(&artifact.plan);
        let options = SessionOptions { threads: Some(2), model: Some(case.folder.clone()) };
        let mut session = Session::open(&artifact, &options)?;
        session.initialise(0)?;
        if mode != Mode::Full {
            for name in adapter.tensors().keys() {
                let values = super::case::floats(&adapter, name).context("the adapter is not f32")?;
                session.write_param(name, Part::Value, &values)?;
            }
        }
        Ok(Runner { session, scale: 1.0 / case.supervised() as f32, _folder: folder })
    }

    /// Logits of every token of rows as long as the case's.
    pub fn logits(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        self.read_logits("logits", batch)
    }

    /// The same for rows that hold all documents.
    pub fn wide_logits(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        self.read_logits("logits_wide", batch)
    }

    fn read_logits(&mut self, program: &str, batch: &Batch) -> Result<Vec<f32>> {
        let id = self.session.program(program)?;
        self.write(program, batch, false)?;
        self.session.run(id)?;
        self.session.read(id, "logits")
    }

    fn write(&mut self, program: &str, batch: &Batch, loss: bool) -> Result<()> {
        let id = self.session.program(program)?;
        self.session.write(id, "tokens", &batch.tokens)?;
        self.session.write(id, "positions", &batch.positions)?;
        self.session.write(id, "segments", &batch.segments)?;
        if loss {
            self.session.write(id, "labels", &batch.labels)?;
            self.session.write(id, "loss_scale", &[self.scale])?;
        }
        Ok(())
    }

    /// Loss and gradients of one batch. The gradients are then zero again.
    pub fn gradients(&mut self, program: &str, batch: &Batch) -> Result<(f64, BTreeMap<String, Vec<f32>>)> {
        let names: Vec<String> = self.session.plan().params.iter().map(|p| p.name.clone()).collect();
        for name in &names {
            let zeros = vec![0.0; self.session.read_param(name, Part::Gradient)?.len()];
            self.session.write_param(name, Part::Gradient, &zeros)?;
        }
        let id = self.session.program(program)?;
        self.write(program, batch, true)?;
        self.session.run(id)?;
        let loss = self.session.read(id, "loss")?[0] as f64;
        let gradients = names.into_iter().map(|name| {
            let gradient = self.session.read_param(&name, Part::Gradient)?;
            Ok((name, gradient))
        });
        Ok((loss, gradients.collect::<Result<_>>()?))
    }

    /// AdamW step number `step`, from 1, on the gradients that the last batch left.
    pub fn update(&mut self, step: usize) -> Result<()> {
        let id = self.session.program("update")?;
        let correction = |beta: f64| (1.0 - beta.powi(step as i32)) as f32;
        let scalars = [
            ("max_norm", f32::INFINITY),
            ("learning_rate", 1e-3),
            ("weight_decay", 0.01),
            ("bias_correction1", correction(0.9)),
            ("bias_correction2", correction(0.999)),
        ];
        for (name, value) in scalars {
            self.session.write(id, name, &[value])?;
        }
        self.session.run(id)
    }
}

fn lora(case: &Case, adapter: &SafetensorsFile) -> Result<Lora> {
    let text = std::fs::read_to_string(case.folder.join("adapter/adapter_config.json"))?;
    let config: serde_json::Value = serde_json::from_str(&text)?;
    let (rank, alpha) = (config["r"].as_u64().context("r")?, config["lora_alpha"].as_f64().context("lora_alpha")?);
    let module = |name: &String| {
        let module = name.strip_prefix("base_model.model.")?.strip_suffix(".lora_A.weight")?;
        Some(module.to_string())
    };
    Ok(Lora {
        modules: adapter.tensors().keys().filter_map(module).collect(),
        rank: rank as usize,
        scale: (alpha / rank as f64) as f32,
        init: Init::XavierNormal,
        dtype: Some(DType::F32),
        dropout: None,
    })
}

fn units(case: &Case, model: &LoadedModel, lora: Option<&Lora>) -> Result<Vec<Unit>> {
    let stored = if lora.is_some() { model.stored.clone() } else { model.trained() };
    let mut dumps = Dumps::default();
    let mut program = |name: &str, batch: usize, seq: usize, purpose: Purpose, train: Option<Recompute>| {
        let request = Request {
            model: &model.model,
            stored: &stored,
            compute: DType::F32,
            batch,
            seq,
            purpose,
            lora,
            train_all: lora.is_none(),
        };
        unit(name, &request, train, &mut dumps)
    };
    // The packed program keeps no value that it can compute again, and what that apart computes again is late, so that these
    // ways are held to the reference too.
    let late = Recompute { late: true, ..Recompute::default() };
    let everything = Recompute { wanted: usize::MAX, ..Recompute::default() };
    Ok(vec![
        program("train", case.batch, case.seq, Purpose::Loss, Some(Recompute::default()))?,
        program("train_apart", case.batch, case.total(), Purpose::Loss, Some(late))?,
        program("train_packed", 1, case.total(), Purpose::Loss, Some(everything))?,
        program("logits", case.batch, case.seq, Purpose::Logits, None)?,
        program("logits_wide", case.batch, case.total(), Purpose::Logits, None)?,
    ])
}
