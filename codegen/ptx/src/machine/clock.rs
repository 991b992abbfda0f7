//! Who knows of whose accesses: vector clocks over agents.
//!
//! An agent is a warp, or something asynchronous that acts on its behalf (the copies of a warp, the bulk copies that
//! end at one mbarrier, the matrix products of a warpgroup). Its accesses carry its epoch and the lane; its epoch
//! advances whenever it publishes what it did. A [`Clock`] says for each agent and lane up to which epoch its accesses
//! happened before. Two accesses are ordered when the later one's clock covers the earlier one's [`Stamp`].
use std::{collections::BTreeMap, rc::Rc};

use crate::ops::{LANES, Mask};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Agent(pub u16);

/// The highest epoch that a stamp can hold.
pub const LAST_EPOCH: u32 = (1 << EPOCH_BITS) - 1;
/// The highest agent that a stamp can hold.
pub const LAST_AGENT: u16 = (1 << AGENT_BITS) - 1;
const EPOCH_BITS: u32 = 19;
const AGENT_BITS: u32 = 12;
const STRONG: u64 = 1 << (EPOCH_BITS + AGENT_BITS);

/// Lanes of an agent at an epoch, in 64 bits. The stamp 0 is nobody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp(pub u64);

impl Stamp {
    pub fn new(agent: Agent, lanes: Mask, epoch: u32, strong: bool) -> Stamp {
        let strong = if strong { STRONG } else { 0 };
        Stamp(u64::from(lanes) << 32 | strong | u64::from(agent.0) << EPOCH_BITS | u64::from(epoch))
    }

    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    pub fn agent(self) -> Agent {
        Agent((self.0 >> EPOCH_BITS) as u16 & LAST_AGENT)
    }

    pub fn epoch(self) -> u32 {
        self.0 as u32 & LAST_EPOCH
    }

    pub fn lanes(self) -> Mask {
        (self.0 >> 32) as Mask
    }

    pub fn is_strong(self) -> bool {
        self.0 & STRONG != 0
    }

    /// The same agent, epoch and strength, whatever the lanes.
    pub fn is_beside(self, other: Stamp) -> bool {
        self.0 as u32 == other.0 as u32
    }

    pub fn with_lanes_of(self, other: Stamp) -> Stamp {
        Stamp(self.0 | u64::from(other.lanes()) << 32)
    }
}

/// Epochs known of one agent.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    All(u32),
    Lanes(Box<[u32; LANES]>),
}

impl Seen {
    fn lane(&self, lane: usize) -> u32 {
        match self {
            Seen::All(epoch) => *epoch,
            Seen::Lanes(epochs) => epochs[lane],
        }
    }

    fn covers(&self, lanes: Mask, epoch: u32) -> bool {
        match self {
            Seen::All(known) => *known >= epoch,
            Seen::Lanes(epochs) => (0..LANES).all(|i| lanes >> i & 1 == 0 || epochs[i] >= epoch),
        }
    }

    fn combine(&mut self, other: &Seen, choose: fn(u32, u32) -> u32) {
        match (&mut *self, other) {
            (Seen::All(a), Seen::All(b)) => *a = choose(*a, *b),
            (Seen::Lanes(a), b) => a.iter_mut().enumerate().for_each(|(i, a)| *a = choose(*a, b.lane(i))),
            (Seen::All(a), Seen::Lanes(b)) => {
                let a = *a;
                *self = Seen::Lanes(Box::new(std::array::from_fn(|i| choose(a, b[i]))));
            }
        }
    }

    fn raise(&mut self, lanes: Mask, epoch: u32) {
        if lanes == Mask::MAX {
            return self.combine(&Seen::All(epoch), u32::max);
        }
        let epochs = std::array::from_fn(|i| if lanes >> i & 1 == 1 { epoch } else { 0 });
        self.combine(&Seen::Lanes(Box::new(epochs)), u32::max);
    }
}

/// Epochs known of all agents of the cluster, and of clusters that ran before.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    seen: Vec<Seen>,
    earlier: BTreeMap<u32, Rc<Vec<Seen>>>,
}

impl Clock {
    pub fn covers(&self, stamp: Stamp, lanes: Mask) -> bool {
        self.seen.get(stamp.agent().0 as usize).is_some_and(|seen| seen.covers(lanes, stamp.epoch()))
    }

    pub fn covers_earlier(&self, cluster: u32, stamp: Stamp) -> bool {
        let seen = self.earlier.get(&cluster).and_then(|seen| seen.get(stamp.agent().0 as usize));
        seen.is_some_and(|seen| seen.covers(stamp.lanes(), stamp.epoch()))
    }

    pub fn raise(&mut self, agent: Agent, lanes: Mask, epoch: u32) {
        let index = agent.0 as usize;
        if self.seen.len() <= index {
            self.seen.resize(index + 1, Seen::All(0));
        }
        self.seen[index].raise(lanes, epoch);
    }

    pub fn join(&mut self, other: &Clock) {
        join_seen(&mut self.seen, &other.seen);
        for (cluster, seen) in &other.earlier {
            self.join_earlier(*cluster, seen);
        }
    }

    /// What both know.
    pub fn meet(&mut self, other: &Clock) {
        self.seen.truncate(other.seen.len());
        self.seen.iter_mut().zip(&other.seen).for_each(|(mine, theirs)| mine.combine(theirs, u32::min));
        self.earlier.retain(|cluster, _| other.earlier.contains_key(cluster));
    }

    /// Joins what `cluster`, which ran before, published.
    pub fn join_from(&mut self, cluster: u32, other: &Clock) {
        for (earlier, seen) in &other.earlier {
            self.join_earlier(*earlier, seen);
        }
        self.join_earlier(cluster, &Rc::new(other.seen.clone()));
    }

    fn join_earlier(&mut self, cluster: u32, seen: &Rc<Vec<Seen>>) {
        match self.earlier.entry(cluster) {
            std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(seen.clone())),
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                join_seen(Rc::make_mut(entry.get_mut()), seen);
            }
        }
    }
}

fn join_seen(mine: &mut Vec<Seen>, theirs: &[Seen]) {
    if mine.len() < theirs.len() {
        mine.resize(theirs.len(), Seen::All(0));
    }
    mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| mine.combine(theirs, u32::max));
}

/// What a thread knows: of all accesses, and of those writes that a proxy fence made visible to asynchronous accesses.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    pub generic: Clock,
    pub proxied: Clock,
}

impl Knowledge {
    pub fn join(&mut self, other: &Knowledge) {
        self.generic.join(&other.generic);
        self.proxied.join(&other.proxied);
    }

    pub fn meet(&mut self, other: &Knowledge) {
        self.generic.meet(&other.generic);
        self.proxied.meet(&other.proxied);
    }

    pub fn join_from(&mut self, cluster: u32, other: &Knowledge) {
        self.generic.join_from(cluster, &other.generic);
        self.proxied.join_from(cluster, &other.proxied);
    }
}

/// Accesses of an agent that an actor knows by its own program order.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    pub agent: Agent,
    pub lanes: Mask,
    pub until: u32,
    /// Up to which epoch its writes are visible to asynchronous accesses.
    pub fenced: u32,
}

/// Who accesses memory.
#[derive(Clone, Copy)]
pub struct Actor<'k> {
    pub stamp: Stamp,
    pub known: &'k Knowledge,
    pub own: &'k [Own],
    /// Accesses by the asynchronous proxy, which sees ordinary writes only behind a proxy fence.
    pub asynchronous: bool,
}

impl Actor<'_> {
    /// Whether an earlier access of this cluster happened before. `proxied` says that it was an ordinary write.
    pub fn knows(&self, earlier: Stamp, ordinary_write: bool) -> bool {
        let behind_fence = self.asynchronous && ordinary_write;
        let mut lanes = earlier.lanes();
        for own in self.own.iter().filter(|own| own.agent == earlier.agent()) {
            let until = if behind_fence { own.fenced } else { own.until };
            if earlier.epoch() <= until {
                lanes &= !own.lanes;
            }
        }
        lanes == 0 || self.clock(behind_fence).covers(earlier, lanes)
    }

    pub fn knows_earlier(&self, cluster: u32, earlier: Stamp) -> bool {
        self.known.generic.covers_earlier(cluster, earlier)
    }

    fn clock(&self, behind_fence: bool) -> &Clock {
        if behind_fence { &self.known.proxied } else { &self.known.generic }
    }
}
