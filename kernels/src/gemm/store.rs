//! `@store`: the epilogue, from the sums of a tile to the outputs.
use super::{Gemm, private_function};
use crate::emit::{Elem, Emitter, Value};
use crate::region::Broadcast;

const PARAMS: &str = "%args: !llvm.ptr, %tile: !llvm.ptr, %row: i64, %rows: i64, %column: i64, %columns: i64";

/// `%rows` by `%columns` elements from `%row`, `%column` on. The tile's rows have `width` sums; where `vectors` are
/// given and fill a row, whole rows are written without a loop. `e` is an empty body.
pub fn function(gemm: &Gemm, mut e: Emitter, lanes: usize, width: usize, vectors: usize) -> String {
    let epilogue = Epilogue { gemm, operands: operands(&mut e, gemm) };
    let zero = e.index(0);
    e.repeat(&zero, "%rows", 1, |e, i| {
        let row = e.int2("addi", "%row", i);
        let start = e.times(&row, gemm.n);
        let start = e.int2("addi", &start, "%column");
        let tile = e.row("%tile", i, width, Elem::F32);
        let place = Place { tile: &tile, row: &row, start: &start };
        let by_loop = |e: &mut Emitter| e.each("%columns", lanes, |e, j, lanes| epilogue.elements(e, &place, j, lanes));
        let at_once = |e: &mut Emitter| epilogue.whole_row(e, &place, lanes, vectors);
        if vectors == 0 {
            by_loop(e);
        } else if gemm.n.is_multiple_of(width) {
            at_once(e);
        } else {
            let width = e.index(width as i64);
            let is_whole = e.op(format!("arith.cmpi eq, %columns, {width} : i64"));
            e.branch(&is_whole, at_once, by_loop);
        }
    });
    private_function("store", PARAMS, e)
}

/// Pointers of the epilogue's operands; of a scalar input its value. The sum, input 0, has none.
fn operands(e: &mut Emitter, gemm: &Gemm) -> Vec<Value> {
    let first = gemm.first_epilogue_operand();
    let inputs = gemm.epilogue.inputs.iter().enumerate().map(|(i, input)| match input.broadcast {
        _ if i == 0 => String::new(),
        Broadcast::Scalar => {
            let pointer = e.arg(first + i - 1);
            e.load(&pointer, input.elem, 1)
        }
        _ => e.arg(first + i - 1),
    });
    let mut operands: Vec<Value> = inputs.collect();
    let outputs = first + gemm.epilogue.inputs.len() - 1;
    operands.extend((0..gemm.epilogue.outputs.len()).map(|i| e.arg(outputs + i)));
    operands
}

struct Epilogue<'a> {
    gemm: &'a Gemm,
    operands: Vec<Value>,
}

/// A row of a tile: its sums, its row, and the index in `[m, n]` of its first element.
struct Place<'a> {
    tile: &'a str,
    row: &'a str,
    start: &'a str,
}

impl Epilogue<'_> {
    fn whole_row(&self, e: &mut Emitter, place: &Place, lanes: usize, vectors: usize) {
        for j in 0..vectors {
            let j = e.index((j * lanes) as i64);
            self.elements(e, place, &j, lanes);
        }
    }

    /// `lanes` elements from column `j` of the tile on. All inputs are read before an output is written.
    fn elements(&self, e: &mut Emitter, place: &Place, j: &str, lanes: usize) {
        let at = e.int2("addi", place.start, j);
        let region = &self.gemm.epilogue;
        let mut inputs = vec![e.load_at(place.tile, j, Elem::F32, lanes)];
        for (input, operand) in region.inputs.iter().zip(&self.operands).skip(1) {
            inputs.push(match input.broadcast {
                Broadcast::Full => e.load_at(operand, &at, input.elem, lanes),
                Broadcast::Row => {
                    let column = e.int2("addi", "%column", j);
                    e.load_at(operand, &column, input.elem, lanes)
                }
                Broadcast::Column => {
                    let value = e.load_at(operand, place.row, input.elem, 1);
                    e.splat(&value, lanes)
                }
                Broadcast::Scalar => e.splat(operand, lanes),
            });
        }
        let results = region.emit(e, &inputs, lanes);
        for ((output, operand), value) in region.outputs.iter().zip(&self.operands[inputs.len()..]).zip(&results) {
            e.store_at(value, operand, &at, output.elem, lanes);
        }
    }
}
