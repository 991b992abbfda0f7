//! Who touched each byte last, kept beside a memory, to find accesses that nothing orders.
//!
//! A page starts with a cell per word; the first narrower access splits it into a cell per byte or half. A cell keeps
//! the last write and the reads since. A read or write that the new access's actor knows of is dropped: whatever is
//! ordered after the new access is ordered after it too. When a cluster of blocks comes to a page that earlier clusters
//! used, their marks move to the page's `past`.
use super::{
    clock::{Actor, Agent, LAST_AGENT, Stamp},
    mbarrier::MbarrierId,
};

const PAGE_BITS: u32 = 10;
const WORD_SHIFT: u8 = 2;

#[derive(Default)]
pub struct Shadow {
    pages: Vec<Option<Box<Page>>>,
    read_sets: Vec<Vec<Mark>>,
}

/// An access that the new one is not ordered with.
#[derive(Clone, Copy, Debug)]
pub struct Conflict {
    pub offset: u64,
    pub stamp: Stamp,
    /// The instruction.
    pub at: u32,
    pub wrote: bool,
    /// None for the cluster that runs now.
    pub cluster: Option<u32>,
}

/// What every check needs to know beside its actor.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    pub actor: Actor<'a>,
    /// The cluster that runs.
    pub cluster: u32,
    pub at: u32,
    /// Which agents write by the asynchronous proxy.
    pub asynchronous: &'a [bool],
}

#[derive(Clone, Copy, Default)]
struct Mark {
    stamp: Stamp,
    at: u32,
}

/// Reads by one agent at one epoch; many, by index, where its stamp has no lanes.
#[derive(Clone, Copy, Default)]
struct Cell {
    write: Mark,
    read: Mark,
}

struct Page {
    /// Bytes of a cell, as a power of two.
    shift: u8,
    cluster: u32,
    cells: Vec<Cell>,
    past: Vec<Past>,
}

/// What earlier clusters did to a cell.
#[derive(Clone, Copy, Default)]
struct Past {
    write: Mark,
    writer: u32,
    read: Mark,
    reader: u32,
    /// More than one cluster read.
    read_by_many: bool,
}

impl Shadow {
    pub fn new(bytes: u64) -> Shadow {
        let pages = bytes.div_ceil(1 << PAGE_BITS) as usize;
        Shadow { pages: std::iter::repeat_with(|| None).take(pages).collect(), read_sets: Vec::new() }
    }

    /// Forgets everything, at the start of a launch.
    pub fn clear(&mut self) {
        self.pages.iter_mut().for_each(|page| *page = None);
        self.read_sets.clear();
    }

    pub fn read(&mut self, offset: u64, bytes: u64, access: &Access) -> Result<(), Conflict> {
        self.visit(offset, bytes, access, |cell, past, sets| {
            check_write_mark(cell, past, access)?;
            note_read(cell, sets, access);
            Ok(())
        })
    }

    pub fn write(&mut self, offset: u64, bytes: u64, access: &Access) -> Result<(), Conflict> {
        self.visit(offset, bytes, access, |cell, mut past, sets| {
            if cell.write.stamp == access.actor.stamp && cell.read.stamp.is_none() {
                return Ok(());
            }
            check_write_mark(cell, past.as_deref_mut(), access)?;
            check_reads(cell, past, sets, access)?;
            *cell = Cell { write: Mark { stamp: access.actor.stamp, at: access.at }, read: Mark::default() };
            Ok(())
        })
    }

    fn visit(
        &mut self,
        offset: u64,
        bytes: u64,
        access: &Access,
        mut check: impl FnMut(&mut Cell, Option<&mut Past>, &mut Vec<Vec<Mark>>) -> Result<(), Conflict>,
    ) -> Result<(), Conflict> {
        let mut at = offset;
        while at < offset + bytes {
            let end = (offset + bytes).min((at >> PAGE_BITS << PAGE_BITS) + (1 << PAGE_BITS));
            let page =
                self.pages[(at >> PAGE_BITS) as usize].get_or_insert_with(|| Box::new(Page::new(access.cluster)));
            page.enter(access.cluster);
            page.split_for(at, end);
            let within = |at: u64| ((at & ((1 << PAGE_BITS) - 1)) >> page.shift) as usize;
            let (first, last, shift) = (within(at), within(end - 1), page.shift);
            for i in first..=last {
                check(&mut page.cells[i], page.past.get_mut(i), &mut self.read_sets).map_err(|mut conflict| {
                    conflict.offset = (at >> PAGE_BITS << PAGE_BITS) + ((i as u64) << shift);
                    conflict
                })?;
            }
            at = end;
        }
        Ok(())
    }
}

impl Page {
    fn new(cluster: u32) -> Page {
        let cells = vec![Cell::default(); 1 << (PAGE_BITS - u32::from(WORD_SHIFT))];
        Page { shift: WORD_SHIFT, cluster, cells, past: Vec::new() }
    }

    /// Marks of another cluster become the past.
    fn enter(&mut self, cluster: u32) {
        if self.cluster == cluster {
            return;
        }
        self.past.resize(self.cells.len(), Past::default());
        for (cell, past) in self.cells.iter_mut().zip(&mut self.past) {
            if !cell.write.stamp.is_none() {
                *past = Past { write: cell.write, writer: self.cluster, ..Past::default() };
            }
            if !cell.read.stamp.is_none() {
                past.read_by_many |= !past.read.stamp.is_none() || cell.read.stamp.lanes() == 0;
                (past.read, past.reader) = (cell.read, self.cluster);
            }
            *cell = Cell::default();
        }
        self.cluster = cluster;
    }

    /// Makes cells no larger than the access, or than its offset's alignment.
    fn split_for(&mut self, start: u64, end: u64) {
        let wanted = (start | end).trailing_zeros().min(u32::from(WORD_SHIFT)) as u8;
        while self.shift > wanted {
            self.cells = self.cells.iter().flat_map(|cell| [*cell; 2]).collect();
            self.past = self.past.iter().flat_map(|past| [*past; 2]).collect();
            self.shift -= 1;
        }
    }
}

fn check_write_mark(cell: &Cell, past: Option<&mut Past>, access: &Access) -> Result<(), Conflict> {
    let write = cell.write;
    if !write.stamp.is_none() && !is_ordered(write.stamp, true, access) {
        return Err(conflict(write, true, None));
    }
    let Some(past) = past else { return Ok(()) };
    if past.write.stamp.is_none() || both_strong(past.write.stamp, access) {
        return Ok(());
    }
    if !access.actor.knows_earlier(past.writer, past.write.stamp) {
        return Err(conflict(past.write, true, Some(past.writer)));
    }
    Ok(())
}

fn check_reads(cell: &Cell, past: Option<&mut Past>, sets: &[Vec<Mark>], access: &Access) -> Result<(), Conflict> {
    for mark in reads(cell, sets) {
        if !is_ordered(mark.stamp, false, access) {
            return Err(conflict(*mark, false, None));
        }
    }
    let Some(past) = past else { return Ok(()) };
    if !past.read.stamp.is_none() && !both_strong(past.read.stamp, access) {
        if past.read_by_many || !access.actor.knows_earlier(past.reader, past.read.stamp) {
            return Err(conflict(past.read, false, Some(past.reader)));
        }
        past.read = Mark::default();
    }
    Ok(())
}

fn reads<'c>(cell: &'c Cell, sets: &'c [Vec<Mark>]) -> &'c [Mark] {
    if cell.read.stamp.is_none() {
        &[]
    } else if cell.read.stamp.lanes() == 0 {
        &sets[cell.read.stamp.0 as usize - 1]
    } else {
        std::slice::from_ref(&cell.read)
    }
}

fn note_read(cell: &mut Cell, sets: &mut Vec<Vec<Mark>>, access: &Access) {
    let mine = Mark { stamp: access.actor.stamp, at: access.at };
    let earlier = cell.read.stamp;
    if earlier.is_none() {
        cell.read = mine;
    } else if earlier.lanes() == 0 {
        add_to_set(&mut sets[earlier.0 as usize - 1], mine, access);
    } else if earlier.is_beside(mine.stamp) {
        cell.read = Mark { stamp: earlier.with_lanes_of(mine.stamp), at: access.at };
    } else if access.actor.knows(earlier, false) {
        cell.read = mine;
    } else {
        sets.push(vec![cell.read, mine]);
        cell.read = Mark { stamp: Stamp(sets.len() as u64), at: access.at };
    }
}

fn add_to_set(set: &mut Vec<Mark>, mine: Mark, access: &Access) {
    if let Some(beside) = set.iter_mut().find(|mark| mark.stamp.is_beside(mine.stamp)) {
        beside.stamp = beside.stamp.with_lanes_of(mine.stamp);
        return;
    }
    set.retain(|mark| !access.actor.knows(mark.stamp, false));
    set.push(mine);
}

fn is_ordered(earlier: Stamp, wrote: bool, access: &Access) -> bool {
    let ordinary_write = wrote && !access.asynchronous[earlier.agent().0 as usize];
    both_strong(earlier, access) || access.actor.knows(earlier, ordinary_write)
}

fn both_strong(earlier: Stamp, access: &Access) -> bool {
    earlier.is_strong() && access.actor.stamp.is_strong()
}

fn conflict(mark: Mark, wrote: bool, cluster: Option<u32>) -> Conflict {
    Conflict { offset: 0, stamp: mark.stamp, at: mark.at, wrote, cluster }
}

/// Agents by number: what they are, for messages and for the proxy rules.
#[derive(Default)]
pub struct Agents {
    names: Vec<AgentKind>,
    asynchronous: Vec<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentKind {
    Warp {
        block: usize,
        warp: u32,
    },
    /// `cp.async` of a warp's lanes.
    Copies {
        block: usize,
        warp: u32,
    },
    /// Shared memory read by bulk copies that a warp's lanes issued.
    BulkReads {
        block: usize,
        warp: u32,
    },
    /// Global memory written by them.
    BulkWrites {
        block: usize,
        warp: u32,
    },
    /// Bulk copies that end at an mbarrier.
    Mbarrier {
        block: usize,
        offset: u64,
    },
    /// Matrix products of a warpgroup.
    Products {
        block: usize,
        warpgroup: u32,
    },
}

impl Agents {
    /// The agent of that kind, a new one if there is none.
    ///
    /// # Errors
    /// There are more than a stamp can tell apart.
    pub fn get(&mut self, kind: AgentKind) -> Result<Agent, String> {
        let index = self.names.iter().position(|known| *known == kind).unwrap_or_else(|| {
            self.names.push(kind);
            self.asynchronous.push(!matches!(kind, AgentKind::Warp { .. } | AgentKind::Copies { .. }));
            self.names.len() - 1
        });
        if index > usize::from(LAST_AGENT) {
            return Err(format!("more than {LAST_AGENT} warps, mbarriers and kinds of asynchronous work in a cluster"));
        }
        Ok(Agent(index as u16))
    }

    pub fn mbarrier(&mut self, id: MbarrierId) -> Result<Agent, String> {
        self.get(AgentKind::Mbarrier { block: id.block, offset: id.offset })
    }

    pub fn kind(&self, agent: Agent) -> Option<AgentKind> {
        self.names.get(agent.0 as usize).copied()
    }

    pub fn asynchronous(&self) -> &[bool] {
        &self.asynchronous
    }
}
