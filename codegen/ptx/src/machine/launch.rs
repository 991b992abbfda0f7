//! The device as the host sees it: memory, launches, statistics.
use super::{
    atomic::SyncObjects,
    cluster::Cluster,
    memory::{GlobalMemory, Region},
};
use crate::{
    error::{Error, FaultKind},
    ops::Mask,
    parse::Parameter,
    program::Kernel,
};
use std::collections::BTreeMap;

/// When asynchronous operations take effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// As late as the memory model allows: at the wait that covers them.
    #[default]
    Late,
    /// When they are issued.
    Early,
}

/// How to run a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    /// Blocks of the grid.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: [u32; 3],
    /// Blocks of a cluster; what the kernel was compiled for where it says so.
    pub cluster: Option<[u32; 3]>,
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u64,
    pub mode: Mode,
    /// Warp instructions that may run before the launch is given up.
    pub budget: u64,
}

impl Launch {
    /// A launch in [`Mode::Late`] without clusters or dynamic shared memory.
    pub fn new(grid: [u32; 3], threads: [u32; 3]) -> Launch {
        Launch { grid, threads, cluster: None, dynamic_shared: 0, mode: Mode::Late, budget: 1 << 32 }
    }
}

/// A kernel argument: its bytes, in the parameter's size.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    U32(u32),
    F32(f32),
    /// 64-bit numbers and addresses.
    U64(u64),
    Bytes(Vec<u8>),
}

impl Argument {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Argument::U32(value) => value.to_le_bytes().to_vec(),
            Argument::F32(value) => value.to_le_bytes().to_vec(),
            Argument::U64(value) => value.to_le_bytes().to_vec(),
            Argument::Bytes(bytes) => bytes.clone(),
        }
    }
}

/// What a launch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Warp instructions by opcode.
    pub instructions: BTreeMap<String, u64>,
    /// Instructions of all lanes that took part.
    pub lane_instructions: u64,
}

/// A device: allocations that live from launch to launch.
#[derive(Default)]
pub struct Device {
    memory: GlobalMemory,
}

/// Sizes of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub grid: [u32; 3],
    pub threads: [u32; 3],
    pub cluster: [u32; 3],
}

/// What all clusters of a launch share.
pub struct LaunchState<'l> {
    pub shape: Shape,
    pub mode: Mode,
    /// Of a block, the reserved start included.
    pub shared_bytes: u64,
    pub memory: &'l mut GlobalMemory,
    pub parameters: &'l Region,
    pub variables: &'l Region,
    pub syncs: &'l mut SyncObjects,
    counters: &'l mut Counters,
}

struct Counters {
    /// By instruction.
    executed: Vec<u64>,
    lanes: u64,
    left: u64,
    budget: u64,
}

/// The most dynamic and static shared memory that a block can have, the reserved part included.
const MOST_SHARED: u64 = 228 * 1024;
const MOST_THREADS: u64 = 1024;
const MOST_BLOCKS_OF_CLUSTER: u64 = 16;

impl Device {
    pub fn new() -> Device {
        Device::default()
    }

    /// The address of `bytes` new bytes that nobody wrote, aligned as `cudaMalloc` does it: to 256 and no more.
    pub fn allocate(&mut self, name: &str, bytes: u64) -> u64 {
        self.memory.allocate(name, bytes)
    }

    /// An allocation that holds `data`.
    pub fn upload(&mut self, name: &str, data: &[u8]) -> u64 {
        let address = self.allocate(name, data.len() as u64);
        self.write(address, data).expect("the allocation has the size of its data");
        address
    }

    /// Writes to memory from the host.
    ///
    /// # Errors
    /// The range is in no allocation.
    pub fn write(&mut self, address: u64, data: &[u8]) -> Result<(), Error> {
        let (region, offset) = self.find(address, data.len() as u64)?;
        region.data[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        region.mark_written(offset, data.len() as u64);
        Ok(())
    }

    /// Reads memory from the host.
    ///
    /// # Errors
    /// The range is in no allocation, or a byte of it was never written.
    pub fn read(&mut self, address: u64, bytes: u64) -> Result<Vec<u8>, Error> {
        let (region, offset) = self.find(address, bytes)?;
        if let Some(byte) = (offset..offset + bytes).find(|byte| !region.is_written(*byte, 1)) {
            return Err(host(format!("the host reads byte {byte} of the allocation, which nobody wrote")));
        }
        Ok(region.data[offset as usize..(offset + bytes) as usize].to_vec())
    }

    fn find(&mut self, address: u64, bytes: u64) -> Result<(&mut Region, u64), Error> {
        let found = self.memory.by_address(address);
        let (allocation, offset) = found.ok_or_else(|| host(format!("no allocation holds {address:#x}")))?;
        if offset + bytes > allocation.region.len() {
            let (name, len) = (&allocation.name, allocation.region.len());
            return Err(host(format!("{bytes} bytes from byte {offset} on of `{name}`, which has {len}")));
        }
        Ok((&mut allocation.region, offset))
    }

    /// Runs a kernel to its end.
    ///
    /// # Errors
    /// A launch that the kernel does not allow, or the first fault.
    pub fn launch(&mut self, kernel: &Kernel, launch: &Launch, arguments: &[Argument]) -> Result<Statistics, Error> {
        let found = |found| Error::Launch { kernel: kernel.name.clone(), found };
        let shape = shape(kernel, launch).map_err(found)?;
        let shared_bytes = kernel.shared.dynamic_start.unwrap_or(kernel.shared.static_end) + launch.dynamic_shared;
        if shared_bytes > MOST_SHARED {
            return Err(found(format!("{shared_bytes} bytes of shared memory, wanted at most {MOST_SHARED}")));
        }
        let parameters = parameters(&kernel.parameters, arguments).map_err(found)?;
        let variables = filled(&kernel.variables.bytes);
        let mut counters =
            Counters { executed: vec![0; kernel.code.len()], lanes: 0, left: launch.budget, budget: launch.budget };
        let mut syncs = SyncObjects::default();
        self.memory.start_launch();
        for number in 0..shape.clusters() {
            let state = LaunchState {
                shape,
                mode: launch.mode,
                shared_bytes,
                memory: &mut self.memory,
                parameters: &parameters,
                variables: &variables,
                syncs: &mut syncs,
                counters: &mut counters,
            };
            let (mut cluster, warps) = Cluster::new(kernel, state, number)?;
            cluster.run(warps).map_err(Error::Fault)?;
        }
        Ok(counters.statistics(kernel))
    }
}

fn host(found: String) -> Error {
    Error::Launch { kernel: "the host".to_owned(), found }
}

fn filled(bytes: &[u8]) -> Region {
    let mut region = Region::new(bytes.len() as u64);
    region.data.copy_from_slice(bytes);
    region.mark_written(0, bytes.len() as u64);
    region
}

fn shape(kernel: &Kernel, launch: &Launch) -> Result<Shape, String> {
    let cluster = match (kernel.cluster, launch.cluster) {
        (Some(compiled), Some(asked)) if compiled != asked => {
            return Err(format!("clusters of {asked:?}, but the kernel was compiled for {compiled:?}"));
        }
        (compiled, asked) => compiled.or(asked).unwrap_or([1; 3]),
    };
    let shape = Shape { grid: launch.grid, threads: launch.threads, cluster };
    let product = |sizes: [u32; 3]| sizes.iter().fold(1u64, |product, size| product.saturating_mul(u64::from(*size)));
    let empty = [launch.grid, launch.threads, cluster].concat().contains(&0);
    if empty || (0..3).any(|axis| !launch.grid[axis].is_multiple_of(cluster[axis])) {
        return Err(format!("a grid of {:?} blocks is not made of clusters of {cluster:?}", launch.grid));
    }
    if product(launch.grid) > u64::from(u32::MAX) || product(cluster) > MOST_BLOCKS_OF_CLUSTER {
        let most = MOST_BLOCKS_OF_CLUSTER;
        return Err(format!("a grid of {:?} with clusters of {cluster:?}, wanted up to {most} blocks", launch.grid));
    }
    let most = kernel.max_threads.map_or(MOST_THREADS, product).min(MOST_THREADS);
    let count = product(launch.threads);
    if count > most {
        return Err(format!("{count} threads in a block, wanted at most {most}"));
    }
    if kernel.required_threads.is_some_and(|required| required != launch.threads) {
        return Err(format!("blocks of {:?}, but the kernel requires {:?}", launch.threads, kernel.required_threads));
    }
    Ok(shape)
}

fn parameters(wanted: &[Parameter], found: &[Argument]) -> Result<Region, String> {
    if wanted.len() != found.len() {
        return Err(format!("found {} arguments, wanted {}", found.len(), wanted.len()));
    }
    let mut bytes = vec![0; wanted.last().map_or(0, |last| last.offset + last.bytes) as usize];
    for (i, (parameter, argument)) in wanted.iter().zip(found).enumerate() {
        let argument = argument.bytes();
        if argument.len() as u64 != parameter.bytes {
            let (found, wanted) = (argument.len(), parameter.bytes);
            return Err(format!("argument {i} (`{}`) has {found} bytes, wanted {wanted}", parameter.name));
        }
        bytes[parameter.offset as usize..][..argument.len()].copy_from_slice(&argument);
    }
    Ok(filled(&bytes))
}

impl Shape {
    pub fn threads_per_block(&self) -> u32 {
        self.threads.iter().product()
    }

    pub fn cluster_size(&self) -> u32 {
        self.cluster.iter().product()
    }

    fn clusters(&self) -> u32 {
        self.grid.iter().product::<u32>() / self.cluster_size()
    }

    pub fn thread_id(&self, thread: u32) -> [u32; 3] {
        split(thread, self.threads)
    }

    /// The block of rank `rank` in a cluster; clusters and the blocks in them count along x first.
    pub fn block_id(&self, cluster: u32, rank: u32) -> [u32; 3] {
        let clusters = std::array::from_fn(|axis| self.grid[axis] / self.cluster[axis]);
        let (first, within) = (split(cluster, clusters), split(rank, self.cluster));
        std::array::from_fn(|axis| first[axis] * self.cluster[axis] + within[axis])
    }
}

fn split(index: u32, sizes: [u32; 3]) -> [u32; 3] {
    [index % sizes[0], index / sizes[0] % sizes[1], index / sizes[0] / sizes[1]]
}

impl LaunchState<'_> {
    /// Counts an instruction; at the end of the budget it is the last.
    pub fn count(&mut self, pc: u32, lanes: Mask) -> Result<(), FaultKind> {
        let counters = &mut *self.counters;
        if counters.left == 0 {
            return Err(FaultKind::Budget(counters.budget));
        }
        counters.left -= 1;
        counters.executed[pc as usize] += 1;
        counters.lanes += u64::from(lanes.count_ones());
        Ok(())
    }
}

impl Counters {
    fn statistics(&self, kernel: &Kernel) -> Statistics {
        let mut instructions = BTreeMap::new();
        for (count, instruction) in self.executed.iter().zip(&kernel.code).filter(|(count, _)| **count > 0) {
            *instructions.entry(kernel.opcodes[instruction.opcode as usize].clone()).or_default() += count;
        }
        Statistics { instructions, lane_instructions: self.lanes }
    }
}
