//! What lanes of a warp do together: shuffles, votes, reductions, elections.
use super::{Outcome, barrier::uniform, cluster::Cluster, halt, lanes_of, misuse, warp::Warp};
use crate::{
    error::FaultKind,
    op::{Predicate, Reduction, Shuffle, ShuffleOp, Vote, Word},
    ops::{LANES, Mask},
};

/// Checks that just the members that still live run the instruction together.
fn members(warp: &Warp, lanes: Mask, members: Word) -> Outcome<Mask> {
    let members = uniform(warp, lanes, members, "the member mask")?;
    if lanes == members & warp.paths.live {
        return Ok(lanes);
    }
    let found = format!("the member mask is {members:#010x}, but lanes {lanes:#010x} run this together");
    Err(misuse(lanes.trailing_zeros() as usize, found))
}

impl Cluster<'_> {
    pub fn shuffle(&mut self, warp: &mut Warp, lanes: Mask, op: &ShuffleOp) -> Outcome<()> {
        members(warp, lanes, op.members)?;
        let registers = &warp.registers;
        let (by, clamp) = (*registers.word(op.lane, lanes, "b")?, *registers.word(op.clamp, lanes, "c")?);
        let (source, ready) = registers.held_word(op.from)?;
        let source = *source;
        let (mut values, mut valid) = (source, 0);
        for lane in lanes_of(lanes) {
            let (from, inside) = shuffle_source(op.kind, lane as u32, by[lane], clamp[lane]);
            let from = if inside { from as usize } else { lane };
            if lanes >> from & 1 == 0 {
                return Err(misuse(lane, format!("shuffles from lane {from}, which does not take part")));
            }
            if ready >> from & 1 == 0 {
                return Err(halt(lane, FaultKind::UndefinedRegister { operand: "a" }));
            }
            values[lane] = source[from];
            valid |= Mask::from(inside) << lane;
        }
        warp.registers.set_word(op.to, lanes, &values)?;
        if let Some(predicate) = op.valid {
            warp.registers.set_predicate(predicate, lanes, valid);
        }
        Ok(())
    }

    pub fn vote(
        &mut self,
        warp: &mut Warp,
        lanes: Mask,
        kind: Vote,
        to: Predicate,
        from: Predicate,
        mask: Word,
    ) -> Outcome<()> {
        members(warp, lanes, mask)?;
        let values = warp.registers.predicate(from, lanes, "a")? & lanes;
        let result = match kind {
            Vote::All => values == lanes,
            Vote::Any => values != 0,
            Vote::Uniform => values == lanes || values == 0,
        };
        warp.registers.set_predicate(to, lanes, if result { Mask::MAX } else { 0 });
        Ok(())
    }

    pub fn ballot(&mut self, warp: &mut Warp, lanes: Mask, to: Word, from: Predicate, mask: Word) -> Outcome<()> {
        members(warp, lanes, mask)?;
        let values = warp.registers.predicate(from, lanes, "a")? & lanes;
        warp.registers.set_word(to, lanes, &[values; LANES])
    }

    pub fn reduce(
        &mut self,
        warp: &mut Warp,
        lanes: Mask,
        kind: Reduction,
        to: Word,
        from: Word,
        mask: Word,
    ) -> Outcome<()> {
        members(warp, lanes, mask)?;
        let values = *warp.registers.word(from, lanes, "a")?;
        let combine = |a: u32, b: u32| match kind {
            Reduction::Add => a.wrapping_add(b),
            Reduction::Min => a.min(b),
            Reduction::Max => a.max(b),
            Reduction::SignedMin => (a as i32).min(b as i32) as u32,
            Reduction::SignedMax => (a as i32).max(b as i32) as u32,
            Reduction::And => a & b,
            Reduction::Or => a | b,
            Reduction::Xor => a ^ b,
        };
        let result = lanes_of(lanes).map(|lane| values[lane]).reduce(combine).unwrap_or(0);
        warp.registers.set_word(to, lanes, &[result; LANES])
    }

    /// The lowest member is the leader.
    pub fn elect(
        &mut self,
        warp: &mut Warp,
        lanes: Mask,
        leader: Option<Word>,
        to: Predicate,
        mask: Word,
    ) -> Outcome<()> {
        members(warp, lanes, mask)?;
        let first = lanes.trailing_zeros();
        if let Some(leader) = leader {
            warp.registers.set_word(leader, lanes, &[first; LANES])?;
        }
        warp.registers.set_predicate(to, lanes, 1 << first);
        Ok(())
    }
}

/// The lane that `lane` reads, and whether it lies in its segment. The clamp's bits 8 to 12 say which bits of a lane's
/// number name its segment, bits 0 to 4 how far to go in it.
fn shuffle_source(kind: Shuffle, lane: u32, by: u32, clamp: u32) -> (u32, bool) {
    let (by, segment, bound) = (by & 31, clamp >> 8 & 31, clamp & 31);
    let last = lane & segment | bound & !segment;
    let first = lane & segment;
    match kind {
        Shuffle::Up => (lane.wrapping_sub(by), lane as i32 - by as i32 >= last as i32),
        Shuffle::Down => (lane + by, lane + by <= last),
        Shuffle::Butterfly => (lane ^ by, (lane ^ by) <= last),
        Shuffle::Index => (first | by & !segment, (first | by & !segment) <= last),
    }
}
