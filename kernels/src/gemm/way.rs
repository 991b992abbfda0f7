//! The way in which a product is computed: as it is, or turned over.
//!
//! Results of a few columns, such as LoRA's, leave most lanes of a vector without work. `Cᵀ = Bᵀ · Aᵀ` has them as rows:
//! vectors run along what is long. Its tiles are turned back before the epilogue, which sees the product as it is.
use super::ask::AskResult;
use super::plan::Plan;
use super::store;
use super::{Gemm, Operand, Term, call, private_function};
use crate::emit::{Elem, Emitter, Value};
use crate::region::{Broadcast, RegionInput};
use crate::transpose::{store_first, store_lines, transposed};

/// The most columns of a product that is turned over, all of which are rows of one tile then.
const MOST_COLUMNS: usize = 8;
/// Rows and columns that are turned at a time.
const BLOCK: usize = 8;

/// A product, and the one whose sums are formed for it.
pub(crate) struct Way<'a> {
    pub stored: &'a Gemm,
    pub computed: Gemm,
    pub turned: bool,
}

impl<'a> Way<'a> {
    pub fn plain(gemm: &'a Gemm) -> Way<'a> {
        Way { stored: gemm, computed: gemm.clone(), turned: false }
    }

    /// The product turned over, if few columns stand beside more rows and its epilogue asks for no row or column.
    pub fn turned(gemm: &'a Gemm) -> Option<Way<'a>> {
        let by_element = |input: &RegionInput| matches!(input.broadcast, Broadcast::Full | Broadcast::Scalar);
        let suits = gemm.n <= MOST_COLUMNS
            && gemm.m > 2 * MOST_COLUMNS
            && gemm.row_limit.is_none()
            && gemm.epilogue.inputs.iter().all(by_element);
        let over = |operand: Operand| Operand { transposed: !operand.transposed, ..operand };
        let terms = gemm.terms.iter().map(|term| Term { a: over(term.b), b: over(term.a), ..*term }).collect();
        suits.then(|| Way {
            stored: gemm,
            computed: Gemm { m: gemm.n, n: gemm.m, terms, ..gemm.clone() },
            turned: true,
        })
    }

    /// A and B of every term of the computed product.
    pub fn operands(&self, e: &mut Emitter) -> Vec<(Value, Value)> {
        let pair = |t: usize| {
            let (a, b) = (e.arg(2 * t), e.arg(2 * t + 1));
            if self.turned { (b, a) } else { (a, b) }
        };
        (0..self.computed.terms.len()).map(pair).collect()
    }

    /// What tiles ask for; those that are turned over store to elsewhere.
    pub fn asked_result(&self, plan: &Plan) -> AskResult {
        if self.turned { AskResult::default() } else { AskResult::of(self.stored, plan) }
    }

    /// Words of scratch, behind the others, in which up to `columns` computed columns are turned back.
    pub fn scratch(&self, columns: usize) -> usize {
        if self.turned { columns * self.computed.m } else { 0 }
    }

    /// The functions of [`Way::store`], for sums whose rows have `width`; `vectors` as in [`store::function`].
    pub fn functions(&self, e: Emitter, lanes: usize, width: usize, vectors: usize) -> String {
        if !self.turned {
            return store::function(self.stored, e, lanes, width, vectors);
        }
        store::function(self.stored, e, lanes, width, 0) + &self.turn(lanes, width)
    }

    /// The epilogue of computed rows and columns, each the first and how many, from their sums; `turned` is where they may
    /// be turned back. A tile that is turned has all columns of the stored product, so its elements lie side by side.
    pub fn store(&self, e: &mut Emitter, sums: &str, rows: (&str, &str), columns: (&str, &str), turned: &str) {
        let (pointer, int) = ("!llvm.ptr", "i64");
        if !self.turned {
            let args =
                [("%args", pointer), (sums, pointer), (rows.0, int), (rows.1, int), (columns.0, int), (columns.1, int)];
            return call(e, "store", &args);
        }
        call(e, "turn", &[(sums, pointer), (turned, pointer), (columns.1, int)]);
        let (zero, one, elements) = (e.index(0), e.index(1), e.times(columns.1, self.stored.n));
        let args =
            [("%args", pointer), (turned, pointer), (columns.0, int), (&one, int), (&zero, int), (&elements, int)];
        call(e, "store", &args);
    }

    /// `@turn`: `to[j][i] = from[i][j]` for `%columns` of `j`; rows of `from` have `width`, and scratch goes on behind the last.
    fn turn(&self, lanes: usize, width: usize) -> String {
        let mut e = Emitter::for_cpu(lanes, None);
        let rows = self.computed.m;
        let (zero, whole) = (e.index(0), e.rounded_down("%columns", BLOCK));
        let turn = |e: &mut Emitter, j: &str| {
            let from = e.offset("%from", j, Elem::F32);
            let load = |i: usize| {
                let from = e.at(&from, (i * width) as i64, Elem::F32);
                e.load(&from, Elem::F32, BLOCK)
            };
            let mut block: Vec<Value> = (0..rows).map(load).collect();
            block.resize(BLOCK, e.float(0.0, BLOCK));
            (transposed(e, &block), e.row("%to", j, rows, Elem::F32))
        };
        e.repeat(&zero, &whole, BLOCK as i64, |e, j| {
            let (lines, to) = turn(e, j);
            e.within_first(rows, BLOCK, |e| store_lines(e, &lines, &to, rows, BLOCK));
        });
        let rest = e.less(&whole, "%columns");
        let left = |e: &mut Emitter| {
            let (lines, to) = turn(e, &whole);
            let left = e.int2("subi", "%columns", &whole);
            e.within_first(rows, BLOCK, |e| store_first(e, &lines, &left, (&to, rows), BLOCK));
        };
        e.branch(&rest, left, |_| {});
        private_function("turn", "%from: !llvm.ptr, %to: !llvm.ptr, %columns: i64", e)
    }
}
