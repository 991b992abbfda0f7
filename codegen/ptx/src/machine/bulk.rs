//! Bulk copies: `cp.async.bulk`, of a range or of a tensor's box, between global and shared memory.
//!
//! A load ends at an mbarrier, a store in a group of the thread that issued it. Both act by the asynchronous proxy:
//! they see ordinary writes only behind a proxy fence. As for `cp.async`, ordering is checked at issue; in late mode a
//! load's bytes move when a thread waits for its mbarrier, a store's when its thread waits until they were read.
use super::{
    Outcome,
    access::{Target, addresses},
    address::{self, Location},
    clock::{Actor, Agent, Own, Stamp},
    cluster::Cluster,
    lanes_of,
    launch::Mode,
    mbarrier::MbarrierId,
    misuse,
    shadow::AgentKind,
    warp::Warp,
};
use crate::{
    op::{Address, BulkDirection, BulkGlobal, BulkOp, Word},
    ops::{LANES, Mask},
    parse::Space,
    tensor_map::{TENSOR_MAP_BYTES, TensorMap},
};
use std::{collections::VecDeque, rc::Rc};

/// Bytes that lie together in both memories.
#[derive(Clone, Copy, Debug)]
struct Piece {
    shared: u64,
    /// None outside of the tensor.
    global: Option<u64>,
    bytes: u64,
}

/// A load that did not take effect yet.
pub struct BulkLoad {
    pieces: Rc<Vec<Piece>>,
    fill: [u8; 16],
    pub bytes: u64,
}

/// The stores of a warp's lanes that are under way.
#[derive(Default)]
pub struct Stores {
    pub reads: Option<Agent>,
    pub writes: Option<Agent>,
    /// By lane: the last group of which it waited for the reads, and for the writes.
    pub waited_reads: [u32; LANES],
    pub waited_writes: [u32; LANES],
    open: Vec<Store>,
    groups: VecDeque<Group>,
    committed: u32,
}

struct Group {
    number: u32,
    lanes: Mask,
    stores: Vec<Store>,
}

struct Store {
    lane: usize,
    pieces: Rc<Vec<Piece>>,
    adds: bool,
    moved: bool,
    /// The instruction.
    at: u32,
}

/// A copy of one lane, its addresses found.
struct Transfer {
    pieces: Rc<Vec<Piece>>,
    fill: [u8; 16],
    bytes: u64,
}

impl Cluster<'_> {
    pub fn bulk(&mut self, warp: &mut Warp, lanes: Mask, pc: u32, op: &BulkOp) -> Outcome<()> {
        let shared = addresses(warp, lanes, op.shared)?;
        for lane in lanes_of(lanes) {
            let transfer = self.transfer(warp, lane, pc, shared[lane], &op.global)?;
            match op.direction {
                BulkDirection::Load { mbarrier, multicast } => {
                    self.bulk_load(warp, lane, pc, shared[lane], transfer, mbarrier, multicast)?;
                }
                BulkDirection::Store => self.bulk_store(warp, lane, pc, transfer, false)?,
                BulkDirection::Add => self.bulk_store(warp, lane, pc, transfer, true)?,
            }
        }
        Ok(())
    }

    fn transfer(&mut self, warp: &Warp, lane: usize, pc: u32, to: u64, global: &BulkGlobal) -> Outcome<Transfer> {
        match global {
            BulkGlobal::Linear { address, bytes } => {
                let from = addresses(warp, 1 << lane, *address)?[lane];
                let bytes = u64::from(warp.registers.word(*bytes, 1 << lane, "the bytes")?[lane]);
                if [to, from, bytes].iter().any(|value| value % 16 != 0) || bytes == 0 {
                    let found = format!("{bytes} bytes between {from:#x} and {to:#x}; wanted multiples of 16");
                    return Err(misuse(lane, found));
                }
                let pieces = Rc::new(vec![Piece { shared: to, global: Some(from), bytes }]);
                Ok(Transfer { pieces, fill: [0; 16], bytes })
            }
            BulkGlobal::Tensor { map, coordinates } => {
                let map = self.tensor_map(warp, lane, pc, *map)?;
                if coordinates.len() != map.rank() {
                    let found = format!("{} coordinates for a tensor of rank {}", coordinates.len(), map.rank());
                    return Err(misuse(lane, found));
                }
                if !to.is_multiple_of(128) {
                    return Err(misuse(lane, format!("shared address {to:#x} of a box is not a multiple of 128")));
                }
                let mut at = Vec::new();
                for word in coordinates {
                    at.push(i64::from(warp.registers.word(*word, 1 << lane, "a coordinate")?[lane] as i32));
                }
                let fill = std::array::from_fn(|i| map.fill().to_le_bytes()[i % map.element.bytes() as usize]);
                Ok(Transfer { pieces: Rc::new(pieces(&map, &at, to)), fill, bytes: map.box_bytes() })
            }
        }
    }

    fn tensor_map(&mut self, warp: &Warp, lane: usize, pc: u32, address: Address) -> Outcome<TensorMap> {
        let from = addresses(warp, 1 << lane, address)?[lane];
        let target = Target { align: 64, ..Target::new(Space::Generic, from, TENSOR_MAP_BYTES as u64, pc) };
        let own = warp.own(lane);
        let known = warp.knowledge(lane);
        let stamp = Stamp::new(warp.agent, 1 << lane, warp.epoch, false);
        let actor = Actor { stamp, known: &known, own: &own, asynchronous: true };
        let (region, offset) = self.readable(warp, lane, target, &actor)?;
        let map = TensorMap::decode(&region.data[offset as usize..][..TENSOR_MAP_BYTES]);
        map.ok_or_else(|| misuse(lane, format!("the 128 bytes at {from:#x} are no tensor map")))
    }

    #[expect(clippy::too_many_arguments, reason = "the operands of the instruction")]
    fn bulk_load(
        &mut self,
        warp: &Warp,
        lane: usize,
        pc: u32,
        shared: u64,
        transfer: Transfer,
        mbarrier: Address,
        multicast: Option<Word>,
    ) -> Outcome<()> {
        let mbarrier = addresses(warp, 1 << lane, mbarrier)?[lane];
        let id = self.mbarrier_id(warp, lane, mbarrier)?;
        let Some(Location::Shared { rank, .. }) = address::locate(Space::SharedCluster, shared) else {
            return Err(misuse(lane, format!("{shared:#x} is no address of the cluster's shared memory")));
        };
        let Some(mask) = multicast else {
            let block = rank.unwrap_or(warp.block);
            if block != id.block {
                return Err(misuse(lane, "a bulk load to another block than that of its mbarrier"));
            }
            return self.load_to(warp, lane, pc, transfer, id);
        };
        let mask = warp.registers.word(mask, 1 << lane, "the mask of blocks")?[lane] & 0xffff;
        if mask == 0 || mask >> self.blocks.len() != 0 {
            let found = format!("mask {mask:#06x} of blocks in a cluster of {}", self.blocks.len());
            return Err(misuse(lane, found));
        }
        for block in lanes_of(mask) {
            let pieces = Rc::new(transfer.pieces.iter().map(|piece| piece.in_block(block)).collect());
            let part = Transfer { pieces, ..transfer };
            self.load_to(warp, lane, pc, part, MbarrierId { block, offset: id.offset })?;
        }
        Ok(())
    }

    /// A load to the block of its mbarrier.
    fn load_to(&mut self, warp: &Warp, lane: usize, pc: u32, transfer: Transfer, id: MbarrierId) -> Outcome<()> {
        let (agent, phase) = {
            let mbarrier = self.mbarrier(lane, id)?;
            mbarrier.unseen = Some(pc);
            (mbarrier.agent, mbarrier.phase)
        };
        let own = warp.own(lane);
        let known = warp.knowledge(lane);
        let actor =
            Actor { stamp: Stamp::new(agent, 1, phase + 1, false), known: &known, own: &own, asynchronous: true };
        let seen = Actor { stamp: Stamp::new(agent, 1, phase + 1, true), ..actor };
        self.see_mbarrier(warp, lane, pc, id, &seen)?;
        for piece in transfer.pieces.iter() {
            if let Some(target) = piece.global(pc) {
                self.readable(warp, lane, target, &actor)?;
            }
            self.writable(warp.block, lane, piece.shared(pc), &actor)?;
        }
        let Transfer { pieces, fill, bytes } = transfer;
        let load = BulkLoad { pieces, fill, bytes };
        if self.launch.mode == Mode::Early {
            self.move_load(id, &load);
        } else {
            self.mbarrier(lane, id)?.loads.push(load);
        }
        self.progress += 1;
        Ok(())
    }

    /// A load takes effect.
    pub fn move_load(&mut self, id: MbarrierId, load: &BulkLoad) {
        for piece in load.pieces.iter() {
            match piece.global {
                Some(global) => {
                    let bytes = self.bytes(id.block, Space::Global, global, piece.bytes).to_vec();
                    self.put_bytes(id.block, Space::SharedCluster, piece.shared, &bytes);
                }
                None => {
                    let fill: Vec<u8> = load.fill.iter().cycle().take(piece.bytes as usize).copied().collect();
                    self.put_bytes(id.block, Space::SharedCluster, piece.shared, &fill);
                }
            }
        }
        if let Some(mbarrier) = self.blocks[id.block].mbarriers.get_mut(&id.offset) {
            mbarrier.complete_bytes(load.bytes);
        }
        self.progress += 1;
    }

    fn bulk_store(&mut self, warp: &mut Warp, lane: usize, pc: u32, from: Transfer, adds: bool) -> Outcome<()> {
        let (block, index) = (warp.block, warp.index);
        let named = |agent: Result<Agent, String>| agent.map_err(|found| misuse(lane, found));
        let reads = named(self.agents.get(AgentKind::BulkReads { block, warp: index }))?;
        let writes = named(self.agents.get(AgentKind::BulkWrites { block, warp: index }))?;
        (warp.stores.reads, warp.stores.writes) = (Some(reads), Some(writes));
        let (own, known, number) = (warp.own(lane), warp.knowledge(lane), warp.stores.committed + 1);
        let actor = |agent, strong| Actor {
            stamp: Stamp::new(agent, 1 << lane, number, strong),
            known: &known,
            own: &own,
            asynchronous: true,
        };
        for piece in from.pieces.iter() {
            let Some(target) = piece.global(pc) else { continue };
            self.readable(warp, lane, piece.shared(pc), &actor(reads, false))?;
            if adds {
                self.readable(warp, lane, target, &actor(writes, true))?;
            }
            self.writable(block, lane, target, &actor(writes, adds))?;
        }
        let mut store = Store { lane, pieces: from.pieces, adds, moved: false, at: pc };
        if self.launch.mode == Mode::Early {
            self.move_store(block, &mut store);
        }
        warp.stores.open.push(store);
        Ok(())
    }

    fn move_store(&mut self, block: usize, store: &mut Store) {
        if std::mem::replace(&mut store.moved, true) {
            return;
        }
        for piece in store.pieces.iter() {
            let Some(global) = piece.global else { continue };
            let mut bytes = self.bytes(block, Space::SharedCluster, piece.shared, piece.bytes).to_vec();
            if store.adds {
                let old = self.bytes(block, Space::Global, global, piece.bytes).to_vec();
                for (new, old) in bytes.chunks_exact_mut(4).zip(old.chunks_exact(4)) {
                    let number = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                    new.copy_from_slice(&(number(old) + number(new)).to_le_bytes());
                }
            }
            self.put_bytes(block, Space::Global, global, &bytes);
        }
        self.progress += 1;
    }

    pub fn commit_bulk(&mut self, warp: &mut Warp, lanes: Mask) {
        let stores = &mut warp.stores;
        stores.committed += 1;
        let (mine, others) = std::mem::take(&mut stores.open).into_iter().partition(|s| lanes >> s.lane & 1 == 1);
        stores.open = others;
        stores.groups.push_back(Group { number: stores.committed, lanes, stores: mine });
    }

    pub fn wait_for_bulk(&mut self, warp: &mut Warp, lanes: Mask, pending: u32, reads_only: bool) {
        let mut groups = std::mem::take(&mut warp.stores.groups);
        for lane in lanes_of(lanes) {
            let count = groups.iter().filter(|group| group.lanes >> lane & 1 == 1).count();
            let done = count.saturating_sub(pending as usize);
            for group in groups.iter_mut().filter(|group| group.lanes >> lane & 1 == 1).take(done) {
                let mine = group.stores.iter_mut().filter(|store| store.lane == lane);
                mine.for_each(|store| self.move_store(warp.block, store));
                warp.stores.waited_reads[lane] = group.number;
                if !reads_only {
                    warp.stores.waited_writes[lane] = group.number;
                    group.lanes &= !(1 << lane);
                }
            }
        }
        groups.retain(|group| group.lanes != 0);
        warp.stores.groups = groups;
    }

    /// At the end of a block: completes stores whose reads were waited for; else the instruction of one and its lane.
    pub fn finish_stores(&mut self, warp: &mut Warp) -> Result<(), (u32, usize)> {
        let stores = &warp.stores;
        let committed = stores.groups.iter().flat_map(|group| group.stores.iter().map(|s| (group.number, s)));
        let all = committed.chain(stores.open.iter().map(|store| (u32::MAX, store)));
        let unread = all.into_iter().find(|(number, store)| stores.waited_reads[store.lane] < *number);
        unread.map_or(Ok(()), |(_, store)| Err((store.at, store.lane)))
    }
}

impl Stores {
    /// What a lane knows of its own stores by having waited for them.
    pub fn own(&self, lane: usize, warp: Agent) -> [Own; 2] {
        let own =
            |agent: Option<Agent>, until| Own { agent: agent.unwrap_or(warp), lanes: 1 << lane, until, fenced: 0 };
        [own(self.reads, self.waited_reads[lane]), own(self.writes, self.waited_writes[lane])]
    }
}

impl Piece {
    fn global(&self, pc: u32) -> Option<Target> {
        let target = |address| Target { align: 1, ..Target::new(Space::Global, address, self.bytes, pc) };
        self.global.map(target)
    }

    fn shared(&self, pc: u32) -> Target {
        Target { align: 1, ..Target::new(Space::SharedCluster, self.shared, self.bytes, pc) }
    }

    fn in_block(&self, block: usize) -> Piece {
        Piece { shared: address::in_block(self.shared, block), ..*self }
    }
}

/// The pieces of a box whose first element is at the given index: 16 bytes where the tensor's edge does not cut them.
fn pieces(map: &TensorMap, at: &[i64], shared: u64) -> Vec<Piece> {
    let (row_bytes, element) = (map.row_bytes(), map.element.bytes());
    let rows: u64 = map.box_sizes[1..].iter().map(|size| u64::from(*size)).product();
    let mut pieces = Vec::with_capacity((rows * row_bytes / 16) as usize);
    for row in 0..rows {
        let start = row_start(map, at, row);
        for byte in (0..row_bytes).step_by(16) {
            let to = map.swizzle.apply(shared + row * row_bytes + byte);
            let first = at[0] + (byte / element) as i64;
            let inside = |column: i64| (0..map.sizes[0] as i64).contains(&column);
            let address = |column: i64| start.map(|start| start + column as u64 * element);
            if start.is_none() || inside(first) == inside(first + (16 / element) as i64 - 1) {
                let global = if inside(first) { address(first) } else { None };
                pieces.push(Piece { shared: to, global, bytes: 16 });
                continue;
            }
            for i in 0..16 / element {
                let column = first + i as i64;
                let global = if inside(column) { address(column) } else { None };
                pieces.push(Piece { shared: to + i * element, global, bytes: element });
            }
        }
    }
    pieces
}

/// The address of the tensor's row that is row `row` of the box, if the tensor has it.
fn row_start(map: &TensorMap, at: &[i64], row: u64) -> Option<u64> {
    let (mut left, mut address) = (row, map.address);
    for (dimension, first) in at.iter().enumerate().skip(1) {
        let size = u64::from(map.box_sizes[dimension]);
        let index = first + (left % size) as i64;
        left /= size;
        if !(0..map.sizes[dimension] as i64).contains(&index) {
            return None;
        }
        address += index as u64 * map.strides[dimension - 1];
    }
    Some(address)
}
