//! Atomic operations, fences, and what strong accesses publish.
use super::{
    Outcome,
    access::{Target, addresses},
    address,
    address::Location,
    clock::Knowledge,
    cluster::Cluster,
    lanes_of, misuse,
    warp::Warp,
};
use crate::{
    op::{Atomic, AtomicOp, NumberType},
    ops::{LANES, Mask},
    parse::Space,
};
use std::{collections::HashMap, rc::Rc};

/// What was published at each place by releasing writes, and by the read-modify-writes after them.
#[derive(Default)]
pub struct SyncObjects {
    published: HashMap<Location, (u32, Rc<Knowledge>)>,
}

impl SyncObjects {
    /// A release by `cluster`, on top of what is there.
    fn publish(&mut self, location: Location, cluster: u32, mut knowledge: Knowledge) {
        if let Some((other, earlier)) = self.published.get(&location) {
            if *other == cluster { knowledge.join(earlier) } else { knowledge.join_from(*other, earlier) }
        }
        self.published.insert(location, (cluster, Rc::new(knowledge)));
    }

    /// What `cluster` learns by reading there.
    fn seen(&self, location: Location, cluster: u32) -> Option<Rc<Knowledge>> {
        let (publisher, knowledge) = self.published.get(&location)?;
        if *publisher == cluster {
            return Some(knowledge.clone());
        }
        let mut joined = Knowledge::default();
        joined.join_from(*publisher, knowledge);
        Some(Rc::new(joined))
    }
}

impl Cluster<'_> {
    pub fn atomic(&mut self, warp: &mut Warp, lanes: Mask, pc: u32, op: &AtomicOp) -> Outcome<()> {
        let addresses = addresses(warp, lanes, op.address)?;
        self.before_strong_write(warp, lanes, op.space, &addresses, op.order.release)?;
        let bytes = u64::from(op.bytes);
        for lane in lanes_of(lanes) {
            let target = Target::new(op.space, addresses[lane], bytes, pc);
            let a = warp.registers.lane(op.a, lane, "b")?;
            let b = op.b.map(|b| warp.registers.lane(b, lane, "c")).transpose()?;
            let own = warp.own(lane);
            let actor = warp.actor(lane, &own, true);
            let (region, offset) = self.readable(warp, lane, target, &actor)?;
            let old = region.load(offset, bytes);
            let new = combine(op, old, a, b.unwrap_or(0));
            let (region, offset) = self.writable(warp.block, lane, target, &actor)?;
            region.store(offset, bytes, new);
            if let Some(to) = op.to {
                warp.registers.set_lane(to, lane, old)?;
            }
        }
        self.after_strong_read(warp, lanes, op.space, &addresses, op.order.acquire);
        self.progress += 1;
        Ok(())
    }

    /// Publishes what a release, or a fence before a relaxed write, makes visible.
    pub fn before_strong_write(
        &mut self,
        warp: &mut Warp,
        lanes: Mask,
        space: Space,
        addresses: &[u64; LANES],
        release: bool,
    ) -> Outcome<()> {
        let fenced = warp.fence_release.as_ref().filter(|(fenced, _)| lanes & !fenced == 0);
        let knowledge = match (release, fenced) {
            (true, _) => warp.release(lanes).map_err(|found| misuse(0, found))?,
            (false, Some((_, knowledge))) => Knowledge::clone(knowledge),
            (false, None) => return Ok(()),
        };
        for lane in lanes_of(lanes) {
            if let Some(location) = self.sync_location(warp.block, space, addresses[lane]) {
                self.launch.syncs.publish(location, self.number, knowledge.clone());
            }
        }
        Ok(())
    }

    /// Learns what was published there: at once, or at the next fence.
    pub fn after_strong_read(
        &mut self,
        warp: &mut Warp,
        lanes: Mask,
        space: Space,
        addresses: &[u64; LANES],
        acquire: bool,
    ) {
        for lane in lanes_of(lanes) {
            let location = self.sync_location(warp.block, space, addresses[lane]);
            let Some(seen) = location.and_then(|location| self.launch.syncs.seen(location, self.number)) else {
                continue;
            };
            if acquire {
                warp.acquire(1 << lane, &seen);
            } else {
                warp.fence_acquire.join(&seen);
            }
        }
    }

    /// A fence of acquire-release or stronger semantics.
    pub fn fence(&mut self, warp: &mut Warp, lanes: Mask) -> Outcome<()> {
        let acquired = Rc::new(std::mem::take(&mut warp.fence_acquire));
        warp.acquire(lanes, &acquired);
        let knowledge = warp.release(lanes).map_err(|found| misuse(0, found))?;
        warp.fence_release = Some((lanes, Rc::new(knowledge)));
        Ok(())
    }

    /// A place by a name that is the same for all blocks of the cluster.
    fn sync_location(&self, block: usize, space: Space, address: u64) -> Option<Location> {
        address::locate(space, address).map(|location| match location {
            Location::Shared { rank, offset } => Location::Shared { rank: Some(rank.unwrap_or(block)), offset },
            other => other,
        })
    }
}

fn combine(op: &AtomicOp, old: u64, a: u64, b: u64) -> u64 {
    let narrow = op.bytes == 4;
    let signed = |x: u64| if narrow { i64::from(x as u32 as i32) } else { x as i64 };
    let limit = if narrow { u64::from(u32::MAX) } else { u64::MAX };
    let is_signed = op.number == NumberType::Signed;
    let pick = |first: bool| if first { old } else { a };
    let new = match op.kind {
        Atomic::Add if op.number == NumberType::Float => {
            u64::from((f32::from_bits(old as u32) + f32::from_bits(a as u32)).to_bits())
        }
        Atomic::Add => old.wrapping_add(a),
        Atomic::Min if is_signed => pick(signed(old) <= signed(a)),
        Atomic::Max if is_signed => pick(signed(old) >= signed(a)),
        Atomic::Min => pick(old <= a & limit),
        Atomic::Max => pick(old >= a & limit),
        Atomic::And => old & a,
        Atomic::Or => old | a,
        Atomic::Xor => old ^ a,
        Atomic::Increment => {
            if old >= a & limit {
                0
            } else {
                old + 1
            }
        }
        Atomic::Decrement => {
            if old == 0 || old > a & limit {
                a
            } else {
                old - 1
            }
        }
        Atomic::Exchange => a,
        Atomic::CompareAndSwap => {
            if old == a & limit {
                b
            } else {
                old
            }
        }
    };
    new & limit
}
