//! Mbarriers: phases that complete when all arrivals came and all expected bytes were copied.
use super::{
    Outcome,
    access::{Target, addresses},
    address::{self, Location},
    bulk::BulkLoad,
    clock::{Actor, Agent, Knowledge},
    cluster::{Cluster, Next},
    lanes_of, misuse,
    waiting::Wait,
    warp::Warp,
};
use crate::{
    op::{Address, ArriveOp, Phase, Predicate, WaitOp, Word},
    ops::Mask,
    parse::Space,
};
use std::rc::Rc;

const BYTES: u64 = 8;
/// The most arrivals, and the most bytes, that a phase can wait for.
const MOST_ARRIVALS: u32 = (1 << 20) - 1;
const MOST_BYTES: i64 = (1 << 20) - 1;

pub struct Mbarrier {
    /// Arrivals of a phase.
    expected: u32,
    /// Arrivals that the current phase still waits for.
    pending: i64,
    /// Bytes that it still waits for; below zero where copies came before they were expected.
    bytes: i64,
    /// Phases that are complete.
    pub phase: u32,
    pub agent: Agent,
    arriving: Knowledge,
    published: Rc<Knowledge>,
    /// Copies that did not take effect yet.
    pub loads: Vec<BulkLoad>,
    /// The instruction of a copy whose end no thread has seen.
    pub unseen: Option<u32>,
    /// Some thread waited in vain: arrivals that are due may come.
    pub awaited: bool,
}

/// A place of an mbarrier in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MbarrierId {
    pub block: usize,
    pub offset: u64,
}

impl Mbarrier {
    fn is_complete(&self, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Parity(parity) => self.phase & 1 != parity & 1,
            Wanted::After(phase) => self.phase > phase,
        }
    }

    fn complete_if_done(&mut self) {
        if self.pending == 0 && self.bytes == 0 {
            self.phase += 1;
            self.pending = i64::from(self.expected);
            let mut knowledge = std::mem::take(&mut self.arriving);
            knowledge.generic.raise(self.agent, Mask::MAX, self.phase);
            self.published = Rc::new(knowledge);
        }
    }

    /// Bytes that no copy was issued for; below zero where copies bring more than was expected.
    fn bytes_to_come(&self) -> i64 {
        self.bytes - self.loads.iter().map(|load| load.bytes as i64).sum::<i64>()
    }

    /// The current phase waits for one more arrival.
    pub fn expect_arrival(&mut self) {
        self.pending += 1;
    }

    pub fn complete_bytes(&mut self, bytes: u64) {
        self.bytes -= bytes as i64;
        self.complete_if_done();
    }
}

/// The phase that a wait is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Parity(u32),
    After(u32),
}

/// A wait for an mbarrier, to be answered when its phase completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MbarrierWait {
    pub id: MbarrierId,
    pub wanted: Wanted,
    pub to: Predicate,
    pub acquire: bool,
}

impl Cluster<'_> {
    pub fn mbarrier_init(
        &mut self,
        warp: &mut Warp,
        lanes: Mask,
        pc: u32,
        address: Address,
        count: Word,
    ) -> Outcome<()> {
        let addresses = addresses(warp, lanes, address)?;
        let counts = *warp.registers.word(count, lanes, "the count")?;
        for lane in lanes_of(lanes) {
            let id = self.mbarrier_id(warp, lane, addresses[lane])?;
            of_own_block(warp, lane, id)?;
            if counts[lane] == 0 || counts[lane] > MOST_ARRIVALS {
                return Err(misuse(lane, format!("an mbarrier for {} arrivals, wanted 1 to 2^20-1", counts[lane])));
            }
            if self.blocks[id.block].mbarriers.remove(&id.offset).is_some_and(|old| old.unseen.is_some()) {
                return Err(misuse(lane, "initialises an mbarrier that a copy is to complete"));
            }
            self.write_mbarrier(warp, lane, pc, id)?;
            let agent = self.agents.mbarrier(id).map_err(|found| misuse(lane, found))?;
            let mbarrier = Mbarrier {
                expected: counts[lane],
                pending: i64::from(counts[lane]),
                bytes: 0,
                phase: 0,
                agent,
                arriving: Knowledge::default(),
                published: Rc::default(),
                loads: Vec::new(),
                unseen: None,
                awaited: false,
            };
            self.blocks[id.block].mbarriers.insert(id.offset, mbarrier);
        }
        self.progress += 1;
        Ok(())
    }

    pub fn mbarrier_invalidate(&mut self, warp: &mut Warp, lanes: Mask, pc: u32, address: Address) -> Outcome<()> {
        let addresses = addresses(warp, lanes, address)?;
        for lane in lanes_of(lanes) {
            let id = self.mbarrier_id(warp, lane, addresses[lane])?;
            of_own_block(warp, lane, id)?;
            if self.blocks[id.block].mbarriers.remove(&id.offset).is_none() {
                return Err(missing(lane, id));
            }
            self.write_mbarrier(warp, lane, pc, id)?;
        }
        Ok(())
    }

    pub fn mbarrier_arrive(&mut self, warp: &mut Warp, lanes: Mask, pc: u32, op: &ArriveOp) -> Outcome<()> {
        let addresses = addresses(warp, lanes, op.address)?;
        let counts = op.count.map(|count| warp.registers.word(count, lanes, "the count").copied()).transpose()?;
        let expects = op.expect.map(|bytes| warp.registers.word(bytes, lanes, "the bytes").copied()).transpose()?;
        let knowledge = if op.release { Some(warp.release(lanes).map_err(|found| misuse(0, found))?) } else { None };
        for lane in lanes_of(lanes) {
            let id = self.use_mbarrier(warp, lane, pc, addresses[lane])?;
            if !op.remote {
                of_own_block(warp, lane, id)?;
            }
            if let Some(bytes) = &expects {
                self.expect(lane, id, bytes[lane])?;
            }
            let phase = self.mbarrier(lane, id)?.phase;
            self.arrive(lane, id, counts.map_or(1, |counts| counts[lane]), knowledge.as_ref())?;
            if let Some(to) = op.to {
                warp.registers.set_double(to, 1 << lane, &[u64::from(phase); 32]);
            }
        }
        Ok(())
    }

    pub fn mbarrier_expect(
        &mut self,
        warp: &mut Warp,
        lanes: Mask,
        pc: u32,
        address: Address,
        bytes: Word,
    ) -> Outcome<()> {
        let addresses = addresses(warp, lanes, address)?;
        let bytes = *warp.registers.word(bytes, lanes, "the bytes")?;
        for lane in lanes_of(lanes) {
            let id = self.use_mbarrier(warp, lane, pc, addresses[lane])?;
            self.expect(lane, id, bytes[lane])?;
        }
        Ok(())
    }

    fn expect(&mut self, lane: usize, id: MbarrierId, bytes: u32) -> Outcome<()> {
        let mbarrier = self.mbarrier(lane, id)?;
        mbarrier.bytes += i64::from(bytes);
        if mbarrier.bytes.abs() > MOST_BYTES {
            return Err(misuse(
                lane,
                format!("an mbarrier that waits for {} bytes, wanted below 2^20", mbarrier.bytes),
            ));
        }
        Ok(())
    }

    /// Counts arrivals, with what the arriving thread publishes.
    pub fn arrive(&mut self, lane: usize, id: MbarrierId, count: u32, publish: Option<&Knowledge>) -> Outcome<()> {
        self.progress += 1;
        let mbarrier = self.mbarrier(lane, id)?;
        mbarrier.pending -= i64::from(count);
        if mbarrier.pending < 0 {
            let found = format!("more arrivals at {} than the {} of a phase", describe(id), mbarrier.expected);
            return Err(misuse(lane, found));
        }
        if let Some(knowledge) = publish {
            mbarrier.arriving.join(knowledge);
        }
        mbarrier.complete_if_done();
        Ok(())
    }

    pub fn mbarrier_wait(&mut self, warp: &mut Warp, path: usize, pc: u32, lanes: Mask, op: &WaitOp) -> Outcome<Next> {
        let WaitOp { to, address, phase, acquire } = *op;
        let addresses = addresses(warp, lanes, address)?;
        let mut waits = Vec::new();
        for lane in lanes_of(lanes) {
            let id = self.use_mbarrier(warp, lane, pc, addresses[lane])?;
            of_own_block(warp, lane, id)?;
            let wanted = match phase {
                Phase::Parity(word) => Wanted::Parity(warp.registers.word(word, 1 << lane, "the parity")?[lane]),
                Phase::State(state) => {
                    Wanted::After(warp.registers.double(state, 1 << lane, "the state")?[lane] as u32)
                }
            };
            waits.push((lane, MbarrierWait { id, wanted, to, acquire }));
        }
        let first = waits[0].1;
        if waits.iter().all(|(_, wait)| *wait == first) {
            warp.paths.get_mut(path).wait = Some(Wait::Mbarrier(first));
            self.wake(warp, path, Wait::Mbarrier(first))?;
            return Ok(Next::Done);
        }
        let mut done = 0;
        for (lane, wait) in waits {
            if self.answer(warp, 1 << lane, wait)? {
                done |= 1 << lane;
            }
        }
        warp.registers.set_predicate(to, lanes, done);
        Ok(Next::Advance)
    }

    /// Whether the phase is complete; then the lanes know what was published in it. Copies that end at the mbarrier
    /// take effect now, if they have not yet.
    pub fn answer(&mut self, warp: &mut Warp, lanes: Mask, wait: MbarrierWait) -> Outcome<bool> {
        let lane = lanes.trailing_zeros() as usize;
        if !self.mbarrier(lane, wait.id)?.is_complete(wait.wanted) {
            self.move_loads(lane, wait)?;
        }
        let mbarrier = self.mbarrier(lane, wait.id)?;
        mbarrier.awaited = !mbarrier.is_complete(wait.wanted);
        if mbarrier.awaited {
            return Ok(false);
        }
        if mbarrier.loads.is_empty() {
            mbarrier.unseen = None;
        }
        if wait.acquire {
            let published = mbarrier.published.clone();
            warp.acquire(lanes, &published);
        }
        Ok(true)
    }

    /// The copies that end at an mbarrier take effect, one after the other, until its phase is complete.
    fn move_loads(&mut self, lane: usize, wait: MbarrierWait) -> Outcome<()> {
        let mut loads = std::mem::take(&mut self.mbarrier(lane, wait.id)?.loads).into_iter();
        while let Some(load) = loads.next() {
            self.move_load(wait.id, &load);
            if self.mbarrier(lane, wait.id)?.is_complete(wait.wanted) && loads.next().is_some() {
                return Err(misuse(lane, too_few_bytes(wait.id)));
            }
        }
        Ok(())
    }

    /// At the end of a block: a copy that nobody waited for, or a wrong number of bytes.
    pub fn unfinished_mbarrier(&self) -> Option<(usize, u32, String)> {
        self.blocks.iter().enumerate().find_map(|(block, state)| {
            state.mbarriers.iter().find_map(|(&offset, mbarrier)| match (mbarrier.unseen, mbarrier.bytes_to_come()) {
                (Some(at), 0) => Some((block, at, "nobody waits for this bulk copy to end".to_owned())),
                (Some(at), _) => Some((block, at, too_few_bytes(MbarrierId { block, offset }))),
                (None, _) => None,
            })
        })
    }

    /// What a wait is for, for messages.
    pub fn describe_mbarrier(&self, wait: MbarrierWait) -> String {
        let state = self.blocks[wait.id.block].mbarriers.get(&wait.id.offset).map_or(String::new(), |mbarrier| {
            let (phase, pending, bytes) = (mbarrier.phase, mbarrier.pending, mbarrier.bytes);
            format!(" (in phase {phase}, which lacks {pending} arrivals and {bytes} bytes)")
        });
        format!("{:?} of {}{state}", wait.wanted, describe(wait.id))
    }

    /// Checks that an ordinary store leaves mbarriers alone.
    pub fn spare_mbarriers(&self, block: usize, lane: usize, target: Target) -> Outcome<()> {
        let Some(Location::Shared { rank, offset }) = address::locate(target.space, target.address) else {
            return Ok(());
        };
        let Some(state) = self.blocks.get(rank.unwrap_or(block)) else { return Ok(()) };
        let touched = offset.saturating_sub(BYTES - 1)..offset + target.bytes;
        match state.mbarriers.range(touched).next() {
            None => Ok(()),
            Some((at, _)) => Err(misuse(lane, format!("overwrites an mbarrier, at {at:#x} of shared memory"))),
        }
    }

    pub fn mbarrier(&mut self, lane: usize, id: MbarrierId) -> Outcome<&mut Mbarrier> {
        self.blocks[id.block].mbarriers.get_mut(&id.offset).ok_or_else(|| missing(lane, id))
    }

    /// The mbarrier at a shared address, which has to be initialised before, in the order of memory.
    pub fn use_mbarrier(&mut self, warp: &Warp, lane: usize, pc: u32, address: u64) -> Outcome<MbarrierId> {
        let id = self.mbarrier_id(warp, lane, address)?;
        let own = warp.own(lane);
        let actor = warp.actor(lane, &own, true);
        self.see_mbarrier(warp, lane, pc, id, &actor)?;
        Ok(id)
    }

    /// Checks that an actor sees the mbarrier's initialisation.
    pub fn see_mbarrier(&mut self, warp: &Warp, lane: usize, pc: u32, id: MbarrierId, actor: &Actor) -> Outcome<()> {
        self.mbarrier(lane, id)?;
        self.readable(warp, lane, id.target(pc), actor).map(|_| ())
    }

    fn write_mbarrier(&mut self, warp: &Warp, lane: usize, pc: u32, id: MbarrierId) -> Outcome<()> {
        let own = warp.own(lane);
        let actor = warp.actor(lane, &own, false);
        let (region, offset) = self.writable(warp.block, lane, id.target(pc), &actor)?;
        region.store(offset, BYTES, 0);
        Ok(())
    }

    pub fn mbarrier_id(&self, warp: &Warp, lane: usize, address: u64) -> Outcome<MbarrierId> {
        self.aligned(lane, Target::new(Space::SharedCluster, address, BYTES, 0))?;
        match address::locate(Space::SharedCluster, address) {
            Some(Location::Shared { rank, offset }) if rank.unwrap_or(0) < self.blocks.len() => {
                Ok(MbarrierId { block: rank.unwrap_or(warp.block), offset })
            }
            _ => Err(misuse(lane, format!("{address:#x} is no address of the cluster's shared memory"))),
        }
    }
}

impl MbarrierId {
    fn target(self, pc: u32) -> Target {
        Target::new(Space::SharedCluster, address::in_block(self.offset, self.block), BYTES, pc)
    }
}

pub fn describe(id: MbarrierId) -> String {
    format!("the mbarrier at {:#x} of block {} of the cluster", id.offset, id.block)
}

/// Checks that an mbarrier is one of the thread's own block: at others, threads arrive by `.shared::cluster`, and do no
/// more.
fn of_own_block(warp: &Warp, lane: usize, id: MbarrierId) -> Outcome<()> {
    if id.block == warp.block {
        return Ok(());
    }
    Err(misuse(lane, format!("{} is another's than this one's; wanted one of `.shared::cta`", describe(id))))
}

fn too_few_bytes(id: MbarrierId) -> String {
    format!("{} was told of too few bytes: its phase completes before copies that were issued in it", describe(id))
}

fn missing(lane: usize, id: MbarrierId) -> Box<super::Halt> {
    misuse(lane, format!("no mbarrier was initialised at {:#x} of block {} of the cluster", id.offset, id.block))
}
