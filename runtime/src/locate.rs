//! Finds what an artifact names but does not hold: the model folder.
use amc_artifact::hub_cache;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// The folder of a model that a recipe names: a local path, or a Hub id of which a snapshot of `revision` (`None`: the main
/// branch) lies in the Hub's cache.
///
/// # Errors
/// Neither is there.
pub fn model_folder(name: &str, revision: Option<&str>) -> Result<PathBuf> {
    let cache = hub_cache::folder(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    find(name, revision.unwrap_or("main"), &cache)
}

fn find(name: &str, revision: &str, cache: &Path) -> Result<PathBuf> {
    let local = Path::new(name);
    if local.exists() {
        return Ok(local.to_path_buf());
    }
    let repository = cache.join(format!("models--{}", name.replace('/', "--")));
    if let Some(snapshot) = hub_cache::snapshot(&repository, revision) {
        return Ok(snapshot);
    }
    bail!(
        "the model `{name}` is not here: neither a folder of that name in {} nor a snapshot of its revision `{revision}` in \
         the Hub's cache ({}); put it back, or run `amc compile` again",
        std::env::current_dir().map_or_else(|_| ".".into(), |dir| dir.display().to_string()),
        repository.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_has_its_own_snapshot() {
        let cache = tempfile::tempdir().unwrap();
        let repository = cache.path().join("models--org--name");
        for (reference, commit) in [("main", "aaa"), ("v2", "bbb")] {
            std::fs::create_dir_all(repository.join("refs")).unwrap();
            std::fs::create_dir_all(repository.join("snapshots").join(commit)).unwrap();
            std::fs::write(repository.join("refs").join(reference), commit).unwrap();
        }
        for (revision, commit) in [("main", "aaa"), ("v2", "bbb"), ("aaa", "aaa")] {
            let found = find("org/name", revision, cache.path()).unwrap();
            assert_eq!(found, repository.join("snapshots").join(commit));
        }
        let error = find("org/name", "v3", cache.path()).unwrap_err().to_string();
        assert!(error.contains("nor a snapshot of its revision `v3`"), "{error}");
    }
}
