//! Whole models against Hugging Face: logits, loss, every gradient and three optimizer steps, for full fine-tuning and LoRA,
//! through compiled code; documents in rows of their own and packed into one, and on the CPU read behind a cache.
//!
//! Cases are the folders of `$AMC_ORACLE_DIR` (default `tests/oracle`), or those that `$AMC_ORACLE_CASES` names
//! (separated by commas, `*` stands for anything), compiled for `$AMC_ORACLE_TARGET` (default `cpu`; the code for a GPU
//! runs on the fake driver, in the interpreter, or with `$AMC_TEST_GPU` on the GPU that there is). The last line is `oracle: N of M cases`.
#[path = "support/oracle/mod.rs"]
mod oracle;
#[path = "support/stages.rs"]
mod stages;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    // A runner that asks for names of tests gets none: the cases are no tests of its own.
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let folder = std::env::var_os("AMC_ORACLE_DIR").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle"));
    let cases = match cases(&folder) {
        Ok(cases) => cases,
        Err(error) => {
            eprintln!("{}: {error}", folder.display());
            return ExitCode::FAILURE;
        }
    };
    let target = std::env::var("AMC_ORACLE_TARGET").unwrap_or_else(|_| "cpu".into());
    let found = ["AMC_TEST_GPU", amc_fake_cuda::SETTINGS].iter().any(|name| std::env::var_os(name).is_some());
    if target.starts_with("cuda") && !found {
        return again_on_a_gpu();
    }
    let mut passed = 0;
    for case in &cases {
        let name = case.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let outcome = catch_unwind(AssertUnwindSafe(|| oracle::check(case, &target)));
        match outcome {
            Ok(Ok(worst)) => {
                passed += 1;
                println!("{name}: ok ({worst})");
            }
            Ok(Err(error)) => println!("{name}: FAILED: {error:#}"),
            Err(_) => println!("{name}: FAILED: panicked"),
        }
    }
    println!("oracle: {passed} of {} cases", cases.len());
    if passed == cases.len() && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The fake driver is found by a new process only.
fn again_on_a_gpu() -> ExitCode {
    let mut again = Command::new(std::env::current_exe().expect("a test knows its file"));
    let _driver = amc_fake_cuda::put_on(&mut again, "capability=9.0 memory=17179869184");
    if again.status().is_ok_and(|status| status.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Folders with a `config.json`, sorted, that the environment asks for.
fn cases(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let wanted = std::env::var("AMC_ORACLE_CASES").unwrap_or_else(|_| "*".into());
    let patterns: Vec<&str> = wanted.split(',').map(str::trim).filter(|p| !p.is_empty()).collect();
    let mut cases = vec![];
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.join("config.json").is_file() && patterns.iter().any(|pattern| matches(pattern, &name)) {
            cases.push(path);
        }
    }
    cases.sort();
    Ok(cases)
}

/// Whether `name` fits a pattern in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name
            .strip_prefix(head)
            .is_some_and(|rest| (0..=rest.len()).any(|i| rest.is_char_boundary(i) && matches(tail, &rest[i..]))),
    }
}
