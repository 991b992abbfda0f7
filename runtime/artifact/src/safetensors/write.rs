//! Writes a safetensors file: equal tensors give equal bytes, and a half-written file is never seen under its name.
use super::Dtype;
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// A tensor to write.
#[derive(Clone, Debug)]
pub struct TensorData<'a> {
    pub name: &'a str,
    pub dtype: Dtype,
    pub shape: &'a [u64],
    /// Row-major, little-endian.
    pub bytes: &'a [u8],
}

/// Writes the tensors to a temporary file beside `path`, flushes it to the disk and renames it to `path`; the folder is
/// flushed too, so that the new name survives a power cut. Tensors are laid out as the reference implementation does:
/// wide elements first, then by name; the data starts at a multiple of 8.
///
/// # Errors
/// Two tensors of one name, bytes that do not fit dtype and shape, or a failing file system; the message names `path`.
pub fn write(path: &Path, tensors: &[TensorData], metadata: &[(&str, &str)]) -> Result<()> {
    let mut order: Vec<&TensorData> = tensors.iter().collect();
    order.sort_by_key(|tensor| (std::cmp::Reverse(tensor.dtype.bytes()), tensor.name));
    let header = header(&order, metadata).with_context(|| path.display().to_string())?;
    replace(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        order.iter().try_for_each(|tensor| out.write_all(tensor.bytes))
    })
    .with_context(|| format!("writing {}", path.display()))
}

fn header(order: &[&TensorData], metadata: &[(&str, &str)]) -> Result<String> {
    let mut map = Map::new();
    if !metadata.is_empty() {
        let mut sorted = metadata.to_vec();
        sorted.sort();
        let entries: Map<String, Value> = sorted.iter().map(|(key, value)| (key.to_string(), json!(value))).collect();
        map.insert("__metadata__".into(), Value::Object(entries));
    }
    let mut names = BTreeSet::from(["__metadata__"]);
    let mut at = 0;
    for tensor in order {
        let TensorData { name, dtype, shape, bytes } = tensor;
        ensure!(names.insert(name), "a tensor cannot be called `{name}`: the name is taken");
        let wanted = shape.iter().try_fold(dtype.bytes(), |bytes, &size| bytes.checked_mul(size));
        ensure!(wanted == Some(bytes.len() as u64), "tensor `{name}`: {dtype}{shape:?} is given {} bytes", bytes.len());
        let next = at + bytes.len();
        map.insert(name.to_string(), json!({"dtype": dtype.name(), "shape": shape, "data_offsets": [at, next]}));
        at = next;
    }
    let mut text = Value::Object(map).to_string();
    let padded = text.len().next_multiple_of(8);
    text.extend(std::iter::repeat_n(' ', padded - text.len()));
    Ok(text)
}

/// Fills a temporary file beside `path` and moves it there in one step.
fn replace(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Result<()> {
    let name = path.file_name().ok_or_else(|| anyhow!("not a file name"))?;
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary_name = name.to_os_string();
    temporary_name.push(".tmp");
    let temporary = folder.join(temporary_name);
    let mut out = BufWriter::new(File::create(&temporary)?);
    fill(&mut out)?;
    out.into_inner().map_err(|error| error.into_error())?.sync_all()?;
    std::fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()?;
    Ok(())
}
