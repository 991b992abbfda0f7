//! Which plan a product gets: an estimate of cycles, and a search over tiles and tasks.
use super::plan::{Feed, FeedB, Plan};
use super::{Gemm, Term};
use crate::Target;
use crate::emit::Elem;
use crate::tuning::{self, GemmTuning};

/// Bytes of an operand beyond which it comes from memory for every task.
const CACHED_BYTES: u64 = 8 << 20;
/// Numbers of threads over which tasks are balanced, and how much each counts.
const THREADS: [(usize, f64); 5] = [(1, 1.0), (2, 4.0), (4, 1.0), (8, 0.2), (16, 0.1)];
/// Multiply-adds that a thread should have to do, about a millisecond.
const THREAD_WORK: f64 = 5e7;
/// Bytes of scratch of a thread that a plan should stay within.
const SCRATCH_BYTES: usize = 8 << 20;

impl Plan {
    /// Chooses the tile that wastes least, then the tasks that balance best, packing counted.
    pub fn choose(gemm: &Gemm, target: &Target) -> Plan {
        let table = tuning::gemm(target.lanes);
        let cost = |&&(rows, vectors): &&(usize, usize)| {
            tile_cycles(rows, vectors) * gemm.m.div_ceil(rows) as f64 * gemm.n.div_ceil(vectors * target.lanes) as f64
        };
        let &(rows, vectors) =
            table.tiles.iter().min_by(|a, b| cost(a).total_cmp(&cost(b))).expect("the table has tiles");
        let tile = Plan {
            lanes: target.lanes,
            rows,
            vectors,
            m_block: rows,
            panels: 1,
            m_cache: rows,
            block_depth: (gemm.depth() > table.whole_depth).then_some(table.block_depth),
            unroll: table.unroll,
            pairs: target.pairs,
        };
        let slots = |plan: &Plan| {
            let tasks = plan.tasks(gemm);
            let slots =
                thread_counts(gemm).map(|(threads, weight)| (tasks.div_ceil(threads) * threads) as f64 * weight);
            slots.sum::<f64>()
        };
        let score = |plan: &Plan| {
            let fits = 4 * plan.scratch(gemm).total <= SCRATCH_BYTES;
            plan.task_cycles(gemm, table) * slots(plan) * if fits { 1.0 } else { 2.0 }
        };
        let scored = tile.splits(gemm, table).into_iter().map(|plan| (score(&plan), plan));
        scored.min_by(|a, b| a.0.total_cmp(&b.0)).expect("a product has at least one task").1
    }

    /// This plan with every number of tasks along the rows and the columns that is worth a thought.
    fn splits(&self, gemm: &Gemm, table: &GemmTuning) -> Vec<Plan> {
        let (strips, panels) = (gemm.m.div_ceil(self.rows), self.all_panels(gemm));
        let most = 4 * thread_counts(gemm).last().map_or(1, |last| last.0);
        let down = 1..=strips.min(most);
        let pairs = down.flat_map(|down| (1..=panels.min(most / down)).map(move |across| (down, across)));
        pairs
            .map(|(down, across)| self.with_block(gemm, table, strips.div_ceil(down), panels.div_ceil(across)))
            .collect()
    }

    /// This plan with tasks of so many strips and panels.
    fn with_block(&self, gemm: &Gemm, table: &GemmTuning, strips: usize, panels: usize) -> Plan {
        let mut plan = Plan { m_block: strips * self.rows, panels, ..self.clone() };
        plan.m_cache = plan.m_block;
        if gemm.terms.iter().any(|term| plan.feed(gemm, term) != Feed::InPlace) {
            let depth: usize = gemm.terms.iter().map(|term| plan.capacity(term)).sum();
            let most = (table.a_block_bytes / (4 * depth * self.rows)).max(4);
            plan.m_cache = strips.div_ceil(strips.div_ceil(most)) * self.rows;
        }
        plan
    }

    /// Words of four bytes that hold one row of A or one column of B of a term.
    fn words(&self, term: &Term) -> f64 {
        term.k as f64 * if self.paired(term) { 0.5 } else { 1.0 }
    }

    /// Estimated cycles of a task.
    fn task_cycles(&self, gemm: &Gemm, table: &GemmTuning) -> f64 {
        let (rows, columns) = (self.m_block as f64, (self.panels * self.width()) as f64);
        let pack = |term: &Term| {
            let words = self.words(term);
            let far = |elem, count| table.far_byte * far_bytes(elem, count) as f64 * term.k as f64;
            let a = feed_cost(self.feed(gemm, term)) * words + far(term.a.elem, gemm.m * term.k);
            let pack_b = if self.feed_b(gemm, term) == FeedB::Panel { table.pack_b } else { 0.0 };
            let b = pack_b * words + far(term.b.elem, gemm.n * term.k);
            columns * b + rows * a
        };
        let words: f64 = gemm.terms.iter().map(|term| self.words(term)).sum();
        let tile = words * tile_cycles(self.rows, self.vectors) + 60.0;
        (self.m_block / self.rows * self.panels) as f64 * tile + gemm.terms.iter().map(pack).sum::<f64>() + 500.0
    }
}

/// Bytes of an element that come from memory, which is where an operand of so many elements is too large to stay in cache.
fn far_bytes(elem: Elem, count: usize) -> u64 {
    if count as u64 * elem.bytes() > CACHED_BYTES { elem.bytes() } else { 0 }
}

/// Cycles that a word of A costs a task: to bring it near, and to pack it.
fn feed_cost(feed: Feed) -> f64 {
    match feed {
        Feed::InPlace => 0.3,
        Feed::Rows => 0.5,
        Feed::Strips => 0.8,
    }
}

/// The rows of [`THREADS`] that a product is large enough for.
fn thread_counts(gemm: &Gemm) -> impl Iterator<Item = (usize, f64)> {
    let most = ((gemm.m * gemm.n * gemm.depth()) as f64 / THREAD_WORK).max(2.0);
    THREADS.into_iter().take_while(move |(threads, _)| *threads as f64 <= most)
}

/// Cycles of a step of K: two multiply-adds can start in each. Loads bound tiles that reuse little: a tile of 12 rows
/// by one vector, 13 loads, was measured at 9 to 10 cycles.
fn tile_cycles(rows: usize, vectors: usize) -> f64 {
    ((rows * vectors) as f64 / 2.0).max((rows + vectors) as f64 * 0.77)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emit::Elem::{Bf16, F32};
    use crate::gemm::Operand;
    use crate::region::Region;

    fn plan((m, n, k): (usize, usize, usize), elem: Elem) -> (Gemm, Plan) {
        let operand = |columns| Operand { elem, transposed: false, stride: columns };
        let terms = vec![Term { k, a: operand(k), b: operand(n), packed: false }];
        let gemm = Gemm { m, n, terms, epilogue: Region::identity(F32, F32), row_limit: None, inner_limit: None };
        let plan = Plan::choose(&gemm, &Target::avx2());
        (gemm, plan)
    }

    #[test]
    fn tiles_follow_the_columns() {
        let tile = |n| {
            let plan = plan((1024, n, 576), F32).1;
            (plan.rows, plan.vectors)
        };
        assert_eq!([tile(8), tile(16), tile(576)], [(12, 1), (6, 2), (4, 3)]);
    }

    #[test]
    fn plans_cover_the_product_and_keep_to_their_scratch() {
        let sizes =
            [(1, 1, 1), (7, 9, 11), (1024, 576, 1536), (256, 576, 49152), (2048, 14336, 4096), (64, 128_256, 8192)];
        for (size, elem) in sizes.into_iter().flat_map(|size| [(size, F32), (size, Bf16)]) {
            let (gemm, plan) = plan(size, elem);
            assert!(plan.m_block * plan.m_tasks(&gemm) >= gemm.m, "{size:?}: {plan:?}");
            assert!(
                plan.m_block.is_multiple_of(plan.rows) && plan.m_cache.is_multiple_of(plan.rows),
                "{size:?}: {plan:?}"
            );
            assert!(4 * plan.scratch(&gemm).total <= SCRATCH_BYTES, "{size:?}: {plan:?}");
            assert_eq!(plan.block_depth.is_some(), size.2 > 2048, "{size:?}: {plan:?}");
        }
    }

    #[test]
    fn two_threads_have_the_same_to_do() {
        for size in [(1024, 1536, 576), (1024, 576, 576), (1024, 192, 576), (256, 49152, 576), (1024, 8, 576)] {
            let (gemm, plan) = plan(size, F32);
            assert!(plan.tasks(&gemm).is_multiple_of(2), "{size:?}: {plan:?}");
        }
    }
}
