//! One scalar computation at every element of an `[m, n]` problem, with any number of results.
use crate::region::{Broadcast, Place, Region};
use crate::{Kernel, Machine, Work};

/// Elements of a CPU's task where the problem is flat.
const FLAT_CHUNK: usize = 4096;

/// Operands: the region's inputs in order, then its outputs in order, each output `[m, n]`.
/// An output may be the same buffer as a `Full` input of the same elem.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Pointwise {
    pub m: usize,
    pub n: usize,
    pub region: Region,
}

impl Pointwise {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let flat = self.region.inputs.iter().all(|i| matches!(i.broadcast, Broadcast::Full | Broadcast::Scalar));
        let (unit, widest) = (self.unit(), self.region.widest());
        let mut e = if flat { machine.flat(unit, widest) } else { machine.rows(self.n, unit, widest) };
        let operands = self.region.operands(&mut e, 0, 0);
        let lanes = 2 * machine.lanes();
        let name = format!("pointwise_{}x{}", self.m, self.n);
        let work = self.region.work(Work::new("pointwise", 0), 0, self.m, self.n);
        if flat {
            let (total, chunk) = (self.m * self.n, e.chunk(FLAT_CHUNK));
            e.chunks(total, chunk, |e, first, count| {
                e.each(count, lanes, |e, i, lanes| {
                    let at = e.int2("addi", first, i);
                    self.region.element(e, &[], &operands, &Place { full: &at, row: "", column: "" }, lanes);
                });
            });
            return e.finish(&name, total.div_ceil(chunk), 0, work);
        }
        e.tasks(|e, row| {
            let (start, count) = (e.times(row, self.n), e.index(self.n as i64));
            e.each(&count, lanes, |e, column, lanes| {
                let at = e.int2("addi", &start, column);
                self.region.element(e, &[], &operands, &Place { full: &at, row, column }, lanes);
            });
        });
        e.finish(&name, self.m, 0, work)
    }

    /// Elements at whose multiples operands and their rows begin: a single row may be a part of a longer one that begins
    /// anywhere.
    fn unit(&self) -> usize {
        if self.m == 1 { 1 } else { self.n }
    }
}
