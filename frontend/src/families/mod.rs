//! Every family, one row each. A family's file holds data only; what the words mean is in [`crate::arch`].
mod baichuan;
mod cohere;
mod gemma;
mod glm;
mod gpt;
mod granite;
mod internlm;
mod llama;
mod minicpm;
mod mistral;
mod mixtral;
mod nemotron;
mod olmo;
mod phi;
mod qwen;
mod stablelm;
mod starcoder;

use crate::arch::Arch;
use anyhow::{Result, anyhow};

pub const ALL: &[&Arch] = &[
    &baichuan::BAICHUAN,
    &cohere::COHERE,
    &cohere::COHERE2,
    &gemma::GEMMA,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &glm::GLM,
    &glm::GLM4,
    &gpt::GPT_J,
    &gpt::GPT_NEOX,
    &granite::GRANITE,
    &internlm::INTERNLM,
    &internlm::INTERNLM2,
    &internlm::INTERNLM3,
    &llama::AQUILA,
    &llama::DEEPSEEK,
    &llama::EXAONE,
    &llama::LLAMA,
    &minicpm::MINICPM,
    &minicpm::MINICPM3,
    &mistral::MISTRAL,
    &mixtral::MIXTRAL,
    &nemotron::NEMOTRON,
    &olmo::OLMO,
    &olmo::OLMO2,
    &olmo::OLMOE,
    &phi::PHI,
    &phi::PHI3,
    &qwen::QWEN2,
    &qwen::QWEN3,
    &qwen::QWEN2_MOE,
    &qwen::QWEN3_MOE,
    &stablelm::ORION,
    &stablelm::STABLELM,
    &starcoder::STARCODER2,
];

/// The family of a class name.
///
/// # Errors
/// There is none; the message has the nearest name and all that are known.
pub fn find(class: &str) -> Result<&'static Arch> {
    let family = ALL.iter().find(|arch| arch.classes.contains(&class));
    family.copied().ok_or_else(|| {
        let names: Vec<&str> = ALL.iter().flat_map(|arch| arch.classes).copied().collect();
        let nearest = amc_ir::diag::unknown("architecture", class, names.iter().copied());
        anyhow!("{nearest}; known are {}", names.join(", "))
    })
}
