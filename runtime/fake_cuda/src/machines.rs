//! Machines that tests pretend to be on.
use crate::SETTINGS;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// The machine whose driver cannot be loaded, whatever this one has.
pub const NO_DRIVER: &str = "no driver";

/// Names under which the driver's library is looked for.
const LIBRARIES: [&str; 2] = ["libcuda.so", "libcuda.so.1"];

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

/// Makes the loader of a program find the driver of such a machine; the folder that it is in must outlive the program.
///
/// # Panics
/// If the folder cannot be made.
pub fn put_on(program: &mut Command, settings: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in LIBRARIES {
        let library = folder.path().join(name);
        match settings {
            NO_DRIVER => std::fs::write(library, "not a library"),
            _ => symlink(fake_driver(), library),
        }
        .expect("a file in a temporary folder");
    }
    program.env("LD_LIBRARY_PATH", folder.path()).env(SETTINGS, settings);
    folder
}

/// The shared object, which is built beside the tests that use it.
fn fake_driver() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its file");
    let library = test.with_file_name("libamc_fake_cuda.so");
    assert!(library.exists(), "{} is built with the tests", library.display());
    library
}
