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
}

impl Pool {
    /// Of a block of so many warps, of which a multiprocessor has room for `blocks`.
    pub fn new(warps: usize, blocks: u32) -> Pool {
        let threads = (warps * LANES) as u32 * blocks.max(1);
        let registers = (REGISTERS / threads).min(MOST_OF_THREAD) / UNIT * UNIT;
        Pool { held: vec![registers; warps], free: 0 }
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
        self.in_step(warp, pc)?;
        let (index, RegistersOp { count, grows }) = (warp.index as usize, op);
        let pool = &mut self.blocks[warp.block].pool;
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

    /// What a warp waits for, for messages.
    pub fn describe_registers(&self, warp: &Warp, count: u32) -> String {
        let pool = &self.blocks[warp.block].pool;
        let held = pool.held[warp.index as usize];
        format!("{count} registers of a thread, which has {held}, from the block's pool, which has {}", pool.free)
    }
}
