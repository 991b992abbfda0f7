//! Published peaks of GPUs: no kernel is faster, and none as fast.
use crate::{Rate, Rates, Source};
use std::collections::BTreeMap;

/// A GPU by NVIDIA's data sheets, without sparsity.
struct Peaks {
    architecture: &'static str,
    gpu: &'static str,
    /// TFLOP/s of the tensor cores in bf16 and in TF32, and of the ordinary units in f32.
    bf16: f64,
    tf32: f64,
    f32: f64,
    /// TB/s of its memory.
    memory: f64,
}

const PEAKS: [Peaks; 2] = [
    Peaks { architecture: "sm_80", gpu: "A100 80GB SXM", bf16: 312.0, tf32: 156.0, f32: 19.5, memory: 2.039 },
    Peaks { architecture: "sm_90a", gpu: "H100 SXM", bf16: 989.4, tf32: 494.7, f32: 66.9, memory: 3.35 },
];

/// Families whose operations the tensor cores do where values are bf16; where they are f32, it is slower.
const TENSOR_CORES: [&str; 4] = ["attention", "attention_grad", "product_bf16", "product_vendor"];

/// Families of the ordinary units.
const ORDINARY_UNITS: [&str; 12] = [
    "column_sum",
    "cross_entropy",
    "dropout",
    "embedding_grad",
    "norm",
    "optimizer",
    "pack",
    "pointwise",
    "product",
    "rope",
    "rows",
    "sum",
];

/// The peaks of a GPU that code of the architecture is for, if it is known, as rates of one thread that is all of it.
pub fn of_gpu(architecture: &str) -> Option<Rates> {
    let peaks = PEAKS.iter().find(|peaks| peaks.architecture == architecture)?;
    let rate = |tera: f64| Rate { operation: 1e-12 / tera, byte: 1e-12 / peaks.memory, launch: 0.0 };
    let families = TENSOR_CORES.iter().map(|family| (family, rate(peaks.bf16)));
    let families: BTreeMap<String, Rate> = families
        .chain([(&"product_tf32", rate(peaks.tf32))])
        .chain(ORDINARY_UNITS.iter().map(|family| (family, rate(peaks.f32))))
        .map(|(family, rate)| (family.to_string(), rate))
        .collect();
    let Peaks { gpu, bf16, f32, memory, .. } = peaks;
    let machine = format!("an {gpu} at its peaks of {bf16} TFLOP/s in bf16, {f32} in f32, {memory} TB/s");
    Some(Rates { source: Source::Nominal(machine), error: 0.0, idle: 0.0, wait: 0.0, overlap: true, families })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Varies, Work};

    #[test]
    fn the_longer_of_arithmetic_and_traffic_counts() {
        let rates = of_gpu("sm_90a").expect("an H100's");
        let seconds = |family: &str, operations, bytes| {
            let work = Work { family: family.into(), operations, bytes, varies: Varies::Never };
            rates.families[family].seconds(&work, 1.0, rates.overlap)
        };
        assert_eq!(seconds("product_bf16", 989_400_000_000, 0), 1e-3);
        assert_eq!(seconds("product_bf16", 989_400_000_000, 6_700_000_000), 2e-3);
        assert_eq!(seconds("norm", 1_000_000, 3_350_000_000), 1e-3);
        assert!(of_gpu("sm_100").is_none());
        assert_eq!(rates.describe().split(':').next(), Some("nominal, not measured"));
    }
}
