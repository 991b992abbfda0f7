//! The last step: programs to plan, kernels to code, everything into the artifact's directory.
use amc_artifact::memory::{PIECE_BYTES, staying};
use amc_artifact::{
    Artifact, Contents, Header, InputFile, PhaseMemory, Plan, RunConfig, TargetInfo, TargetKind, WeightTensor,
};
use amc_kernels::{Gpu, Machine, Target, Vendor};
use amc_passes::plan::Assembled;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// Where code is generated for.
pub enum Destination {
    Cpu(Target),
    Gpu(Gpu),
    /// No code: the plan alone.
    Null,
}

impl Destination {
    /// `null`, a CPU by the names of [`amc_codegen::named_target`], or a GPU by those of [`amc_codegen::named_gpu`], with kernels
    /// of our own alone.
    pub fn parse(name: &str) -> Result<Destination> {
        if name == "null" {
            return Ok(Destination::Null);
        }
        if name.starts_with("cuda") {
            return Ok(Destination::Gpu(amc_codegen::named_gpu(name)?));
        }
        Ok(Destination::Cpu(amc_codegen::named_target(name)?))
    }

    /// What an artifact names.
    pub fn named(info: &TargetInfo) -> Result<Destination> {
        match info.kind {
            TargetKind::Null => Ok(Destination::Null),
            TargetKind::Cuda => Destination::parse(&format!("cuda:{}", info.cpu)),
            TargetKind::Cpu => Destination::named_cpu(info),
        }
    }

    fn named_cpu(info: &TargetInfo) -> Result<Destination> {
        let host = amc_codegen::host_target().ok().filter(|host| host.cpu == info.cpu);
        Ok(Destination::Cpu(host.map_or_else(|| amc_codegen::named_target(&format!("cpu:{}", info.cpu)), Ok)?))
    }

    /// The same, where a GPU's vendor computes such products, and f32 are rounded to TF32 if `tf32` says so.
    pub fn with(self, vendor: Vendor, tf32: bool) -> Destination {
        match self {
            Destination::Gpu(gpu) => Destination::Gpu(Gpu { vendor, tf32, ..gpu }),
            Destination::Cpu(_) | Destination::Null => self,
        }
    }

    /// The machine that kernels are planned for.
    pub fn machine(&self) -> Box<dyn Machine> {
        match self {
            Destination::Cpu(target) => Box::new(target.clone()),
            Destination::Gpu(gpu) => Box::new(*gpu),
            Destination::Null => Box::new(Target::avx2()),
        }
    }

    /// How an artifact names it.
    pub fn info(&self) -> TargetInfo {
        match self {
            Destination::Null => TargetInfo { kind: TargetKind::Null, cpu: String::new(), features: vec![] },
            Destination::Gpu(gpu) => TargetInfo { kind: TargetKind::Cuda, cpu: gpu.name().into(), features: vec![] },
            Destination::Cpu(target) => {
                let mut features = vec!["avx2", "fma", "f16c", "bmi2"];
                if target.lanes == 16 {
                    features.extend(["avx512f", "avx512bw", "avx512vl", "avx512dq"]);
                }
                if target.has_bf16() {
                    features.push("avx512bf16");
                }
                let features = features.into_iter().map(String::from).collect();
                TargetInfo { kind: TargetKind::Cpu, cpu: target.cpu.clone(), features }
            }
        }
    }
}

/// Texts and settings that go into the artifact beside the code.
#[derive(Default)]
pub struct Papers {
    pub run: Option<RunConfig>,
    pub recipe: String,
    pub recipe_lock: String,
    pub ir: BTreeMap<String, String>,
}

/// Generates the code of a plan and writes the artifact `dir`. The model's files are `files` of `folder`.
///
/// # Errors
/// Code generation, linking, or writing fails.
pub fn emit(
    dir: &Path,
    assembled: &Assembled,
    destination: &Destination,
    folder: &Path,
    files: &[String],
    papers: Papers,
) -> Result<()> {
    let code = match destination {
        Destination::Null => None,
        Destination::Cpu(target) => Some(amc_codegen::shared_object(&assembled.kernels, target)?),
        Destination::Gpu(gpu) => Some(amc_codegen::ptx(&assembled.kernels, *gpu)?.into_bytes()),
    };
    let model_files = files.iter().map(|name| InputFile::of(folder, name)).collect::<Result<_>>()?;
    let header = Header {
        compiler: env!("CARGO_PKG_VERSION").into(),
        target: destination.info(),
        libraries: libraries(&assembled.plan),
        recipe: blake3::hash(papers.recipe_lock.as_bytes()).to_hex().to_string(),
        model_files,
        memory: memory(assembled),
    };
    let contents = Contents {
        header,
        plan: assembled.plan.clone(),
        run: papers.run,
        recipe: papers.recipe,
        recipe_lock: papers.recipe_lock,
        kernels: code,
        ir: papers.ir,
    };
    Artifact::write(dir, &contents).with_context(|| format!("artifact {}", dir.display()))
}

/// Libraries that a run of the plan opens beside the driver's.
fn libraries(plan: &Plan) -> Vec<String> {
    let vendor = plan.kernels.iter().any(|kernel| kernel.vendor_product().is_some());
    if vendor { vec!["cublasLt".into()] } else { vec![] }
}

fn memory(assembled: &Assembled) -> Vec<PhaseMemory> {
    let plan = &assembled.plan;
    let bytes = |(weight, counts): (&WeightTensor, bool)| {
        if counts { weight.shape.iter().product::<u64>() * weight.storage.bytes() } else { 0 }
    };
    let constants = plan.constants.len() as u64;
    let weights = constants + plan.weights.iter().map(|weight| bytes((weight, true))).sum::<u64>();
    let staying = constants + plan.weights.iter().zip(staying(plan)).map(bytes).sum::<u64>();
    let phase = |phase: &str, activations, scratch, weights| {
        let state = assembled.state_bytes;
        PhaseMemory { phase: phase.into(), state, activations, scratch, weights }
    };
    let programs =
        assembled.memory.iter().map(|memory| phase(&memory.program, memory.bytes, plan.scratch_bytes, staying));
    let (load, save) = (phase("load", PIECE_BYTES, 0, weights), phase("save", PIECE_BYTES, 0, staying));
    std::iter::once(load).chain(programs).chain([save]).collect()
}
