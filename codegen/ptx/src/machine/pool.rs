//! `setmaxnreg`: registers that the warps of a block pass to each other.
//!
//! A block whose kernel says how many of its blocks a multiprocessor has room for begins with all registers that this leaves to
//! each thread; for other kernels the assembler leaves the instruction out. A warp that gives registers up puts them into
//! the block's pool. One that wants more waits until they are there, and for ever if nobody gives up enough.
use super::{
    Outcome,
    barrier::whole_warp,
    cluster::{Cluster, Next},
    misuse,
    waiting::Wait,
    warp::Warp,
    warpgroup::WARPS,
};
use crate::{
    op::RegistersOp,
    ops::{LANES, Mask},
};

/// Of a multiprocessor, and the most of a thread.
const REGISTERS: u32 = 64 << 10;
const MOST_OF_THREAD: u32 = 256;
/// Registers of a thread are dealt out in multiples of it.
pub const UNIT: u32 = 8;

/// What the warps of a block have of its registers.
pub struct Pool {
    /// By warp: registers of each thread.
    held: Vec<u32>,
    /// Registers that a warp gave up and none has taken, for each thread of a warp.
    free: u32,
    /// By warpgroup: the instructions that its first warps came to, in order.
    order: Vec<Vec<u32>>,
    /// By warp: how many of those it came to.
    came: Vec<usize>,
}

impl Pool {
    /// Of a block of so many warps, of which a multiprocessor has room for `blocks`.
    pub fn new(warps: usize, blocks: u32) -> Pool {
        let threads = (warps * LANES) as u32 * blocks.max(1);
        let registers = (REGISTERS / threads).min(MOST_OF_THREAD) / UNIT * UNIT;
        let order = vec![Vec::new(); warps.div_ceil(WARPS)];
        Pool { held: vec![registers; warps], free: 0, order, came: vec![0; warps] }
    }

    /// Notes that a warp comes to the instruction; whether all of its warpgroup that were there before came to the same.
    fn comes_to(&mut self, warp: usize, pc: u32) -> bool {
        let order = &mut self.order[warp / WARPS];
        let number = self.came[warp];
        self.came[warp] += 1;
        if number == order.len() {
            order.push(pc);
        }
        order[number] == pc
    }

    /// A warp and an instruction that others of its warpgroup came to without it.
    fn missed(&self) -> Option<(usize, u32)> {
        let next = |(warp, came): (usize, &usize)| Some((warp, *self.order[warp / WARPS].get(*came)?));
        self.came.iter().enumerate().find_map(next)
    }
}

impl Cluster<'_> {
    pub fn set_registers(
        &mut self,
        warp: &mut Warp,
        path: usize,
        pc: u32,
        lanes: Mask,
        op: RegistersOp,
    ) -> Outcome<Next> {
        whole_warp(warp, lanes)?;
        if self.kernel.least_blocks.is_none() {
            let found = "the assembler ignores this, as the kernel has no `.minnctapersm`";
            return Err(misuse(0, found));
        }
        if !self.launch.shape.threads_per_block().is_multiple_of((WARPS * LANES) as u32) {
            return Err(misuse(0, "a setmaxnreg in a block that is not made of warpgroups of 128 threads"));
        }
        let (index, RegistersOp { count, grows }) = (warp.index as usize, op);
        let pool = &mut self.blocks[warp.block].pool;
        if !pool.comes_to(index, pc) {
            return Err(misuse(0, "the warps of a warpgroup come to different instructions for registers"));
        }
        let held = pool.held[index];
        if (grows && count < held) || (!grows && count > held) {
            let what = if grows { "asks for" } else { "keeps" };
            return Err(misuse(0, format!("{what} {count} registers of a thread, which has {held}")));
        }
        self.progress += 1;
        if grows {
            let wait = Wait::Registers { count };
            warp.paths.get_mut(path).wait = Some(wait);
            self.wake(warp, path, wait)?;
            return Ok(Next::Done);
        }
        pool.free += held - count;
        pool.held[index] = count;
        Ok(Next::Advance)
    }

    /// Takes what a warp lacks of so many registers of a thread out of the pool, if there is so much.
    pub fn take_registers(&mut self, warp: &Warp, count: u32) -> bool {
        let pool = &mut self.blocks[warp.block].pool;
        let held = &mut pool.held[warp.index as usize];
        if pool.free < count - *held {
            return false;
        }
        pool.free -= count - *held;
        *held = count;
        self.progress += 1;
        true
    }

    /// At the end of a block: a warp, and an instruction for registers that others of its warpgroup came to without it.
    pub fn missed_registers(&self) -> Option<(usize, usize, u32)> {
        let of_block = |(block, state): (usize, &super::cluster::Block)| {
            let (warp, pc) = state.pool.missed()?;
            Some((block, warp, pc))
        };
        self.blocks.iter().enumerate().find_map(of_block)
    }

    /// What a warp waits for, for messages.
    pub fn describe_registers(&self, warp: &Warp, count: u32) -> String {
        let pool = &self.blocks[warp.block].pool;
        let held = pool.held[warp.index as usize];
        format!("{count} registers of a thread, which has {held}, from the block's pool, which has {}", pool.free)
    }
}
