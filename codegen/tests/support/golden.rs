//! Golden files of the generated code.
use std::path::Path;

/// Which LLVM made the code: with another, the figures may be others.
pub fn llvm() -> String {
    let (major, minor, patch) = inkwell::support::get_llvm_version();
    format!("LLVM {major}.{minor}.{patch}")
}

/// Compares a page with its golden file.
pub fn compare(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    if golden == page {
        return;
    }
    if std::env::var_os("AMC_BLESS").is_some() {
        return std::fs::write(&path, page).expect("writing the golden file");
    }
    let lines = |text: &str, other: &str, sign: char| -> String {
        text.lines().filter(|line| !other.lines().any(|l| l == *line)).map(|line| format!("{sign} {line}\n")).collect()
    };
    panic!(
        "codegen/tests/golden/{name} is stale (`./x bless` writes it):\n{}{}",
        lines(&golden, page, '-'),
        lines(page, &golden, '+')
    );
}
