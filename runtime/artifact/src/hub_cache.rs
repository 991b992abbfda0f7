//! The layout of the Hugging Face cache: `refs/REVISION` names a commit, `snapshots/COMMIT` holds its files.
use std::path::{Path, PathBuf};

/// The cache's folder: `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `$HF_HOME/hub`, `$XDG_CACHE_HOME/huggingface/hub`, else
/// below the home folder.
pub fn folder(variable: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    if let Some(cache) = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")) {
        return PathBuf::from(cache);
    }
    let home = || PathBuf::from(variable("HOME").unwrap_or_default()).join(".cache");
    let caches = || variable("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    variable("HF_HOME").map_or_else(|| caches().join("huggingface"), PathBuf::from).join("hub")
}

/// The snapshot of a revision (a branch, tag or commit) of the repository in this folder of the cache, if it is there.
pub fn snapshot(repository: &Path, revision: &str) -> Option<PathBuf> {
    let safe = |name: &str| !name.is_empty() && !name.split('/').any(|part| part.is_empty() || part.starts_with('.'));
    if !safe(revision) {
        return None;
    }
    let named = std::fs::read_to_string(repository.join("refs").join(revision)).ok();
    let commit = named.as_deref().map_or(revision, str::trim);
    let folder = repository.join("snapshots").join(commit);
    (safe(commit) && !commit.contains('/') && folder.is_dir()).then_some(folder)
}
