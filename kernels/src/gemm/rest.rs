//! Packing what whole blocks and vectors of a panel of B leave over, under masks: its last steps of K, and panels with fewer
//! columns.
use super::pack::{SMALL_BLOCK, halves};
use super::plan::Panel;
use super::{Operand, pairs};
use crate::emit::{Elem, Emitter, Value, int_type};
use crate::mask::Mask;
use crate::transpose::{store_first, transposed};

/// B stored `[n, k]`, from step `from` on. There are `extent` columns; those of the panel beyond them become like the last.
pub fn transposed_steps(e: &mut Emitter, panel: Panel, b: &Operand, from: &str, extent: &str) {
    let steps = SMALL_BLOCK * if b.elem == Elem::Bf16 { 2 } else { 1 };
    let (zero, width, last) = (e.index(0), e.index(panel.width() as i64), e.plus(extent, -1));
    e.repeat(from, "%depth", steps as i64, |e, k| {
        let left = e.int2("subi", "%depth", k);
        let mask = e.first_lanes(&left, steps);
        let lines = e.plus(&left, if panel.paired { 1 } else { 0 });
        let lines = e.divided(&lines, if panel.paired { 2 } else { 1 });
        let word = if panel.paired { e.divided(k, 2) } else { k.into() };
        let to = e.row("%to", &word, panel.width(), Elem::F32);
        e.repeat(&zero, &width, SMALL_BLOCK as i64, |e, n| {
            let rows = e.masked(mask, |e| loaded_rows(e, b, (n, k), &last));
            let words = transposed(e, &rows);
            let widens = b.elem == Elem::Bf16 && !panel.paired;
            let words = if widens { halves(e, &words, SMALL_BLOCK) } else { words };
            let to = e.offset(&to, n, Elem::F32);
            store_first(e, &words, &lines, (&to, panel.width()), SMALL_BLOCK);
        });
    });
}

/// B stored `[n, k]` with `%extent` columns.
pub fn columns(e: &mut Emitter, panel: Panel, b: &Operand) {
    let zero = e.index(0);
    transposed_steps(e, panel, b, &zero, "%extent");
}

/// Words of columns `n` on, up to column `last`, from step `k` on.
fn loaded_rows(e: &mut Emitter, b: &Operand, (n, k): (&str, &str), last: &str) -> Vec<Value> {
    let load = |i: usize| {
        let row = e.plus(n, i as i64);
        let row = e.int2("minsi", &row, last);
        let row = e.times(&row, b.stride);
        let at = e.int2("addi", &row, k);
        let from = e.offset("%from", &at, b.elem);
        if b.elem != Elem::Bf16 {
            return e.load_words(&from, SMALL_BLOCK);
        }
        let (steps, words) = (2 * SMALL_BLOCK, format!("vector<{SMALL_BLOCK}xf32>"));
        let narrow = int_type(steps, 16);
        let loaded = e.load_as(&from, &narrow, steps, 2);
        e.op(format!("vector.bitcast {loaded} : {narrow} to {words}"))
    };
    (0..SMALL_BLOCK).map(load).collect()
}

/// B stored `[k, n]` with `%extent` columns; those of the panel beyond them become zero.
pub fn rows(e: &mut Emitter, panel: Panel, b: &Operand) {
    let zero = e.index(0);
    let masks: Vec<Mask> = (0..panel.vectors)
        .map(|j| {
            let left = e.plus("%extent", -((j * panel.lanes) as i64));
            let left = e.int2("maxsi", &left, &zero);
            e.first_lanes(&left, panel.lanes)
        })
        .collect();
    let vector = |e: &mut Emitter, to: &str, j: usize, load: &dyn Fn(&mut Emitter) -> Value| {
        let value = e.masked(masks[j].clone(), load);
        let to = e.at(to, (j * panel.lanes) as i64, Elem::F32);
        e.store(&value, &to, Elem::F32, panel.lanes);
    };
    if panel.paired {
        return pairs::each_pair(e, &zero, |e, pair, both| {
            let from = e.row("%from", pair, 2 * b.stride, Elem::Bf16);
            let to = e.row("%to", pair, panel.width(), Elem::F32);
            for j in 0..panel.vectors {
                vector(e, &to, j, &|e| pairs::interleaved(e, (&from, b.stride, both), j * panel.lanes, panel.lanes));
            }
        });
    }
    e.repeat(&zero, "%depth", 1, |e, k| {
        let (from, to) = (e.row("%from", k, b.stride, b.elem), e.row("%to", k, panel.width(), Elem::F32));
        for j in 0..panel.vectors {
            vector(e, &to, j, &|e| {
                let from = e.at(&from, (j * panel.lanes) as i64, b.elem);
                e.load(&from, b.elem, panel.lanes)
            });
        }
    });
}
