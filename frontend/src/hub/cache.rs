//! What a snapshot in the Hugging Face cache holds.
use std::collections::BTreeMap;
use std::path::Path;

pub(super) use amc_artifact::hub_cache::{folder, snapshot};
use serde_json::Value;

use super::Need;

/// Whether a model's folder has what is needed.
pub(super) fn holds(folder: &Path, need: Need) -> bool {
    let has = |name: &str| folder.join(name).is_file();
    match need {
        Need::Config => has("config.json"),
        Need::Tokenizer => has("tokenizer.json"),
        Need::Weights => {
            has("config.json") && weight_files(folder).is_some_and(|files| files.iter().all(|file| has(file)))
        }
    }
}

/// The safetensors files that a model consists of.
fn weight_files(folder: &Path) -> Option<Vec<String>> {
    let index = folder.join("model.safetensors.index.json");
    if !index.is_file() {
        return Some(vec!["model.safetensors".to_string()]);
    }
    let index: Value = serde_json::from_str(&std::fs::read_to_string(index).ok()?).ok()?;
    index.get("weight_map")?.as_object()?.values().map(|file| file.as_str().map(str::to_string)).collect()
}

/// Every file below a folder, as paths with `/`, sorted.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![(folder.to_path_buf(), String::new())];
    while let Some((path, prefix)) = open.pop() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                open.push((path, format!("{name}/")));
            } else if path.is_file() {
                found.push(name);
            }
        }
    }
    found.sort();
    found
}

/// Whether of files named `…-00001-of-00003.…` all are there.
pub(super) fn is_complete(files: &[String]) -> bool {
    let mut series: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for file in files {
        let stem = file.rsplit_once('.').map_or(file.as_str(), |(stem, _)| stem);
        if let Some((before, total)) = stem.rsplit_once("-of-")
            && let Some((name, _)) = before.rsplit_once('-')
        {
            *series.entry((name, total)).or_insert(0) += 1;
        }
    }
    series.iter().all(|((_, total), count)| total.parse::<usize>().is_ok_and(|total| total == *count))
}
