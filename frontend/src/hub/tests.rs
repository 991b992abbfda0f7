use super::*;

fn hub(folder: &Path) -> Hub {
    Hub { cache: folder.to_path_buf(), offline: true }
}

fn cached(folder: &Path, repository: &str, files: &[(&str, &str)]) -> PathBuf {
    let repository = folder.join(repository);
    let snapshot = repository.join("snapshots/abc123");
    std::fs::create_dir_all(repository.join("refs")).unwrap();
    std::fs::write(repository.join("refs/main"), "abc123\n").unwrap();
    for (name, text) in files {
        let path = snapshot.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    snapshot
}

#[test]
fn a_folder_or_a_whole_snapshot_is_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let hub = hub(folder.path());
    assert_eq!(hub.model(folder.path().to_str().unwrap(), None, Need::Weights).unwrap(), folder.path());
    let files = [
        ("config.json", "{}"),
        ("tokenizer.json", "{}"),
        ("model.safetensors.index.json", r#"{"weight_map": {"a": "1.safetensors"}}"#),
    ];
    let snapshot = cached(folder.path(), "models--org--name", &files);
    assert_eq!(hub.model("org/name", None, Need::Tokenizer).unwrap(), snapshot);
    assert_eq!(hub.model("org/name", Some("abc123"), Need::Config).unwrap(), snapshot);
    let error = hub.model("org/name", None, Need::Weights).unwrap_err().to_string();
    assert!(error.contains("not (all of it) in the cache") && error.contains("HF_HUB_OFFLINE"), "{error}");
    std::fs::write(snapshot.join("1.safetensors"), "").unwrap();
    assert_eq!(hub.model("org/name", None, Need::Weights).unwrap(), snapshot);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["", "name", "../etc/passwd", "org/../name", "org/.hidden", "a/b/c", "org/na me", "/nowhere"] {
        let error = hub(folder.path()).model(name, None, Need::Config).unwrap_err().to_string();
        assert!(error.contains("organisation/name"), "{name}: {error}");
    }
    cached(folder.path(), "models--org--name", &[("config.json", "{}")]);
    assert!(hub(folder.path()).model("org/name", Some("../refs"), Need::Config).is_err());
}

#[test]
fn datasets_come_whole_from_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let all = |paths: &[String]| Ok(paths.to_vec());
    let snapshot = cached(folder.path(), "datasets--rajpurkar--squad", &[("t/train-00000-of-00002.parquet", "")]);
    assert!(hub(folder.path()).dataset("squad", &all).is_err());
    std::fs::write(snapshot.join("t/train-00001-of-00002.parquet"), "").unwrap();
    let files = hub(folder.path()).dataset("squad", &all).unwrap();
    assert_eq!(files.len(), 2);
    assert!(files[0].is_file());
}

#[test]
fn the_environment_says_where_the_cache_is() {
    let folder = |set: &[(&str, &str)]| {
        let set: Vec<(String, String)> = set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        cache::folder(&move |name| set.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
    };
    assert_eq!(folder(&[("HOME", "/h")]), Path::new("/h/.cache/huggingface/hub"));
    assert_eq!(folder(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
    assert_eq!(folder(&[("HF_HOME", "/y"), ("XDG_CACHE_HOME", "/x")]), Path::new("/y/hub"));
    assert_eq!(folder(&[("HF_HOME", "/y"), ("HF_HUB_CACHE", "/z")]), Path::new("/z"));
}
