//! `cp.async`: copies from global to shared memory that a thread waits for by groups.
//!
//! Ordering is checked when a copy is issued, in either mode: its accesses carry the stamp of the warp's copies, which
//! a thread knows once it waited for the group. In late mode the bytes move only then.
use super::{
    Outcome,
    access::{Target, addresses},
    clock::{Actor, Agent, Knowledge, Stamp},
    cluster::Cluster,
    lanes_of,
    launch::Mode,
    mbarrier::{Mbarrier, MbarrierId},
    misuse,
    shadow::AgentKind,
    warp::Warp,
};
use crate::{
    op::{Address, CopyOp},
    ops::{LANES, Mask},
    parse::Space,
};
use std::collections::VecDeque;

/// The copies of a warp that are under way.
#[derive(Default)]
pub struct Copies {
    pub agent: Option<Agent>,
    /// By lane: the last group it waited for.
    pub waited: [u32; LANES],
    open: Vec<Copy>,
    groups: VecDeque<Group>,
    /// Groups, and arrivals at mbarriers, so far: the epoch of a copy is one more.
    closed: u32,
    /// Arrivals that are due when the copies before them are done.
    pub arrivals: Vec<Arrival>,
}

/// `cp.async.mbarrier.arrive` of one lane.
pub struct Arrival {
    pub lane: usize,
    pub id: MbarrierId,
    /// The last epoch of the copies before it.
    pub epoch: u32,
}

impl Copies {
    /// The epoch of copies that are issued now.
    pub fn epoch(&self) -> u32 {
        self.closed + 1
    }

    pub fn next_epoch(&mut self) {
        self.closed += 1;
    }
}

struct Group {
    number: u32,
    /// Lanes that committed it and did not yet wait for it.
    lanes: Mask,
    copies: Vec<Copy>,
}

/// A copy of each of its lanes.
struct Copy {
    /// Lanes whose bytes did not move yet.
    lanes: Mask,
    epoch: u32,
    from: [u64; LANES],
    to: [u64; LANES],
    bytes: u64,
    /// Bytes that are read; the rest is zero.
    source_bytes: [u32; LANES],
}

impl Cluster<'_> {
    pub fn copy(&mut self, warp: &mut Warp, lanes: Mask, pc: u32, op: &CopyOp) -> Outcome<()> {
        let bytes = u64::from(op.bytes);
        let source_bytes = match op.source_bytes {
            Some(word) => warp.registers.word(word, lanes, "the source size")?.map(|size| size.min(op.bytes.into())),
            None => [op.bytes.into(); LANES],
        };
        let mut copy = Copy {
            lanes,
            epoch: warp.copies.epoch(),
            from: addresses(warp, lanes, op.global)?,
            to: addresses(warp, lanes, op.shared)?,
            bytes,
            source_bytes,
        };
        let kind = AgentKind::Copies { block: warp.block, warp: warp.index };
        let agent = self.agents.get(kind).map_err(|found| misuse(0, found))?;
        warp.copies.agent = Some(agent);
        for lane in lanes_of(lanes) {
            self.check_copy(warp, lane, pc, agent, &copy)?;
        }
        if self.launch.mode == Mode::Early {
            lanes_of(lanes).for_each(|lane| self.move_bytes(warp.block, lane, &mut copy));
        }
        warp.copies.open.push(copy);
        Ok(())
    }

    fn check_copy(&mut self, warp: &Warp, lane: usize, pc: u32, agent: Agent, copy: &Copy) -> Outcome<()> {
        let own = warp.own(lane);
        let stamp = Stamp::new(agent, 1 << lane, copy.epoch, false);
        let known = warp.knowledge(lane);
        let actor = Actor { stamp, known: &known, own: &own, asynchronous: false };
        let from = Target::new(Space::Global, copy.from[lane], copy.bytes, pc);
        self.aligned(lane, from)?;
        if copy.source_bytes[lane] as u64 == copy.bytes {
            self.readable(warp, lane, from, &actor)?;
        } else {
            for byte in 0..u64::from(copy.source_bytes[lane]) {
                self.readable(warp, lane, Target::new(Space::Global, from.address + byte, 1, pc), &actor)?;
            }
        }
        let to = Target::new(Space::Shared, copy.to[lane], copy.bytes, pc);
        self.writable(warp.block, lane, to, &actor)?;
        Ok(())
    }

    fn move_bytes(&mut self, block: usize, lane: usize, copy: &mut Copy) {
        if copy.lanes >> lane & 1 == 0 {
            return;
        }
        copy.lanes &= !(1 << lane);
        let mut bytes = [0; 16];
        let wanted = copy.source_bytes[lane] as usize;
        if wanted > 0 {
            let from = self.bytes(block, Space::Global, copy.from[lane], wanted as u64);
            bytes[..wanted].copy_from_slice(from);
        }
        self.put_bytes(block, Space::Shared, copy.to[lane], &bytes[..copy.bytes as usize]);
    }

    pub fn commit_copies(&mut self, warp: &mut Warp, lanes: Mask) {
        let copies = &mut warp.copies;
        copies.next_epoch();
        let mut group = Group { number: copies.closed, lanes, copies: Vec::new() };
        for mut copy in std::mem::take(&mut copies.open) {
            let left = copy.lanes & !lanes;
            copy.lanes &= lanes;
            if left != 0 {
                copies.open.push(Copy { lanes: left, ..copy });
            }
            group.copies.push(copy);
        }
        copies.groups.push_back(group);
    }

    /// Each lane waits until at most `pending` of its groups are under way; `wait_all` waits for open copies too.
    pub fn wait_for_copies(&mut self, warp: &mut Warp, lanes: Mask, pending: u32, all: bool) {
        if all {
            self.commit_copies(warp, lanes);
        }
        let mut groups = std::mem::take(&mut warp.copies.groups);
        for lane in lanes_of(lanes) {
            let count = groups.iter().filter(|group| group.lanes >> lane & 1 == 1).count();
            let done = count.saturating_sub(pending as usize);
            for group in groups.iter_mut().filter(|group| group.lanes >> lane & 1 == 1).take(done) {
                group.lanes &= !(1 << lane);
                warp.copies.waited[lane] = group.number;
                group.copies.iter_mut().for_each(|copy| self.move_bytes(warp.block, lane, copy));
            }
        }
        groups.retain(|group| group.lanes != 0);
        warp.copies.groups = groups;
    }

    /// An arrival that is due once the lanes' copies so far are done.
    pub fn arrive_after_copies(
        &mut self,
        warp: &mut Warp,
        lanes: Mask,
        pc: u32,
        address: Address,
        counted: bool,
    ) -> Outcome<()> {
        let addresses = addresses(warp, lanes, address)?;
        for lane in lanes_of(lanes) {
            let id = self.use_mbarrier(warp, lane, pc, addresses[lane])?;
            if !counted {
                self.mbarrier(lane, id)?.expect_arrival();
            }
            warp.copies.arrivals.push(Arrival { lane, id, epoch: warp.copies.epoch() });
        }
        warp.copies.next_epoch();
        if self.launch.mode == Mode::Early {
            self.due_arrivals(warp, |_| true)?;
        }
        Ok(())
    }

    /// Arrivals at mbarriers that a thread waits for are made, and the copies before them done.
    pub fn awaited_arrivals(&mut self, warp: &mut Warp) -> Outcome<bool> {
        if warp.copies.arrivals.is_empty() {
            return Ok(false);
        }
        self.due_arrivals(warp, |mbarrier| mbarrier.awaited)
    }

    fn due_arrivals(&mut self, warp: &mut Warp, is_due: impl Fn(&Mbarrier) -> bool) -> Outcome<bool> {
        let mut any = false;
        for arrival in std::mem::take(&mut warp.copies.arrivals) {
            if !is_due(self.mbarrier(arrival.lane, arrival.id)?) {
                warp.copies.arrivals.push(arrival);
                continue;
            }
            self.finish_copies(warp, arrival.lane, arrival.epoch);
            let mut knowledge = Knowledge::default();
            if let Some(agent) = warp.copies.agent {
                knowledge.generic.raise(agent, 1 << arrival.lane, arrival.epoch);
            }
            self.arrive(arrival.lane, arrival.id, 1, Some(&knowledge))?;
            any = true;
        }
        Ok(any)
    }

    /// Completes a lane's copies up to an epoch, in a group or not.
    pub fn finish_copies(&mut self, warp: &mut Warp, lane: usize, epoch: u32) {
        let block = warp.block;
        let Copies { groups, open, .. } = &mut warp.copies;
        let copies = groups.iter_mut().flat_map(|group| &mut group.copies).chain(open);
        copies.filter(|copy| copy.epoch <= epoch).for_each(|copy| self.move_bytes(block, lane, copy));
    }
}
