//! Loads and stores: from an address to a checked place in a memory.
use super::{
    Halt, Outcome, address,
    address::Location,
    clock::Actor,
    cluster::{Block, Cluster},
    halt, lanes_of,
    launch::LaunchState,
    memory::Region,
    shadow::{Access, AgentKind, Conflict},
    warp::Warp,
};
use crate::{
    error::FaultKind,
    op::{Address, Order, Slot},
    ops::{LANES, Mask},
    parse::Space,
};

/// What is accessed, and how.
#[derive(Clone, Copy)]
pub struct Target {
    pub space: Space,
    pub address: u64,
    pub bytes: u64,
    /// What the address has to be a multiple of.
    pub align: u64,
    /// The instruction, for later conflicts.
    pub at: u32,
}

impl Target {
    /// Bytes that are aligned to their number.
    pub fn new(space: Space, address: u64, bytes: u64, at: u32) -> Target {
        Target { space, address, bytes, align: bytes, at }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
}

impl Kind {
    fn noun(self) -> &'static str {
        match self {
            Kind::Read => "a read",
            Kind::Write => "a write",
        }
    }
}

/// A load or store, decoded.
#[derive(Clone, Copy)]
pub struct Transfer {
    pub space: Space,
    /// Of an element.
    pub bytes: u8,
    pub order: Order,
    pub address: Address,
}

impl Cluster<'_> {
    pub fn load(
        &mut self,
        warp: &mut Warp,
        lanes: Mask,
        pc: u32,
        transfer: Transfer,
        signed: bool,
        to: &[Option<Slot>],
    ) -> Outcome<()> {
        let Transfer { space, bytes, order, address } = transfer;
        let addresses = addresses(warp, lanes, address)?;
        let element = u64::from(bytes);
        let total = element * to.len() as u64;
        let mut values = [[0u64; LANES]; 8];
        for lane in lanes_of(lanes) {
            let target = Target::new(space, addresses[lane], total, pc);
            let own = warp.own(lane);
            let actor = warp.actor(lane, &own, order.strong);
            let (region, offset) = self.readable(warp, lane, target, &actor)?;
            for (i, values) in values.iter_mut().enumerate().take(to.len()) {
                values[lane] = extend(region.load(offset + i as u64 * element, element), element, signed);
            }
        }
        for (to, values) in to.iter().zip(&values) {
            match to {
                Some(Slot::Word(word)) => {
                    warp.registers.set_word(*word, lanes, &std::array::from_fn(|i| values[i] as u32))?;
                }
                Some(Slot::Double(double)) => warp.registers.set_double(*double, lanes, values),
                None => {}
            }
        }
        if order.strong {
            self.after_strong_read(warp, lanes, space, &addresses, order.acquire);
        }
        Ok(())
    }

    pub fn store(&mut self, warp: &mut Warp, lanes: Mask, pc: u32, transfer: Transfer, from: &[Slot]) -> Outcome<()> {
        let Transfer { space, bytes, order, address } = transfer;
        let addresses = addresses(warp, lanes, address)?;
        if order.strong {
            self.before_strong_write(warp, lanes, space, &addresses, order.release)?;
        }
        let element = u64::from(bytes);
        let total = element * from.len() as u64;
        for lane in lanes_of(lanes) {
            let target = Target::new(space, addresses[lane], total, pc);
            let mut values = [0; 8];
            for (value, slot) in values.iter_mut().zip(from) {
                *value = warp.registers.lane(*slot, lane, "the stored value")?;
            }
            if let Some((region, offset)) = self.local(warp, lane, target)? {
                put(region, offset, element, &values[..from.len()]);
                continue;
            }
            self.spare_mbarriers(warp.block, lane, target)?;
            let own = warp.own(lane);
            let actor = warp.actor(lane, &own, order.strong);
            let (region, offset) = self.writable(warp.block, lane, target, &actor)?;
            put(region, offset, element, &values[..from.len()]);
        }
        self.progress += 1;
        Ok(())
    }

    /// The region and offset of bytes that may be read: aligned, in bounds, written, ordered behind their writes.
    pub fn readable<'a>(
        &'a mut self,
        warp: &'a Warp,
        lane: usize,
        target: Target,
        actor: &Actor,
    ) -> Outcome<(&'a Region, u64)> {
        let location = self.locate(lane, target)?;
        if let Location::Local { offset } = location {
            let region = warp.local.as_ref().map(|regions| &regions[lane]);
            let checked = region.ok_or(Trouble::Missing).and_then(|region| {
                check_bounds(region, offset, target.bytes)?;
                check_written(region, offset, target.bytes)?;
                Ok((region, offset))
            });
            return checked.map_err(|trouble| self.explain(lane, target, location, Kind::Read, trouble));
        }
        let checked = self.check(warp.block, location, target, Kind::Read, actor);
        if let Err(trouble) = checked {
            return Err(self.explain(lane, target, location, Kind::Read, trouble));
        }
        let (found, offset) = find(&mut self.blocks, &mut self.launch, warp.block, location).expect("just checked");
        Ok((found.region(), offset))
    }

    /// The region and offset of bytes that may be written.
    pub fn writable(
        &mut self,
        block: usize,
        lane: usize,
        target: Target,
        actor: &Actor,
    ) -> Outcome<(&mut Region, u64)> {
        let location = self.locate(lane, target)?;
        if let Err(trouble) = self.check(block, location, target, Kind::Write, actor) {
            return Err(self.explain(lane, target, location, Kind::Write, trouble));
        }
        match find(&mut self.blocks, &mut self.launch, block, location) {
            Some((Found::Checked(region), offset)) => Ok((region, offset)),
            _ => unreachable!("only what is checked may be written"),
        }
    }

    /// Bytes that were checked before.
    pub fn bytes(&mut self, block: usize, space: Space, address: u64, bytes: u64) -> &[u8] {
        let location = address::locate(space, address).expect("a checked address");
        let found = find(&mut self.blocks, &mut self.launch, block, location);
        let (found, offset) = found.expect("a checked address");
        &found.region().data[offset as usize..(offset + bytes) as usize]
    }

    /// Writes bytes that were checked before.
    pub fn put_bytes(&mut self, block: usize, space: Space, address: u64, bytes: &[u8]) {
        let location = address::locate(space, address).expect("a checked address");
        if let Some((Found::Checked(region), offset)) = find(&mut self.blocks, &mut self.launch, block, location) {
            region.data[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
            region.mark_written(offset, bytes.len() as u64);
        }
    }

    /// Checks that an address is a multiple of what it names.
    pub fn aligned(&self, lane: usize, target: Target) -> Outcome<()> {
        self.locate(lane, target).map(|_| ())
    }

    fn locate(&self, lane: usize, target: Target) -> Outcome<Location> {
        let Target { space, address, bytes, align, .. } = target;
        if address % align != 0 {
            return Err(halt(lane, FaultKind::Misaligned { space, address, wanted: align }));
        }
        address::locate(space, address).ok_or_else(|| {
            halt(lane, FaultKind::OutOfBounds { space, address, bytes, found: "no memory lies there".to_owned() })
        })
    }

    fn check(
        &mut self,
        block: usize,
        location: Location,
        target: Target,
        kind: Kind,
        actor: &Actor,
    ) -> Result<(), Trouble> {
        if let Location::Shared { rank: Some(rank), .. } = location
            && rank != block
            && let Some(other) = self.blocks.get_mut(rank)
        {
            if other.live == 0 {
                return Err(Trouble::Gone);
            }
            other.visits.insert(actor.stamp.agent(), (actor.stamp, target.at));
        }
        let asynchronous = self.agents.asynchronous();
        let access = Access { actor: *actor, cluster: self.number, at: target.at, asynchronous };
        let found = find(&mut self.blocks, &mut self.launch, block, location).ok_or(Trouble::Missing)?;
        match (found, kind) {
            ((Found::Constant(_), _), Kind::Write) => Err(Trouble::ReadOnly),
            ((Found::Constant(region), offset), Kind::Read) => check_bounds(region, offset, target.bytes),
            ((Found::Checked(region), offset), Kind::Read) => {
                check_bounds(region, offset, target.bytes)?;
                region.shadow.read(offset, target.bytes, &access).map_err(Trouble::Race)?;
                check_written(region, offset, target.bytes)
            }
            ((Found::Checked(region), offset), Kind::Write) => {
                check_bounds(region, offset, target.bytes)?;
                region.shadow.write(offset, target.bytes, &access).map_err(Trouble::Race)
            }
        }
    }

    /// The thread's own bytes, if the address is of local memory.
    fn local<'w>(&self, warp: &'w mut Warp, lane: usize, target: Target) -> Outcome<Option<(&'w mut Region, u64)>> {
        let location = self.locate(lane, target)?;
        let Location::Local { offset } = location else { return Ok(None) };
        let region = warp.local.as_mut().map(|regions| &mut regions[lane]);
        let checked = region.ok_or(Trouble::Missing).and_then(|region| {
            check_bounds(region, offset, target.bytes)?;
            Ok(Some((region, offset)))
        });
        checked.map_err(|trouble| self.explain(lane, target, location, Kind::Write, trouble))
    }

    #[cold]
    fn explain(&self, lane: usize, target: Target, at: Location, kind: Kind, trouble: Trouble) -> Box<Halt> {
        let Target { space, address, bytes, .. } = target;
        let found = self.describe_location(at);
        let kind = match trouble {
            Trouble::Missing => FaultKind::OutOfBounds { space, address, bytes, found: "no memory lies there".into() },
            Trouble::Gone => {
                FaultKind::OutOfBounds { space, address, bytes, found: format!("{found}, but that block has ended") }
            }
            Trouble::Bounds { offset, len } => {
                let found = format!("{found} has {len} bytes, and this starts at byte {offset}");
                FaultKind::OutOfBounds { space, address, bytes, found }
            }
            Trouble::Unwritten => FaultKind::Unwritten { space, address, bytes, found },
            Trouble::ReadOnly => FaultKind::ReadOnly { space, address, bytes },
            Trouble::Race(conflict) => {
                let other = self.describe_conflict(&conflict);
                FaultKind::Race { space, address, found, mine: kind.noun(), other }
            }
        };
        halt(lane, kind)
    }

    fn describe_location(&self, location: Location) -> String {
        match location {
            Location::Global { allocation, offset } => {
                format!("`{}`, byte {}", self.launch.memory.name(allocation), offset.wrapping_sub(address::ALIGN))
            }
            Location::Variable { offset } => format!("the module's variables, byte {offset}"),
            Location::Shared { rank: None, offset } => format!("the block's shared memory, byte {offset}"),
            Location::Shared { rank: Some(rank), offset } => {
                format!("shared memory of the cluster's block {rank}, byte {offset}")
            }
            Location::Local { offset } => format!("the thread's local memory, byte {offset}"),
            Location::Parameter { offset } => format!("the parameters, byte {offset}"),
        }
    }

    fn describe_conflict(&self, conflict: &Conflict) -> String {
        let what = if conflict.wrote { "the write" } else { "the read" };
        let line = self.line(conflict.at);
        let opcode = self.opcode(conflict.at);
        if let Some(cluster) = conflict.cluster {
            return format!("{what} of line {line} (`{opcode}`) by another block (cluster {cluster} of the grid)");
        }
        let lane = conflict.stamp.lanes().trailing_zeros() as usize % LANES;
        let who = match self.agents.kind(conflict.stamp.agent()) {
            Some(AgentKind::Warp { block, warp }) => format!("{}", self.place(block, warp, lane)),
            Some(AgentKind::Copies { block, warp }) => format!("a cp.async of {}", self.place(block, warp, lane)),
            Some(AgentKind::BulkReads { block, warp } | AgentKind::BulkWrites { block, warp }) => {
                format!("a bulk copy of {}", self.place(block, warp, lane))
            }
            Some(AgentKind::Mbarrier { block, offset }) => {
                format!("a bulk copy that completes on the mbarrier at {offset:#x} of block {block} of the cluster")
            }
            Some(AgentKind::Products { block, warpgroup }) => {
                format!("a wgmma of warpgroup {warpgroup} of block {block} of the cluster")
            }
            None => "several threads".to_owned(),
        };
        format!("{what} of line {line} (`{opcode}`) by {who}")
    }
}

enum Trouble {
    Missing,
    /// Memory of a block that ended.
    Gone,
    Bounds {
        offset: u64,
        len: u64,
    },
    Unwritten,
    ReadOnly,
    Race(Conflict),
}

/// Memory that accesses of other threads may touch as well, or that nobody writes.
pub enum Found<'a> {
    Checked(&'a mut Region),
    Constant(&'a Region),
}

impl<'a> Found<'a> {
    fn region(self) -> &'a Region {
        match self {
            Found::Checked(region) => region,
            Found::Constant(region) => region,
        }
    }
}

/// The region of a location that is not local, and the offset in it.
pub fn find<'a>(
    blocks: &'a mut [Block],
    launch: &'a mut LaunchState<'_>,
    own: usize,
    location: Location,
) -> Option<(Found<'a>, u64)> {
    match location {
        Location::Global { allocation, offset } => {
            let (allocation, offset) = launch.memory.find(allocation, offset)?;
            Some((Found::Checked(&mut allocation.region), offset))
        }
        Location::Shared { rank, offset } => {
            let block = blocks.get_mut(rank.unwrap_or(own))?;
            (offset >= address::SHARED_RESERVED).then_some((Found::Checked(&mut block.shared), offset))
        }
        Location::Variable { offset } => Some((Found::Constant(launch.variables), offset)),
        Location::Parameter { offset } => Some((Found::Constant(launch.parameters), offset)),
        Location::Local { .. } => None,
    }
}

fn check_bounds(region: &Region, offset: u64, bytes: u64) -> Result<(), Trouble> {
    let len = region.len();
    if offset.checked_add(bytes).is_some_and(|end| end <= len) { Ok(()) } else { Err(Trouble::Bounds { offset, len }) }
}

fn check_written(region: &Region, offset: u64, bytes: u64) -> Result<(), Trouble> {
    if region.is_written(offset, bytes) { Ok(()) } else { Err(Trouble::Unwritten) }
}

/// The addresses of the active lanes.
pub fn addresses(warp: &Warp, lanes: Mask, address: Address) -> Outcome<[u64; LANES]> {
    let offset = address.offset as u64;
    Ok(match address.base {
        Slot::Double(base) => warp.registers.double(base, lanes, "the address")?.map(|a| a.wrapping_add(offset)),
        Slot::Word(base) => {
            warp.registers.word(base, lanes, "the address")?.map(|a| u64::from(a.wrapping_add(offset as u32)))
        }
    })
}

fn put(region: &mut Region, offset: u64, element: u64, values: &[u64]) {
    for (i, value) in values.iter().enumerate() {
        region.store(offset + i as u64 * element, element, *value);
    }
}

fn extend(value: u64, bytes: u64, signed: bool) -> u64 {
    let unused = 64 - 8 * bytes as u32;
    if signed { ((value << unused) as i64 >> unused) as u64 } else { value }
}
