//! A model compiled to continue texts: programs that read tokens behind a key/value cache.
use super::adapter::Adapter;
use super::emit::{Destination, Papers, emit};
use super::model;
use super::unit::{Dumps, unit};
use amc_artifact::Artifact;
use amc_artifact::memory::RunMemory;
use amc_frontend::build::{Purpose, Request};
use amc_ir::DType;
use amc_passes::plan::assemble;
use amc_runtime::session::{Part, Session, SessionOptions};
use anyhow::{Context, Result, ensure};
use std::path::Path;

/// Tokens that are read at a time, where there are more than one.
const CHUNK: usize = 32;

/// A model with its cache.
pub struct Generator {
    session: Session,
    /// Rows in the cache.
    filled: usize,
    vocabulary: usize,
    /// What a run takes.
    pub memory: RunMemory,
    _folder: tempfile::TempDir,
}

impl Generator {
    /// Compiles the model of a folder, with an adapter if there is one, for up to `length` tokens.
    ///
    /// # Errors
    /// A model or adapter that cannot be read, or that does not fit.
    pub fn compile(folder: &Path, adapter: Option<&Path>, threads: usize, length: usize) -> Result<Generator> {
        // Weights stay as they are stored; activations are f32, which costs nothing beside reading the weights.
        let model = model::load(folder, &[], Some(DType::F32), true)?;
        let adapter = adapter.map(|dir| Adapter::read(dir, &model)).transpose()?;
        let capacity = length.next_multiple_of(CHUNK) + CHUNK;
        let mut dumps = Dumps::default();
        let mut program = |name: &str, seq: usize| {
            let request = Request {
                model: &model.model,
                stored: &model.stored,
                compute: model.compute,
                batch: 1,
                seq,
                purpose: Purpose::Decode { capacity, longest: length },
                lora: adapter.as_ref().map(|adapter| &adapter.lora),
                train_all: false,
            };
            unit(name, &request, None, &mut dumps)
        };
        let units = [program("chunk", CHUNK)?, program("token", 1)?];
        let temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
        let dir = temporary.path().join("artifact");
        let destination = Destination::parse("cpu")?;
        let assembled = assemble(&units, None, destination.machine().as_ref(), 0);
        emit(&dir, &assembled, &destination, folder, &model.weight_files()?, Papers::default())?;
        let options = SessionOptions { threads: Some(threads), model: Some(folder.into()) };
        let mut session = Session::open(&Artifact::open(&dir)?, &options)?;
        for (name, values) in adapter.iter().flat_map(|adapter| &adapter.tensors) {
            session.write_param(name, Part::Value, values)?;
        }
        let memory = RunMemory::of(session.plan(), threads)?;
        Ok(Generator { session, filled: 0, vocabulary: model.model.vocab, memory, _folder: temporary })
    }

    /// Reads tokens behind those read before; shows the logits of all to `each`, returns those of the last one.
    pub fn read(&mut self, tokens: &[u32], mut each: impl FnMut(&[f32])) -> Result<Vec<f32>> {
        let mut logits = vec![];
        for part in tokens.chunks(CHUNK) {
            let (program, size) = if part.len() == 1 { ("token", 1) } else { ("chunk", CHUNK) };
            logits = self.step(program, size, part)?;
            each(&logits);
        }
        Ok(logits.split_off(logits.len() - self.vocabulary))
    }

    /// The next tokens begin a text.
    pub fn restart(&mut self) {
        self.filled = 0;
    }

    /// Runs one program over `part`, filled up to `size` tokens; what the filling leaves in the cache is written over by
    /// the next tokens before any query can see it.
    fn step(&mut self, program: &str, size: usize, part: &[u32]) -> Result<Vec<f32>> {
        let id = self.session.program(program)?;
        let mut tokens = vec![0; size];
        for (slot, token) in tokens.iter_mut().zip(part) {
            ensure!((*token as usize) < self.vocabulary, "token {token} lies outside the model's vocabulary");
            *slot = *token as i32;
        }
        let positions: Vec<i32> = (0..size).map(|i| (self.filled + i) as i32).collect();
        self.session.write(id, "tokens", &tokens)?;
        self.session.write(id, "positions", &positions)?;
        self.session.write(id, "start", &[self.filled as i32])?;
        self.session.run(id)?;
        self.filled += part.len();
        let mut logits = self.session.read(id, "logits")?;
        logits.truncate(part.len() * self.vocabulary);
        Ok(logits)
    }
}
