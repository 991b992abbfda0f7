//! The header of a safetensors file, from untrusted bytes to checked ranges.
use super::Dtype;
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::ops::Range;

/// Longest header that is read, in bytes; the limit of the reference implementation.
pub const HEADER_LIMIT: u64 = 100_000_000;

/// What a header says about a tensor, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorInfo {
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    /// Bytes of the file.
    pub range: Range<usize>,
}

pub(super) struct Header {
    pub tensors: BTreeMap<String, TensorInfo>,
    pub metadata: BTreeMap<String, String>,
}

/// Reads and checks the header of `file`, all the bytes of one.
pub(super) fn parse(file: &[u8]) -> Result<Header> {
    let (length, rest) = file
        .split_first_chunk::<8>()
        .ok_or_else(|| anyhow!("the file has {} bytes; a safetensors file has at least 8", file.len()))?;
    let length = u64::from_le_bytes(*length);
    ensure!(length <= HEADER_LIMIT, "the header claims {length} bytes; at most {HEADER_LIMIT} are read");
    ensure!(
        length <= rest.len() as u64,
        "the header claims {length} bytes, but only {} follow: the file is cut short or not safetensors",
        rest.len()
    );
    let (text, data) = rest.split_at(length as usize);
    ensure!(text.first() == Some(&b'{'), "the header does not start with `{{`: this is not a safetensors file");
    let text = std::str::from_utf8(text).context("the header is not UTF-8")?;
    let raw: RawHeader = serde_json::from_str(text).context("the header is malformed")?;
    let start = file.len() - data.len();
    let mut tensors = BTreeMap::new();
    for (name, tensor) in &raw.tensors {
        let info = check(tensor, data.len() as u64, start).with_context(|| format!("tensor `{name}`"))?;
        tensors.insert(name.clone(), info);
    }
    check_cover(&tensors, start, file.len())?;
    Ok(Header { tensors, metadata: raw.metadata })
}

/// One tensor alone: a known dtype, a range inside the data, as many bytes as the shape needs.
fn check(raw: &RawTensor, data: u64, start: usize) -> Result<TensorInfo> {
    let dtype = Dtype::parse(&raw.dtype).ok_or_else(|| anyhow!("unknown dtype {:?}", raw.dtype))?;
    let [from, to] = raw.data_offsets;
    if from > to || to > data {
        bail!("its bytes are {from}..{to}, which is not a range inside the {data} bytes of data");
    }
    let wanted = raw.shape.iter().try_fold(dtype.bytes(), |bytes, &size| bytes.checked_mul(size));
    let Some(wanted) = wanted else { bail!("its shape {:?} has more elements than can be counted", raw.shape) };
    ensure!(
        wanted == to - from,
        "{dtype}{:?} needs {wanted} bytes, but {from}..{to} are {} bytes",
        raw.shape,
        to - from
    );
    Ok(TensorInfo { dtype, shape: raw.shape.clone(), range: start + from as usize..start + to as usize })
}

/// All tensors together: laid end to end they are the data, nothing more and nothing less.
fn check_cover(tensors: &BTreeMap<String, TensorInfo>, start: usize, end: usize) -> Result<()> {
    let mut by_place: Vec<(&String, &TensorInfo)> = tensors.iter().collect();
    by_place.sort_by_key(|(_, info)| (info.range.start, info.range.end));
    let mut at = start;
    let mut before = "the start of the data".to_string();
    for (name, info) in by_place {
        let from = info.range.start;
        ensure!(from >= at, "tensor `{name}` overlaps {before}: it starts {} bytes before its end", at - from);
        ensure!(from == at, "{} unnamed bytes lie between {before} and tensor `{name}`", from - at);
        at = info.range.end;
        before = format!("tensor `{name}`");
    }
    ensure!(at == end, "{} bytes after {before} belong to no tensor", end - at);
    Ok(())
}

struct RawHeader {
    tensors: BTreeMap<String, RawTensor>,
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawHeader, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// A map that refuses a second entry of the same name, which a plain map would let win.
struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a map from tensor name to dtype, shape and data_offsets")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<RawHeader, M::Error> {
        let mut tensors = BTreeMap::new();
        let mut metadata = None;
        while let Some(name) = map.next_key::<String>()? {
            let again = if name == "__metadata__" {
                metadata.replace(map.next_value()?).is_some()
            } else {
                tensors.insert(name.clone(), map.next_value()?).is_some()
            };
            if again {
                return Err(M::Error::custom(format!("`{name}` is there twice")));
            }
        }
        Ok(RawHeader { tensors, metadata: metadata.unwrap_or_default() })
    }
}
