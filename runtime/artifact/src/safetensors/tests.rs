use super::*;

/// A file with this header and this many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..data).map(|i| i as u8));
    bytes
}

/// A file of its own for each test, in a folder that goes away with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("amc-safetensors-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn refusal(bytes: &[u8]) -> String {
    let error = header::parse(bytes).err().expect("the file should be refused");
    format!("{error:#}")
}

#[test]
fn reads_what_it_writes() {
    let folder = Folder::new("roundtrip");
    let path = folder.0.join("a.safetensors");
    let tensors = [
        TensorData { name: "b", dtype: Dtype::Bf16, shape: &[3], bytes: &[1, 2, 3, 4, 5, 6] },
        TensorData { name: "a\"\n", dtype: Dtype::F32, shape: &[1, 2], bytes: &[0, 1, 2, 3, 4, 5, 6, 7] },
        TensorData { name: "empty", dtype: Dtype::I64, shape: &[0, 7], bytes: &[] },
        TensorData { name: "scalar", dtype: Dtype::U8, shape: &[], bytes: &[9] },
    ];
    write(&path, &tensors, &[("format", "pt"), ("about", "x")]).unwrap();
    let first = std::fs::read(&path).unwrap();
    let read = SafetensorsFile::open(&path).unwrap();
    assert_eq!(read.metadata()["format"], "pt");
    assert_eq!(read.tensors().len(), 4);
    for t in &tensors {
        assert_eq!(read.tensor(t.name).unwrap(), TensorView { dtype: t.dtype, shape: t.shape, bytes: t.bytes });
    }
    let reversed: Vec<TensorData> = tensors.iter().rev().cloned().collect();
    write(&path, &reversed, &[("about", "x"), ("format", "pt")]).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first, "order of the arguments does not show");
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn refuses_to_write_nonsense() {
    let folder = Folder::new("nonsense");
    let tensor = |name, shape| TensorData { name, dtype: Dtype::F32, shape, bytes: &[0; 8] };
    let path = folder.0.join("a.safetensors");
    let say = |tensors: &[TensorData]| format!("{:#}", write(&path, tensors, &[]).unwrap_err());
    assert!(say(&[tensor("a", &[2]), tensor("a", &[2])]).ends_with("a tensor cannot be called `a`: the name is taken"));
    assert!(say(&[tensor("a", &[3])]).ends_with("tensor `a`: F32[3] is given 8 bytes"));
    assert!(!path.exists());
}

#[test]
fn hostile_headers_are_refused_with_a_reason() {
    let one = |body: &str, data| refusal(&file(&format!("{{{body}}}"), data));
    let f32x2 = r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    let cases = [
        (refusal(b"abc"), "the file has 3 bytes; a safetensors file has at least 8"),
        (refusal(&u64::MAX.to_le_bytes()), "the header claims 18446744073709551615 bytes; at most 100000000 are read"),
        (refusal(&100u64.to_le_bytes()), "the header claims 100 bytes, but only 0 follow"),
        (refusal(&file("[]", 0)), "does not start with `{`"),
        (refusal(&file("", 0)), "does not start with `{`"),
        (refusal(&file("{", 0)), "the header is malformed: EOF"),
        (one(&"\"a\":[".repeat(200), 0), "the header is malformed"),
        (one(r#""a":{"dtype":"F32","shape":[2]}"#, 0), "missing field `data_offsets`"),
        (one(r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}"#, 8), "unknown field `x`"),
        (one(r#""a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}"#, 8), "the header is malformed"),
        (one(r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8.5]}"#, 8), "the header is malformed"),
        (one(r#""a":{"dtype":"Q4","shape":[2],"data_offsets":[0,8]}"#, 8), "tensor `a`: unknown dtype \"Q4\""),
        (one(&format!(r#""a":{f32x2},"a":{f32x2}"#), 8), "`a` is there twice"),
        (one(r#""a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}"#, 8), "F32[3] needs 12 bytes, but 0..8 are 8"),
        (one(&format!(r#""a":{f32x2}"#), 7), "its bytes are 0..8, which is not a range inside the 7 bytes of data"),
        (one(r#""a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}"#, 8), "its bytes are 8..0"),
        (
            one(r#""a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}"#, 0),
            "has more elements than can be counted",
        ),
        (
            one(&format!(r#""a":{f32x2},"b":{{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#), 12),
            "tensor `b` overlaps tensor `a`: it starts 4 bytes before its end",
        ),
        (one(&format!(r#""a":{f32x2},"b":{f32x2}"#), 8), "tensor `b` overlaps tensor `a`"),
        (
            one(r#""a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}"#, 12),
            "4 unnamed bytes lie between the start of the data and tensor `a`",
        ),
        (one(&format!(r#""a":{f32x2}"#), 9), "1 bytes after tensor `a` belong to no tensor"),
    ];
    for (found, wanted) in cases {
        assert!(found.contains(wanted), "wanted {wanted:?} in {found:?}");
    }
    let mut bad_utf8 = file(r#"{"a":1}"#, 0);
    bad_utf8[10] = 0xff;
    assert!(refusal(&bad_utf8).contains("not UTF-8"));
}

#[test]
fn every_truncation_of_a_file_is_refused() {
    let folder = Folder::new("truncated");
    let path = folder.0.join("a.safetensors");
    let tensor = TensorData { name: "a", dtype: Dtype::F32, shape: &[2], bytes: &[7; 8] };
    write(&path, &[tensor], &[]).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        refusal(&whole[..length]);
    }
    folder.put("a.safetensors", &whole[..whole.len() - 1]);
    let error = format!("{:#}", SafetensorsFile::open(&path).unwrap_err());
    assert!(error.starts_with(&path.display().to_string()) && error.contains("tensor `a`"), "{error}");
}

#[test]
fn shards_are_found_through_the_index() {
    let folder = Folder::new("shards");
    let data = [1u8; 4];
    for (shard, name) in [("s1.safetensors", "a"), ("s2.safetensors", "b")] {
        write(&folder.0.join(shard), &[TensorData { name, dtype: Dtype::F32, shape: &[1], bytes: &data }], &[])
            .unwrap();
    }
    let index = |map: &str| {
        folder.put(INDEX_FILE, format!(r#"{{"metadata":{{"total_size":8}},"weight_map":{map}}}"#).as_bytes());
        Weights::open(&folder.0)
    };
    let weights = index(r#"{"a":"s1.safetensors","b":"s2.safetensors"}"#).unwrap();
    assert_eq!(weights.tensors().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(weights.tensor("b").unwrap().bytes, data);
    assert!(format!("{:#}", weights.tensor("c").unwrap_err()).contains("there is no tensor `c`"));
    let refusals = [
        (
            r#"{"a":"s1.safetensors","b":"s1.safetensors"}"#,
            "puts tensor `b` into s1.safetensors, which does not hold it",
        ),
        (r#"{"a":"s2.safetensors"}"#, "s2.safetensors holds tensor `b`, which the index does not list"),
        (r#"{"a":"../s1.safetensors"}"#, "\"../s1.safetensors\" is not a plain file name"),
        (r#"{"a":".."}"#, "\"..\" is not a plain file name"),
        (r#"{"a":"s9.safetensors"}"#, "s9.safetensors"),
        (r#"[]"#, "the index is malformed"),
    ];
    for (map, wanted) in refusals {
        let error = format!("{:#}", index(map).unwrap_err());
        assert!(error.contains(wanted) && error.contains(INDEX_FILE), "wanted {wanted:?} in {error:?}");
    }
    let empty = Folder::new("no-weights");
    assert!(format!("{:#}", Weights::open(&empty.0).unwrap_err()).contains("neither model.safetensors nor"));
    std::fs::write(empty.0.join("pytorch_model.bin"), "").unwrap();
    let error = Weights::open(&empty.0).unwrap_err().to_string();
    assert!(
        error.contains("is there; pytorch_model.bin is a pickle") && error.contains(".save_pretrained("),
        "{error}"
    );
}

#[test]
fn no_change_of_a_byte_makes_the_parser_panic() {
    let folder = Folder::new("mutated");
    let path = folder.0.join("a.safetensors");
    let tensors = ["a", "b"].map(|name| TensorData { name, dtype: Dtype::F32, shape: &[1, 2], bytes: &[7; 8] });
    write(&path, &tensors, &[("format", "pt")]).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        for byte in [0, 1, b'"', b'-', b'0', b'9', b'{', b']', b'\\', 0x7f, 0xff] {
            let mut changed = whole.clone();
            changed[at] = byte;
            let range_is_inside = |info: &TensorInfo| info.range.end <= changed.len();
            assert!(header::parse(&changed).map_or(true, |header| header.tensors.values().all(range_is_inside)));
        }
    }
}
