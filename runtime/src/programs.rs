//! The programs of a training run, with the addresses of their ports looked up once.
use crate::data::{Buffers, DataSet};
use crate::session::{ProgramId, Session};
use amc_artifact::{Port, Program, ProgramKind, Storage};
use anyhow::{Context, Result, bail, ensure};

/// A program that takes a batch and gives a loss.
pub(crate) struct BatchProgram {
    program: ProgramId,
    pub rows: usize,
    pub sequence: usize,
    tokens: u64,
    labels: u64,
    positions: Option<u64>,
    segments: Option<u64>,
    seed: Option<u64>,
    loss_scale: u64,
    loss: u64,
}

/// The program that clips, steps and zeroes the gradients.
pub(crate) struct UpdateProgram {
    program: ProgramId,
    learning_rate: u64,
    weight_decay: u64,
    bias_correction1: u64,
    bias_correction2: u64,
    max_norm: u64,
    grad_norm: u64,
}

/// The scalars of one optimizer step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UpdateScalars {
    pub learning_rate: f32,
    pub weight_decay: f32,
    /// 1 - beta^t for both moments, t counting from 1.
    pub bias_corrections: [f32; 2],
    pub max_norm: f32,
}

/// All programs of one kind, smallest batch first.
pub(crate) struct BatchPrograms(Vec<BatchProgram>);

impl BatchPrograms {
    /// Those of the plan; none is an error where `needed`.
    pub fn bind(session: &Session, kind: ProgramKind, needed: bool) -> Result<BatchPrograms> {
        let of_kind = session.programs().filter(|(_, program)| program.kind == kind);
        let mut bound = of_kind
            .map(|(id, program)| BatchProgram::bind(id, program).with_context(|| format!("program `{}`", program.name)))
            .collect::<Result<Vec<_>>>()?;
        ensure!(!bound.is_empty() || !needed, "the artifact has no {kind:?} program: compile it for training");
        bound.sort_by_key(|program| (program.rows * program.sequence, program.sequence));
        Ok(BatchPrograms(bound))
    }

    /// Rows of the widest batch.
    pub fn most_rows(&self) -> usize {
        self.0.iter().map(|program| program.rows).max().unwrap_or(0)
    }

    /// Tokens of the largest batch.
    pub fn most_tokens(&self) -> usize {
        self.0.iter().map(|program| program.rows * program.sequence).max().unwrap_or(0)
    }

    /// The smallest that takes so many rows of so many tokens.
    pub fn fit(&self, rows: usize, longest: usize) -> Result<&BatchProgram> {
        let fitting = self.0.iter().find(|program| program.rows >= rows && program.sequence >= longest);
        fitting.with_context(|| {
            let shapes: Vec<_> =
                self.0.iter().map(|program| format!("{}x{}", program.rows, program.sequence)).collect();
            format!(
                "a batch of {rows} rows of up to {longest} tokens fits none of the compiled shapes ({}): run `amc \
                 compile` again",
                shapes.join(", ")
            )
        })
    }
}

impl BatchProgram {
    fn bind(id: ProgramId, program: &Program) -> Result<BatchProgram> {
        let (rows, sequence) = (program.batch as usize, program.seq as usize);
        ensure!(rows > 0 && sequence > 0, "{rows} rows of {sequence} tokens");
        let places = program.batch.checked_mul(program.seq).context("too many tokens")?;
        let known = ["tokens", "labels", "positions", "segments", "seed", "loss_scale"];
        only_known(program, &known)?;
        let input = |name, storage, count| find(&program.inputs, name, storage, count);
        Ok(BatchProgram {
            program: id,
            rows,
            sequence,
            tokens: needed("tokens", input("tokens", Storage::I32, places)?)?,
            labels: needed("labels", input("labels", Storage::I32, places)?)?,
            positions: input("positions", Storage::I32, places)?,
            segments: input("segments", Storage::I32, places)?,
            seed: input("seed", Storage::I32, 2)?,
            loss_scale: needed("loss_scale", input("loss_scale", Storage::F32, 1)?)?,
            loss: needed("loss", find(&program.outputs, "loss", Storage::F32, 1)?)?,
        })
    }

    /// Its place among the plan's programs.
    pub fn index(&self) -> usize {
        self.program.index()
    }

    /// Runs the rows as one microbatch and returns the sum of their token losses times `loss_scale`.
    pub fn run(
        &self,
        session: &mut Session,
        buffers: &mut Buffers,
        data: &DataSet,
        rows: &[u32],
        loss_scale: f32,
        seed: [u32; 2],
    ) -> Result<f64> {
        buffers.fill(data, rows, self.rows, self.sequence)?;
        let places = self.rows * self.sequence;
        session.write_at(self.tokens, &buffers.tokens[..places])?;
        session.write_at(self.labels, &buffers.labels[..places])?;
        if let Some(positions) = self.positions {
            session.write_at(positions, &buffers.positions[..places])?;
        }
        if let Some(segments) = self.segments {
            session.write_at(segments, &buffers.segments[..places])?;
        }
        if let Some(at) = self.seed {
            session.write_at(at, &seed.map(|word| word as i32))?;
        }
        session.write_at(self.loss_scale, &[loss_scale])?;
        session.run(self.program)?;
        Ok(f64::from(session.read_f32_at(self.loss)?))
    }
}

impl UpdateProgram {
    /// The only program of its kind.
    pub fn bind(session: &Session) -> Result<UpdateProgram> {
        let mut updates = session.programs().filter(|(_, program)| program.kind == ProgramKind::Update);
        let (id, program) = updates.next().context("the artifact has no Update program: compile it for training")?;
        ensure!(updates.next().is_none(), "the artifact has several Update programs");
        UpdateProgram::bind_to(id, program).with_context(|| format!("program `{}`", program.name))
    }

    fn bind_to(id: ProgramId, program: &Program) -> Result<UpdateProgram> {
        let names = ["learning_rate", "weight_decay", "bias_correction1", "bias_correction2", "max_norm"];
        only_known(program, &names)?;
        let input = |name| needed(name, find(&program.inputs, name, Storage::F32, 1)?);
        Ok(UpdateProgram {
            program: id,
            learning_rate: input("learning_rate")?,
            weight_decay: input("weight_decay")?,
            bias_correction1: input("bias_correction1")?,
            bias_correction2: input("bias_correction2")?,
            max_norm: input("max_norm")?,
            grad_norm: needed("grad_norm", find(&program.outputs, "grad_norm", Storage::F32, 1)?)?,
        })
    }

    /// Its place among the plan's programs.
    pub fn index(&self) -> usize {
        self.program.index()
    }

    /// Runs it and returns the norm of the gradient before clipping.
    pub fn run(&self, session: &mut Session, scalars: &UpdateScalars) -> Result<f64> {
        let [correction1, correction2] = scalars.bias_corrections;
        session.write_at(self.learning_rate, &[scalars.learning_rate])?;
        session.write_at(self.weight_decay, &[scalars.weight_decay])?;
        session.write_at(self.bias_correction1, &[correction1])?;
        session.write_at(self.bias_correction2, &[correction2])?;
        session.write_at(self.max_norm, &[scalars.max_norm])?;
        session.run(self.program)?;
        Ok(f64::from(session.read_f32_at(self.grad_norm)?))
    }
}

fn find(ports: &[Port], name: &str, storage: Storage, count: u64) -> Result<Option<u64>> {
    let Some(port) = ports.iter().find(|port| port.name == name) else { return Ok(None) };
    let elements: u64 = port.shape.iter().product();
    let fits = port.storage == storage && elements == count;
    ensure!(fits, "port `{name}` is {:?}{:?}, wanted {count} of {storage:?}", port.storage, port.shape);
    Ok(Some(port.offset))
}

fn needed(name: &str, offset: Option<u64>) -> Result<u64> {
    offset.with_context(|| format!("there is no port `{name}`"))
}

/// An input that nobody fills would be read as whatever stood there.
fn only_known(program: &Program, known: &[&str]) -> Result<()> {
    match program.inputs.iter().find(|port| !known.contains(&port.name.as_str())) {
        Some(port) => bail!("nobody fills the input `{}`; the training loop knows {}", port.name, known.join(", ")),
        None => Ok(()),
    }
}
