//! Numbers as the arena stores them: little-endian, as on every CPU that code is generated for.
use amc_artifact::Storage;
use half::bf16;

/// A plain number of the arena.
///
/// # Safety
/// Every bit pattern of the type is a value and it has no padding.
pub unsafe trait Element: Copy + Default + 'static {
    const STORAGE: Storage;
}

// SAFETY: four bytes, each pattern a number.
unsafe impl Element for f32 {
    const STORAGE: Storage = Storage::F32;
}
// SAFETY: as above.
unsafe impl Element for i32 {
    const STORAGE: Storage = Storage::I32;
}
// SAFETY: two bytes, each pattern a number.
unsafe impl Element for bf16 {
    const STORAGE: Storage = Storage::Bf16;
}

/// The bytes of some numbers.
pub fn bytes<T: Element>(values: &[T]) -> &[u8] {
    // SAFETY: an `Element` has no padding; any address is aligned for bytes.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// The bytes of some numbers, to be filled in.
pub fn bytes_mut<T: Element>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as for `bytes`, and any bytes make an `Element`.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// Reads stored floating-point numbers as f32; whole elements only.
pub fn widen(storage: Storage, bytes: &[u8]) -> Vec<f32> {
    match storage {
        Storage::F32 => bytes.as_chunks().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect(),
        Storage::Bf16 => bytes.as_chunks().0.iter().map(|raw| bf16::from_le_bytes(*raw).to_f32()).collect(),
        Storage::I32 => bytes.as_chunks().0.iter().map(|raw| i32::from_le_bytes(*raw) as f32).collect(),
    }
}

/// Stores f32 numbers, rounded to nearest even where the storage is narrower.
pub fn narrow(storage: Storage, values: &[f32]) -> Vec<u8> {
    match storage {
        Storage::F32 => bytes(values).to_vec(),
        Storage::Bf16 => values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect(),
        Storage::I32 => values.iter().flat_map(|&value| (value as i32).to_le_bytes()).collect(),
    }
}
