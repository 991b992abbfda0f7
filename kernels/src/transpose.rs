//! Square blocks of words, transposed in registers.
use crate::emit::{Elem, Emitter, Value, float_type};

/// Words of a quarter: 128 bits, within which the cheap shuffles of x86 work.
const QUARTER: usize = 4;

/// The columns of a block whose rows are vectors of 8 or 16 words, as many as there are rows.
///
/// Four rows by four words are transposed within quarters (`vunpcklps`, `vunpcklpd`), then whole quarters change places
/// (`vshuff32x4`): 24 shuffles for 8 rows, 64 for 16.
pub fn transposed(e: &mut Emitter, rows: &[Value]) -> Vec<Value> {
    let lanes = rows.len();
    let pairs: Vec<[Value; 2]> = rows
        .chunks(2)
        .map(|two| [[0, 4, 1, 5], [2, 6, 3, 7]].map(|take| within_quarters(e, &two[0], &two[1], lanes, take)))
        .collect();
    let mut columns = vec![Value::new(); lanes];
    let groups: Vec<Vec<Value>> = pairs.chunks(2).map(|two| four_columns(e, &two[0], &two[1], lanes)).collect();
    for c in 0..QUARTER {
        let groups: Vec<&str> = groups.iter().map(|group| group[c].as_str()).collect();
        for (q, column) in by_quarters(e, &groups, lanes).into_iter().enumerate() {
            columns[c + QUARTER * q] = column;
        }
    }
    columns
}

/// Stores vectors of so many words, one for each line, lines `pitch` words apart.
pub fn store_lines(e: &mut Emitter, lines: &[Value], to: &str, pitch: usize, lanes: usize) {
    for (i, line) in lines.iter().enumerate() {
        let to = e.at(to, (i * pitch) as i64, Elem::F32);
        e.store(line, &to, Elem::F32, lanes);
    }
}

/// Stores the first `count` of these vectors likewise.
pub fn store_first(e: &mut Emitter, lines: &[Value], count: &str, (to, pitch): (&str, usize), lanes: usize) {
    for (i, line) in lines.iter().enumerate() {
        let number = e.index(i as i64);
        let exists = e.less(&number, count);
        let to = e.at(to, (i * pitch) as i64, Elem::F32);
        e.branch(&exists, |e| e.store(line, &to, Elem::F32, lanes), |_| {});
    }
}

/// Of two pairs of rows: vectors that have words 0, 1, 2 and 3 of all four rows in each quarter.
fn four_columns(e: &mut Emitter, first: &[Value; 2], second: &[Value; 2], lanes: usize) -> Vec<Value> {
    let mut columns = vec![];
    for (a, b) in first.iter().zip(second) {
        columns.extend([[0, 1, 4, 5], [2, 3, 6, 7]].map(|take| within_quarters(e, a, b, lanes, take)));
    }
    columns
}

/// Vector `q` of the result has quarter `q` of every group, in order.
fn by_quarters(e: &mut Emitter, groups: &[&str], lanes: usize) -> Vec<Value> {
    let [a, b, rest @ ..] = groups else { panic!("a block has 8 or 16 rows") };
    let [c, d] = rest else { return [[0, 2], [1, 3]].map(|take| quarters(e, a, b, lanes, &take)).to_vec() };
    let mut result = vec![];
    for halves in [[0, 1, 4, 5], [2, 3, 6, 7]] {
        let (low, high) = (quarters(e, a, b, lanes, &halves), quarters(e, c, d, lanes, &halves));
        result.extend([[0, 2, 4, 6], [1, 3, 5, 7]].map(|take| quarters(e, &low, &high, lanes, &take)));
    }
    result
}

/// In every quarter four words of that quarter of `a` (0 to 3) and `b` (4 to 7).
fn within_quarters(e: &mut Emitter, a: &str, b: &str, lanes: usize, take: [usize; QUARTER]) -> Value {
    let word = |q: usize, i: usize| q * QUARTER + i % QUARTER + if i < QUARTER { 0 } else { lanes };
    let words = (0..lanes / QUARTER).flat_map(|q| take.map(|i| word(q, i)));
    shuffle(e, a, b, lanes, words.collect())
}

/// Whole quarters of `a` and, counted on, of `b`.
fn quarters(e: &mut Emitter, a: &str, b: &str, lanes: usize, take: &[usize]) -> Value {
    let words = take.iter().flat_map(|q| q * QUARTER..(q + 1) * QUARTER);
    shuffle(e, a, b, lanes, words.collect())
}

fn shuffle(e: &mut Emitter, a: &str, b: &str, lanes: usize, words: Vec<usize>) -> Value {
    let ty = float_type(lanes);
    e.op(format!("vector.shuffle {a}, {b} {words:?} : {ty}, {ty}"))
}
