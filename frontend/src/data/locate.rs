//! From a dataset's name and split to its files, by the rules of the `datasets` library: the split's name, or a word
//! for it, stands in the path.
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::table::quoted;
use crate::hub::{Hub, local_files};

const EXTENSIONS: [&str; 4] = ["parquet", "jsonl", "ndjson", "json"];
/// Files that describe a dataset rather than hold it.
const DESCRIPTIONS: [&str; 3] = ["dataset_info.json", "dataset_infos.json", "state.json"];
const TRAIN: &[&str] = &["train", "training"];
const VALIDATION: &[&str] = &["validation", "valid", "dev", "val"];
const TEST: &[&str] = &["test", "testing", "eval", "evaluation"];

/// The files of a split. A local file holds any split that is asked of it; a local folder or a dataset of the Hub is
/// searched for the files of the split, within the folder of the configuration `config` where one is named.
///
/// # Errors
/// A dataset that cannot be found, or one without files for the split; the error lists what there is.
pub fn locate(name: &str, split: &str, config: Option<&str>, hub: &Hub) -> Result<Vec<PathBuf>> {
    let path = Path::new(name);
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    if path.is_dir() {
        let chosen = choose(&local_files(path), split, config).with_context(|| format!("dataset {name}"))?;
        return Ok(chosen.iter().map(|file| path.join(file)).collect());
    }
    let looks_like_file = EXTENSIONS.iter().any(|extension| name.ends_with(&format!(".{extension}")));
    ensure!(!looks_like_file, "dataset {name}: no such file");
    hub.dataset(name, &|paths| choose(paths, split, config))
}

/// The data files among `paths` that belong to a split.
fn choose(paths: &[String], split: &str, config: Option<&str>) -> Result<Vec<String>> {
    let data = data_files(paths);
    ensure!(!data.is_empty(), "no .parquet, .json or .jsonl file in it");
    let data = of_config(data, config)?;
    let of_any_split = |path: &&String| [TRAIN, VALIDATION, TEST].iter().any(|words| has_word(path, words));
    let words = words_for(split);
    let mut chosen: Vec<&String> = data.iter().copied().filter(|path| has_word(path, &words)).collect();
    if chosen.is_empty() && TRAIN.contains(&split) && !data.iter().any(of_any_split) {
        chosen = data.clone();
    }
    if chosen.is_empty() {
        bail!("no files for split `{split}`; its data files are {}", quoted(&names(&data)));
    }
    let folders = config_folders(&chosen);
    if config.is_none() && folders.len() > 1 {
        match folders.iter().find(|folder| **folder == "default") {
            Some(default) => chosen.retain(|path| path.starts_with(&format!("{default}/"))),
            None => bail!("several configurations, {}: say which with `name`", quoted(&folders)),
        }
    }
    Ok(chosen.into_iter().cloned().collect())
}

/// Files with data in them: Parquet where there is any, else the other kinds.
fn data_files(paths: &[String]) -> Vec<&String> {
    let file_name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_string();
    let visible = |path: &&String| {
        !path.split('/').any(|part| part.starts_with(['.', '_'])) && !DESCRIPTIONS.contains(&file_name(path).as_str())
    };
    for extensions in [&EXTENSIONS[..1], &EXTENSIONS[1..]] {
        let has = |path: &&String| path.rsplit_once('.').is_some_and(|(_, extension)| extensions.contains(&extension));
        let found: Vec<&String> = paths.iter().filter(visible).filter(has).collect();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

fn of_config<'a>(data: Vec<&'a String>, config: Option<&str>) -> Result<Vec<&'a String>> {
    let Some(config) = config else { return Ok(data) };
    let inside: Vec<&String> =
        data.iter().copied().filter(|path| path.split('/').rev().skip(1).any(|folder| folder == config)).collect();
    if !inside.is_empty() {
        return Ok(inside);
    }
    let folders = config_folders(&data);
    ensure!(folders.is_empty() && config == "default", "no configuration `{config}`; there are {}", quoted(&folders));
    Ok(data)
}

/// Top folders that hold data, but for those that are named after a split or hold all of it.
fn config_folders<'a>(data: &[&'a String]) -> Vec<&'a str> {
    let mut folders: Vec<&str> = data
        .iter()
        .filter_map(|path| path.split_once('/').map(|(folder, _)| folder))
        .filter(|folder| *folder != "data" && !split_words().any(|word| word == *folder))
        .collect();
    folders.sort_unstable();
    folders.dedup();
    folders
}

fn split_words() -> impl Iterator<Item = &'static str> {
    [TRAIN, VALIDATION, TEST].into_iter().flatten().copied()
}

fn words_for(split: &str) -> Vec<&str> {
    let known = [TRAIN, VALIDATION, TEST].into_iter().find(|words| words[0] == split);
    known.map_or_else(|| vec![split], <[&str]>::to_vec)
}

/// Whether one of the words stands in the path, with nothing but punctuation, digits or the ends beside it.
fn has_word(path: &str, words: &[&str]) -> bool {
    let path = path.rsplit_once('.').map_or(path, |(stem, _)| stem);
    words.iter().any(|word| {
        path.match_indices(word).any(|(at, _)| {
            let beside = |c: Option<char>| c.is_none_or(|c| !c.is_alphabetic());
            beside(path[..at].chars().next_back()) && beside(path[at + word.len()..].chars().next())
        })
    })
}

fn names<'a>(data: &[&'a String]) -> Vec<&'a str> {
    data.iter().map(|path| path.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(paths: &[&str], split: &str, config: Option<&str>) -> Result<Vec<String>> {
        choose(&paths.iter().map(ToString::to_string).collect::<Vec<_>>(), split, config)
    }

    #[test]
    fn layouts_of_the_hub() {
        let squad =
            ["README.md", "plain_text/train-00000-of-00001.parquet", "plain_text/validation-00000-of-00001.parquet"];
        assert_eq!(chosen(&squad, "train", None).unwrap(), [squad[1]]);
        assert_eq!(chosen(&squad, "validation", Some("plain_text")).unwrap(), [squad[2]]);
        let gsm8k =
            ["main/test-00000-of-00001.parquet", "main/train-00000-of-00001.parquet", "socratic/train-0.parquet"];
        assert_eq!(chosen(&gsm8k, "train", Some("main")).unwrap(), [gsm8k[1]]);
        let error = chosen(&gsm8k, "train", None).unwrap_err().to_string();
        assert!(error.contains("`main`, `socratic`"), "{error}");
        assert!(chosen(&gsm8k, "train", Some("none")).unwrap_err().to_string().contains("`main`, `socratic`"));
        let converted = ["default/train/0000.parquet", "default/test/0000.parquet", "other/train/0000.parquet"];
        assert_eq!(chosen(&converted, "train", None).unwrap(), [converted[0]]);
    }

    #[test]
    fn layouts_of_folders() {
        assert_eq!(
            chosen(&["a.jsonl", "b.jsonl", "dataset_infos.json"], "train", None).unwrap(),
            ["a.jsonl", "b.jsonl"]
        );
        assert!(chosen(&["a.jsonl"], "validation", None).unwrap_err().to_string().contains("`a.jsonl`"));
        let files = ["data/train.jsonl", "data/dev.jsonl", "data/restrain.jsonl"];
        assert_eq!(chosen(&files, "train", None).unwrap(), files[..1]);
        assert_eq!(chosen(&files, "validation", None).unwrap(), files[1..2]);
        assert!(chosen(&["README.md"], "train", None).unwrap_err().to_string().contains("no .parquet"));
        assert_eq!(chosen(&["x/extra.json"], "extra", None).unwrap(), ["x/extra.json"]);
    }

    #[test]
    fn local_files_hold_any_split() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rows.json");
        std::fs::write(&file, "[]").unwrap();
        let hub = Hub { cache: folder.path().join("hub"), offline: true, endpoint: None };
        let found = |name: &Path, split| locate(name.to_str().unwrap(), split, None, &hub);
        assert_eq!(found(&file, "validation").unwrap(), std::slice::from_ref(&file));
        assert_eq!(found(folder.path(), "train").unwrap(), [file]);
        assert!(found(&folder.path().join("other.json"), "train").unwrap_err().to_string().contains("no such file"));
    }
}
