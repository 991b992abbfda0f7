//! Memory of the GPU, pinned memory of the host, and the way from one to the other.
use super::driver::{Context, Said};
use super::stream::{Event, Stream};
use amc_artifact::memory::PIECE_BYTES;
use anyhow::{Result, ensure};
use cudarc::driver::{result, sys};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where kernels may expect what they are given to begin.
const ALIGNMENT: u64 = 256;

/// Memory of the GPU; freed when dropped.
pub struct Buffer {
    /// 0 where there are no bytes, because the driver gives out no empty memory.
    address: sys::CUdeviceptr,
    bytes: u64,
}

impl Buffer {
    /// Memory that holds nothing yet. The driver aligns it to [`ALIGNMENT`].
    pub fn new(_context: &Context, bytes: u64) -> Result<Buffer> {
        if bytes == 0 {
            return Ok(Buffer { address: 0, bytes });
        }
        // SAFETY: a context is current.
        let address = unsafe { result::malloc_sync(bytes as usize) };
        let address = address.said(format_args!("cannot allocate {bytes} bytes on the GPU"))?;
        Ok(Buffer { address, bytes })
    }

    /// The address of the byte at `offset`.
    pub fn at(&self, offset: u64) -> u64 {
        self.address + offset
    }

    /// Makes all of it zero, in the stream's order.
    pub fn clear(&mut self, stream: &Stream) -> Result<()> {
        if self.bytes == 0 {
            return Ok(());
        }
        // SAFETY: the range is this memory.
        let done = unsafe { result::memset_d8_async(self.address, 0, self.bytes as usize, stream.raw()) };
        done.said("cannot clear the GPU's memory")
    }

    /// Copies out what everything in the stream has left at `offset`.
    pub fn read(&self, stream: &Stream, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.check(offset, bytes.len());
        // SAFETY: the range is in this memory, and `bytes` is not given back before the copy is done.
        let done = unsafe { result::memcpy_dtoh_async(bytes, self.at(offset), stream.raw()) };
        let finished = stream.synchronize();
        done.said("cannot copy from the GPU")?;
        finished.said("cannot copy from the GPU")
    }

    /// # Panics
    /// If the range is not in this memory.
    pub fn check(&self, offset: u64, bytes: usize) {
        let end = offset.checked_add(bytes as u64);
        let inside = end.is_some_and(|end| end <= self.bytes);
        assert!(inside, "{bytes} bytes at {offset} are outside a buffer of {} bytes", self.bytes);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.address != 0 {
            // SAFETY: nobody else frees it, and the driver waits for what uses it.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

/// Where every one of several pieces begins if they lie one behind the other, and how many bytes they take.
pub fn offsets(sizes: impl Iterator<Item = u64>) -> (Vec<u64>, u64) {
    let mut end = 0;
    let place = |bytes: u64| {
        let begin = end;
        end = (begin + bytes).next_multiple_of(ALIGNMENT);
        begin
    };
    (sizes.map(place).collect(), end)
}

/// Pinned memory of the host, which the GPU reads and writes; freed when dropped.
struct Pinned {
    pointer: *mut u8,
    bytes: usize,
}

impl Pinned {
    fn new(_context: &Context, bytes: usize) -> Result<Pinned> {
        // SAFETY: a context is current.
        let pointer =
            unsafe { result::malloc_host(bytes, 0) }.said(format_args!("cannot pin {bytes} bytes of memory"))?;
        let pointer = pointer.cast::<u8>();
        // SAFETY: the driver gave so many bytes, and nobody else has them.
        unsafe { pointer.write_bytes(0, bytes) };
        Ok(Pinned { pointer, bytes })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: nobody else frees it; the driver waits for copies from and to it.
        let _ = unsafe { result::free_host(self.pointer.cast()) };
    }
}

/// Copies to the GPU through pinned memory: while one half of it is on its way, the other is filled.
pub struct Uploader {
    halves: [(Pinned, Event); 2],
    next: usize,
}

impl Uploader {
    pub fn new(context: &Context) -> Result<Uploader> {
        let half = || Ok::<_, anyhow::Error>((Pinned::new(context, PIECE_BYTES as usize)?, Event::new(context)?));
        Ok(Uploader { halves: [half()?, half()?], next: 0 })
    }

    /// Copies `bytes` to `offset`, in the stream's order; they may change once this returns.
    pub fn write(&mut self, stream: &Stream, target: &mut Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        target.check(offset, bytes.len());
        let mut at = offset;
        for piece in bytes.chunks(PIECE_BYTES as usize) {
            let (pinned, sent) = &self.halves[self.next];
            self.next ^= 1;
            ensure!(piece.len() <= pinned.bytes, "a piece of {} bytes for {} pinned ones", piece.len(), pinned.bytes);
            sent.synchronize()?;
            // SAFETY: the half is ours, and the copy from it that `sent` stands for is done.
            let half = unsafe { std::slice::from_raw_parts_mut(pinned.pointer, piece.len()) };
            half.copy_from_slice(piece);
            // SAFETY: the target was checked; the half is left alone until `sent`.
            unsafe { result::memcpy_htod_async(target.at(at), half, stream.raw()) }.said("cannot copy to the GPU")?;
            sent.record(stream)?;
            at += piece.len() as u64;
        }
        Ok(())
    }
}

/// How many launches of a program are done, as far as the host knows. The GPU writes it, so it can be read even when a
/// kernel has failed and the driver answers nothing but that.
pub struct Progress {
    pinned: Pinned,
}

impl Progress {
    pub fn new(context: &Context) -> Result<Progress> {
        Ok(Progress { pinned: Pinned::new(context, size_of::<u32>())? })
    }

    /// What any thread may look at.
    pub fn counter(&self) -> &AtomicU32 {
        // SAFETY: the memory is one number, aligned far better, that host and GPU write whole.
        unsafe { AtomicU32::from_ptr(self.pinned.pointer.cast()) }
    }

    /// None is done. No launch may be under way.
    pub fn restart(&self) {
        self.counter().store(0, Ordering::Relaxed);
    }

    /// Says that `launches` are done, once everything before it in the stream is.
    pub fn mark(&self, stream: &Stream, launches: u32) -> Result<()> {
        // Host and GPU have one address space, so the pointer means the same to both.
        let address = self.pinned.pointer as sys::CUdeviceptr;
        // SAFETY: one word of pinned memory that lives as long as the device.
        unsafe { sys::cuMemsetD32Async(address, launches, 1, stream.raw()) }
            .result()
            .said("cannot mark a launch as done")
    }

    pub fn done(&self) -> usize {
        self.counter().load(Ordering::Acquire) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_begin_where_kernels_expect_them() {
        assert_eq!(offsets([1, 256, 0, 257].into_iter()), (vec![0, 256, 512, 512], 1024));
        assert_eq!(offsets([].into_iter()), (vec![], 0));
    }
}
