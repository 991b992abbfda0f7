//! How a product is cut: into tasks for threads, blocks for caches, tiles for registers.
use super::{Gemm, Term};
use crate::Pairs;
use crate::emit::Elem;

/// The cut of one product. All sizes are in elements.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// f32 lanes of a vector.
    pub lanes: usize,
    /// Rows of a register tile.
    pub rows: usize,
    /// Vectors of a row of a register tile.
    pub vectors: usize,
    /// Rows of a task, a multiple of `rows`.
    pub m_block: usize,
    /// Panels of a task.
    pub panels: usize,
    /// Rows whose A is packed at a time, a multiple of `rows`; `m_block` where A is used in place.
    pub m_cache: usize,
    /// Depth of a block of K, where the terms are not summed in one go.
    pub block_depth: Option<usize>,
    /// Steps of K in one turn of the tile's loop.
    pub unroll: usize,
    /// How two steps of K go at a time where both operands are bf16, if they do.
    pub pairs: Option<Pairs>,
}

/// How A of a term reaches the tile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feed {
    /// From where it is stored: f32 in rows; bf16 in rows where steps go in pairs; or f32 in columns where there is one
    /// panel, so that no element is used twice.
    InPlace,
    /// From rows in scratch, widened.
    Rows,
    /// From strips in scratch: `[k][rows of the tile]`.
    Strips,
}

/// How B of a term reaches the tile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FeedB {
    /// From where it is stored.
    InPlace,
    /// From where it was packed before ([`super::Packing`]).
    Packed,
    /// From a panel in scratch, which the task packs.
    Panel,
}

/// The form of a packed panel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Panel {
    /// f32 lanes of a vector.
    pub lanes: usize,
    /// Vectors of a row.
    pub vectors: usize,
    /// Whether a word of it is two steps of K in bf16, or one in f32.
    pub paired: bool,
}

impl Panel {
    /// Columns.
    pub fn width(&self) -> usize {
        self.lanes * self.vectors
    }

    /// Words of a column of so many steps.
    pub fn words(&self, steps: usize) -> usize {
        if self.paired { steps.div_ceil(2) } else { steps }
    }
}

/// Where the parts of scratch begin, in words of four bytes: an f32, or two steps of bf16.
#[derive(Debug)]
pub struct Scratch {
    /// Packed A of every term.
    pub a: Vec<usize>,
    /// Tiles of sums.
    pub tiles: usize,
    pub total: usize,
}

impl Plan {
    /// Columns of a panel.
    pub fn width(&self) -> usize {
        self.vectors * self.lanes
    }

    /// Panels of the whole product.
    pub fn all_panels(&self, gemm: &Gemm) -> usize {
        gemm.n.div_ceil(self.width())
    }

    /// Number of tasks along the rows.
    pub fn m_tasks(&self, gemm: &Gemm) -> usize {
        gemm.m.div_ceil(self.m_block)
    }

    pub fn tasks(&self, gemm: &Gemm) -> usize {
        self.m_tasks(gemm) * self.all_panels(gemm).div_ceil(self.panels)
    }

    /// Whether a term's steps go in pairs.
    pub fn paired(&self, term: &Term) -> bool {
        self.pairs.is_some() && [term.a.elem, term.b.elem] == [Elem::Bf16; 2]
    }

    pub fn feed(&self, gemm: &Gemm, term: &Term) -> Feed {
        if self.paired(term) {
            return if term.a.transposed { Feed::Strips } else { Feed::InPlace };
        }
        match (term.a.transposed, term.a.elem) {
            (false, Elem::F32) => Feed::InPlace,
            (true, Elem::F32) if self.all_panels(gemm) == 1 => Feed::InPlace,
            (true, _) => Feed::Strips,
            (false, _) => Feed::Rows,
        }
    }

    /// How B of a term reaches the tile. Where one strip of rows passes by, packing it would cost as much as multiplying it.
    pub fn feed_b(&self, gemm: &Gemm, term: &Term) -> FeedB {
        if term.packed {
            FeedB::Packed
        } else if gemm.m <= self.rows && !term.b.transposed && gemm.n.is_multiple_of(self.width()) {
            FeedB::InPlace
        } else {
            FeedB::Panel
        }
    }

    /// The form of a term's panels.
    pub fn panel(&self, term: &Term) -> Panel {
        Panel { lanes: self.lanes, vectors: self.vectors, paired: self.paired(term) }
    }

    /// The terms whose sums are formed in one go: all, or one at a time where K is cut into blocks.
    pub fn stages(&self, gemm: &Gemm) -> Vec<Vec<usize>> {
        let terms = 0..gemm.terms.len();
        if self.block_depth.is_none() { vec![terms.collect()] } else { terms.map(|t| vec![t]).collect() }
    }

    /// The term of a stage that takes most turns.
    pub fn longest(&self, gemm: &Gemm, stage: &[usize]) -> usize {
        *stage.iter().max_by_key(|term| self.capacity(&gemm.terms[**term])).expect("a stage has terms")
    }

    /// Whether sums are kept in scratch from block to block.
    pub fn keeps_sums(&self) -> bool {
        self.block_depth.is_some()
    }

    /// Steps of K of a term that are summed at a time.
    pub fn steps(&self, term: &Term) -> usize {
        self.block_depth.map_or(term.k, |block| block.min(term.k))
    }

    /// Words of the largest depth of a term that is packed at a time.
    pub fn capacity(&self, term: &Term) -> usize {
        self.panel(term).words(self.steps(term))
    }

    /// Words of a column of a term that are packed at a time.
    fn packed(&self, gemm: &Gemm, term: usize) -> usize {
        let term = &gemm.terms[term];
        if self.feed_b(gemm, term) == FeedB::Panel { self.capacity(term) } else { 0 }
    }

    /// Where a term's part of a packed panel begins, in words of a column.
    pub fn panel_offset(&self, gemm: &Gemm, stage: &[usize], term: usize) -> usize {
        stage.iter().take_while(|t| **t != term).map(|t| self.packed(gemm, *t)).sum()
    }

    /// Words of a packed panel.
    pub fn panel_size(&self, gemm: &Gemm) -> usize {
        let depth = |stage: &Vec<usize>| stage.iter().map(|t| self.packed(gemm, *t)).sum::<usize>();
        self.width() * self.stages(gemm).iter().map(depth).max().expect("a product has terms")
    }

    /// Whether all panels of a task stay in scratch, because rows are done in more than one go.
    pub fn panels_stay(&self) -> bool {
        self.m_cache < self.m_block
    }

    pub fn scratch(&self, gemm: &Gemm) -> Scratch {
        let panels = if self.panels_stay() { self.panels } else { 1 };
        let mut total = round(panels * self.panel_size(gemm));
        let mut a = Vec::new();
        for term in &gemm.terms {
            a.push(total);
            if self.feed(gemm, term) != Feed::InPlace {
                total += round(self.m_cache * self.row_stride(term));
            }
        }
        let tiles = total;
        let count = if self.keeps_sums() { self.m_block / self.rows * self.panels } else { 1 };
        Scratch { a, tiles, total: total + count * self.rows * self.width() }
    }

    /// Words between rows of A packed as rows; of a strip that divided by its rows.
    pub fn row_stride(&self, term: &Term) -> usize {
        // One line more than a power of two, so that rows do not fall on the same sets of the cache.
        round(self.capacity(term)) + 16
    }
}

/// Up to a whole cache line.
fn round(elements: usize) -> usize {
    elements.next_multiple_of(16)
}
