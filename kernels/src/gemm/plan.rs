//! How a product is cut: into tasks for threads, blocks for caches, tiles for registers.
use super::{Gemm, Term};
use crate::emit::Elem;
use crate::{Target, tuning};

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
}

/// Cycles to pack an element of B, in either layout and form.
const PACK_B: f64 = 0.4;

/// How A of a term reaches the tile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feed {
    /// From where it is stored: f32 in rows; or in columns, where there is one panel, so that no element is used twice.
    InPlace,
    /// From rows in scratch, widened.
    Rows,
    /// From strips in scratch: `[k][rows of the tile]`.
    Strips,
}

/// Where the parts of scratch begin, in f32 elements.
#[derive(Debug)]
pub struct Scratch {
    /// Packed A of every term.
    pub a: Vec<usize>,
    /// Tiles of sums.
    pub tiles: usize,
    pub total: usize,
}

impl Feed {
    /// Cycles that an element of A costs a task: to bring it near, and to pack it.
    fn cost(self) -> f64 {
        match self {
            Feed::InPlace => 0.3,
            Feed::Rows => 0.5,
            Feed::Strips => 0.8,
        }
    }
}

impl Plan {
    /// Chooses the tile that wastes least, then the tasks that balance best, packing counted.
    pub fn choose(gemm: &Gemm, target: &Target) -> Plan {
        let table = tuning::gemm(target.lanes);
        let cost = |&&(rows, vectors): &&(usize, usize)| {
            tile_cycles(rows, vectors) * gemm.m.div_ceil(rows) as f64 * gemm.n.div_ceil(vectors * target.lanes) as f64
        };
        let &(rows, vectors) =
            table.tiles.iter().min_by(|a, b| cost(a).total_cmp(&cost(b))).expect("the table has tiles");
        let mut plan = Plan {
            lanes: target.lanes,
            rows,
            vectors,
            m_block: rows,
            panels: 1,
            m_cache: rows,
            block_depth: (gemm.depth() > table.whole_depth).then_some(table.block_depth),
            unroll: table.unroll,
        };
        (plan.m_block, plan.panels) = plan.best_split(gemm);
        plan.m_cache = plan.m_block;
        if gemm.terms.iter().any(|term| plan.feed(gemm, term) != Feed::InPlace) {
            let depth: usize = gemm.terms.iter().map(|term| plan.capacity(term)).sum();
            let strips = table.a_block_bytes / (4 * depth * rows);
            plan.m_cache = (strips.max(4) * rows).min(plan.m_block);
        }
        plan
    }

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

    pub fn feed(&self, gemm: &Gemm, term: &Term) -> Feed {
        match (term.a.transposed, term.a.elem) {
            (false, Elem::F32) => Feed::InPlace,
            (true, Elem::F32) if self.all_panels(gemm) == 1 => Feed::InPlace,
            (true, _) => Feed::Strips,
            (false, _) => Feed::Rows,
        }
    }

    /// The terms whose sums are formed in one go: all, or one at a time where K is cut into blocks.
    pub fn stages(&self, gemm: &Gemm) -> Vec<Vec<usize>> {
        let terms = 0..gemm.terms.len();
        if self.block_depth.is_none() { vec![terms.collect()] } else { terms.map(|t| vec![t]).collect() }
    }

    /// Whether sums are kept in scratch from block to block.
    pub fn keeps_sums(&self) -> bool {
        self.block_depth.is_some()
    }

    /// The largest depth of a term that is packed at a time.
    pub fn capacity(&self, term: &Term) -> usize {
        self.block_depth.map_or(term.k, |block| block.min(term.k))
    }

    /// Where a term's part of a packed panel begins, in steps of K.
    pub fn panel_offset(&self, gemm: &Gemm, stage: &[usize], term: usize) -> usize {
        stage.iter().take_while(|t| **t != term).map(|t| self.capacity(&gemm.terms[*t])).sum()
    }

    /// Elements of a packed panel.
    pub fn panel_size(&self, gemm: &Gemm) -> usize {
        let depth = |stage: &Vec<usize>| stage.iter().map(|t| self.capacity(&gemm.terms[*t])).sum::<usize>();
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

    /// Elements between rows of A packed as rows; of a strip that divided by its rows.
    pub fn row_stride(&self, term: &Term) -> usize {
        // One line more than a power of two, so that rows do not fall on the same sets of the cache.
        round(self.capacity(term)) + 16
    }

    /// The best rows and panels of a task.
    fn best_split(&self, gemm: &Gemm) -> (usize, usize) {
        let (strips, panels) = (gemm.m.div_ceil(self.rows), self.all_panels(gemm));
        let threads = thread_counts(gemm);
        let mut best = (f64::INFINITY, (self.rows, 1));
        let most = 4 * threads.last().copied().unwrap_or(1);
        for m_tasks in 1..=strips.min(most) {
            for n_tasks in 1..=panels.min(most / m_tasks) {
                let block = (strips.div_ceil(m_tasks), panels.div_ceil(n_tasks));
                let tasks = strips.div_ceil(block.0) * panels.div_ceil(block.1);
                let cycles = self.task_cycles(gemm, block);
                let rounds = |threads: &usize| (tasks.div_ceil(*threads) * threads) as f64;
                let score = cycles * threads.iter().map(rounds).sum::<f64>();
                if score < best.0 {
                    best = (score, (block.0 * self.rows, block.1));
                }
            }
        }
        best.1
    }

    /// Estimated cycles of a task of so many strips and panels.
    fn task_cycles(&self, gemm: &Gemm, (strips, panels): (usize, usize)) -> f64 {
        let (rows, columns) = ((strips * self.rows) as f64, (panels * self.width()) as f64);
        let pack = |term: &Term| term.k as f64 * (columns * PACK_B + rows * self.feed(gemm, term).cost());
        let tile = gemm.depth() as f64 * tile_cycles(self.rows, self.vectors) + 60.0;
        (strips * panels) as f64 * tile + gemm.terms.iter().map(pack).sum::<f64>() + 500.0
    }
}

/// The numbers of threads over which tasks are balanced: up to 16 for larger products, where each still has about a
/// millisecond to do. Small machines count most.
fn thread_counts(gemm: &Gemm) -> Vec<usize> {
    let most = (gemm.m * gemm.n * gemm.depth()) as f64 / 5e7;
    let more = (2..=4).map(|i| 1 << i).take_while(|threads| *threads as f64 <= most);
    [1, 2, 2, 2, 2, 2].into_iter().chain(more).collect()
}

/// Cycles of a step of K: two multiply-adds can start in each. Loads bound tiles that reuse little: a tile of 12 rows by one
/// vector, 13 loads, was measured at 9.2 cycles.
fn tile_cycles(rows: usize, vectors: usize) -> f64 {
    ((rows * vectors) as f64 / 2.0).max((rows + vectors) as f64 * 0.7)
}

/// Up to a whole cache line.
fn round(elements: usize) -> usize {
    elements.next_multiple_of(16)
}
