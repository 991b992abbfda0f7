//! Which machine code is generated for: the CPU at hand, or a CPU or GPU named by the recipe.
use crate::Error;
use amc_kernels::{Gpu, Pairs, Target};
use inkwell::targets::TargetMachine;

/// Processors with AVX2 and FMA but without usable AVX-512, by LLVM's names.
const AVX2: &[&str] = &[
    "x86-64-v3",
    "haswell",
    "broadwell",
    "skylake",
    "alderlake",
    "raptorlake",
    "meteorlake",
    "arrowlake",
    "arrowlake-s",
    "lunarlake",
    "pantherlake",
    "gracemont",
    "sierraforest",
    "grandridge",
    "znver1",
    "znver2",
    "znver3",
];
/// Processors with AVX-512 F, BW, VL and DQ.
const AVX512: &[&str] = &[
    "x86-64-v4",
    "skylake-avx512",
    "cascadelake",
    "cannonlake",
    "icelake-client",
    "icelake-server",
    "tigerlake",
    "rocketlake",
];
/// Of those, the ones with `vdpbf16ps`.
const AVX512_BF16: &[&str] =
    &["cooperlake", "sapphirerapids", "emeraldrapids", "graniterapids", "graniterapids-d", "znver4", "znver5"];

/// The CPU that this process runs on.
///
/// # Errors
/// A CPU without AVX2 and FMA.
pub fn host_target() -> Result<Target, Error> {
    let features = TargetMachine::get_host_cpu_features().to_string();
    from_features(&TargetMachine::get_host_cpu_name().to_string(), &features)
}

/// `cpu` (this machine), `cpu:avx2` (any x86-64-v3), or `cpu:NAME` with LLVM's name of a processor.
///
/// # Errors
/// A name that is none of these.
pub fn named_target(name: &str) -> Result<Target, Error> {
    match name.strip_prefix("cpu:") {
        None if name == "cpu" => host_target(),
        Some("avx2") => Ok(Target::avx2()),
        Some(cpu) if AVX2.contains(&cpu) => Ok(Target { cpu: cpu.into(), ..Target::avx2() }),
        Some(cpu) if AVX512.contains(&cpu) => Ok(avx512(cpu, "", false)),
        Some(cpu) if AVX512_BF16.contains(&cpu) => Ok(avx512(cpu, "", true)),
        _ => Err(Error::Target {
            name: name.into(),
            found: "no such target".into(),
            wanted: format!(
                "`cpu`, `cpu:avx2` or `cpu:` with one of {}",
                [AVX2, AVX512, AVX512_BF16].concat().join(", ")
            ),
        }),
    }
}

/// `cuda:NAME`, with the name of an architecture.
///
/// # Errors
/// A name that is none of these.
pub fn named_gpu(name: &str) -> Result<Gpu, Error> {
    let found = Gpu::ALL.into_iter().find(|gpu| name.strip_prefix("cuda:") == Some(gpu.name()));
    found.ok_or_else(|| Error::Target {
        name: name.into(),
        found: "no such target".into(),
        wanted: format!("`cuda:` with one of {}", Gpu::ALL.map(Gpu::name).join(", ")),
    })
}

/// The features are sorted, and part of the target, because a virtual machine may mask some that its CPU's name
/// implies.
fn from_features(cpu: &str, features: &str) -> Result<Target, Error> {
    let mut all: Vec<&str> = features.split(',').filter(|feature| !feature.is_empty()).collect();
    all.sort_unstable_by_key(|feature| &feature[1..]);
    let has =
        |names: &[&str]| names.iter().all(|name| all.iter().any(|feature| feature.strip_prefix('+') == Some(name)));
    if !has(&["avx2", "fma"]) {
        return Err(Error::Target {
            name: "cpu".into(),
            found: format!("`{cpu}` lacks AVX2 or FMA"),
            wanted: "an x86-64 CPU with both".into(),
        });
    }
    if has(&["avx512f", "avx512bw", "avx512vl", "avx512dq"]) {
        return Ok(avx512(cpu, &all.join(","), has(&["avx512bf16"])));
    }
    Ok(Target { cpu: cpu.into(), features: all.join(","), ..Target::avx2() })
}

fn avx512(cpu: &str, features: &str, bf16: bool) -> Target {
    let pairs = bf16.then_some(Pairs::Instruction);
    Target { cpu: cpu.into(), features: features.into(), lanes: 16, registers: 32, pairs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_follow_the_features() {
        let zen3 = from_features("znver3", "+fma,-avx512f,+avx2").unwrap();
        assert_eq!((zen3.lanes, zen3.features.as_str()), (8, "+avx2,-avx512f,+fma"));
        let zen5 = from_features("znver5", "+avx512f,+avx512bw,+avx512vl,+avx512dq,+avx512bf16,+avx2,+fma").unwrap();
        assert_eq!((zen5.lanes, zen5.registers, zen5.has_bf16()), (16, 32, true));
        let masked = from_features("znver5", "-avx512f,+avx2,+fma").unwrap();
        assert_eq!(masked.lanes, 8);
        assert!(from_features("nehalem", "+sse4.2").unwrap_err().to_string().contains("`nehalem` lacks AVX2 or FMA"));
    }

    #[test]
    fn names_are_checked() {
        assert_eq!(named_target("cpu:avx2").unwrap(), Target::avx2());
        assert!(named_target("cpu:sapphirerapids").unwrap().has_bf16());
        assert_eq!(named_gpu("cuda:sm_80").unwrap().name(), "sm_80");
        assert!(named_gpu("cuda:sm_61").unwrap_err().to_string().contains("with one of sm_80, sm_90a"));
        assert!(named_target("cpu:pentium").unwrap_err().to_string().contains("`cpu:pentium`: no such target"));
    }
}
