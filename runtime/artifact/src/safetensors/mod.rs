//! safetensors files: read through a memory map, written atomically and deterministically.
//!
//! A file is eight bytes (little-endian length of the header), the header (JSON: tensor name to dtype, shape and byte
//! range) and the tensors' bytes. Files come from strangers, so the header is hostile until checked. What is ours here,
//! rather than the `safetensors` crate's, is the strictness and the messages: the crate keeps the last of two tensors
//! of the same name and says `InvalidOffset` without what it found and wanted.
//!
//! After [`SafetensorsFile::open`] succeeds:
//! - the header has at most [`HEADER_LIMIT`] bytes, is UTF-8 and JSON, and names every tensor once;
//! - every dtype is known, and bytes of a tensor = elements x size of the dtype, without overflow;
//! - the tensors cover the data exactly: no overlap, no gap, nothing before, behind or outside.
//!
//! Nothing is assumed about alignment: a tensor may start at any byte.
mod header;
mod weights;
mod write;

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use header::{HEADER_LIMIT, TensorInfo};
pub use weights::{INDEX_FILE, SINGLE_FILE, Weights, is_pickle, refuse_pickle};
pub use write::{TensorData, TensorSpec, stream, write};

/// How an element is stored, by the names that the format gives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Dtype {
    Bool,
    U8,
    I8,
    F8E5M2,
    F8E4M3,
    I16,
    U16,
    F16,
    Bf16,
    I32,
    U32,
    F32,
    F64,
    I64,
    U64,
}

/// Every dtype, its name in a header, and the bytes of an element.
const DTYPES: &[(Dtype, &str, u64)] = &[
    (Dtype::Bool, "BOOL", 1),
    (Dtype::U8, "U8", 1),
    (Dtype::I8, "I8", 1),
    (Dtype::F8E5M2, "F8_E5M2", 1),
    (Dtype::F8E4M3, "F8_E4M3", 1),
    (Dtype::I16, "I16", 2),
    (Dtype::U16, "U16", 2),
    (Dtype::F16, "F16", 2),
    (Dtype::Bf16, "BF16", 2),
    (Dtype::I32, "I32", 4),
    (Dtype::U32, "U32", 4),
    (Dtype::F32, "F32", 4),
    (Dtype::F64, "F64", 8),
    (Dtype::I64, "I64", 8),
    (Dtype::U64, "U64", 8),
];

impl Dtype {
    /// The dtype that a header calls `name`.
    pub fn parse(name: &str) -> Option<Dtype> {
        DTYPES.iter().find(|row| row.1 == name).map(|row| row.0)
    }
    fn row(self) -> &'static (Dtype, &'static str, u64) {
        DTYPES.iter().find(|row| row.0 == self).expect("every dtype has a row")
    }
    /// Its name in a header, such as `BF16`.
    pub fn name(self) -> &'static str {
        self.row().1
    }
    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        self.row().2
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A tensor inside a mapped file.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TensorView<'a> {
    pub dtype: Dtype,
    pub shape: &'a [u64],
    /// Row-major, little-endian, at any alignment.
    pub bytes: &'a [u8],
}

/// A checked, memory-mapped file.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    map: memmap2::Mmap,
    tensors: BTreeMap<String, TensorInfo>,
    metadata: BTreeMap<String, String>,
}

impl SafetensorsFile {
    /// Maps the file and checks its header against the invariants of this module.
    ///
    /// # Errors
    /// Name the file, the tensor where there is one, what was found and what was wanted.
    pub fn open(path: &Path) -> Result<SafetensorsFile> {
        let place = || path.display().to_string();
        let file = File::open(path).with_context(place)?;
        if !file.metadata().with_context(place)?.is_file() {
            bail!("{}: not a file", path.display());
        }
        // SAFETY: the map is read-only and private to us; as for every user of safetensors, the file must not be cut
        // short by somebody else while it is in use.
        let map = unsafe { memmap2::Mmap::map(&file) }.with_context(place)?;
        let header = header::parse(&map).with_context(place)?;
        Ok(SafetensorsFile { path: path.into(), map, tensors: header.tensors, metadata: header.metadata })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the system take back the memory of pages that were read; they are read again where they are needed.
    pub fn release(&self) {
        // SAFETY: the map is read-only and backed by the file, so a dropped page comes back with the same bytes.
        let released = unsafe { self.map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        // It is a wish: without it pages stay until the system needs them.
        drop(released);
    }

    /// The free-form `__metadata__` of the header.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Names and descriptions of all tensors, by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// There is none; the message names the file.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>> {
        let Some(info) = self.tensors.get(name) else { bail!("{}: there is no tensor `{name}`", self.path.display()) };
        let Range { start, end } = info.range;
        Ok(TensorView { dtype: info.dtype, shape: &info.shape, bytes: &self.map[start..end] })
    }
}

#[cfg(test)]
mod tests;
