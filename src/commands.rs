//! A file per sub-command.
#[cfg(feature = "compiler")]
pub mod check;
#[cfg(feature = "compiler")]
pub mod compile;
#[cfg(feature = "compiler")]
pub mod data;
pub mod doctor;
#[cfg(feature = "compiler")]
pub mod finetune;
#[cfg(feature = "compiler")]
pub mod generate;
pub mod merge;
#[cfg(feature = "compiler")]
pub mod opt;
pub mod run;
pub mod show;
#[cfg(feature = "compiler")]
pub mod verify;

use std::ffi::OsString;

/// The command line; where a recipe is read, Automodel's form of overrides is understood too.
pub fn arguments() -> Vec<OsString> {
    let all: Vec<OsString> = std::env::args_os().collect();
    #[cfg(feature = "compiler")]
    if all.get(1).is_some_and(|name| ["compile", "check", "data", "finetune"].iter().any(|it| name == it)) {
        // What is not Unicode is left to the parser to complain about.
        let texts: Option<Vec<String>> = all.iter().map(|it| it.to_str().map(String::from)).collect();
        return texts
            .map_or(all, |it| amc_frontend::recipe::automodel_options(it).into_iter().map(OsString::from).collect());
    }
    all
}
