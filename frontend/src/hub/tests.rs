use super::*;

fn hub(folder: &Path) -> Hub {
    Hub { cache: folder.to_path_buf(), offline: true, endpoint: None }
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

/// Answers as the Hub does for one model and its files, until the test ends; the address.
fn serve(files: &'static [(&'static str, &'static str)]) -> String {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answer = |path: &str| {
        if path.starts_with("/api/models/org/name") {
            let names: Vec<String> = files.iter().map(|(name, _)| format!(r#"{{"rfilename": "{name}"}}"#)).collect();
            return Some(format!(r#"{{"sha": "abc123", "siblings": [{}]}}"#, names.join(",")));
        }
        let name = path.strip_prefix("/org/name/resolve/main/")?;
        files.iter().find(|(known, _)| *known == name).map(|(_, text)| text.to_string())
    };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head: Vec<String> =
                BufReader::new(&stream).lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            let path = head[0].split(' ').nth(1).unwrap();
            let (status, body) = answer(path).map_or(("404 Not Found", String::new()), |body| ("200 OK", body));
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\nContent-Range: bytes 0-0/{length}\r\n\
                 x-repo-commit: abc123\r\netag: \"{path}\"\r\n\r\n{body}",
                path = path.replace('/', "-")
            )
            .unwrap();
        }
    });
    address
}

#[test]
fn what_is_missing_comes_from_the_hub_once() {
    let files = &[
        ("config.json", "{}"),
        ("tokenizer.json", "[]"),
        ("model.safetensors", "weights"),
        ("README.md", "not read"),
        ("onnx/model.json", "not read either"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let online = Hub { offline: false, endpoint: Some(serve(files)), ..hub(folder.path()) };
    let snapshot = online.model("org/name", None, Need::Weights).unwrap();
    let mut names = cache::files(&snapshot);
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors", "tokenizer.json"]);
    assert_eq!(std::fs::read_to_string(snapshot.join("model.safetensors")).unwrap(), "weights");
    assert_eq!(hub(folder.path()).model("org/name", None, Need::Weights).unwrap(), snapshot);
    let pickled = &[("config.json", "{}"), ("pytorch_model-00001-of-00002.bin", "")];
    let elsewhere = tempfile::tempdir().unwrap();
    let pickles = Hub { offline: false, endpoint: Some(serve(pickled)), ..hub(elsewhere.path()) };
    let error = pickles.model("org/name", None, Need::Weights).unwrap_err().to_string();
    assert!(error.contains("pytorch_model-00001-of-00002.bin is a pickle"), "{error}");
    let error = online.model("org/other", None, Need::Weights).unwrap_err().to_string();
    assert!(error.contains("the Hub could not serve it") && error.contains("404"), "{error}");
}
