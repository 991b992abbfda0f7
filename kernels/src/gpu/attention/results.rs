//! How warpgroups store their results: through shared memory, so that a warp writes whole rows of a strip of columns.
//!
//! As threads have them, a row's neighbours lie in four threads, 16 bytes together, and every store of a warp would touch eight lines
//! of the cache. The way leads over the block's own tokens of its first array, which all products have read by then: a warp
//! has the place of its sixteen tokens' first box, and waits for the warps of its warpgroup alone. A row's pieces of 16 bytes change
//! places, each row's otherwise, so that those that are written or read together lie in different banks.
use super::warpgroups::{HeadTile, warpgroup_sync};
use super::*;
use crate::gpu::warp::pack;

/// Elements of a piece.
const PIECE: usize = 8;
/// Bytes of a piece.
const PIECE_BYTES: usize = 16;
/// Bytes of all banks.
const BANKS_BYTES: usize = 128;

/// Results on their way.
pub struct Results<'a> {
    walk: &'a Walk<'a>,
    /// The block's row of the batch, and its first token.
    batch: &'a str,
    first: &'a str,
    /// The own tokens of the first array, and where they are.
    own: HeadTile,
    own_at: usize,
}

/// Columns that go together.
#[derive(Clone, Copy)]
struct Strip {
    columns: usize,
}

impl<'a> Results<'a> {
    /// Waits for the warpgroup, each of whose warps has waited for its part of the products, at a barrier from `first_barrier` on.
    pub fn begin(
        walk: &'a Walk,
        e: &mut Emitter,
        (batch, first): (&'a str, &'a str),
        own_at: usize,
        first_barrier: usize,
    ) -> Results<'a> {
        warpgroup_sync(e, first_barrier);
        Results { walk, batch, first, own: walk.own_head(0), own_at }
    }

    /// Stores a warp's results, rows of its sixteen own tokens, to an array with such heads.
    pub fn store(&self, e: &mut Emitter, results: &[Value], (array, heads, head): (&str, Heads, &str)) {
        let tile = HeadTile { tokens: self.own.tokens, width: heads.entries };
        let strip = Strip { columns: tile.box_row_bytes().min(self.own.box_row_bytes()) / Elem::Bf16.bytes() as usize };
        let row = e.times("%warp", WARP_ROWS);
        let token = e.int2("addi", self.first, &row);
        let memory = e.shared_at(self.own_at);
        let behind = e.times(&row, self.own.box_row_bytes());
        let memory = e.bytes_behind(&memory, &behind);
        for column in (0..heads.entries).step_by(strip.columns) {
            self.put(e, results, strip, (&memory, heads.entries, column));
            e.sync_warp();
            self.take(e, strip, &memory, (array, heads, head), (&token, column));
            e.sync_warp();
        }
    }

    /// Writes a thread's results of the strip from `column` on to its warp's place.
    fn put(&self, e: &mut Emitter, results: &[Value], strip: Strip, (memory, width, column): (&str, usize, usize)) {
        let four = e.index(4);
        let (row, pair) = (e.int2("divui", "%lane", &four), e.int2("remui", "%lane", &four));
        let (rows, pair) = (e.times(&row, strip.row_bytes()), e.times(&pair, 4));
        let mine = e.int2("addi", &rows, &pair);
        let mine = e.bytes_behind(memory, &mine);
        let turned = strip.turned(e, &row);
        let part = Part { rows: WARP_ROWS, columns: width };
        let within = |element: &Element| (column..column + strip.columns).contains(&element.column);
        let elements: Vec<Element> = part.elements().filter(within).collect();
        for pair in elements.chunks(2) {
            let word = pack(e, &results[pair[0].register], &results[pair[1].register]);
            let piece = e.index(((pair[0].column - column) / PIECE * PIECE_BYTES) as i64);
            let piece = e.int2("xori", &piece, &turned);
            // Eight rows further, pieces are turned as much.
            let place = e.plus(&piece, (pair[0].row * strip.row_bytes()) as i64);
            let place = e.bytes_behind(&mine, &place);
            e.line(format!("llvm.store {word}, {place} {{alignment = 4 : i64}} : i32, !llvm.ptr"));
        }
    }

    /// Copies the strip from `column` on from a warp's place to the rows of its tokens, `token` the first, as far as there are such.
    fn take(
        &self,
        e: &mut Emitter,
        strip: Strip,
        memory: &str,
        (array, heads, head): (&str, Heads, &str),
        (token, column): (&str, usize),
    ) {
        let pieces = e.index(strip.pieces() as i64);
        let (row, piece) = (e.int2("divui", "%lane", &pieces), e.int2("remui", "%lane", &pieces));
        let piece = e.times(&piece, PIECE_BYTES);
        let rows = WARP / strip.pieces();
        for first in (0..WARP_ROWS).step_by(rows) {
            let row = e.plus(&row, first as i64);
            let turned = strip.turned(e, &row);
            let (behind, turned) = (e.times(&row, strip.row_bytes()), e.int2("xori", &piece, &turned));
            let place = e.int2("addi", &behind, &turned);
            let place = e.bytes_behind(memory, &place);
            let words = e.op(format!("llvm.load {place} {{alignment = 16 : i64}} : !llvm.ptr -> vector<4xi32>"));
            let token = e.int2("addi", token, &row);
            let (number, inside) = self.walk.token(e, self.batch, &token);
            let to = e.row(array, &number, heads.width(), Elem::Bf16);
            let to = e.row(&to, head, heads.entries, Elem::Bf16);
            let to = e.at(&to, column as i64, Elem::Bf16);
            let to = e.bytes_behind(&to, &piece);
            let store = |e: &mut Emitter| {
                e.line(format!("llvm.store {words}, {to} {{alignment = 16 : i64}} : vector<4xi32>, !llvm.ptr"));
            };
            e.branch(&inside, store, |_| {});
        }
    }
}

impl Strip {
    fn row_bytes(self) -> usize {
        self.columns * Elem::Bf16.bytes() as usize
    }

    /// Pieces of a row.
    fn pieces(self) -> usize {
        self.columns / PIECE
    }

    /// What the places of a row's pieces are changed by, in bytes: by another for each of eight rows that would share banks.
    fn turned(self, e: &mut Emitter, row: &str) -> Value {
        let rows = e.divided(row, BANKS_BYTES / self.row_bytes());
        let most = e.index(self.pieces() as i64 - 1);
        let turned = e.int2("andi", &rows, &most);
        e.times(&turned, PIECE_BYTES)
    }
}
