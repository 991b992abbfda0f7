//! The slots of all tokens sorted by expert: a counting sort whose order is that of the slots.
use crate::emit::{Elem, Emitter, int_type};
use crate::steps::{Slot, Steps};
use crate::{Kernel, Machine, Work};

/// Slots that a task looks at for every expert.
const CHUNK: usize = 256;

/// Operands: `chosen` i32 `[slots]`, an expert of each; `offsets` i32 `[groups + 1]`, `slots` and `rows` i32 `[slots]`,
/// which the steps write. Slots whose expert is none of `0..groups` get no row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupRows {
    pub slots: usize,
    pub groups: usize,
}

impl GroupRows {
    /// Counts of every chunk, then where each chunk and each expert begins, then every slot to its place.
    pub fn steps(&self, machine: &dyn Machine) -> Steps {
        let [chosen, offsets, slots, rows] = [0, 1, 2, 3].map(Slot::Operand);
        let [counts, totals] = [0, 1].map(Slot::Temporary);
        Steps {
            temporaries: vec![4 * self.chunks() * self.groups, 4 * self.groups],
            launches: vec![
                (self.count(machine), vec![chosen, counts]),
                (self.begin(machine), vec![counts, totals, offsets]),
                (self.place(machine), vec![chosen, counts, offsets, slots, rows]),
            ],
        }
    }

    fn chunks(&self) -> usize {
        self.slots.div_ceil(CHUNK)
    }

    fn finish(&self, e: Emitter, what: &str, tasks: usize, integers: usize) -> Kernel {
        let work = Work::new("rows", 0).moving(integers, Elem::I32);
        e.finish(&format!("{what}_{}x{}", self.slots, self.groups), tasks, 0, work)
    }

    /// `counts[c, g]`: slots of chunk c whose expert is g.
    fn count(&self, machine: &dyn Machine) -> Kernel {
        let mut e = machine.emitter();
        let [chosen, counts] = [0, 1].map(|i| e.arg(i));
        e.chunks(self.slots, CHUNK, |e, first, count| {
            let (end, zero) = (e.int2("addi", first, count), e.index(0));
            let to = e.divided(first, CHUNK);
            let to = e.row(&counts, &to, self.groups, Elem::I32);
            e.one_by_one(self.groups, |e, group| {
                let total = e.for_loop(first, &end, 1, &[(zero, int_type(1, 64))], |e, slot, so_far| {
                    let expert = e.load_int_at(&chosen, slot);
                    let mine = e.op(format!("arith.cmpi eq, {expert}, {group} : i64"));
                    let one = e.op(format!("arith.extui {mine} : i1 to i64"));
                    vec![e.int2("addi", &so_far[0], &one)]
                });
                e.store_int_at(&total[0], &to, group);
            });
        });
        self.finish(e, "count_rows", self.chunks(), self.slots + self.chunks() * self.groups)
    }

    /// `counts[c, g]` becomes how many of g's slots chunks before c have; `offsets[g]` is where g's rows begin.
    fn begin(&self, machine: &dyn Machine) -> Kernel {
        let mut e = machine.emitter();
        let [counts, totals, offsets] = [0, 1, 2].map(|i| e.arg(i));
        e.tasks(|e, _| {
            e.one_by_one(self.groups, |e, group| {
                let row = |e: &mut Emitter, chunk: &str| e.row(&counts, chunk, self.groups, Elem::I32);
                let load = |e: &mut Emitter, chunk: &str| {
                    let row = row(e, chunk);
                    e.load_int_at(&row, group)
                };
                let total = e.running(self.chunks(), load, |e, chunk, count, so_far| {
                    let row = row(e, chunk);
                    e.store_int_at(so_far, &row, group);
                    e.int2("addi", so_far, count)
                });
                e.store_int_at(&total, &totals, group);
            });
            e.sync();
            let zero = e.index(0);
            e.store_int_at(&zero, &offsets, &zero);
            let load = |e: &mut Emitter, group: &str| e.load_int_at(&totals, group);
            e.running(self.groups, load, |e, group, total, so_far| {
                let (next, so_far) = (e.plus(group, 1), e.int2("addi", so_far, total));
                e.store_int_at(&so_far, &offsets, &next);
                so_far
            });
        });
        self.finish(e, "begin_rows", 1, 2 * self.chunks() * self.groups + 2 * self.groups)
    }

    /// `slots` and `rows`.
    fn place(&self, machine: &dyn Machine) -> Kernel {
        let mut e = machine.emitter();
        let [chosen, counts, offsets, slots, rows] = [0, 1, 2, 3, 4].map(|i| e.arg(i));
        e.chunks(self.slots, CHUNK, |e, first, count| {
            let end = e.int2("addi", first, count);
            let before = e.divided(first, CHUNK);
            let before = e.row(&counts, &before, self.groups, Elem::I32);
            e.one_by_one(self.groups, |e, group| {
                let (start, before) = (e.load_int_at(&offsets, group), e.load_int_at(&before, group));
                let start = e.int2("addi", &start, &before);
                e.for_loop(first, &end, 1, &[(start, int_type(1, 64))], |e, slot, row| {
                    let expert = e.load_int_at(&chosen, slot);
                    let mine = e.op(format!("arith.cmpi eq, {expert}, {group} : i64"));
                    let put = |e: &mut Emitter| {
                        e.store_int_at(slot, &slots, &row[0]);
                        e.store_int_at(&row[0], &rows, slot);
                    };
                    e.branch(&mine, put, |_| {});
                    let one = e.op(format!("arith.extui {mine} : i1 to i64"));
                    vec![e.int2("addi", &row[0], &one)]
                });
            });
        });
        self.finish(e, "place_rows", self.chunks(), 3 * self.slots + self.chunks() * self.groups)
    }
}
