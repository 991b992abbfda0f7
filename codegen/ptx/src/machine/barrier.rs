//! Barriers of the block, the warp and the cluster, and how waiting paths wake.
use super::{
    Outcome,
    clock::Knowledge,
    cluster::{Cluster, Next},
    misuse,
    waiting::Wait,
    warp::Warp,
};
use crate::{
    op::{BarrierKind, BarrierOp, Word},
    ops::{LANES, Mask},
};
use std::rc::Rc;

/// One of the 16 barriers of a block.
#[derive(Clone, Default)]
pub struct Barrier {
    /// Threads that the current round waits for, once one came.
    expected: u32,
    arrived: u32,
    pub round: u64,
    arriving: Knowledge,
    /// What the last complete round published.
    published: Rc<Knowledge>,
}

/// The barrier of a cluster, which threads arrive at and wait for apart.
pub struct ClusterBarrier {
    expected: u32,
    arrived: u32,
    round: u64,
    arriving: Knowledge,
    published: Rc<Knowledge>,
}

impl ClusterBarrier {
    pub fn new(threads: u32) -> ClusterBarrier {
        let (arriving, published) = (Knowledge::default(), Rc::default());
        ClusterBarrier { expected: threads, arrived: 0, round: 0, arriving, published }
    }
}

impl Cluster<'_> {
    pub fn barrier(&mut self, warp: &mut Warp, path: usize, lanes: Mask, op: &BarrierOp) -> Outcome<Next> {
        let lane = lanes.trailing_zeros() as usize;
        if op.aligned {
            whole_warp(warp, lanes)?;
        }
        let id = uniform(warp, lanes, op.id, "the barrier")? as usize;
        let all = self.launch.shape.threads_per_block().next_multiple_of(LANES as u32);
        let expected = match op.threads {
            Some(threads) => uniform(warp, lanes, threads, "the number of threads")?,
            None => all,
        };
        if id >= 16 || expected == 0 || expected % LANES as u32 != 0 || expected > all {
            let found =
                format!("barrier {id} of {expected} threads; wanted one of 16, for a multiple of 32 up to {all}");
            return Err(misuse(lane, found));
        }
        let knowledge = warp.release(lanes).map_err(|found| misuse(lane, found))?;
        let barrier = &mut self.blocks[warp.block].barriers[id];
        if barrier.arrived > 0 && barrier.expected != expected {
            let other = barrier.expected;
            return Err(misuse(
                lane,
                format!("barrier {id} for {expected} threads, but others came to it for {other}"),
            ));
        }
        barrier.expected = expected;
        barrier.arrived += if lanes == warp.lanes { LANES as u32 } else { lanes.count_ones() };
        barrier.arriving.join(&knowledge);
        let round = barrier.round;
        if barrier.arrived > expected {
            return Err(misuse(lane, format!("more than {expected} threads came to barrier {id}")));
        }
        if barrier.arrived == expected {
            barrier.round += 1;
            barrier.arrived = 0;
            barrier.published = Rc::new(std::mem::take(&mut barrier.arriving));
        }
        self.progress += 1;
        if op.kind == BarrierKind::Arrive {
            return Ok(Next::Advance);
        }
        warp.paths.get_mut(path).wait = Some(Wait::Barrier { id, round });
        Ok(Next::Done)
    }

    pub fn warp_sync(&mut self, warp: &mut Warp, path: usize, lanes: Mask, members: Word) -> Outcome<Next> {
        let members = uniform(warp, lanes, members, "the member mask")?;
        contains(lanes, members)?;
        warp.paths.get_mut(path).wait = Some(Wait::Warp { members });
        self.progress += 1;
        Ok(Next::Done)
    }

    pub fn cluster_arrive(&mut self, warp: &mut Warp, lanes: Mask, release: bool) -> Outcome<Next> {
        whole_warp(warp, lanes)?;
        if warp.cluster_arrival.is_some() {
            return Err(misuse(0, "arrives at the cluster barrier twice without waiting in between"));
        }
        warp.cluster_arrival = Some(self.barrier.round);
        if release {
            let knowledge = warp.release(lanes).map_err(|found| misuse(0, found))?;
            self.barrier.arriving.join(&knowledge);
        }
        self.barrier.arrived += LANES as u32;
        if self.barrier.arrived == self.barrier.expected {
            self.barrier.arrived = 0;
            self.barrier.round += 1;
            self.barrier.published = Rc::new(std::mem::take(&mut self.barrier.arriving));
        }
        self.progress += 1;
        Ok(Next::Advance)
    }

    pub fn cluster_wait(&mut self, warp: &mut Warp, path: usize, lanes: Mask) -> Outcome<Next> {
        whole_warp(warp, lanes)?;
        let Some(round) = warp.cluster_arrival.take() else {
            return Err(misuse(0, "waits for the cluster barrier without having arrived at it"));
        };
        warp.paths.get_mut(path).wait = Some(Wait::Cluster { round });
        Ok(Next::Done)
    }

    /// Ends the wait of a path if what it waits for has come.
    pub fn wake(&mut self, warp: &mut Warp, path: usize, wait: Wait) -> Outcome<bool> {
        let (pc, lanes) = (warp.paths.get(path).pc, warp.paths.get(path).lanes);
        match wait {
            Wait::Barrier { id, round } => {
                let barrier = &self.blocks[warp.block].barriers[id];
                if barrier.round <= round {
                    return Ok(false);
                }
                warp.replace_knowledge(lanes, &barrier.published);
            }
            Wait::Cluster { round } => {
                if self.barrier.round <= round {
                    return Ok(false);
                }
                warp.acquire(lanes, &self.barrier.published.clone());
            }
            Wait::Warp { members } => return self.wake_warp(warp, members),
            Wait::Mbarrier(wait) => {
                if !self.answer(warp, lanes, wait)? {
                    return Ok(false);
                }
                warp.registers.set_predicate(wait.to, lanes, lanes);
            }
            Wait::Products { pending } => {
                if !self.finish_products(warp, pending)? {
                    return Ok(false);
                }
            }
            Wait::Registers { count } => {
                if !self.take_registers(warp, count) {
                    return Ok(false);
                }
            }
        }
        warp.paths.get_mut(path).wait = None;
        warp.paths.advance(path, pc + 1);
        Ok(true)
    }

    /// All paths that came for these members go on together.
    fn wake_warp(&mut self, warp: &mut Warp, members: Mask) -> Outcome<bool> {
        let waits = |path: &usize| warp.paths.get(*path).wait == Some(Wait::Warp { members });
        let came: Vec<usize> = warp.paths.leaves().filter(waits).collect();
        let present = came.iter().fold(0, |lanes, path| lanes | warp.paths.get(*path).lanes);
        if members & warp.paths.live & !present != 0 {
            return Ok(false);
        }
        let knowledge = warp.release(present).map_err(|found| misuse(0, found))?;
        warp.replace_knowledge(present, &Rc::new(knowledge));
        for path in came {
            warp.paths.get_mut(path).wait = None;
            let pc = warp.paths.get(path).pc;
            warp.paths.advance(path, pc + 1);
        }
        Ok(true)
    }

    /// When nothing can run, waits for mbarriers end without success, as they do on hardware after a while.
    pub fn time_out(&mut self, warps: &mut [Warp]) -> bool {
        let mut any = false;
        for warp in warps {
            let waits = |path: &usize| matches!(warp.paths.get(*path).wait, Some(Wait::Mbarrier(_)));
            for path in warp.paths.leaves().filter(waits).collect::<Vec<_>>() {
                let (pc, lanes) = (warp.paths.get(path).pc, warp.paths.get(path).lanes);
                if let Some(Wait::Mbarrier(wait)) = warp.paths.get_mut(path).wait.take() {
                    warp.registers.set_predicate(wait.to, lanes, 0);
                    warp.paths.advance(path, pc + 1);
                    any = true;
                }
            }
        }
        any
    }

    /// What a path waits for, for messages.
    pub fn describe(&self, warp: &Warp, wait: Wait) -> String {
        match wait {
            Wait::Barrier { id, .. } => {
                let barrier = &self.blocks[warp.block].barriers[id];
                format!("barrier {id}, where {} of {} threads are", barrier.arrived, barrier.expected)
            }
            Wait::Warp { members } => format!("lanes {members:#010x} of its warp to come to bar.warp.sync"),
            Wait::Cluster { .. } => {
                let (arrived, expected) = (self.barrier.arrived, self.barrier.expected);
                format!("the cluster barrier, where {arrived} of {expected} threads are")
            }
            Wait::Mbarrier(wait) => self.describe_mbarrier(wait),
            Wait::Products { .. } => "the other warps of its warpgroup to issue their wgmma".to_owned(),
            Wait::Registers { count } => self.describe_registers(warp, count),
        }
    }
}

/// An instruction that all lanes of the warp have to run together.
pub fn whole_warp(warp: &Warp, lanes: Mask) -> Outcome<()> {
    if lanes == warp.lanes {
        return Ok(());
    }
    let missing = warp.lanes & !lanes;
    let found = format!("an `.aligned` instruction that lanes {missing:#010x} of the warp do not run with the others");
    Err(misuse(lanes.trailing_zeros() as usize, found))
}

/// Lanes have to be members of the mask that they name.
fn contains(lanes: Mask, members: Mask) -> Outcome<()> {
    if lanes & !members == 0 {
        return Ok(());
    }
    Err(misuse((lanes & !members).trailing_zeros() as usize, format!("not a member of its own mask {members:#010x}")))
}

/// A word that has to be the same in all lanes.
pub fn uniform(warp: &Warp, lanes: Mask, word: Word, what: &'static str) -> Outcome<u32> {
    let values = warp.registers.word(word, lanes, what)?;
    let first = lanes.trailing_zeros() as usize;
    match super::lanes_of(lanes).find(|lane| values[*lane] != values[first]) {
        None => Ok(values[first]),
        Some(lane) => {
            let found =
                format!("{what} is {} here and {} in lane {first}; wanted the same", values[lane], values[first]);
            Err(misuse(lane, found))
        }
    }
}
