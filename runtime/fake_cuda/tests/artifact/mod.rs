//! The toy model as an artifact for a GPU.
use crate::support::{RECIPE, Toy};
use amc_artifact::*;
use amc_runtime::session::{Session, SessionOptions};
use anyhow::Result;
use std::collections::BTreeMap;

pub const PTX: &str = include_str!("../toy.ptx");

/// The toy's plan with blocks for its kernels, and names for its launches, each of which waits for the one before it in the other
/// of two streams.
pub fn on_gpu(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    plan.scratch_bytes = 0;
    for kernel in &mut plan.kernels {
        let (threads, shared_bytes) = match kernel.symbol.as_str() {
            "backward" | "norm" => (12, 48),
            "adam" => (12, 0),
            _ => (1, 0),
        };
        kernel.code = Code::Gpu(Block { threads, shared_bytes, maps: Vec::new(), arrays: Vec::new() });
    }
    let launches = plan.programs.iter_mut().flat_map(|program| program.launches.iter_mut().enumerate());
    for (number, launch) in launches {
        let number = number as u32;
        launch.begins = Begins::InStream { stream: number % 2, behind: number.checked_sub(1).into_iter().collect() };
        launch.label = format!("main: %{} {}", launch.kernel, plan.kernels[launch.kernel as usize].symbol);
    }
    plan
}

/// Writes and opens an artifact of the plan for `arch` whose code is `ptx`.
pub fn artifact(toy: &Toy, plan: &Plan, ptx: &str, arch: &str) -> Artifact {
    let dir = toy.folder.join("artifact");
    let target = TargetInfo { kind: TargetKind::Cuda, cpu: arch.into(), features: Vec::new() };
    let contents = Contents {
        header: Header {
            compiler: "0".into(),
            target,
            libraries: Vec::new(),
            recipe: hash_bytes(RECIPE.as_bytes()),
            model_files: vec![InputFile::of(&toy.model_folder(), "model.safetensors").unwrap()],
            memory: Vec::new(),
        },
        plan: plan.clone(),
        run: Some(toy.run.clone()),
        recipe: RECIPE.into(),
        recipe_lock: RECIPE.into(),
        kernels: Some(ptx.as_bytes().to_vec()),
        ir: BTreeMap::new(),
    };
    Artifact::write(&dir, &contents).unwrap();
    Artifact::open(&dir).unwrap()
}

/// The toy on the GPU.
pub fn session(toy: &Toy) -> Result<Session> {
    Session::open(&artifact(toy, &on_gpu(&toy.plan), PTX, "sm_80"), &SessionOptions::default())
}
