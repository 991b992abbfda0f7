//! Finds what an artifact names but does not hold: the model folder and the token shards.
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// The folder of a model that a recipe names: a local path, or a Hub id whose snapshot lies in the Hub's cache.
pub fn model_folder(name: &str) -> Result<PathBuf> {
    let local = Path::new(name);
    if local.exists() {
        return Ok(local.to_path_buf());
    }
    let cache = hub_cache().map(|cache| cache.join(format!("models--{}", name.replace('/', "--"))));
    if let Some(repository) = cache.as_ref().filter(|repository| repository.is_dir()) {
        let reference = repository.join("refs/main");
        let commit =
            std::fs::read_to_string(&reference).with_context(|| format!("cannot read {}", reference.display()))?;
        let snapshot = repository.join("snapshots").join(commit.trim());
        if snapshot.is_dir() {
            return Ok(snapshot);
        }
    }
    bail!(
        "the model `{name}` is not here: neither a folder of that name in {} nor a snapshot in the Hub's cache{}; put it \
         back, or run `amc compile` again",
        std::env::current_dir().map_or_else(|_| ".".into(), |dir| dir.display().to_string()),
        cache.map_or_else(String::new, |cache| format!(" ({})", cache.display()))
    )
}

/// Where the Hub's clients keep downloads: `HF_HUB_CACHE`, else `hub` below `HF_HOME`, else below `huggingface` in
/// `XDG_CACHE_HOME` or `~/.cache`.
fn hub_cache() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = || variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    let home = || variable("HF_HOME").or_else(|| caches().map(|caches| caches.join("huggingface")));
    variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")).or_else(|| Some(home()?.join("hub")))
}
