//! Instructions that the four warps of a warpgroup run together, `wgmma` and `setmaxnreg`: all of them come to the same ones, in the
//! same order. What a warp does in between is its own affair.
use super::{Outcome, cluster::Cluster, misuse, warp::Warp, warpgroup::WARPS};
use std::collections::VecDeque;

const ALL_WARPS: u8 = 0b1111;

/// Where the warps of a warpgroup are.
#[derive(Default)]
pub struct InStep {
    /// The instructions that some of the warps came to and some did not yet, each with those that did.
    ahead: VecDeque<(u32, u8)>,
    /// How many instructions all warps came to.
    common: u64,
    /// By warp: how many it came to.
    came: [u64; WARPS],
}

impl InStep {
    /// Notes that a warp comes to an instruction.
    ///
    /// # Errors
    /// The one that others came to instead.
    fn comes_to(&mut self, rank: usize, pc: u32) -> Result<(), u32> {
        let index = (self.came[rank] - self.common) as usize;
        self.came[rank] += 1;
        if index == self.ahead.len() {
            self.ahead.push_back((pc, 0));
        }
        let (other, came) = &mut self.ahead[index];
        if *other != pc {
            return Err(*other);
        }
        *came |= 1 << rank;
        while self.ahead.front().is_some_and(|(_, came)| *came == ALL_WARPS) {
            self.ahead.pop_front();
            self.common += 1;
        }
        Ok(())
    }

    /// A warp, by its rank, and an instruction that others came to without it.
    fn missed(&self) -> Option<(usize, u32)> {
        let (pc, came) = self.ahead.front()?;
        Some((came.trailing_ones() as usize, *pc))
    }
}

impl Cluster<'_> {
    /// Notes that a warp, all of it, comes to an instruction that its warpgroup runs together.
    pub fn in_step(&mut self, warp: &Warp, pc: u32) -> Outcome<()> {
        if !self.launch.shape.threads_per_block().is_multiple_of(128) {
            return Err(misuse(0, "an instruction of warpgroups in a block that is not made of such, of 128 threads"));
        }
        let (group, rank) = (warp.index as usize / WARPS, warp.index as usize % WARPS);
        let came = self.blocks[warp.block].warpgroups[group].in_step.comes_to(rank, pc);
        came.map_err(|other| {
            let (opcode, line) = (self.opcode(other), self.line(other));
            misuse(0, format!("the warps of a warpgroup part: another came to `{opcode}` of line {line} instead"))
        })
    }

    /// At the end: the block and the number of a warp, and an instruction that others of its warpgroup came to without it.
    pub fn missed_step(&self) -> Option<(usize, u32, u32)> {
        self.blocks.iter().enumerate().find_map(|(block, state)| {
            state.warpgroups.iter().enumerate().find_map(|(group, warpgroup)| {
                let (rank, pc) = warpgroup.in_step.missed()?;
                Some((block, (group * WARPS + rank) as u32, pc))
            })
        })
    }
}
