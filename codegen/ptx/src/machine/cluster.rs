//! The blocks of a cluster while they run: scheduling of warps, and from a halt to a fault.
use super::{
    Halt, address,
    barrier::{Barrier, ClusterBarrier},
    clock::{Agent, Knowledge, Stamp},
    launch::{LaunchState, Shape},
    mbarrier::Mbarrier,
    memory::Region,
    pool::Pool,
    registers::Registers,
    shadow::{AgentKind, Agents},
    warp::Warp,
    warpgroup::{WARPS, Warpgroup},
};
use crate::{
    error::{Error, Fault, FaultKind, Place},
    ops::{LANES, Mask},
    program::{Kernel, Special},
};
use std::collections::BTreeMap;

/// Instructions that a path runs before others get their turn.
const QUANTUM: u32 = 8192;

pub struct Cluster<'l> {
    pub kernel: &'l Kernel,
    pub launch: LaunchState<'l>,
    /// Its number in the grid.
    pub number: u32,
    pub blocks: Vec<Block>,
    pub agents: Agents,
    pub barrier: ClusterBarrier,
    /// Grows whenever something happens that others may wait for.
    pub progress: u64,
}

pub struct Block {
    pub id: [u32; 3],
    pub shared: Region,
    pub barriers: Vec<Barrier>,
    pub mbarriers: BTreeMap<u64, Mbarrier>,
    pub warpgroups: Vec<Warpgroup>,
    pub pool: Pool,
    /// Warps that still run.
    pub live: u32,
    /// The last access of each agent of another block to this one's shared memory.
    pub visits: BTreeMap<Agent, (Stamp, u32)>,
    /// What its warps that ended knew.
    pub ended: Knowledge,
}

/// What a step of a path came to.
pub enum Next {
    Advance,
    /// The path was moved, or waits.
    Done,
}

type Run<T> = Result<T, Box<Fault>>;

impl<'l> Cluster<'l> {
    /// The cluster with the given number, all its blocks' warps at their first instruction.
    ///
    /// # Errors
    /// A cluster of more warps than can be told apart.
    pub fn new(kernel: &'l Kernel, launch: LaunchState<'l>, number: u32) -> Result<(Cluster<'l>, Vec<Warp>), Error> {
        let found = |found| Error::Launch { kernel: kernel.name.clone(), found };
        let shape = launch.shape;
        let warps_per_block = shape.threads_per_block().div_ceil(LANES as u32) as usize;
        let blocks: Vec<Block> = (0..shape.cluster_size())
            .map(|rank| Block {
                id: shape.block_id(number, rank),
                shared: Region::new(launch.shared_bytes),
                barriers: vec![Barrier::default(); 16],
                mbarriers: BTreeMap::new(),
                warpgroups: std::iter::repeat_with(Warpgroup::default).take(warps_per_block / WARPS).collect(),
                pool: Pool::new(warps_per_block, kernel.least_blocks.unwrap_or(1)),
                live: warps_per_block as u32,
                visits: BTreeMap::new(),
                ended: Knowledge::default(),
            })
            .collect();
        let mut agents = Agents::default();
        let mut warps = Vec::new();
        let mut template = Registers::new(&kernel.files);
        for (block, state) in blocks.iter().enumerate() {
            for index in 0..warps_per_block as u32 {
                let agent = agents.get(AgentKind::Warp { block, warp: index }).map_err(found)?;
                set_specials(&mut template, kernel, &launch, state.id, block as u32, index);
                warps.push(warp(kernel, &shape, block, index, agent, &template));
            }
        }
        let threads = shape.threads_per_block().next_multiple_of(LANES as u32) * blocks.len() as u32;
        let barrier = ClusterBarrier::new(threads);
        Ok((Cluster { kernel, launch, number, blocks, agents, barrier, progress: 0 }, warps))
    }

    /// Runs all warps to their end.
    pub fn run(&mut self, mut warps: Vec<Warp>) -> Run<()> {
        let mut last_timeout = None;
        while warps.iter().any(|warp| !warp.is_done()) {
            let mut ran = false;
            for warp in &mut warps {
                ran |= self.run_warp(warp)?;
            }
            if ran {
                continue;
            }
            if last_timeout == Some(self.progress) || !self.time_out(&mut warps) {
                return Err(self.deadlock(&warps));
            }
            last_timeout = Some(self.progress);
        }
        self.finish(&mut warps)
    }

    /// Runs each path of a warp until it waits; whether any could run.
    fn run_warp(&mut self, warp: &mut Warp) -> Run<bool> {
        if warp.is_done() && warp.copies.arrivals.is_empty() {
            return Ok(false);
        }
        let mut ran = self.awaited_arrivals(warp).map_err(|halt| self.fault(warp, 0, *halt))?;
        let mut path = 0;
        while path < warp.paths.len() {
            if warp.paths.is_leaf(path) {
                ran |= self.run_path(warp, path)?;
            }
            path += 1;
        }
        if warp.is_done() && !std::mem::replace(&mut warp.retired, true) {
            self.retire(warp)?;
        }
        Ok(ran)
    }

    fn run_path(&mut self, warp: &mut Warp, path: usize) -> Run<bool> {
        let kernel = self.kernel;
        if let Some(wait) = warp.paths.get(path).wait {
            let pc = warp.paths.get(path).pc;
            let woken = self.wake(warp, path, wait).map_err(|halt| self.fault(warp, pc, *halt))?;
            if !woken {
                return Ok(false);
            }
        }
        for _ in 0..QUANTUM {
            if !warp.paths.is_leaf(path) || warp.paths.get(path).wait.is_some() {
                return Ok(true);
            }
            let (pc, lanes) = (warp.paths.get(path).pc, warp.paths.get(path).lanes);
            if kernel.code.get(pc as usize).is_none() {
                warp.paths.exit(path, lanes);
                continue;
            }
            self.launch
                .count(pc, lanes)
                .map_err(|kind| self.fault(warp, pc, Halt { lane: lanes.trailing_zeros() as usize, kind }))?;
            match self.step(warp, path, pc, lanes).map_err(|halt| self.fault(warp, pc, *halt))? {
                Next::Advance => warp.paths.advance(path, pc + 1),
                Next::Done => {}
            }
        }
        Ok(true)
    }

    /// Counts a warp that ended. With its last warp a block's shared memory goes, so what other blocks did to it has to
    /// be known to have happened before.
    fn retire(&mut self, warp: &mut Warp) -> Run<()> {
        let misuse = |found| Halt { lane: 0, kind: FaultKind::Misuse(found) };
        let knowledge = warp.release(warp.lanes).map_err(|found| self.fault(warp, 0, misuse(found)))?;
        let block = &mut self.blocks[warp.block];
        block.ended.join(&knowledge);
        block.live -= 1;
        let ended = &block.ended.generic;
        let late = block.visits.values().find(|(stamp, _)| !ended.covers(*stamp, stamp.lanes())).map(|visit| visit.1);
        match late {
            Some(at) if block.live == 0 => {
                let found =
                    "another block's shared memory may be gone by then: that block does not wait for this".into();
                Err(self.fault(warp, at, misuse(found)))
            }
            _ => Ok(()),
        }
    }

    /// The thread in `lane` of a warp.
    pub fn place(&self, block: usize, warp: u32, lane: usize) -> Place {
        let thread = warp * LANES as u32 + lane as u32;
        Place { block: self.blocks[block].id, thread: self.launch.shape.thread_id(thread) }
    }

    pub fn fault(&self, warp: &Warp, pc: u32, halt: Halt) -> Box<Fault> {
        let instruction = self.kernel.code.get(pc as usize);
        Box::new(Fault {
            kernel: self.kernel.name.clone(),
            line: instruction.map_or(0, |instruction| instruction.line),
            opcode: self.opcode(pc).to_owned(),
            place: self.place(warp.block, warp.index, halt.lane % LANES),
            kind: halt.kind,
        })
    }

    pub fn opcode(&self, pc: u32) -> &str {
        let instruction = self.kernel.code.get(pc as usize);
        instruction.map_or("the end", |instruction| &self.kernel.opcodes[instruction.opcode as usize])
    }

    pub fn line(&self, pc: u32) -> u32 {
        self.kernel.code.get(pc as usize).map_or(0, |instruction| instruction.line)
    }

    fn deadlock(&self, warps: &[Warp]) -> Box<Fault> {
        let mut waiting = Vec::new();
        for warp in warps {
            for path in warp.paths.leaves() {
                let (pc, lanes) = (warp.paths.get(path).pc, warp.paths.get(path).lanes);
                let place = self.place(warp.block, warp.index, lanes.trailing_zeros() as usize);
                let what = warp.paths.get(path).wait.map_or("runs".to_owned(), |wait| self.describe(warp, wait));
                let count = lanes.count_ones();
                waiting.push(format!("  line {} ({count} threads from {place}): {what}", self.line(pc)));
            }
        }
        let first = warps.iter().find(|warp| !warp.is_done()).expect("a deadlock has a warp that waits");
        let path = first.paths.leaves().next().expect("a warp that is not done has a path");
        let pc = first.paths.get(path).pc;
        let lane = first.paths.get(path).lanes.trailing_zeros() as usize;
        self.fault(first, pc, Halt { lane, kind: FaultKind::Deadlock(waiting.join("\n")) })
    }
}

fn warp(kernel: &Kernel, shape: &Shape, block: usize, index: u32, agent: Agent, registers: &Registers) -> Warp {
    let left = shape.threads_per_block() - index * LANES as u32;
    let lanes = if left >= LANES as u32 { Mask::MAX } else { (1 << left) - 1 };
    let mut warp = Warp::new(block, index, agent, lanes, registers.clone());
    if kernel.local_bytes > 0 {
        warp.local = Some((0..LANES).map(|_| Region::new(kernel.local_bytes)).collect());
    }
    warp
}

fn set_specials(
    registers: &mut Registers,
    kernel: &Kernel,
    launch: &LaunchState,
    block: [u32; 3],
    rank: u32,
    warp: u32,
) {
    let shape = &launch.shape;
    for (special, word) in &kernel.specials {
        let value = |lane: usize| match special {
            Special::Thread(axis) => shape.thread_id(warp * LANES as u32 + lane as u32)[*axis as usize],
            Special::ThreadCount(axis) => shape.threads[*axis as usize],
            Special::Block(axis) => block[*axis as usize],
            Special::BlockCount(axis) => shape.grid[*axis as usize],
            Special::Lane => lane as u32,
            Special::Warp => warp,
            Special::LanesBelow => (1 << lane) - 1,
            Special::LanesUpTo => (2u64 << lane).wrapping_sub(1) as u32,
            Special::LanesAbove => !((2u64 << lane).wrapping_sub(1) as u32),
            Special::LanesFrom => !((1 << lane) - 1),
            Special::LaneBit => 1 << lane,
            Special::Cluster(axis) => block[*axis as usize] / shape.cluster[*axis as usize],
            Special::ClusterCount(axis) => shape.grid[*axis as usize] / shape.cluster[*axis as usize],
            Special::ClusterBlock(axis) => block[*axis as usize] % shape.cluster[*axis as usize],
            Special::ClusterBlockCount(axis) => shape.cluster[*axis as usize],
            Special::ClusterRank => rank,
            Special::ClusterSize => shape.cluster_size(),
            Special::DynamicShared => {
                (launch.shared_bytes - kernel.shared.dynamic_start.unwrap_or(launch.shared_bytes)) as u32
            }
            Special::TotalShared => (launch.shared_bytes - address::SHARED_RESERVED) as u32,
        };
        registers.define_word(*word, std::array::from_fn(value));
    }
}

impl Cluster<'_> {
    /// What is left to do when all threads are gone.
    fn finish(&mut self, warps: &mut [Warp]) -> Run<()> {
        for warp in warps.iter_mut() {
            let left = |lane, what: &str| Halt { lane, kind: FaultKind::Misuse(format!("nobody waits for {what}")) };
            if let Err((at, lane)) = self.finish_stores(warp) {
                return Err(self.fault(warp, at, left(lane, "this bulk copy to have read its shared memory")));
            }
            if let Some(at) = warp.products.unfinished() {
                return Err(self.fault(warp, at, left(0, "this wgmma to end")));
            }
        }
        if let Some((block, index, at)) = self.missed_step() {
            let is_it = |warp: &&Warp| (warp.block, warp.index) == (block, index);
            let warp = warps.iter().find(is_it).expect("a block has its warps");
            let found = "other warps of the warpgroup came to it, and this one did not".to_owned();
            return Err(self.fault(warp, at, Halt { lane: 0, kind: FaultKind::Misuse(found) }));
        }
        if let Some((block, at, found)) = self.unfinished_mbarrier() {
            let warp = warps.iter().find(|warp| warp.block == block).expect("a block has warps");
            return Err(self.fault(warp, at, Halt { lane: 0, kind: FaultKind::Misuse(found) }));
        }
        Ok(())
    }
}
