//! Text in, text out: every file of `tests/passes/<pass>/` is a module, what to run on it, and what comes out.
//!
//! A file starts with `// run: PASS …` and, for gradients, `// train: PARAM …`; behind the line `// ----` stands the result.
//! `AMC_BLESS=1` (`./x bless`) writes it.
#![cfg(feature = "compiler")]
#[path = "support/random_graphs.rs"]
mod random_graphs;
#[path = "support/stages.rs"]
mod stages;

use amc::commands::opt::optimise;
use std::path::{Path, PathBuf};

const DIVIDER: &str = "// ----\n";

#[test]
fn passes_give_the_text_that_stands_beside_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/passes");
    let mut failures = vec![];
    let files = files(&root);
    assert!(files.len() >= 7, "the tests are there: {files:?}");
    for path in files {
        if let Err(difference) = check(&path) {
            failures.push(format!("{}:\n{difference}", path.strip_prefix(&root).unwrap_or(&path).display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn files(root: &Path) -> Vec<PathBuf> {
    let list = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder).expect("a folder of tests").map(|e| e.expect("an entry").path()).collect()
    };
    let mut files: Vec<PathBuf> = list(root).iter().filter(|p| p.is_dir()).flat_map(|folder| list(folder)).collect();
    files.sort();
    files
}

fn check(path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let (source, wanted) = text.split_once(DIVIDER).unwrap_or((&text, ""));
    let words = |key: &str| -> Vec<String> {
        let line = source.lines().find_map(|line| line.strip_prefix(&format!("// {key}: ")));
        line.unwrap_or_default().split_whitespace().map(String::from).collect()
    };
    let found = match optimise(source, &words("run"), &words("train")) {
        Ok(found) => found,
        Err(error) => format!("{error:#}\n"),
    };
    if found == wanted {
        return Ok(());
    }
    if std::env::var_os("AMC_BLESS").is_some() {
        return std::fs::write(path, format!("{source}{DIVIDER}{found}")).map_err(|e| e.to_string());
    }
    Err(format!("found\n{found}\nwanted\n{wanted}\n`./x bless` accepts what was found"))
}
