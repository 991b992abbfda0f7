//! Bytes with a bit each that says whether anybody wrote them, and the allocations of global memory.
use super::{address, shadow::Shadow};

/// A piece of memory.
pub struct Region {
    pub data: Vec<u8>,
    /// A bit per byte.
    written: Vec<u8>,
    pub shadow: Shadow,
}

impl Region {
    pub fn new(bytes: u64) -> Region {
        Region {
            data: vec![0; bytes as usize],
            written: vec![0; bytes.div_ceil(8) as usize],
            shadow: Shadow::new(bytes),
        }
    }

    pub fn len(&self) -> u64 {
        self.data.len() as u64
    }

    /// Whether all bytes of the range, which lies in the region, were written.
    pub fn is_written(&self, offset: u64, bytes: u64) -> bool {
        let within = (offset & 7) + bytes;
        if within <= 8 {
            let wanted = ((1u16 << bytes) - 1) as u8;
            return self.written[(offset >> 3) as usize] >> (offset & 7) & wanted == wanted;
        }
        (offset..offset + bytes).all(|byte| self.written[(byte >> 3) as usize] >> (byte & 7) & 1 == 1)
    }

    pub fn mark_written(&mut self, offset: u64, bytes: u64) {
        let within = (offset & 7) + bytes;
        if bytes > 0 && within <= 8 {
            self.written[(offset >> 3) as usize] |= (((1u16 << bytes) - 1) << (offset & 7)) as u8;
            return;
        }
        let (first, last) = (offset.div_ceil(8), (offset + bytes) / 8);
        if first < last {
            self.written[first as usize..last as usize].fill(0xff);
        }
        for byte in (offset..(first * 8).min(offset + bytes)).chain((last * 8).max(offset)..offset + bytes) {
            self.written[(byte >> 3) as usize] |= 1 << (byte & 7);
        }
    }

    /// Up to 8 bytes as a number.
    pub fn load(&self, offset: u64, bytes: u64) -> u64 {
        let mut value = [0; 8];
        value[..bytes as usize].copy_from_slice(&self.data[offset as usize..(offset + bytes) as usize]);
        u64::from_le_bytes(value)
    }

    /// The low bytes of a number.
    pub fn store(&mut self, offset: u64, bytes: u64, value: u64) {
        self.data[offset as usize..(offset + bytes) as usize].copy_from_slice(&value.to_le_bytes()[..bytes as usize]);
        self.mark_written(offset, bytes);
    }
}

/// The allocations of a device.
#[derive(Default)]
pub struct GlobalMemory {
    allocations: Vec<Allocation>,
}

pub struct Allocation {
    /// What the user calls it, for messages.
    pub name: String,
    start: u64,
    pub region: Region,
}

impl GlobalMemory {
    /// The address of `bytes` new bytes.
    pub fn allocate(&mut self, name: &str, bytes: u64) -> u64 {
        let start = address::allocation_start(self.allocations.len());
        self.allocations.push(Allocation { name: name.to_owned(), start, region: Region::new(bytes) });
        start
    }

    /// The allocation, and the offset in it of an offset in its window; none before its start.
    pub fn find(&mut self, allocation: usize, offset: u64) -> Option<(&mut Allocation, u64)> {
        let found = self.allocations.get_mut(allocation)?;
        let within = offset.checked_sub(address::ALIGN)?;
        Some((found, within))
    }

    pub fn by_address(&mut self, start: u64) -> Option<(&mut Allocation, u64)> {
        self.allocations
            .iter_mut()
            .find(|allocation| (allocation.start..=allocation.start + allocation.region.len()).contains(&start))
            .map(|allocation| {
                let within = start - allocation.start;
                (allocation, within)
            })
    }

    pub fn start_launch(&mut self) {
        self.allocations.iter_mut().for_each(|allocation| allocation.region.shadow.clear());
    }

    pub fn name(&self, allocation: usize) -> &str {
        self.allocations.get(allocation).map_or("no allocation", |allocation| &allocation.name)
    }
}
