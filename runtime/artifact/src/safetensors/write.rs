//! Writes a safetensors file: equal tensors give equal bytes, and a half-written file is never seen under its name.
use super::Dtype;
use anyhow::{Context, Result, anyhow, bail, ensure};
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

/// A tensor to write, without its bytes.
#[derive(Clone, Debug)]
pub struct TensorSpec<'a> {
    pub name: &'a str,
    pub dtype: Dtype,
    pub shape: &'a [u64],
}

impl TensorSpec<'_> {
    fn bytes(&self) -> Option<u64> {
        self.shape.iter().try_fold(self.dtype.bytes(), |bytes, &size| bytes.checked_mul(size))
    }
}

/// Writes the tensors to a temporary file beside `path`, flushes it to the disk and renames it to `path`; the folder is
/// flushed too, so that the new name survives a power cut. The layout is [`stream`]'s.
///
/// # Errors
/// Two tensors of one name, bytes that do not fit dtype and shape, or a failing file system; the message names `path`.
pub fn write(path: &Path, tensors: &[TensorData], metadata: &[(&str, &str)]) -> Result<()> {
    let specs: Vec<_> = tensors.iter().map(|t| TensorSpec { name: t.name, dtype: t.dtype, shape: t.shape }).collect();
    replace(path, |out| stream(out, &specs, metadata, &mut |index, out| Ok(out.write_all(tensors[index].bytes)?)))
        .with_context(|| format!("writing {}", path.display()))
}

/// Writes a whole file to `out`, asking for the bytes of each tensor by its index when their turn comes. Tensors are laid
/// out as the reference implementation does: wide elements first, then by name; the data starts at a multiple of 8.
///
/// # Errors
/// Two tensors of one name, a tensor that is given more or fewer bytes than it has, or what `out` and `fill` report.
pub fn stream(
    out: &mut dyn Write,
    tensors: &[TensorSpec],
    metadata: &[(&str, &str)],
    fill: &mut dyn FnMut(usize, &mut dyn Write) -> Result<()>,
) -> Result<()> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&index| (std::cmp::Reverse(tensors[index].dtype.bytes()), tensors[index].name));
    let header = header(order.iter().map(|&index| &tensors[index]), metadata)?;
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for index in order {
        let mut counted = Counted { out, bytes: 0 };
        fill(index, &mut counted)?;
        let TensorSpec { name, dtype, shape } = &tensors[index];
        let fits = tensors[index].bytes() == Some(counted.bytes);
        ensure!(fits, "tensor `{name}`: {dtype}{shape:?} is given {} bytes", counted.bytes);
    }
    Ok(())
}

struct Counted<'a> {
    out: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

fn header<'a>(order: impl Iterator<Item = &'a TensorSpec<'a>>, metadata: &[(&str, &str)]) -> Result<String> {
    let mut map = Map::new();
    if !metadata.is_empty() {
        let mut sorted = metadata.to_vec();
        sorted.sort();
        let entries: Map<String, Value> = sorted.iter().map(|(key, value)| (key.to_string(), json!(value))).collect();
        map.insert("__metadata__".into(), Value::Object(entries));
    }
    let mut names = BTreeSet::from(["__metadata__"]);
    let mut at = 0u64;
    for tensor in order {
        let TensorSpec { name, dtype, shape } = tensor;
        ensure!(names.insert(name), "a tensor cannot be called `{name}`: the name is taken");
        let next = tensor.bytes().and_then(|bytes| at.checked_add(bytes));
        let Some(next) = next else { bail!("tensor `{name}`: {dtype}{shape:?} has too many bytes") };
        map.insert(name.to_string(), json!({"dtype": dtype.name(), "shape": shape, "data_offsets": [at, next]}));
        at = next;
    }
    let mut text = Value::Object(map).to_string();
    let padded = text.len().next_multiple_of(8);
    text.extend(std::iter::repeat_n(' ', padded - text.len()));
    Ok(text)
}

/// Fills a temporary file beside `path` and moves it there in one step.
fn replace(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
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
