//! One instruction of one path.
use super::{
    Outcome,
    access::Transfer,
    address,
    cluster::{Cluster, Next},
    halt, lanes_of, misuse,
    warp::Warp,
};
use crate::{
    error::FaultKind,
    op::{Combine, Op, Predicate},
    ops::{LANES, Mask, convert, integer},
    parse::Guard,
};

impl Cluster<'_> {
    pub fn step(&mut self, warp: &mut Warp, path: usize, pc: u32, lanes: Mask) -> Outcome<Next> {
        let kernel = self.kernel;
        let instruction = &kernel.code[pc as usize];
        let active = guarded(warp, lanes, instruction.guard)?;
        match &instruction.op {
            Op::Branch { target } => {
                if active == lanes {
                    warp.paths.advance(path, *target);
                    return Ok(Next::Done);
                }
                if active == 0 {
                    return Ok(Next::Advance);
                }
                let sides = [(pc + 1, lanes & !active), (*target, active)];
                warp.paths.diverge(path, &sides, kernel.reconvergence[pc as usize]);
                Ok(Next::Done)
            }
            Op::BranchIndexed { index, targets } => {
                let index = *warp.registers.word(*index, active, "the index")?;
                let mut sides = vec![(pc + 1, lanes & !active)];
                for lane in lanes_of(active) {
                    let target = targets.get(index[lane] as usize);
                    let target = target.ok_or_else(|| misuse(lane, format!("no branch target {}", index[lane])))?;
                    match sides.iter_mut().find(|(pc, _)| pc == target) {
                        Some((_, lanes)) => *lanes |= 1 << lane,
                        None => sides.push((*target, 1 << lane)),
                    }
                }
                warp.paths.diverge(path, &sides, kernel.reconvergence[pc as usize]);
                Ok(Next::Done)
            }
            Op::Exit => {
                warp.paths.exit(path, active);
                Ok(if active == lanes { Next::Done } else { Next::Advance })
            }
            _ if active == 0 => Ok(Next::Advance),
            Op::Barrier(op) => self.barrier(warp, path, active, op),
            Op::WarpSync { members } => self.warp_sync(warp, path, active, *members),
            Op::ClusterArrive { release } => self.cluster_arrive(warp, active, *release),
            Op::ClusterWait => self.cluster_wait(warp, path, active),
            Op::MbarrierWait(op) => self.mbarrier_wait(warp, path, pc, active, op),
            Op::WarpgroupWait { pending } => self.wait_for_products(warp, path, active, *pending),
            Op::Registers(op) => self.set_registers(warp, path, pc, active, *op),
            op => {
                self.compute(warp, active, pc, op)?;
                Ok(Next::Advance)
            }
        }
    }

    /// Instructions after which the next one follows.
    fn compute(&mut self, warp: &mut Warp, lanes: Mask, pc: u32, op: &Op) -> Outcome<()> {
        match op {
            Op::Load { space, bytes, signed, order, to, address } => {
                let transfer = Transfer { space: *space, bytes: *bytes, order: *order, address: *address };
                self.load(warp, lanes, pc, transfer, *signed, to)
            }
            Op::Store { space, bytes, order, from, address } => {
                let transfer = Transfer { space: *space, bytes: *bytes, order: *order, address: *address };
                self.store(warp, lanes, pc, transfer, from)
            }
            Op::Atomic(op) => self.atomic(warp, lanes, pc, op),
            Op::Fence { release_acquire, proxy } => {
                if *proxy {
                    warp.fence_proxy(lanes).map_err(|found| misuse(0, found))?;
                }
                if *release_acquire { self.fence(warp, lanes) } else { Ok(()) }
            }
            Op::Trap => Err(halt(lanes.trailing_zeros() as usize, FaultKind::Trap)),
            Op::Shuffle(op) => self.shuffle(warp, lanes, op),
            Op::Vote { kind, to, from, members } => self.vote(warp, lanes, *kind, *to, *from, *members),
            Op::Ballot { to, from, members } => self.ballot(warp, lanes, *to, *from, *members),
            Op::ActiveMask { to } => warp.registers.set_word(*to, lanes, &[lanes; 32]),
            Op::Reduce { kind, to, from, members } => self.reduce(warp, lanes, *kind, *to, *from, *members),
            Op::Elect { leader, to, members } => self.elect(warp, lanes, *leader, *to, *members),
            Op::CopyAsync(op) => self.copy(warp, lanes, pc, op),
            Op::CopyCommit => {
                self.commit_copies(warp, lanes);
                Ok(())
            }
            Op::CopyWait { pending, all } => {
                self.wait_for_copies(warp, lanes, *pending, *all);
                Ok(())
            }
            Op::LoadMatrix { to, address, transposed } => self.load_matrix(warp, lanes, pc, to, *address, *transposed),
            Op::StoreMatrix { from, address, transposed } => {
                self.store_matrix(warp, lanes, pc, from, *address, *transposed)
            }
            Op::Multiply(op) => self.multiply(warp, lanes, op),
            Op::ToGeneric { space, to, from } => {
                let values = warp.registers.double(*from, lanes, "a")?;
                let values = values.map(|value| address::to_generic(*space, value, warp.block));
                warp.registers.set_double(*to, lanes, &values);
                Ok(())
            }
            Op::FromGeneric { space, to, from } => {
                let values = warp.registers.double(*from, lanes, "a")?;
                let values = values.map(|value| address::from_generic(*space, value, warp.block));
                warp.registers.set_double(*to, lanes, &values);
                Ok(())
            }
            op => self.compute_asynchronous(warp, lanes, pc, op),
        }
    }
}

impl Cluster<'_> {
    fn compute_asynchronous(&mut self, warp: &mut Warp, lanes: Mask, pc: u32, op: &Op) -> Outcome<()> {
        match op {
            Op::MbarrierInit { address, count } => self.mbarrier_init(warp, lanes, pc, *address, *count),
            Op::MbarrierInvalidate { address } => self.mbarrier_invalidate(warp, lanes, pc, *address),
            Op::MbarrierArrive(op) => self.mbarrier_arrive(warp, lanes, pc, op),
            Op::MbarrierExpect { address, bytes } => self.mbarrier_expect(warp, lanes, pc, *address, *bytes),
            Op::CopyArrive { address, counted } => self.arrive_after_copies(warp, lanes, pc, *address, *counted),
            Op::Bulk(op) => self.bulk(warp, lanes, pc, op),
            Op::BulkCommit => {
                self.commit_bulk(warp, lanes);
                Ok(())
            }
            Op::BulkWait { pending, reads_only } => {
                self.wait_for_bulk(warp, lanes, *pending, *reads_only);
                Ok(())
            }
            Op::MapShared { to, from, rank, generic } => {
                let ranks = *warp.registers.word(*rank, lanes, "b")?;
                let from = warp.registers.double(*from, lanes, "a")?;
                let start = if *generic { address::SHARED } else { 0 };
                let map = |i: usize| start + address::in_block(from[i].wrapping_sub(start), ranks[i] as usize);
                let values = std::array::from_fn(map);
                warp.registers.set_double(*to, lanes, &values);
                Ok(())
            }
            Op::WarpgroupFence => self.fence_products(warp, pc, lanes),
            Op::WarpgroupCommit => self.commit_products(warp, pc, lanes),
            Op::WarpgroupMultiply(op) => self.warpgroup_multiply(warp, lanes, pc, op),
            op => arithmetic(warp, lanes, op),
        }
    }
}

fn guarded(warp: &Warp, lanes: Mask, guard: Option<Guard>) -> Outcome<Mask> {
    let Some(Guard { predicate, negated }) = guard else { return Ok(lanes) };
    let holds = warp.registers.predicate(Predicate(predicate), lanes, "the guard")?;
    Ok(lanes & if negated { !holds } else { holds })
}

/// Instructions that touch nothing but registers.
fn arithmetic(warp: &mut Warp, lanes: Mask, op: &Op) -> Outcome<()> {
    let registers = &mut warp.registers;
    match *op {
        Op::Words1 { f, to, a } => {
            let values = f(registers.word(a, lanes, "a")?);
            registers.set_word(to, lanes, &values)
        }
        Op::Words2 { f, to, a, b } => {
            let values = f(registers.word(a, lanes, "a")?, registers.word(b, lanes, "b")?);
            registers.set_word(to, lanes, &values)
        }
        Op::Words3 { f, to, a, b, c } => {
            let (a, b) = (registers.word(a, lanes, "a")?, registers.word(b, lanes, "b")?);
            let values = f(a, b, registers.word(c, lanes, "c")?);
            registers.set_word(to, lanes, &values)
        }
        Op::Doubles1 { f, to, a } => {
            let values = f(registers.double(a, lanes, "a")?);
            registers.set_double(to, lanes, &values);
            Ok(())
        }
        Op::Doubles2 { f, to, a, b } => {
            let values = f(registers.double(a, lanes, "a")?, registers.double(b, lanes, "b")?);
            registers.set_double(to, lanes, &values);
            Ok(())
        }
        Op::Doubles3 { f, to, a, b, c } => {
            let (a, b) = (registers.double(a, lanes, "a")?, registers.double(b, lanes, "b")?);
            let values = f(a, b, registers.double(c, lanes, "c")?);
            registers.set_double(to, lanes, &values);
            Ok(())
        }
        Op::Shift { f, to, a, b } => {
            let values = f(registers.double(a, lanes, "a")?, registers.word(b, lanes, "b")?);
            registers.set_double(to, lanes, &values);
            Ok(())
        }
        Op::Widen2 { f, to, a, b } => {
            let values = f(registers.word(a, lanes, "a")?, registers.word(b, lanes, "b")?);
            registers.set_double(to, lanes, &values);
            Ok(())
        }
        Op::WideMultiplyAdd { f, to, a, b, c } => {
            let product = f(registers.word(a, lanes, "a")?, registers.word(b, lanes, "b")?);
            let c = registers.double(c, lanes, "c")?;
            let values = std::array::from_fn(|i| product[i].wrapping_add(c[i]));
            registers.set_double(to, lanes, &values);
            Ok(())
        }
        Op::Narrow1 { f, to, a } => {
            let values = f(registers.double(a, lanes, "a")?);
            registers.set_word(to, lanes, &values)
        }
        Op::BitInsert { to, a, b, position, length } => {
            let (a, b) = (registers.wide(a, lanes, "a")?, registers.wide(b, lanes, "b")?);
            let (position, length) = (registers.word(position, lanes, "c")?, registers.word(length, lanes, "d")?);
            let values = std::array::from_fn(|i| integer::insert(a[i], b[i], position[i], length[i]));
            registers.set_wide(to, lanes, &values)
        }
        Op::Field { f, to, a, b, c } => {
            let (b, c) = (registers.word(b, lanes, "b")?, registers.word(c, lanes, "c")?);
            let values = f(registers.double(a, lanes, "a")?, b, c);
            registers.set_double(to, lanes, &values);
            Ok(())
        }
        Op::Lookup { to, a, b, c, table } => {
            let (a, b) = (registers.word(a, lanes, "a")?, registers.word(b, lanes, "b")?);
            let c = registers.word(c, lanes, "c")?;
            let values = std::array::from_fn(|i| integer::lookup(a[i], b[i], c[i], table));
            registers.set_word(to, lanes, &values)
        }
        _ => selection(warp, lanes, op),
    }
}

/// Conversions, tests, selections and moves.
fn selection(warp: &mut Warp, lanes: Mask, op: &Op) -> Outcome<()> {
    let registers = &mut warp.registers;
    match *op {
        Op::Convert { read, write, to, from } => {
            let from = registers.wide(from, lanes, "a")?;
            let wide = match read {
                convert::Read::Words(f) => f(&from.map(|value| value as u32)),
                convert::Read::Doubles(f) => f(&from),
            };
            let values = match write {
                convert::Write::Words(f) => f(&wide).map(u64::from),
                convert::Write::Doubles(f) => f(&wide),
            };
            registers.set_wide(to, lanes, &values)
        }
        Op::TestWords { f, to, a, b, combine } => {
            let values = f(registers.word(a, lanes, "a")?, registers.word(b, lanes, "b")?);
            test(warp, lanes, to, values, combine)
        }
        Op::TestDoubles { f, to, a, b, combine } => {
            let values = f(registers.double(a, lanes, "a")?, registers.double(b, lanes, "b")?);
            test(warp, lanes, to, values, combine)
        }
        Op::Predicates1 { f, to, a } => {
            let values = f(registers.predicate(a, lanes, "a")?);
            registers.set_predicate(to, lanes, values);
            Ok(())
        }
        Op::Predicates2 { f, to, a, b } => {
            let values = f(registers.predicate(a, lanes, "a")?, registers.predicate(b, lanes, "b")?);
            registers.set_predicate(to, lanes, values);
            Ok(())
        }
        Op::SelectWord { to, a, b, by } => {
            let by = registers.predicate(by, lanes, "c")?;
            let ((a, a_ready), (b, b_ready)) = (registers.held_word(a)?, registers.held_word(b)?);
            let values = std::array::from_fn(|i| if by >> i & 1 == 1 { a[i] } else { b[i] });
            registers.copy_word(to, lanes, &values, a_ready & by | b_ready & !by)
        }
        Op::SelectDouble { to, a, b, by } => {
            let by = registers.predicate(by, lanes, "c")?;
            let ((a, a_ready), (b, b_ready)) = (registers.double_unchecked(a), registers.double_unchecked(b));
            let values = std::array::from_fn(|i| if by >> i & 1 == 1 { a[i] } else { b[i] });
            registers.copy_double(to, lanes, &values, a_ready & by | b_ready & !by);
            Ok(())
        }
        Op::MoveWord { to, from } => registers.move_word(to, from, lanes),
        Op::MoveDouble { to, from } => {
            let (values, ready) = registers.double_unchecked(from);
            let values = *values;
            registers.copy_double(to, lanes, &values, ready);
            Ok(())
        }
        _ => packing(warp, lanes, op),
    }
}

fn test(warp: &mut Warp, lanes: Mask, to: Predicate, values: Mask, combine: Option<Combine>) -> Outcome<()> {
    let values = match combine {
        None => values,
        Some(Combine { f, with }) => f(values, warp.registers.predicate(with, lanes, "c")?),
    };
    warp.registers.set_predicate(to, lanes, values);
    Ok(())
}

fn packing(warp: &mut Warp, lanes: Mask, op: &Op) -> Outcome<()> {
    let registers = &mut warp.registers;
    match *op {
        Op::Join { to, low, high } => {
            let ((low, a), (high, b)) = (registers.held_word(low)?, registers.held_word(high)?);
            let values = std::array::from_fn(|i| u64::from(high[i]) << 32 | u64::from(low[i]));
            registers.copy_double(to, lanes, &values, a & b);
            Ok(())
        }
        Op::JoinHalves { to, low, high } => {
            let ((low, a), (high, b)) = (registers.held_word(low)?, registers.held_word(high)?);
            let values = std::array::from_fn(|i| high[i] << 16 | low[i] & 0xffff);
            registers.copy_word(to, lanes, &values, a & b)
        }
        Op::Split { low, high, from } => {
            let (values, ready) = registers.double_unchecked(from);
            let values = *values;
            if let Some(low) = low {
                registers.copy_word(low, lanes, &values.map(|value| value as u32), ready)?;
            }
            high.map_or(Ok(()), |high| registers.copy_word(high, lanes, &values.map(|v| (v >> 32) as u32), ready))
        }
        Op::SplitHalves { low, high, from } => {
            let (values, ready) = registers.held_word(from)?;
            let values = *values;
            if let Some(low) = low {
                registers.copy_word(low, lanes, &values.map(|value| value & 0xffff), ready)?;
            }
            high.map_or(Ok(()), |high| registers.copy_word(high, lanes, &values.map(|value| value >> 16), ready))
        }
        Op::JoinFour { to, parts } => {
            let (mut values, mut ready) = ([0; LANES], Mask::MAX);
            for (i, part) in parts.iter().enumerate() {
                let (part, part_ready) = registers.held_word(*part)?;
                values.iter_mut().zip(part).for_each(|(value, part)| *value |= u64::from(part & 0xffff) << (16 * i));
                ready &= part_ready;
            }
            registers.copy_double(to, lanes, &values, ready);
            Ok(())
        }
        Op::SplitFour { parts, from } => {
            let (values, ready) = registers.double_unchecked(from);
            let values = *values;
            for (i, part) in parts.iter().enumerate() {
                if let Some(part) = part {
                    let value = values.map(|value| (value >> (16 * i)) as u32 & 0xffff);
                    registers.copy_word(*part, lanes, &value, ready)?;
                }
            }
            Ok(())
        }
        Op::Nothing => Ok(()),
        ref other => unreachable!("{other:?} is handled by an earlier stage"),
    }
}
