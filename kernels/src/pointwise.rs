//! One scalar computation at every element of an `[m, n]` problem, with any number of results.
use crate::emit::{Elem, Emitter, Value};
use crate::region::{Broadcast, Region, RegionInput};
use crate::{Kernel, Target, Work};

/// Elements of a task where the problem is flat.
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
    pub fn build(&self, target: &Target) -> Kernel {
        let mut e = Emitter::new();
        let operands = self.operands(&mut e);
        let lanes = 2 * target.lanes;
        let flat = self.region.inputs.iter().all(|i| matches!(i.broadcast, Broadcast::Full | Broadcast::Scalar));
        let name = format!("pointwise_{}x{}", self.m, self.n);
        let work = self.region.work(Work::new("pointwise", 0), 0, self.m, self.n);
        if flat {
            let total = self.m * self.n;
            e.chunks(total, FLAT_CHUNK, |e, first, count| {
                e.each(count, lanes, |e, i, lanes| {
                    let at = e.int2("addi", first, i);
                    self.element(e, &operands, &Place { full: &at, row: "", column: "" }, lanes);
                });
            });
            return e.finish(&name, total.div_ceil(FLAT_CHUNK), 0, work);
        }
        e.tasks(|e, row| {
            let (start, count) = (e.times(row, self.n), e.index(self.n as i64));
            e.each(&count, lanes, |e, column, lanes| {
                let at = e.int2("addi", &start, column);
                self.element(e, &operands, &Place { full: &at, row, column }, lanes);
            });
        });
        e.finish(&name, self.m, 0, work)
    }

    /// Pointers of inputs and outputs; of a scalar input its value.
    fn operands(&self, e: &mut Emitter) -> Vec<Value> {
        let inputs = self.region.inputs.iter().enumerate().map(|(i, input)| {
            let pointer = e.arg(i);
            if input.broadcast == Broadcast::Scalar { e.load(&pointer, input.elem, 1) } else { pointer }
        });
        let mut operands: Vec<Value> = inputs.collect();
        let first = operands.len();
        operands.extend((0..self.region.outputs.len()).map(|i| e.arg(first + i)));
        operands
    }

    fn element(&self, e: &mut Emitter, operands: &[Value], place: &Place, lanes: usize) {
        let inputs: Vec<Value> =
            self.region.inputs.iter().zip(operands).map(|(i, p)| load(e, *i, p, place, lanes)).collect();
        let results = self.region.emit(e, &inputs, lanes);
        for ((output, pointer), value) in self.region.outputs.iter().zip(&operands[inputs.len()..]).zip(&results) {
            e.store_at(value, pointer, place.full, output.elem, lanes);
        }
    }
}

/// Where an element lies: its index in `[m, n]`, its row and its column.
struct Place<'a> {
    full: &'a str,
    row: &'a str,
    column: &'a str,
}

fn load(e: &mut Emitter, input: RegionInput, operand: &str, place: &Place, lanes: usize) -> Value {
    let elem: Elem = input.elem;
    match input.broadcast {
        Broadcast::Full => e.load_at(operand, place.full, elem, lanes),
        Broadcast::Row => e.load_at(operand, place.column, elem, lanes),
        Broadcast::Column => {
            let value = e.load_at(operand, place.row, elem, 1);
            e.splat(&value, lanes)
        }
        Broadcast::Scalar => e.splat(operand, lanes),
    }
}
