//! The kernel itself: tasks, and inside one the blocks of K, blocks of rows, panels and strips.
use super::ask::Ask;
use super::plan::{Feed, FeedB, Plan, Scratch};
use super::way::Way;
use super::{Gemm, Term, call, element, tile};
use crate::emit::{Elem, Emitter, Value};

/// The body of the kernel.
pub fn body(e: &mut Emitter, way: &Way, plan: &Plan) {
    let gemm = &way.computed;
    let operands = way.operands(e);
    let limited = gemm.row_limit.is_some() || gemm.inner_limit.is_some();
    let count = limited.then(|| {
        let (count, zero) = (e.arg(gemm.count_operand()), e.index(0));
        e.load_int_at(&count, &zero)
    });
    let depths: Vec<Value> = gemm.terms.iter().map(|term| below(e, term.k, gemm.inner_limit, &count)).collect();
    let rows_end = below(e, gemm.m, gemm.row_limit, &count);
    e.tasks(|e, task| {
        let (down, across) = (e.index(plan.m_tasks(gemm) as i64), e.index(plan.panels as i64));
        let row = e.int2("remui", task, &down);
        let row = e.times(&row, plan.m_block);
        let panel = e.int2("divui", task, &down);
        let panel = e.int2("muli", &panel, &across);
        let last_row = step_to(e, &row, plan.m_block, &rows_end);
        let panels = e.index(plan.all_panels(gemm) as i64);
        let last_panel = step_to(e, &panel, plan.panels, &panels);
        let scratch = plan.scratch(gemm);
        let (rows, panels) = ((row, last_row), (panel, last_panel));
        Task { way, gemm, plan, scratch, operands: &operands, depths: &depths, rows, all_rows: None, panels }.emit(e);
    });
}

/// The rows of a task that are a group's, and how many there are of all groups, at least as many as a tile has.
pub struct Group {
    pub rows: (Value, Value),
    pub all: usize,
}

/// A task whose operands, depths and rows are found at run time, on the panels of a task from `panel` on.
pub fn of_group(
    e: &mut Emitter,
    way: &Way,
    plan: &Plan,
    (operands, depths): (&[(Value, Value)], &[Value]),
    group: Group,
    panel: &str,
) {
    let gemm = &way.computed;
    let panels = e.index(plan.all_panels(gemm) as i64);
    let last_panel = step_to(e, panel, plan.panels, &panels);
    let (scratch, panels) = (plan.scratch(gemm), (panel.into(), last_panel));
    let Group { rows, all } = group;
    Task { way, gemm, plan, scratch, operands, depths, rows, all_rows: Some(all), panels }.emit(e);
}

/// `size`, or what a limit that starts at `start` leaves of it.
fn below(e: &mut Emitter, size: usize, start: Option<usize>, count: &Option<Value>) -> Value {
    let size = e.index(size as i64);
    let (Some(start), Some(count)) = (start, count) else { return size };
    let (start, zero) = (e.index(start as i64), e.index(0));
    let left = e.int2("subi", count, &start);
    let left = e.int2("maxsi", &left, &zero);
    e.int2("minsi", &left, &size)
}

/// `from + step`, at most `end`.
fn step_to(e: &mut Emitter, from: &str, step: usize, end: &str) -> Value {
    let step = e.index(step as i64);
    let next = e.int2("addi", from, &step);
    e.int2("minsi", &next, end)
}

/// One task under construction.
struct Task<'a> {
    way: &'a Way<'a>,
    /// The product as it is computed.
    gemm: &'a Gemm,
    plan: &'a Plan,
    scratch: Scratch,
    operands: &'a [(Value, Value)],
    depths: &'a [Value],
    rows: (Value, Value),
    /// Where the rows are a group's: how many there are of all groups.
    all_rows: Option<usize>,
    panels: (Value, Value),
}

/// The terms, and the part of K, that are summed in one go.
struct Pass<'a> {
    stage: usize,
    terms: &'a [usize],
    /// First step of K.
    from: Value,
    /// Number of steps, one for each of `terms`.
    depths: Vec<Value>,
    /// i1: whether sums of an earlier pass are added to.
    keep: Value,
    /// i1: whether the sums are complete after this.
    last: Value,
}

impl Task<'_> {
    fn emit(&self, e: &mut Emitter) {
        let stages = self.plan.stages(self.gemm);
        for (stage, terms) in stages.iter().enumerate() {
            let (first, last) = (stage == 0, stage + 1 == stages.len());
            match self.plan.block_depth {
                None => {
                    let depths = terms.iter().map(|t| self.depths[*t].clone()).collect();
                    let (from, keep, last) = (e.index(0), truth(e, !first), truth(e, last));
                    self.pass(e, &Pass { stage, terms, from, depths, keep, last });
                }
                Some(block) => self.blocks(e, stage, terms, block, (first, last)),
            }
        }
    }

    /// The blocks of K of a stage's only term; one of no depth where a limit leaves none, so that the outputs are
    /// written.
    fn blocks(&self, e: &mut Emitter, stage: usize, terms: &[usize], block: usize, (first, last): (bool, bool)) {
        let depth = &self.depths[terms[0]];
        let (zero, one) = (e.index(0), e.index(1));
        let end = e.int2("maxsi", depth, &one);
        e.repeat(&zero, &end, block as i64, |e, from| {
            let next = step_to(e, from, block, depth);
            let depths = vec![e.int2("subi", &next, from)];
            let keep = if first { e.op(format!("arith.cmpi ne, {from}, {zero} : i64")) } else { truth(e, true) };
            let last = if last { e.op(format!("arith.cmpi eq, {next}, {depth} : i64")) } else { truth(e, false) };
            self.pass(e, &Pass { stage, terms, from: from.into(), depths, keep, last });
        });
    }

    fn pass(&self, e: &mut Emitter, pass: &Pass) {
        let (first_row, last_row) = &self.rows;
        e.repeat(first_row, last_row, self.plan.m_cache as i64, |e, row| {
            let end = step_to(e, row, self.plan.m_cache, last_row);
            self.pack_rows(e, pass, row);
            let is_first = e.op(format!("arith.cmpi eq, {row}, {first_row} : i64"));
            e.repeat(&self.panels.0, &self.panels.1, 1, |e, panel| {
                let place = self.panel_place(e, panel);
                e.branch(&is_first, |e| self.pack_panel(e, pass, &place), |_| {});
                e.repeat(row, &end, self.plan.rows as i64, |e, strip| {
                    let at = Strip { block: row, row: strip, is_first: &is_first };
                    e.branch(&is_first, |e| self.ask_at_once(e, pass, &at, &place), |_| {});
                    self.tile(e, pass, &at, &place);
                });
            });
        });
    }

    /// Packs A of the rows from `row` on, where it is not used in place.
    fn pack_rows(&self, e: &mut Emitter, pass: &Pass, row: &str) {
        let end = self.end_of_rows(e);
        let end = step_to(e, row, self.plan.m_cache, &end);
        let rows = e.int2("subi", &end, row);
        for (t, depth) in pass.terms.iter().zip(&pass.depths) {
            let term = &self.gemm.terms[*t];
            if self.plan.feed(self.gemm, term) == Feed::InPlace {
                continue;
            }
            let from = element(e, &self.operands[*t].0, (row, &pass.from), term.a);
            let to = e.at("%scratch", self.scratch.a[*t] as i64, Elem::F32);
            call(e, &format!("pack_a{t}"), &[(&from, "!llvm.ptr"), (&to, "!llvm.ptr"), (depth, "i64"), (&rows, "i64")]);
        }
    }

    /// Behind the last row that strips may compute: of the product, or of the group.
    fn end_of_rows(&self, e: &mut Emitter) -> Value {
        if self.all_rows.is_some() { self.rows.1.clone() } else { e.index(self.gemm.m as i64) }
    }

    /// The first row that a strip's tile reads: its own, or where a group's last strip would reach beyond all rows an earlier one.
    /// How many earlier is the second.
    fn first_read(&self, e: &mut Emitter, strip: &str) -> Option<(Value, Value)> {
        let in_place = |term: &Term| self.plan.feed(self.gemm, term) == Feed::InPlace;
        let all = self.all_rows.filter(|_| self.gemm.terms.iter().all(in_place))?;
        let last = e.index((all - self.plan.rows) as i64);
        let first = e.int2("minsi", strip, &last);
        let earlier = e.int2("subi", strip, &first);
        Some((first, earlier))
    }

    fn panel_place(&self, e: &mut Emitter, panel: &str) -> PanelPlace {
        let column = e.times(panel, self.plan.width());
        let end = e.index(self.gemm.n as i64);
        let end = step_to(e, &column, self.plan.width(), &end);
        let columns = e.int2("subi", &end, &column);
        let index = e.int2("subi", panel, &self.panels.0);
        let packed = if self.plan.panels_stay() {
            e.row("%scratch", &index, self.plan.panel_size(self.gemm), Elem::F32)
        } else {
            "%scratch".into()
        };
        PanelPlace { column, columns, index, packed }
    }

    fn pack_panel(&self, e: &mut Emitter, pass: &Pass, place: &PanelPlace) {
        for (t, depth) in pass.terms.iter().zip(&pass.depths) {
            let term = &self.gemm.terms[*t];
            if self.plan.feed_b(self.gemm, term) != FeedB::Panel {
                continue;
            }
            let from = self.stored_b(e, *t, &pass.from, &place.column);
            let offset = self.plan.panel_offset(self.gemm, pass.terms, *t) * self.plan.width();
            let to = e.at(&place.packed, offset as i64, Elem::F32);
            let args = [(&from, "!llvm.ptr"), (&to, "!llvm.ptr"), (depth, "i64"), (&place.columns, "i64")];
            call(e, &format!("pack_b{t}"), &args.map(|(value, ty)| (value.as_str(), ty)));
        }
    }

    fn ask(&self, t: usize) -> Option<Ask> {
        Ask::of(self.gemm, self.plan, &self.gemm.terms[t])
    }

    /// The rows of the next panel, which need not exist, that a strip asks for.
    fn asked(&self, e: &mut Emitter, pass: &Pass, (t, ask): (usize, Ask), at: &Strip, place: &PanelPlace) -> Value {
        let next = e.plus(&place.column, self.plan.width() as i64);
        let from = self.stored_b(e, t, &pass.from, &next);
        let number = at.number(e, self.plan);
        ask.first(e, &from, &number)
    }

    /// Asks at once for what tiles do not ask for along K.
    fn ask_at_once(&self, e: &mut Emitter, pass: &Pass, at: &Strip, place: &PanelPlace) {
        for &t in pass.terms {
            let Some(ask) = self.ask(t).filter(|ask| !ask.along) else { continue };
            let from = self.asked(e, pass, (t, ask), at, place);
            let number = at.number(e, self.plan);
            let first = e.times(&number, ask.rows);
            call(e, &format!("ask_b{t}"), &[(&from, "!llvm.ptr"), (&first, "i64")]);
        }
    }

    /// The tile of a strip and a panel, and after the last pass its epilogue.
    fn tile(&self, e: &mut Emitter, pass: &Pass, at: &Strip, place: &PanelPlace) {
        let Strip { block, row: strip, is_first } = *at;
        let sums = self.sums(e, strip, place);
        let mut args: Vec<(String, &str)> =
            vec![(sums.clone(), "!llvm.ptr"), (place.packed.clone(), "!llvm.ptr"), (pass.keep.clone(), "i1")];
        let read = self.first_read(e, strip);
        let first_read = read.as_ref().map_or(strip, |(first, _)| first);
        for (t, depth) in pass.terms.iter().zip(&pass.depths) {
            args.push((self.strip_start(e, *t, &pass.from, block, first_read), "!llvm.ptr"));
            args.push((depth.clone(), "i64"));
            let term = &self.gemm.terms[*t];
            if self.plan.feed_b(self.gemm, term) != FeedB::Panel {
                args.push((self.stored_b(e, *t, &pass.from, &place.column), "!llvm.ptr"));
            }
            if let Some(ask) = self.ask(*t).filter(|ask| ask.along) {
                let next = self.asked(e, pass, (*t, ask), at, place);
                // Later strips of rows find the next panel as this one found its own: packed, or near.
                let next = e.op(format!("llvm.select {is_first}, {next}, {} : i1, !llvm.ptr", place.packed));
                args.push((next, "!llvm.ptr"));
            }
            if self.plan.longest(self.gemm, pass.terms) == *t {
                args.extend(self.way.asked_result(self.plan).args(e, strip, &place.column, &pass.last));
            }
        }
        let args: Vec<(&str, &str)> = args.iter().map(|(value, ty)| (value.as_str(), *ty)).collect();
        let end = self.end_of_rows(e);
        let end = step_to(e, strip, self.plan.rows, &end);
        let rows = e.int2("subi", &end, strip);
        match tile::heights(self.gemm, self.plan)[..] {
            [whole, rest] => {
                let height = e.index(whole as i64);
                let is_whole = e.op(format!("arith.cmpi eq, {rows}, {height} : i64"));
                let tile = |rows| tile::name(pass.stage, rows);
                e.branch(&is_whole, |e| call(e, &tile(whole), &args), |e| call(e, &tile(rest), &args));
            }
            _ => call(e, &tile::name(pass.stage, self.plan.rows), &args),
        }
        let sums = match &read {
            None => sums,
            Some((_, earlier)) => e.row(&sums, earlier, self.plan.width(), Elem::F32),
        };
        e.branch(&pass.last, |e| self.store(e, &sums, strip, &rows, place), |_| {});
    }

    fn store(&self, e: &mut Emitter, sums: &str, strip: &str, rows: &str, place: &PanelPlace) {
        let turned = e.at("%scratch", self.scratch.total as i64, Elem::F32);
        self.way.store(e, sums, (strip, rows), (&place.column, &place.columns), &turned);
    }

    /// Where the sums of a tile are in scratch: in the order in which tiles come, strip by strip of a panel. Were strips apart, the
    /// processor would see a stride and bring lines from far beyond the last strip, from another thread's scratch even.
    fn sums(&self, e: &mut Emitter, strip: &str, place: &PanelPlace) -> Value {
        let tiles = e.at("%scratch", self.scratch.tiles as i64, Elem::F32);
        if !self.plan.keeps_sums() {
            return tiles;
        }
        let strip = e.int2("subi", strip, &self.rows.0);
        let strip = e.divided(&strip, self.plan.rows);
        let index = e.times(&place.index, self.plan.m_block / self.plan.rows);
        let index = e.int2("addi", &index, &strip);
        e.row(&tiles, &index, self.plan.rows * self.plan.width(), Elem::F32)
    }

    /// Where B of a term is from step `from` and column `column` on, the first of a panel.
    fn stored_b(&self, e: &mut Emitter, t: usize, from: &str, column: &str) -> Value {
        let (term, pointer) = (&self.gemm.terms[t], &self.operands[t].1);
        if self.plan.feed_b(self.gemm, term) != FeedB::Packed {
            return element(e, pointer, (from, column), term.b);
        }
        let panel = self.plan.panel(term);
        debug_assert!(self.plan.block_depth.is_none_or(|depth| depth.is_multiple_of(2)), "a block begins with a word");
        let before = e.row(pointer, column, panel.words(term.k), Elem::F32);
        let words = if panel.paired { e.divided(from, 2) } else { from.into() };
        e.row(&before, &words, panel.width(), Elem::F32)
    }

    /// The first element of A that a tile reads of a term.
    fn strip_start(&self, e: &mut Emitter, t: usize, from: &str, block: &str, strip: &str) -> Value {
        let term: &Term = &self.gemm.terms[t];
        if self.plan.feed(self.gemm, term) == Feed::InPlace {
            return element(e, &self.operands[t].0, (strip, from), term.a);
        }
        let packed = e.at("%scratch", self.scratch.a[t] as i64, Elem::F32);
        let row = e.int2("subi", strip, block);
        e.row(&packed, &row, self.plan.row_stride(term), Elem::F32)
    }
}

/// A strip of rows: the first of its block, whose A is packed together, its own first, and whether that block is the task's first
/// (an i1).
struct Strip<'a> {
    block: &'a str,
    row: &'a str,
    is_first: &'a str,
}

impl Strip<'_> {
    /// Its number within the block.
    fn number(&self, e: &mut Emitter, plan: &Plan) -> Value {
        let rows = e.int2("subi", self.row, self.block);
        e.divided(&rows, plan.rows)
    }
}

/// A panel: its first column, how many it has, its number within the task, its packed form.
struct PanelPlace {
    column: Value,
    columns: Value,
    index: Value,
    packed: Value,
}

fn truth(e: &mut Emitter, value: bool) -> Value {
    e.op(format!("arith.constant {value}"))
}
