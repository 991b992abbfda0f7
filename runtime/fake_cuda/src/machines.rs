//! Machines that tests pretend to be on.
use crate::SETTINGS;
use crate::settings::{CUBLASLT, LACKS, NCCL};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The machine whose driver cannot be loaded, whatever this one has.
pub const NO_DRIVER: &str = "no driver";

/// Names under which the driver's library is looked for.
const DRIVER: [&str; 2] = ["libcuda.so", "libcuda.so.1"];
/// Names of cuBLASLt's releases, by their numbers.
const CUBLASLT_FILES: [(&str, &str); 2] = [("12", "libcublasLt.so.12"), ("13", "libcublasLt.so.13")];
/// The environment variable with the folder of a virtual environment, and where release 13 is in it.
const ENVIRONMENT: &str = "VIRTUAL_ENV";
const INSTALLED: &str = "lib/python3.11/site-packages/nvidia/cu13/lib";
/// NCCL's name, and where it is in a virtual environment.
const NCCL_FILE: &str = "libnccl.so.2";
const NCCL_INSTALLED: &str = "lib/python3.11/site-packages/nvidia/nccl/lib";

/// Runs `body` on each of the machines, in a process of its own whose loader finds the fake driver: the calling test,
/// whose name is `test`, again. Settings are those of [`SETTINGS`], or [`NO_DRIVER`].
///
/// # Panics
/// If the test fails on one of them.
pub fn on_machines(test: &str, machines: &[&str], body: impl FnOnce(&str)) {
    if let Ok(settings) = std::env::var(SETTINGS) {
        return body(&settings);
    }
    for settings in machines {
        let mut again = Command::new(std::env::current_exe().expect("a test knows its file"));
        again.args([test, "--exact", "--nocapture"]);
        let folder = put_on(&mut again, settings);
        let output = again.output().expect("a test can be started");
        drop(folder);
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(output.status.success() && said.contains("1 passed"), "on a machine with `{settings}`:\n{said}");
    }
}

/// Makes the loader of a program find the libraries of such a machine; the folder that they are in must outlive the program.
///
/// # Panics
/// If the folder cannot be made.
pub fn put_on(program: &mut Command, settings: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let word = |name: &str| settings.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let ours = word(LACKS).map_or_else(fake_driver, |function| without(function, folder.path()));
    let put = |name: &str, there: bool| {
        let library = folder.path().join(name);
        match there {
            true => symlink(&ours, library),
            false => std::fs::write(library, "not a library"),
        }
        .expect("a file in a temporary folder");
    };
    DRIVER.iter().for_each(|name| put(name, settings != NO_DRIVER));
    let releases = word(CUBLASLT);
    CUBLASLT_FILES.iter().for_each(|(number, name)| put(name, releases.is_none_or(|release| release == *number)));
    put(NCCL_FILE, word(NCCL).is_none());
    program.env("LD_LIBRARY_PATH", folder.path()).env(SETTINGS, settings).env_remove(ENVIRONMENT);
    let installed = [(releases, INSTALLED, CUBLASLT_FILES[1].1), (word(NCCL), NCCL_INSTALLED, NCCL_FILE)];
    for (_, place, file) in installed.into_iter().filter(|(place, ..)| *place == Some("environment")) {
        let place = folder.path().join(place);
        std::fs::create_dir_all(&place).expect("a folder in a temporary folder");
        symlink(&ours, place.join(file)).expect("a file in a temporary folder");
        program.env(ENVIRONMENT, folder.path());
    }
    folder
}

/// The shared object, which is built beside the tests that use it.
fn fake_driver() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its file");
    let library = test.with_file_name("libamc_fake_cuda.so");
    assert!(library.exists(), "{} is built with the tests", library.display());
    library
}

/// A copy of it in which the name of a function is another.
fn without(function: &str, folder: &Path) -> PathBuf {
    let mut bytes = std::fs::read(fake_driver()).expect("the fake driver");
    let name = format!("\0{function}\0").into_bytes();
    let places: Vec<usize> = (0..bytes.len() - name.len()).filter(|at| bytes[*at..].starts_with(&name)).collect();
    assert!(!places.is_empty(), "the fake driver has `{function}`");
    places.into_iter().for_each(|at| bytes[at + 1] = b'_');
    let copy = folder.join("lacking.so");
    std::fs::write(&copy, bytes).expect("a file in a temporary folder");
    copy
}
