//! Counts instructions with valgrind's callgrind, which runs this test program once more: [`OBJECT`] tells it to call
//! each kernel once and nothing else.
use super::problems::Problem;
use amc_codegen::shared_object;
use amc_kernels::Target;
use libloading::Library;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

type Entry = unsafe extern "C" fn(*const *mut u8, i64, i64, *mut u8);

/// Names the shared object of the kernels in the environment of the run that is counted.
const OBJECT: &str = "AMC_COUNTED_OBJECT";

/// The shared object whose kernels this process is to call, if it is the one that is counted.
pub fn object_to_count() -> Option<PathBuf> {
    std::env::var_os(OBJECT).map(PathBuf::from)
}

/// Calls every kernel once with all of its tasks.
pub fn call_all(object: &Path, problems: &mut [Problem]) {
    // SAFETY: the object was built from these kernels, which have no initialisers.
    let library = unsafe { Library::new(object) }.expect("loading the shared object");
    for problem in problems {
        let kernel = &problem.kernel;
        let mut scratch = vec![0u64; kernel.scratch_bytes.div_ceil(8) as usize];
        let pointers: Vec<*mut u8> = problem.operands.iter_mut().map(|operand| operand.as_mut_ptr()).collect();
        // SAFETY: the symbol has the kernels' calling convention; operands and scratch are as large as it says.
        unsafe {
            let entry = library.get::<Entry>(&kernel.symbol).expect("the kernel's symbol");
            entry(pointers.as_ptr(), 0, i64::from(kernel.tasks), scratch.as_mut_ptr().cast());
        }
    }
}

/// Instructions of one call of every kernel, those of its functions included. `test` is the name of the test that
/// calls [`call_all`] in the run that is counted.
pub fn instructions(problems: &[Problem], target: &Target, test: &str) -> Vec<u64> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (object, counts) = (folder.path().join("kernels.so"), folder.path().join("callgrind.out"));
    let mut kernels: Vec<_> = problems.iter().map(|problem| problem.kernel.clone()).collect();
    kernels.sort_by(|a, b| a.symbol.cmp(&b.symbol));
    kernels.dedup();
    let bytes = shared_object(&kernels, target).unwrap_or_else(|error| panic!("{error}"));
    std::fs::write(&object, bytes).expect("writing the shared object");
    let program = std::env::current_exe().expect("this test's program");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--compress-strings=no", "--compress-pos=no"])
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .arg(program)
        .args([test, "--exact", "--nocapture"])
        .env(OBJECT, &object)
        .output();
    let output = output.unwrap_or_else(|error| {
        panic!("valgrind, which counts the instructions, cannot be started ({error}): install the package `valgrind`, as `./x setup` does")
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "valgrind, which counts the instructions, failed:\n{said}");
    let counted = std::fs::read_to_string(&counts).expect("what callgrind counted");
    let inclusive = calls(&counted);
    let of = |problem: &Problem| match inclusive.get(problem.kernel.symbol.as_str()) {
        Some(&(1, cost)) => cost,
        other => {
            panic!("{}: callgrind saw (calls, instructions) {other:?}, one call was wanted:\n{said}", problem.name)
        }
    };
    problems.iter().map(of).collect()
}

/// How often every function was called, and the instructions that these calls took.
///
/// In callgrind's file `cfn=` names a function that is called, `calls=` says how often, and the line after that has a
/// position and the cost.
fn calls(text: &str) -> HashMap<&str, (u64, u64)> {
    let mut all: HashMap<&str, (u64, u64)> = HashMap::new();
    let mut lines = text.lines();
    let mut callee = "";
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("cfn=") {
            callee = name;
        } else if let Some(rest) = line.strip_prefix("calls=") {
            let number = |word: Option<&str>| word.and_then(|w| w.parse::<u64>().ok()).expect("callgrind's numbers");
            let count = number(rest.split(' ').next());
            let cost = number(lines.next().and_then(|line| line.split(' ').nth(1)));
            let entry = all.entry(callee).or_default();
            *entry = (entry.0 + count, entry.1 + cost);
        }
    }
    all
}
