//! `amc show DIR report`, opened in a headless Chromium: what it shows is what the plan says, and it leads from every part
//! to every other.
#![cfg(feature = "compiler")]
#[path = "support/browser.rs"]
mod browser;

use amc_artifact::{Arg, Artifact, Launch, Program, ProgramKind};
use browser::Browser;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// A recipe that tries to break out of the page: its comment must stay text.
const RECIPE: &str = "\
# </script><script>window.broken = true</script><img src=x onerror=alert(1)>
recipe: TrainFinetuneRecipeForNextTokenPrediction
model:
  _target_: nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained
  pretrained_model_name_or_path: MODEL
peft:
  _target_: nemo_automodel.components._peft.lora.PeftConfig
  target_modules: [q_proj, down_proj]
  dim: 4
dataset:
  _target_: amc.datasets.TokenFile
  path: rows.jsonl
step_scheduler:
  global_batch_size: 2
  local_batch_size: 2
  num_epochs: 1
loss_fn:
  _target_: nemo_automodel.components.loss.masked_ce.MaskedCrossEntropy
optimizer:
  _target_: torch.optim.AdamW
";

struct Bench {
    folder: TempDir,
    artifact: Artifact,
}

impl Bench {
    /// Compiles the recipe without code.
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/llama");
        std::fs::write(folder.path().join("r.yaml"), RECIPE.replace("MODEL", model.to_str().unwrap())).unwrap();
        std::fs::write(folder.path().join("rows.jsonl"), "{\"input_ids\": [1, 5, 9, 7, 2]}\n".repeat(4)).unwrap();
        let output = amc(folder.path(), &["compile", "r.yaml", "--target", "null", "-o", "a"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let artifact = Artifact::open(&folder.path().join("a")).unwrap();
        Bench { folder, artifact }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn report(&self, arguments: &[&str]) -> Output {
        amc(self.folder.path(), &[&["show", "a", "report"], arguments].concat())
    }

    fn program(&self, kind: ProgramKind) -> &Program {
        self.artifact.plan.programs.iter().find(|program| program.kind == kind).unwrap()
    }

    fn symbol(&self, launch: &Launch) -> &str {
        &self.artifact.plan.kernels[launch.kernel as usize].symbol
    }

    /// Whether a launch reads or writes the value or the gradient of a LoRA matrix.
    fn touches_adapter(&self, launch: &Launch) -> bool {
        let inside = |at: u64, offset: u64, bytes: u64| (offset..offset + bytes).contains(&at);
        launch.args.iter().any(|arg| match arg {
            Arg::Arena(at) => self.artifact.plan.params.iter().any(|param| {
                let elements: u64 = param.shape.iter().product();
                let values = elements * param.storage.bytes();
                inside(*at, param.value_offset, values) || inside(*at, param.grad_offset, 4 * elements)
            }),
            _ => false,
        })
    }
}

fn amc(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amc"));
    command.args(arguments).current_dir(folder).env("AMC_CACHE", folder.join("cache")).output().unwrap()
}

#[test]
fn equal_artifacts_have_equal_reports_which_leave_them_valid() {
    let bench = Bench::new();
    assert!(bench.report(&[]).status.success());
    assert!(bench.report(&["-o", "again.html"]).status.success());
    let first = std::fs::read(bench.path("a/report.html")).unwrap();
    assert!(first == std::fs::read(bench.path("again.html")).unwrap());
    assert!(amc(bench.folder.path(), &["verify", "a"]).status.success());
    assert!(!amc(bench.folder.path(), &["show", "a", "plan", "-o", "x"]).status.success());
}

#[test]
fn a_profile_of_another_artifact_is_refused() {
    let bench = Bench::new();
    let event = json!({"name": "no_such_kernel", "cat": bench.program(ProgramKind::Train).name, "ts": 0.0, "dur": 1.0,
        "tid": 0, "args": {"launch": 0}});
    for (trace, wanted) in [
        (
            json!({"traceEvents": [event]}),
            "event 0: launch 0 of train_2x8 ran no_such_kernel, the artifact has embedding",
        ),
        (json!({"traceEvents": [{"ts": -1}]}), "event 0: `cat` is no text"),
        (json!([]), "no list `traceEvents`"),
    ] {
        std::fs::write(bench.path("t.json"), trace.to_string()).unwrap();
        let said = bench.report(&["--profile", "t.json"]);
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains("profile t.json") && said.contains(wanted), "{said}");
    }
}

/// A trace in which launch `i` takes `i + 1` microseconds.
fn trace(bench: &Bench, program: &Program) -> Value {
    let mut at = 0.0;
    let events = program.launches.iter().enumerate().map(|(index, launch)| {
        let duration = (index + 1) as f64;
        at += duration;
        json!({"name": bench.symbol(launch), "cat": program.name, "ph": "X", "ts": at - duration, "dur": duration,
            "tid": index % 2, "args": {"launch": index}})
    });
    json!({"traceEvents": events.collect::<Vec<_>>()})
}

#[test]
fn the_page_shows_the_plan_and_leads_from_every_part_to_every_other() {
    let bench = Bench::new();
    std::fs::write(bench.path("t.json"), trace(&bench, bench.program(ProgramKind::Train)).to_string()).unwrap();
    let output = bench.report(&["--profile", "t.json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut browser = Browser::start();
    browser.open(&format!("file://{}", bench.path("a/report.html").display()));
    counts(&bench, &mut browser);
    one_launch(&bench, &mut browser);
    kernels(&bench, &mut browser);
    from_source_to_launches(&bench, &mut browser);
    pointer_and_keys(&bench, &mut browser);
    memory(&bench, &mut browser);
    assert_eq!(browser.evaluate("window.broken === undefined"), true);
    assert_eq!(browser.complaints, Vec::<String>::new());
}

fn counts(bench: &Bench, browser: &mut Browser) {
    for program in &bench.artifact.plan.programs {
        browser.go(&format!("program={}", program.name));
        let found = browser.evaluate("[timeline.dataset.launches, memory.dataset.buffers].map(Number)");
        assert_eq!(found, json!([program.launches.len(), program.buffers.len()]), "{}", program.name);
        browser.go(&format!("program={}&view=kernels", program.name));
        let kernels: BTreeSet<u32> = program.launches.iter().map(|launch| launch.kernel).collect();
        let computing =
            kernels.iter().filter(|index| bench.artifact.plan.kernels[**index as usize].work.operations > 0).count();
        assert_eq!(browser.texts("#kernel-table tbody tr").len(), kernels.len());
        // Only a program that was measured surely has times: rates may be wanting.
        let shown = browser.texts("#roofline circle").len();
        assert!(shown == computing || program.kind == ProgramKind::Update && shown == 0, "{shown} of {computing}");
    }
}

/// Every launch shows its kernel, module and the line of the graph that computes it.
fn one_launch(bench: &Bench, browser: &mut Browser) {
    for program in &bench.artifact.plan.programs {
        for (index, launch) in program.launches.iter().enumerate() {
            browser.go(&format!("program={}&launch={index}", program.name));
            let shown = browser.texts("#details").concat();
            let symbol = bench.symbol(launch);
            for wanted in [symbol, launch.label.as_str(), launch.module.as_str()] {
                assert!(shown.contains(wanted), "launch {index}: {wanted} is not in {shown}");
            }
            let (_, value) = launch.label.split_once(": ").unwrap();
            let (value, _) = value.split_once(' ').unwrap();
            let lines = browser.texts("#launch-graph .lit .text");
            let defines = |line: &String| {
                line.split_once(" = ")
                    .is_some_and(|(results, _)| results.split(',').any(|result| result.trim() == value))
            };
            assert!(lines.iter().any(defines), "launch {index}, {}: {lines:?}", launch.label);
            let adapted = !browser.texts("#details [data-key=peft]").is_empty();
            let wanted = program.kind == ProgramKind::Train && bench.touches_adapter(launch);
            assert_eq!(adapted, wanted, "launch {index}, {}", launch.label);
        }
    }
    browser.go("program=update&launch=0");
    let keys = "[...document.querySelectorAll('#details [data-key]')].map((it) => it.dataset.key)";
    assert_eq!(browser.evaluate(keys), json!(["clip_grad_norm"]));
}

fn kernels(bench: &Bench, browser: &mut Browser) {
    let program = bench.program(ProgramKind::Train);
    let of = |kernel: u32| program.launches.iter().filter(|launch| launch.kernel == kernel).count();
    let most = program.launches.iter().map(|launch| of(launch.kernel)).max().unwrap();
    browser.go(&format!("program={}&view=kernels", program.name));
    browser.click("[data-sort=count]");
    browser.wait_for("location.hash.includes('sort=-count')");
    browser.wait_for("document.querySelector('th[aria-sort=descending]')?.textContent.startsWith('launches')");
    assert_eq!(browser.texts("#kernel-table tbody tr:first-child td:nth-child(3)"), [most.to_string()]);
    browser.click("[data-sort=count]");
    browser.wait_for("document.querySelector('th[aria-sort=ascending]') !== null");
    assert_eq!(browser.texts("#kernel-table tbody tr:last-child td:nth-child(3)"), [most.to_string()]);
    browser.click("#kernel-filter");
    browser.ask("Input.insertText", json!({"text": "norm grad"}));
    browser.wait_for("location.hash.includes('filter=norm+grad')");
    let rows = browser.texts("#kernel-table tbody td:first-child");
    assert!(!rows.is_empty() && rows.iter().all(|row| row.starts_with("rms_norm_grad")), "{rows:?}");
}

fn from_source_to_launches(bench: &Bench, browser: &mut Browser) {
    let program = bench.program(ProgramKind::Train);
    browser.go(&format!("program={}&view=source", program.name));
    assert_eq!(browser.texts("#recipe [data-line='1'] .text"), [RECIPE.lines().next().unwrap()]);
    browser.click("#recipe [data-line='9'] .number");
    browser.wait_for("location.hash.includes('recipe=0')");
    let adapted = program.launches.iter().filter(|launch| bench.touches_adapter(launch)).count();
    browser.wait_for(&format!("document.querySelector('#set-count')?.textContent === '{adapted}'"));
    browser.click("#modules [data-module='model.layers.0']");
    browser.wait_for("location.hash.includes('module=model.layers.0')");
    let within = program.launches.iter().filter(|l| format!("{}.", l.module).starts_with("model.layers.0.")).count();
    browser.wait_for(&format!("document.querySelector('#set-count')?.textContent === '{within}'"));
    let launch = program.launches.iter().position(|launch| launch.label.contains("attention_grad")).unwrap();
    browser.go(&format!("program={}&view=source&launch={launch}", program.name));
    browser.click("#graph .lit.linked .number");
    browser.wait_for("location.hash.includes('line=')");
    browser.wait_for(&format!("document.querySelector('#details .launches')?.textContent.includes('#{launch} ')"));
    browser.go(&format!("program={}&view=source&phase=forward", program.name));
    assert!(browser.texts("#graph .text").concat().contains("func @"));
    assert_eq!(browser.texts("#graph .linked").len(), 0, "values have other numbers in other phases");
}

fn pointer_and_keys(bench: &Bench, browser: &mut Browser) {
    let program = bench.program(ProgramKind::Train);
    browser.go(&format!("program={}&clock=launches", program.name));
    browser.click_at("#timeline", 0.5, 0.9);
    browser.wait_for("location.hash.includes('launch=')");
    let launch = browser.evaluate("Number(new URLSearchParams(location.hash.slice(1)).get('launch'))");
    let launch = launch.as_u64().unwrap();
    // The axis begins a margin of 64 pixels in.
    let width = browser.evaluate("timeline.clientWidth").as_f64().unwrap();
    let wanted = (width / 2.0 - 64.0) / (width - 64.0) * program.launches.len() as f64;
    assert!((launch as f64 - wanted).abs() <= 1.0, "clicked at {wanted}, selected {launch}");
    browser.press("ArrowRight");
    browser.wait_for(&format!("location.hash.includes('launch={}')", launch + 1));
    browser.press("]");
    let kernel = program.launches[launch as usize + 1].kernel;
    let next = program.launches.iter().enumerate().skip(launch as usize + 2).find(|(_, l)| l.kernel == kernel);
    let next = next.map_or(launch + 1, |(index, _)| index as u64);
    browser.wait_for(&format!("location.hash.includes('launch={next}')"));
    browser.press("Escape");
    browser.wait_for("!location.hash.includes('launch=')");
    browser.go(&format!("program={}&launch=4", program.name));
    assert!(browser.texts("#details dl").concat().contains("measured5.00 µs"));
}

fn memory(bench: &Bench, browser: &mut Browser) {
    let program = bench.program(ProgramKind::Train);
    let largest = program.buffers.iter().enumerate().max_by_key(|(_, buffer)| buffer.bytes).unwrap();
    browser.go(&format!("program={}&buffer={}", program.name, largest.0));
    let shown = browser.texts("#details").concat();
    assert!(shown.contains(&largest.1.label) && shown.contains(&format!("#{} ", largest.1.first)), "{shown}");
    browser.press("p");
    browser.wait_for("location.hash.includes('peak=1')");
    let live = |at: u32| program.buffers.iter().filter(move |b| b.first <= at && at <= b.last);
    let sum = |at: u32| live(at).map(|buffer| buffer.bytes).sum::<u64>();
    let peak = (0..program.launches.len() as u32).rev().max_by_key(|at| sum(*at)).unwrap();
    browser.wait_for(&format!("document.querySelectorAll('#peak-list a').length === {}", live(peak).count()));
}
