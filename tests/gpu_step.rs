//! Whole steps on a GPU, in the interpreter or on the GPU that there is: `amc run` follows the run on the CPU in losses and in what it leaves, for full
//! fine-tuning and LoRA, in f32 and in bf16, and in bf16 by the warpgroups of a Hopper GPU and with its vendor's products.
#![cfg(feature = "compiler")]
#[path = "support/bench.rs"]
mod bench;

use amc_artifact::safetensors::{Dtype, Weights};
use bench::Bench;
use std::collections::BTreeMap;

const RATE: f64 = 1e-3;
const STEPS: usize = 3;

/// What a run leaves: losses of the steps, and the tensors that it has trained.
struct Run {
    losses: Vec<f64>,
    tensors: BTreeMap<String, Vec<f32>>,
}

/// A target, and the machine that pretends to be it.
const AMPERE: (&str, &str) = ("cuda:sm_80", "capability=8.6");
const HOPPER: (&str, &str) = ("cuda:sm_90a", "capability=9.0");

/// Tokens of each row.
const SHORT: &[usize] = &[8, 5, 7];
/// So many that products of all tokens fill more than a block of warpgroups.
const LONG: &[usize] = &[40, 33, 38, 29];

/// What two runs may differ by.
struct Tolerance {
    /// Relative.
    loss: f64,
    /// The root of the mean square of a tensor's differences, as a share of the way that Adam can go in so many steps.
    tensor: f64,
}

const F32: Tolerance = Tolerance { loss: 1e-5, tensor: 1e-3 };
const BF16: Tolerance = Tolerance { loss: 1e-2, tensor: 0.4 };

/// What is trained, in a checkpoint's folder of the model.
const SHARD: &str = "shard-00001-model-00001-of-00001.safetensors";
const ADAPTER: &str = "adapter_model.safetensors";

const LORA: [&str; 3] =
    ["--peft._target_=nemo_automodel.components._peft.lora.PeftConfig", "--peft.target_modules=*_proj", "--peft.dim=4"];

/// Runs a command where code for `target` runs: on a machine with such a GPU, or on this one, if `AMC_TEST_GPU` names an
/// architecture that its GPU runs, `sm_90a` or `sm_80`.
fn on_gpu(bench: &Bench, (target, machine): (&str, &str), arguments: &[&str]) -> std::process::Output {
    let real = |arch: String| target == "cuda:sm_80" || target == format!("cuda:{arch}");
    let real = std::env::var("AMC_TEST_GPU").is_ok_and(real);
    if real { bench.run(arguments) } else { bench.on_machine(machine, arguments) }
}

fn run(bench: &Bench, (target, machine): (&str, &str), rows: &[usize], settings: &[&str], file: &str) -> Run {
    let row = |(number, count): (usize, &usize)| {
        let ids: Vec<String> = (0..*count).map(|i| ((3 + 37 * number + i * i * 7) % 128).to_string()).collect();
        format!("{{\"input_ids\": [{}]}}\n", ids.join(", "))
    };
    bench.rows(&rows.iter().enumerate().map(row).collect::<String>());
    let [rate, steps] = [format!("--optimizer.lr={RATE}"), format!("--step_scheduler.num_epochs={STEPS}")];
    let compile = [&["compile", "r.yaml", "--target", target, "-o", "a", &rate, &steps], settings].concat();
    let ok = |output: std::process::Output| {
        assert!(output.status.success(), "{target}: {}", String::from_utf8_lossy(&output.stderr));
    };
    ok(bench.run(&compile));
    ok(on_gpu(bench, (target, machine), &["run", "a"]));
    let records = std::fs::read_to_string(bench.path("checkpoints/training.jsonl")).expect("the run's records");
    let loss = |line| serde_json::from_str::<serde_json::Value>(line).expect("a record")["loss"].as_f64();
    let file = Weights::open(&bench.path("checkpoints/LATEST/model").join(file)).expect("what was trained");
    Run {
        losses: records.lines().map(|line| loss(line).expect("a loss")).collect(),
        tensors: file.tensors().map(|(name, _)| (name.to_string(), values(&file, name))).collect(),
    }
}

fn values(file: &Weights, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).expect("a tensor of the file");
    let wide = |b: &[u8]| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16);
    match tensor.dtype {
        Dtype::Bf16 => tensor.bytes.chunks_exact(2).map(wide).collect(),
        _ => tensor.bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
    }
}

/// The root of the mean square of differences.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (squares / a.len() as f64).sqrt()
}

/// Trains on the CPU and on an Ampere GPU and compares; returns what the CPU did.
fn check(bench: impl Fn() -> Bench, settings: &[&str], file: &str, tolerance: &Tolerance) -> Run {
    let cpu = run(&bench(), ("cpu", ""), SHORT, settings, file);
    let gpu = run(&bench(), AMPERE, SHORT, settings, file);
    compare(&cpu, &gpu, tolerance);
    cpu
}

/// Trains on the CPU and on a Hopper GPU, where warpgroups compute at least so many of the plan's products and attentions, and
/// of its products of experts.
fn check_hopper(
    bench: impl Fn() -> Bench,
    rows: &[usize],
    (settings, file): (&[&str], &str),
    [products, attentions, of_experts]: [usize; 3],
) {
    let settings = [&["--model.torch_dtype=bfloat16"], settings].concat();
    let cpu = run(&bench(), ("cpu", ""), rows, &settings, file);
    let bench = bench();
    let gpu = run(&bench, HOPPER, rows, &settings, file);
    let plan = String::from_utf8(bench.run(&["show", "a", "plan"]).stdout).expect("the plan as text");
    for (template, wanted) in [(" gemm_wg", products), (" attention_wg", attentions), (" grouped_wg", of_experts)] {
        let of_it = |line: &&str| line.contains(template) && line.contains(" map Bf16[");
        let found = plan.lines().filter(of_it).count();
        println!("{found} of {template}, wanted {wanted}");
        assert!(found >= wanted, "{found} of {template}, wanted {wanted}:\n{plan}");
    }
    compare(&cpu, &gpu, &BF16);
}

/// Trains on the CPU and on a GPU, where the vendor's library computes so many of the plan's products, and where it computes
/// none; returns the folder with the vendor's.
fn check_vendor(gpu: (&str, &str), (settings, file): (&[&str], &str), products: usize) -> Bench {
    let settings = [&["--model.torch_dtype=bfloat16", "--amc.vendor=always"], settings].concat();
    let cpu = run(&Bench::new(), ("cpu", ""), SHORT, &settings, file);
    let [with, without] = [Bench::new(), Bench::new()];
    let found = run(&with, gpu, SHORT, &settings, file);
    assert_eq!(vendor_products(&with), products);
    compare(&cpu, &found, &BF16);
    let own = run(&without, gpu, SHORT, &[&settings[..], &["--no-vendor"]].concat(), file);
    assert_eq!(vendor_products(&without), 0);
    compare(&cpu, &own, &BF16);
    with
}

/// Launches of the plan that the vendor's library does.
fn vendor_products(bench: &Bench) -> usize {
    let plan = said(bench.run(&["show", "a", "plan"]));
    plan.lines().filter(|line| line.contains(" cublaslt_") && line.contains(", alpha 1, beta ")).count()
}

/// What a command that succeeds prints.
fn said(output: std::process::Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn compare(cpu: &Run, gpu: &Run, tolerance: &Tolerance) {
    assert!(cpu.losses.len() == STEPS && cpu.losses[0] - cpu.losses[STEPS - 1] > 1e-3, "{:?}", cpu.losses);
    for (found, wanted) in gpu.losses.iter().zip(&cpu.losses) {
        let error = (found - wanted).abs() / wanted;
        println!("loss {found}, wanted {wanted}: {error:.1e} of {:.1e}", tolerance.loss);
        assert!(error <= tolerance.loss, "{:?}, wanted {:?}", gpu.losses, cpu.losses);
    }
    assert!(gpu.losses.len() == STEPS && gpu.tensors.keys().eq(cpu.tensors.keys()));
    for (name, wanted) in &cpu.tensors {
        let share = distance(&gpu.tensors[name], wanted) / (RATE * STEPS as f64);
        println!("{name}: {share:.1e} of {:.1e}", tolerance.tensor);
        assert!(share <= tolerance.tensor, "{name}: the runs part by {share} of the way that Adam can go");
    }
}

#[test]
fn full_fine_tuning_in_f32() {
    check(Bench::new, &["--model.torch_dtype=float32"], SHARD, &F32);
}

#[test]
fn full_fine_tuning_in_bf16() {
    check(Bench::new, &["--model.torch_dtype=bfloat16"], SHARD, &BF16);
}

#[test]
fn lora_in_f32() {
    check(Bench::new, &[&["--model.torch_dtype=float32"], &LORA[..]].concat(), ADAPTER, &F32);
}

#[test]
fn lora_in_bf16() {
    check(Bench::new, &[&["--model.torch_dtype=bfloat16"], &LORA[..]].concat(), ADAPTER, &BF16);
}

/// Layers so wide that LoRA's products of them are computed in parts of their steps.
#[test]
fn lora_in_parts_of_steps() {
    let wide = || {
        let bench = Bench::new();
        bench.without_weights();
        let config = bench.path("model/config.json");
        let text = std::fs::read_to_string(&config).expect("the model's config");
        let narrow = "\"intermediate_size\": 96";
        assert!(text.contains(narrow), "{text}");
        std::fs::write(&config, text.replace(narrow, "\"intermediate_size\": 1104")).expect("the model's config");
        bench
    };
    let settings = [&["--model.torch_dtype=bfloat16"], &LORA[..]].concat();
    let cpu = run(&wide(), ("cpu", ""), SHORT, &settings, ADAPTER);
    let bench = wide();
    let gpu = run(&bench, AMPERE, SHORT, &settings, ADAPTER);
    compare(&cpu, &gpu, &BF16);
    let plan = said(bench.run(&["show", "a", "plan"]));
    let count = |template: &str| plan.lines().filter(|line| line.contains(template)).count();
    assert!(count(" gemm_parts_") > 0 && count(" gemm_parts_") == count(" gemm_added_"), "{plan}");
}

#[test]
fn full_fine_tuning_by_warpgroups() {
    check_hopper(Bench::new, LONG, (&[], SHARD), [20, 0, 0]);
}

/// A rank whose rows of bf16 are not as long as a tensor map wants them.
#[test]
fn lora_by_warpgroups() {
    check_hopper(Bench::new, LONG, (&LORA, ADAPTER), [15, 0, 0]);
}

#[test]
fn full_fine_tuning_with_the_vendors_products() {
    let bench = check_vendor(AMPERE, (&[], SHARD), 28);
    assert!(said(bench.run(&["show", "a"])).contains("\nlibraries  cublasLt\n"));
    assert!(said(bench.run(&["verify", "a"])).contains("the same bytes again"));
    std::fs::remove_dir_all(bench.path("checkpoints")).expect("the run's checkpoints");
    let measured = said(on_gpu(&bench, AMPERE, &["run", "a", "--profile"]));
    let (_, ampere) = AMPERE;
    assert!(measured.lines().any(|line| line.contains("  cublaslt_")), "{measured}");
    assert!(measured.contains("forecasts are nominal, not measured: an A100"), "{measured}");
    let missing = bench.on_machine(&format!("{ampere} cublaslt=none"), &["run", "a"]);
    let error = String::from_utf8_lossy(&missing.stderr);
    assert!(!missing.status.success() && error.contains("has no cuBLASLt") && error.contains("--no-vendor"), "{error}");
}

#[test]
fn lora_with_the_vendors_products() {
    let settings = [
        "--peft._target_=nemo_automodel.components._peft.lora.PeftConfig",
        "--peft.target_modules=q_proj",
        "--peft.dim=8",
    ];
    check_vendor(HOPPER, (&settings, ADAPTER), 12);
}

/// A model without weights whose attention has so many heads, of 64 entries together, and rows of more than 64 tokens.
fn with_heads(heads: usize, kv_heads: usize) -> Bench {
    let bench = Bench::new();
    bench.without_weights();
    let config = bench.path("model/config.json");
    let change = |text: String, key: &str, from: usize, to: usize| {
        let [from, to] = [from, to].map(|value| format!("\"{key}\": {value}"));
        assert!(text.contains(&from), "{from} of {text}");
        text.replace(&from, &to)
    };
    let text = std::fs::read_to_string(&config).expect("the config");
    let text = change(text, "num_attention_heads", 4, heads);
    let text = change(text, "num_key_value_heads", 2, kv_heads);
    let text = change(text, "max_position_embeddings", 64, 256);
    std::fs::write(config, text).expect("the changed config");
    bench
}

/// A head as large as the rows of the longest boxes, in rows of more than half a block of queries.
#[test]
fn attention_by_warpgroups() {
    check_hopper(|| with_heads(1, 1), &[150, 90], (&[], SHARD), [20, 6, 0]);
}

/// Heads as large as the rows of the shortest boxes.
#[test]
fn attention_of_small_heads_by_warpgroups() {
    check_hopper(|| with_heads(4, 2), &[150, 90], (&[], SHARD), [20, 2, 0]);
}

/// A model without weights whose feed-forward layers are three experts, two a token, as Qwen3 has them.
fn with_experts() -> Bench {
    let bench = Bench::new();
    bench.without_weights();
    let path = bench.path("model/config.json");
    let text = std::fs::read_to_string(&path).expect("the config");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("the config as JSON");
    let experts = serde_json::json!({
        "model_type": "qwen3_moe",
        "architectures": ["Qwen3MoeForCausalLM"],
        "head_dim": 16,
        "num_experts": 3,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 96,
        "norm_topk_prob": true,
    });
    config.as_object_mut().expect("an object").extend(experts.as_object().expect("an object").clone());
    std::fs::write(path, config.to_string()).expect("the changed config");
    bench
}

#[test]
fn experts_by_warpgroups() {
    check_hopper(with_experts, LONG, (&[], SHARD), [0, 0, 16]);
}

#[test]
fn lora_of_experts_by_warpgroups() {
    check_hopper(with_experts, LONG, (&LORA, ADAPTER), [0, 0, 18]);
}

/// A model that has a config alone begins with drawn weights, frozen or not, and so knows nothing.
#[test]
fn models_without_weights() {
    let bench = || {
        let bench = Bench::new();
        bench.without_weights();
        bench
    };
    let float = "--model.torch_dtype=float32";
    let lora = check(bench, &[&[float], &LORA[..]].concat(), ADAPTER, &F32);
    let full = run(&bench(), ("cpu", ""), SHORT, &[float], SHARD);
    let (found, wanted) = (lora.losses[0], 128f64.ln());
    assert!((found - wanted).abs() < 0.1, "a loss of {found}, of a model that knows nothing {wanted}");
    assert!(
        (full.losses[0] - found).abs() < 1e-6,
        "an adapter begins as nothing: {found}, without it {}",
        full.losses[0]
    );
}
