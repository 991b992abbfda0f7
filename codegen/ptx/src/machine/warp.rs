//! A warp: registers, paths, and what its lanes know of other accesses.
use super::{
    bulk::Stores,
    clock::{Actor, Agent, Knowledge, LAST_EPOCH, Own, Stamp},
    copies::Copies,
    memory::Region,
    paths::Paths,
    registers::Registers,
    warpgroup::Products,
};
use crate::ops::{LANES, Mask};
use std::rc::Rc;

pub struct Warp {
    /// Rank of its block in the cluster.
    pub block: usize,
    /// Its number in the block.
    pub index: u32,
    pub agent: Agent,
    /// Lanes that exist.
    pub lanes: Mask,
    pub registers: Registers,
    pub paths: Paths,
    /// Lanes by what they know; every lane that exists stands in one group.
    known: Vec<(Mask, Rc<Knowledge>)>,
    pub epoch: u32,
    /// By lane: up to which epoch its writes are behind a proxy fence.
    fenced: [u32; LANES],
    /// What an acquire-release fence would publish with a later relaxed write, by lane group.
    pub fence_release: Option<(Mask, Rc<Knowledge>)>,
    /// What relaxed reads saw, for a later fence to acquire.
    pub fence_acquire: Knowledge,
    pub local: Option<Box<[Region]>>,
    pub copies: Copies,
    pub stores: Stores,
    pub products: Products,
    /// The round of the cluster barrier that it arrived at and did not yet wait for.
    pub cluster_arrival: Option<u64>,
    /// It ended, and was counted.
    pub retired: bool,
}

impl Warp {
    pub fn new(block: usize, index: u32, agent: Agent, lanes: Mask, registers: Registers) -> Warp {
        Warp {
            block,
            index,
            agent,
            lanes,
            registers,
            paths: Paths::new(lanes),
            known: vec![(lanes, Rc::new(Knowledge::default()))],
            epoch: 1,
            fenced: [0; LANES],
            fence_release: None,
            fence_acquire: Knowledge::default(),
            local: None,
            copies: Copies::default(),
            stores: Stores::default(),
            products: Products::default(),
            cluster_arrival: None,
            retired: false,
        }
    }

    pub fn is_done(&self) -> bool {
        self.paths.live == 0
    }

    /// The group of lanes that `lane` belongs to.
    fn group(&self, lane: usize) -> &Rc<Knowledge> {
        let group = self.known.iter().find(|(lanes, _)| lanes >> lane & 1 == 1);
        &group.expect("every lane that exists is in a group").1
    }

    pub fn knowledge(&self, lane: usize) -> Rc<Knowledge> {
        self.group(lane).clone()
    }

    /// Program order of a lane: its own accesses, and its asynchronous ones that it waited for.
    pub fn own(&self, lane: usize) -> [Own; 4] {
        let lanes = 1 << lane;
        let copies = self.copies.agent.unwrap_or(self.agent);
        let [reads, writes] = self.stores.own(lane, self.agent);
        let copied = if self.copies.agent.is_some() { self.copies.waited[lane] } else { 0 };
        [
            Own { agent: self.agent, lanes, until: self.epoch, fenced: self.fenced[lane] },
            Own { agent: copies, lanes, until: copied, fenced: 0 },
            reads,
            writes,
        ]
    }

    /// The actor of an ordinary access by one lane.
    pub fn actor<'a>(&'a self, lane: usize, own: &'a [Own], strong: bool) -> Actor<'a> {
        let stamp = Stamp::new(self.agent, 1 << lane, self.epoch, strong);
        Actor { stamp, known: self.group(lane), own, asynchronous: false }
    }

    /// What `lanes` publish now; later accesses belong to the next epoch.
    ///
    /// # Errors
    /// None is left: a stamp holds no higher epoch.
    pub fn release(&mut self, lanes: Mask) -> Result<Knowledge, String> {
        let mut knowledge = Knowledge::default();
        for (group, known) in &self.known {
            if group & lanes != 0 {
                knowledge.join(known);
            }
        }
        let all = self.everyone(lanes);
        knowledge.generic.raise(self.agent, all, self.epoch);
        raise_each(lanes, all, &self.fenced, |lanes, epoch| knowledge.proxied.raise(self.agent, lanes, epoch));
        if let Some(agent) = self.copies.agent {
            raise_each(lanes, all, &self.copies.waited, |lanes, epoch| knowledge.generic.raise(agent, lanes, epoch));
        }
        let stores = [(self.stores.reads, &self.stores.waited_reads), (self.stores.writes, &self.stores.waited_writes)];
        for (agent, waited) in stores {
            if let Some(agent) = agent {
                raise_each(lanes, all, waited, |lanes, epoch| knowledge.generic.raise(agent, lanes, epoch));
            }
        }
        self.next_epoch()?;
        Ok(knowledge)
    }

    /// All lanes that exist stand for all lanes there could be, which clocks store in less space.
    fn everyone(&self, lanes: Mask) -> Mask {
        if lanes == self.lanes { Mask::MAX } else { lanes }
    }

    fn next_epoch(&mut self) -> Result<(), String> {
        self.epoch += 1;
        if self.epoch >= LAST_EPOCH {
            return Err(format!("a warp synchronised {LAST_EPOCH} times, more than this interpreter can count"));
        }
        Ok(())
    }

    /// `lanes` learn what `published` knows.
    pub fn acquire(&mut self, lanes: Mask, published: &Rc<Knowledge>) {
        if lanes == self.lanes && self.known.len() == 1 {
            let mine = &mut self.known[0].1;
            Rc::make_mut(mine).join(published);
            return;
        }
        let mut parted = Vec::with_capacity(self.known.len() + 1);
        for (group, known) in self.known.drain(..) {
            if group & lanes == 0 {
                parted.push((group, known));
                continue;
            }
            if group & !lanes != 0 {
                parted.push((group & !lanes, known.clone()));
            }
            let mut joined = known;
            Rc::make_mut(&mut joined).join(published);
            parted.push((group & lanes, joined));
        }
        self.known = parted;
    }

    /// `lanes` know just this: what they published themselves is in it.
    pub fn replace_knowledge(&mut self, lanes: Mask, with: &Rc<Knowledge>) {
        if lanes == self.lanes {
            self.known.clear();
        } else {
            self.known.iter_mut().for_each(|(group, _)| *group &= !lanes);
            self.known.retain(|(group, _)| *group != 0);
        }
        self.known.push((lanes, with.clone()));
    }

    /// A proxy fence: asynchronous accesses ordered behind it see what `lanes` know and wrote.
    pub fn fence_proxy(&mut self, lanes: Mask) -> Result<(), String> {
        let groups = std::mem::take(&mut self.known);
        for (group, known) in groups {
            if group & lanes == 0 {
                self.known.push((group, known));
                continue;
            }
            if group & !lanes != 0 {
                self.known.push((group & !lanes, known.clone()));
            }
            let mut fenced = known;
            let knowledge = Rc::make_mut(&mut fenced);
            knowledge.proxied = knowledge.generic.clone();
            self.known.push((group & lanes, fenced));
        }
        for lane in (0..LANES).filter(|lane| lanes >> lane & 1 == 1) {
            self.fenced[lane] = self.epoch;
        }
        self.next_epoch()
    }
}

/// Calls `raise` once where all `lanes` have one epoch, else once per lane.
fn raise_each(lanes: Mask, all: Mask, epochs: &[u32; LANES], mut raise: impl FnMut(Mask, u32)) {
    let first = epochs[lanes.trailing_zeros() as usize % LANES];
    let each = || (0..LANES).filter(|lane| lanes >> lane & 1 == 1);
    if each().all(|lane| epochs[lane] == first) {
        if first > 0 {
            raise(all, first);
        }
        return;
    }
    each().filter(|&lane| epochs[lane] > 0).for_each(|lane| raise(1 << lane, epochs[lane]));
}
