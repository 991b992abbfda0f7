//! NVIDIA's assembler: found where `./x test` installs it, run on PTX, its report read.
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Ptxas {
    path: PathBuf,
    /// Such as `13.5.37`.
    pub version: String,
}

/// What a kernel needs of the GPU, as the assembler reports it.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub registers: usize,
    pub spill_stores: usize,
    pub spill_loads: usize,
    /// Bytes of shared memory that are not dynamic.
    pub shared: usize,
}

impl Ptxas {
    /// The assembler that `AMC_PTXAS` names, else that of the package in `.amc/venv`.
    pub fn find() -> Option<Ptxas> {
        let named = std::env::var_os("AMC_PTXAS").map(PathBuf::from);
        let path = named.or_else(installed)?;
        let output = Command::new(&path).arg("--version").output();
        let output = output.unwrap_or_else(|error| panic!("{} does not run: {error}", path.display()));
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.split_once(", V").and_then(|(_, rest)| rest.lines().next());
        let version = version.unwrap_or_else(|| panic!("{} says no version but: {text}", path.display())).to_string();
        Some(Ptxas { path, version })
    }

    /// What the kernels of a module need, by their symbols.
    pub fn assemble(&self, text: &str, architecture: &str) -> Vec<(String, Usage)> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("kernels.ptx");
        std::fs::write(&file, text).expect("writing PTX");
        let mut command = Command::new(&self.path);
        command.args(["-v", "--opt-level", "3", "--gpu-name", architecture, "--output-file", "kernels.cubin"]);
        let output = command.arg(&file).current_dir(&folder).output().expect("ptxas runs");
        let report = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "ptxas refuses the kernels for {architecture}:\n{}", without_notes(&report));
        let slow = report.lines().find(|line| line.contains("C75"));
        assert!(slow.is_none(), "ptxas serialises wgmma for {architecture}: {}", slow.unwrap_or_default());
        let kept = report.lines().find(|line| line.contains("setmaxnreg"));
        assert!(kept.is_none(), "ptxas leaves registers where they are: {}", kept.unwrap_or_default());
        usages(&report)
    }
}

fn installed() -> Option<PathBuf> {
    let libraries = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.amc/venv/lib");
    let folders = |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let packages = folders(libraries).flat_map(|python| folders(python.join("site-packages/nvidia")));
    packages.map(|package| package.join("bin/ptxas")).find(|path| path.is_file())
}

/// The lines of a report that are no mere information.
fn without_notes(report: &str) -> String {
    report
        .lines()
        .filter(|line| !line.starts_with("ptxas info") && !line.starts_with(' '))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Kernels and their needs from lines such as
/// `ptxas info    : Compiling entry function 'norm' for 'sm_80'`,
/// `    0 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads` and
/// `ptxas info    : Used 40 registers, used 1 barriers, 16 bytes smem, 376 bytes cmem[0]`.
fn usages(report: &str) -> Vec<(String, Usage)> {
    let mut list: Vec<(String, Usage)> = vec![];
    for line in report.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            list.push((rest.split('\'').next().unwrap_or_default().into(), Usage::default()));
        }
        let Some((_, usage)) = list.last_mut() else { continue };
        let before = |unit: &str| -> Option<usize> { line.split_once(unit)?.0.split(' ').next_back()?.parse().ok() };
        usage.spill_stores = before(" bytes spill stores").unwrap_or(usage.spill_stores);
        usage.spill_loads = before(" bytes spill loads").unwrap_or(usage.spill_loads);
        usage.registers = before(" registers").unwrap_or(usage.registers);
        usage.shared = before(" bytes smem").unwrap_or(usage.shared);
    }
    list
}
