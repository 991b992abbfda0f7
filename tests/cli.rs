//! What the commands say and do where something is wrong, and where nobody reads what they print.
#![cfg(feature = "compiler")]
#[path = "support/bench.rs"]
mod bench;

use amc_fake_cuda::NO_DRIVER;
use bench::Bench;
use std::process::Stdio;

/// What a command that must fail, without panicking, says.
fn error(bench: &Bench, arguments: &[&str]) -> String {
    let output = bench.run(arguments);
    let said = text(&output.stderr);
    assert!(!output.status.success() && !said.contains("panicked"), "{arguments:?}: {} {said}", output.status);
    said
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn token_files_need_no_tokenizer_and_small_data_makes_small_batches() {
    let bench = Bench::new();
    let output = bench.run(&["check", "r.yaml"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("dataset: 3 rows, shapes 3x8,"), "{}", text(&output.stdout));
    assert!(bench.run(&["data", "r.yaml"]).status.success());
}

#[test]
fn mistakes_have_a_place_in_the_recipe() {
    let bench = Bench::new();
    for (arguments, wanted) in [
        (
            &["check", "r.yaml", "--set", "dataset.path=none.jsonl"][..],
            "error: --set dataset.path=none.jsonl: none.jsonl",
        ),
        (&["check", "r.yaml", "--dataset.path", "none.jsonl"], "error: --set dataset.path=none.jsonl: none.jsonl"),
        (&["check", "r.yaml", "--amc.target", "vax"], "error: --set amc.target=vax: target `vax`"),
        (&["check", "r.yaml", "--lr_scheduler.lr_warmup_steps=9"], "error: --set lr_scheduler.lr_warmup_steps=9"),
        (
            &["check", "r.yaml", "--amc.initial_adapter=x"],
            "error: --set amc.initial_adapter=x: the recipe has no `peft`",
        ),
        (&["compile", "r.yaml", "--target", "vax"], "error: --target: target `vax`"),
        (&["compile", "r.yaml", "-o", "."], "holds other files"),
        (&["run", "r.yaml"], "r.yaml is a file, wanted the folder that `amc compile` wrote"),
        (&["run", "x", "--steps", "0"], "0 is not in 1.."),
    ] {
        let said = error(&bench, arguments);
        assert!(said.contains(wanted), "{arguments:?}: {said}");
    }
    bench.rows("");
    let said = error(&bench, &["check", "r.yaml"]);
    assert!(said.contains("error: r.yaml:7:3: `dataset.path`: rows.jsonl: no rows"), "{said}");
    bench.rows(&"{\"input_ids\": [1, 2]}\n".repeat(64));
    let wide =
        ["--dataloader.collate_fn._target_=default_collater", "--dataloader.collate_fn.pad_seq_len_divisible=1048576"];
    let said = error(&bench, &["check", "r.yaml", wide[0], wide[1]]);
    assert!(said.contains("a microbatch of 64 rows of 1048576 tokens: amc takes at most"), "{said}");
}

#[test]
fn forecasts_say_what_they_rest_on() {
    let bench = Bench::new();
    let compiled = |said: &str| {
        let output = bench.run(&["compile", "r.yaml", "-o", "a"]);
        let text = text(&output.stdout);
        assert!(output.status.success() && text.contains(said), "{text}{}", self::text(&output.stderr));
    };
    let doctor = || text(&bench.run(&["doctor", "--threads", "2"]).stdout);
    compiled("; not calibrated: run `amc doctor --calibrate`)");
    assert!(doctor().contains("rates      not calibrated"), "{}", doctor());
    let features = ["avx2", "fma", "f16c", "bmi2"].map(String::from);
    let machine = amc_artifact::rates::Host::here(&features, amc_runtime::session::default_threads());
    let path = machine.path(&bench.path("cache/rates"));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "{").unwrap();
    if amc_codegen::host_target().unwrap().lanes == 8 {
        compiled("cannot be used: it does not hold rates");
    }
    let output = bench.run(&["compile", "r.yaml", "--target", "null", "-o", "n"]);
    assert!(output.status.success() && !text(&output.stdout).contains("forecast:"), "{}", text(&output.stdout));
    let output = bench.run(&["compile", "r.yaml", "--target", "cuda:sm_90a", "-o", "g"]);
    let forecast = text(&output.stdout).lines().find(|line| line.starts_with("forecast: ")).map(String::from);
    let forecast = forecast.unwrap_or_else(|| panic!("{}{}", text(&output.stdout), text(&output.stderr)));
    assert!(forecast.contains(" s a step at the least, ") && forecast.contains(" tokens/s at the most"), "{forecast}");
    assert!(forecast.contains("(nominal, not measured: an H100 SXM at its peaks of 989.4 TFLOP/s"), "{forecast}");
    assert!(!forecast.contains("no rate for"), "{forecast}");
    let said = text(&bench.run(&["run", "n", "--steps", "1", "--profile=t.json"]).stdout);
    assert!(said.contains("--profile: the artifact's target is null") && !bench.path("t.json").exists(), "{said}");
}

#[test]
fn nobody_has_to_read_what_is_printed() {
    let bench = Bench::new();
    for arguments in
        [&["check", "r.yaml"][..], &["compile", "r.yaml", "--stop-after", "train", "--print-after", "autodiff"]]
    {
        let mut child = bench.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {} {}", output.status, text(&output.stderr));
    }
}

#[test]
fn a_budget_that_is_too_small_names_the_largest_microbatch_that_fits() {
    let bench = Bench::new();
    bench.rows(&format!("{{\"input_ids\": [{}]}}\n", vec!["7"; 513].join(", ")).repeat(16));
    let compile = |rows: usize, budget: &str| {
        let set = [("global_batch_size", rows.to_string()), ("local_batch_size", rows.to_string())]
            .map(|(key, value)| format!("step_scheduler.{key}={value}"));
        let budget = format!("amc.memory_budget={budget}");
        bench.run(&[
            "compile", "r.yaml", "--target", "null", "-o", "a", "--set", &set[0], "--set", &set[1], "--set", &budget,
        ])
    };
    let output = compile(16, "68MiB");
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("the budget is 68.0 MiB"), "{said}");
    let most = said.split("a local_batch_size of ").nth(1).and_then(|rest| rest.split(' ').next());
    let most: usize = most.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no microbatch: {said}"));
    assert!((1..16).contains(&most), "{said}");
    assert!(compile(most, "68MiB").status.success(), "{most} rows were said to fit");
    assert!(!compile(most + 1, "68MiB").status.success(), "more than {most} rows fit");
    let said = text(&compile(16, "61MiB").stderr);
    assert!(said.contains("no smaller microbatch fits"), "{said}");
}

/// Copies of frozen weights, packed once, make a run faster and nothing else; a budget takes them away first.
#[test]
fn weights_that_are_packed_once_change_no_bit() {
    let bench = Bench::new();
    bench.without_weights();
    let compiled = |budget: &str| {
        let set = [
            "model.torch_dtype=float32",
            "peft._target_=nemo_automodel.components._peft.lora.PeftConfig",
            "peft.target_modules=*_proj",
            &format!("amc.memory_budget={budget}"),
        ];
        let set: Vec<&str> = set.iter().flat_map(|key| ["--set", key]).collect();
        let output = bench.run(&[&["compile", "r.yaml", "--target", "cpu", "-o", "a"], &set[..]].concat());
        let said = text(&output.stdout);
        assert!(output.status.success(), "{said}{}", text(&output.stderr));
        let packs = text(&bench.run(&["show", "a", "plan", "--program", "pack"]).stdout).matches("// pack: ").count();
        let size = said.lines().find_map(|line| line.split_once(" kernels, ")?.1.strip_suffix(" MiB in all"));
        (packs, size.and_then(|size| size.parse::<f64>().ok()).unwrap_or_else(|| panic!("no size in {said}")))
    };
    let trained = || {
        let output = bench.run(&["run", "a"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let model = bench.path("checkpoints/LATEST/model/adapter_model.safetensors");
        let adapter = std::fs::read(model).unwrap();
        std::fs::remove_dir_all(bench.path("checkpoints")).unwrap();
        adapter
    };
    let (packs, size) = compiled("1GiB");
    assert!(packs > 0, "nothing is packed");
    let packed = trained();
    let (fewer, _) = compiled(&format!("{:.1}MiB", size - 0.3));
    assert!(fewer < packs, "{fewer} of {packs} copies within a budget that is too small for all");
    assert!(trained() == packed, "copies change what is trained");
}

#[test]
fn a_tuned_model_has_the_config_and_the_memory_that_it_was_trained_with() {
    let bench = Bench::new();
    let output = bench.run(&["finetune", "llm", "-c", "r.yaml", "--model.rope_theta=500.0", "--steps", "1"]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    let peak = said.split("peak memory ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    let peak = peak.unwrap_or_else(|| panic!("no peak in {said}"));
    // Compiling takes some 0.2 GiB.
    assert!(peak < 0.1, "{said}");
    let config = std::fs::read(bench.path("checkpoints/LATEST/model/consolidated/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!((&config["rope_theta"], &config["hidden_size"]), (&500.0.into(), &64.into()));

    let adapter = ["--peft._target_=nemo_automodel.components._peft.lora.PeftConfig", "--peft.target_modules=q_proj"];
    let output = bench.run(&["check", "r.yaml", "--model.rope_theta=500.0", adapter[0], adapter[1]]);
    let said = text(&output.stderr);
    assert!(output.status.success() && said.contains("cannot record changes to its model's config.json"), "{said}");
    assert!(said.contains("`rope_theta` = 500.0"), "{said}");
}

#[test]
fn a_graph_that_is_shown_is_one_that_opt_reads() {
    let bench = Bench::new();
    let set = ["--validation_dataset._target_=amc.datasets.TokenFile", "--validation_dataset.path=rows.jsonl"];
    let output = bench.run(&["compile", "r.yaml", "--target", "null", "-o", "a", set[0], set[1]]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = error(&bench, &["show", "a", "ir"]);
    assert!(said.contains("choose one with --program, of train_3x8, evaluate_3x8, update"), "{said}");
    let said = error(&bench, &["show", "a", "ir", "--program", "train_3x8", "--phase", "x"]);
    assert!(said.contains("the phases are forward, tidy, train, tidy_again, fuse"), "{said}");
    let graph = bench.run(&["show", "a", "ir", "--program", "train_3x8"]).stdout;
    std::fs::write(bench.path("graph.amc"), &graph).unwrap();
    let output = bench.run(&["opt", "graph.amc"]);
    assert!(output.status.success() && text(&graph).ends_with(&text(&output.stdout)), "{}", text(&output.stderr));
}

#[test]
fn a_gpu_is_compiled_for_where_there_is_none() {
    let bench = Bench::new();
    for target in ["cuda:sm_80", "cuda:sm_90a"] {
        let output = bench.run(&["compile", "r.yaml", "--target", target, "-o", "a"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let code = std::fs::read_to_string(bench.path("a/kernels/kernels.ptx")).unwrap();
        assert!(code.contains(&target.replace("cuda:", ".target ")), "{target}");
        let output = bench.on_machine(NO_DRIVER, &["run", "a"]);
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.starts_with("error: this machine has no NVIDIA driver ("), "{said}");
        for wanted in ["libcuda.so.1: ", "install one for CUDA 12.1 or later", "with `amc compile --target cpu`"] {
            assert!(said.contains(wanted), "{said}");
        }
    }
    let output = bench.run(&["verify", "a"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = error(&bench, &["compile", "r.yaml", "--target", "cuda:sm_61"]);
    assert!(said.contains("`cuda:` with one of sm_80, sm_90a"), "{said}");
    let said = text(&bench.on_machine(NO_DRIVER, &["doctor"]).stdout);
    assert!(said.contains("gpu        none: this machine has no NVIDIA driver ("), "{said}");
}

#[test]
fn a_run_of_drawn_weights_wants_a_folder_for_its_config() {
    let bench = Bench::new();
    bench.without_weights();
    let compile = |target| ["compile", "r.yaml", "--target", target, "-o", "a", "--model.config=model/config.json"];
    let said = error(&bench, &compile("cuda:sm_80"));
    assert!(said.contains("--set model.config=model/config.json: model/config.json is a file"), "{said}");
    assert!(said.contains("a run wants a folder with config.json, which its checkpoints carry"), "{said}");
    let output = bench.run(&compile("null"));
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn the_recipe_of_eight_billion_parameters_compiles_for_a_gpu() {
    let bench = Bench::new();
    let mut command = bench.command(&["compile", "recipes/bench/llama3_8b_lora.yaml", "--target", "cuda:sm_90a", "-o"]);
    let output = command.arg(bench.path("a")).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert!(said.contains("41943040 trained parameters") && said.contains("shapes 2x4096"), "{said}");
}
