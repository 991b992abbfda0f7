//! Joins objects into a shared object with a linker found on PATH.
use crate::Error;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Linkers first, because a compiler driver adds the defaults of its distribution to the command.
const LINKERS: [(&str, Driver); 7] = [
    ("ld", Driver::Linker),
    ("ld.lld", Driver::Linker),
    ("ld.bfd", Driver::Linker),
    ("mold", Driver::Linker),
    ("cc", Driver::Compiler),
    ("gcc", Driver::Compiler),
    ("clang", Driver::Compiler),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Driver {
    Linker,
    Compiler,
}

/// A linker and how it wants to be spoken to.
#[derive(Debug)]
pub struct Linker {
    pub path: PathBuf,
    driver: Driver,
}

/// The first of the known linkers that is on PATH.
pub fn find() -> Result<Linker, Error> {
    find_in(&env::var_os("PATH").unwrap_or_default())
}

fn find_in(path: &std::ffi::OsStr) -> Result<Linker, Error> {
    let folders: Vec<PathBuf> = env::split_paths(path).collect();
    for (name, driver) in LINKERS {
        if let Some(path) = folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file()) {
            return Ok(Linker { path, driver });
        }
    }
    let looked_for = LINKERS.map(|(name, _)| format!("`{name}`")).join(", ");
    Err(Error::NoLinker { looked_for })
}

/// Links `objects` in order. Nothing of the place or time goes into the result: no build id, no symbols but the
/// exported ones, no file names; an undefined symbol is an error.
pub fn shared_object(linker: &Linker, objects: &[Vec<u8>]) -> Result<Vec<u8>, Error> {
    let folder = tempfile::tempdir().map_err(io("making a temporary folder for objects"))?;
    let result = folder.path().join("kernels.so");
    let mut files = String::new();
    for (i, object) in objects.iter().enumerate() {
        let name = format!("{i:06}.o");
        fs::write(folder.path().join(&name), object).map_err(io("writing an object"))?;
        files += &format!("{name}\n");
    }
    fs::write(folder.path().join("objects"), files).map_err(io("writing the list of objects"))?;
    let output = command(linker, folder.path()).output().map_err(io(&format!("starting {}", linker.path.display())))?;
    if !output.status.success() {
        let found = String::from_utf8_lossy(&output.stderr).trim().to_string();
        return Err(Error::Link { linker: linker.path.display().to_string(), found });
    }
    fs::read(result).map_err(io("reading the linked object"))
}

fn command(linker: &Linker, folder: &Path) -> Command {
    let mut command = Command::new(&linker.path);
    command.current_dir(folder).env("LC_ALL", "C").args(["-shared", "-s", "-o", "kernels.so", "@objects"]);
    let options = ["--build-id=none", "--hash-style=gnu", "--no-undefined", "-znoexecstack", "-soname=kernels.so"];
    match linker.driver {
        Driver::Linker => command.args(options),
        Driver::Compiler => command.arg("-nostdlib").args(options.map(|option| format!("-Wl,{option}"))),
    };
    command
}

fn io(what: &str) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.to_string();
    |error| Error::Io { what, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_linker_is_a_sentence() {
        let empty = tempfile::tempdir().unwrap();
        let error = find_in(empty.path().as_os_str()).unwrap_err().to_string();
        assert!(error.starts_with("no linker found on PATH (looked for `ld`, "), "{error}");
    }
}
