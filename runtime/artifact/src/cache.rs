//! Where amc keeps what it prepares once and names by content.
use std::path::PathBuf;

/// The folder of token shards: `shards` in amc's cache.
pub fn shard_folder() -> PathBuf {
    cache_folder().join("shards")
}

/// The folder of measured rates: `rates` in amc's cache.
pub fn rates_folder() -> PathBuf {
    cache_folder().join("rates")
}

/// `AMC_CACHE`, else `amc` in `XDG_CACHE_HOME` or `~/.cache`.
fn cache_folder() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = || variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    let cache = variable("AMC_CACHE").or_else(|| user().map(|user| user.join("amc")));
    cache.unwrap_or_else(|| PathBuf::from(".amc/cache"))
}
