//! `wgmma`: matrix products of four warps, with operands in shared memory.
//!
//! The k-th product of each of the four warps is one operation; it can read shared memory once all four issued it. Its
//! rows of A need what the warp that owns them knows, its B what all four know. A warp that waited for it knows that its own part
//! is done, and nothing of the other warps: so each has to say itself that memory was read. A product's registers are held, neither
//! read nor written by anything but further products, until its group was waited for; only then do sums appear in them.
//! In late mode operands in shared memory are read then, too, in early mode when the fourth warp issues the product.
use super::{
    Outcome,
    access::Target,
    barrier::whole_warp,
    clock::{Actor, Agent, Knowledge, Stamp},
    cluster::{Cluster, Next},
    in_step::InStep,
    launch::Mode,
    matrix::{each_element, fragment_a},
    misuse,
    operand::Operand,
    shadow::AgentKind,
    waiting::Wait,
    warp::Warp,
};
use crate::{
    op::{Accumulate, Element, MatrixSource, WarpgroupMultiplyOp, Word},
    ops::Mask,
    parse::Space,
};
use std::{collections::VecDeque, rc::Rc};

pub const WARPS: usize = 4;
const WARP_ROWS: usize = 16;
const ALL_WARPS: u8 = 0b1111;

/// Products of a warpgroup that not all four warps have finished.
#[derive(Default)]
pub struct Warpgroup {
    products: VecDeque<Product>,
    /// The number of the first of them.
    first: u64,
    pub in_step: InStep,
}

/// What has to be the same for all four warps.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Form {
    at: u32,
    a: Option<Operand>,
    b: Operand,
    negate: bool,
    group: u32,
}

struct Product {
    form: Form,
    issued: u8,
    finished: u8,
    known: [Rc<Knowledge>; WARPS],
    tiles: Option<Rc<Tiles>>,
}

/// Operands as numbers: A by rows (empty where it is in registers), B by rows of k.
struct Tiles {
    a: Vec<f32>,
    b: Vec<f32>,
}

/// A warp's side of its products.
#[derive(Default)]
pub struct Products {
    issued: u64,
    open: Vec<Issued>,
    groups: VecDeque<Vec<Issued>>,
    committed: u32,
}

struct Issued {
    number: u64,
    d: Vec<Word>,
    a: Vec<Word>,
    /// The warp's rows of A, where they are in registers.
    rows: Option<Vec<f32>>,
    accumulate: bool,
    at: u32,
}

impl Cluster<'_> {
    pub fn warpgroup_multiply(
        &mut self,
        warp: &mut Warp,
        lanes: Mask,
        pc: u32,
        op: &WarpgroupMultiplyOp,
    ) -> Outcome<()> {
        whole_warp(warp, lanes)?;
        self.in_step(warp, pc)?;
        let accumulate = match op.accumulate {
            Accumulate::Always(yes) => yes,
            Accumulate::If(predicate) => match warp.registers.predicate(predicate, lanes, "scale-d")? {
                Mask::MAX => true,
                0 => false,
                _ => return Err(misuse(0, "scale-d differs among the lanes of a warp")),
            },
        };
        let rows = match &op.a {
            MatrixSource::Registers(words) => {
                warp.registers.check_fenced(words)?;
                Some(register_rows(warp, op.element, op.k, words)?)
            }
            MatrixSource::Descriptor(_) => None,
        };
        warp.registers.check_accumulators(&op.d, accumulate)?;
        let form = self.form(warp, lanes, pc, op)?;
        let a = if let MatrixSource::Registers(words) = &op.a { words.clone() } else { Vec::new() };
        warp.registers.hold(&op.d);
        warp.registers.hold(&a);
        let number = warp.products.issued;
        warp.products.issued += 1;
        warp.products.open.push(Issued { number, d: op.d.clone(), a, rows, accumulate, at: pc });
        self.issue(warp, number, form)
    }

    fn form(&self, warp: &Warp, lanes: Mask, pc: u32, op: &WarpgroupMultiplyOp) -> Outcome<Form> {
        let descriptor = |slot, what: &'static str| {
            let values = warp.registers.double(slot, lanes, what)?;
            if values.iter().any(|value| *value != values[0]) {
                return Err(misuse(0, format!("{what} differs among the lanes of a warp")));
            }
            Ok(values[0])
        };
        let operand = |bits, rows, transposed| {
            Operand::new(bits, op.element, rows, op.k, transposed).map_err(|found| misuse(0, found))
        };
        let a = match op.a {
            MatrixSource::Registers(_) => None,
            MatrixSource::Descriptor(slot) => {
                Some(operand(descriptor(slot, "the descriptor of A")?, 64, op.transposed_a)?)
            }
        };
        let b = operand(descriptor(op.b, "the descriptor of B")?, op.n, op.transposed_b)?;
        Ok(Form { at: pc, a, b, negate: op.negate, group: warp.products.committed + 1 })
    }

    /// Notes that a warp issued its product of that number; the fourth one starts it.
    fn issue(&mut self, warp: &mut Warp, number: u64, form: Form) -> Outcome<()> {
        let known = Rc::new(warp.release(warp.lanes).map_err(|found| misuse(0, found))?);
        let (group, rank) = (warp.index as usize / WARPS, warp.index as usize % WARPS);
        let warpgroup = &mut self.blocks[warp.block].warpgroups[group];
        let index = (number - warpgroup.first) as usize;
        if index == warpgroup.products.len() {
            let known = std::array::from_fn(|_| Rc::default());
            warpgroup.products.push_back(Product { form, issued: 0, finished: 0, known, tiles: None });
        }
        let other = warpgroup.products[index].form;
        if other != form {
            return Err(misuse(0, "the warps of a warpgroup have other operands for one wgmma"));
        }
        let product = &mut self.blocks[warp.block].warpgroups[group].products[index];
        product.issued |= 1 << rank;
        product.known[rank] = known;
        let issued = product.issued;
        self.progress += 1;
        if issued != ALL_WARPS {
            return Ok(());
        }
        self.check_product(warp, group, index)?;
        if self.launch.mode == Mode::Early {
            self.read_operands(warp.block, group, index);
        }
        Ok(())
    }

    /// Checks that the operands in shared memory were written, and are ordered before the product.
    fn check_product(&mut self, warp: &Warp, group: usize, index: usize) -> Outcome<()> {
        let agent = self.products_agent(warp.block, group)?;
        let product = &self.blocks[warp.block].warpgroups[group].products[index];
        let (form, known) = (product.form, product.known.clone());
        let of_warps = |warps: u8| Stamp::new(agent, warps.into(), form.group, false);
        if let Some(a) = form.a {
            for (rank, known) in known.iter().enumerate() {
                let actor = Actor { stamp: of_warps(1 << rank), known, own: &[], asynchronous: true };
                self.check_operand(warp, form.at, &actor, a.chunks_of_rows(rank * WARP_ROWS, WARP_ROWS))?;
            }
        }
        let mut common = Knowledge::clone(&known[0]);
        known[1..].iter().for_each(|known| common.meet(known));
        let actor = Actor { stamp: of_warps(ALL_WARPS), known: &common, own: &[], asynchronous: true };
        self.check_operand(warp, form.at, &actor, form.b.chunks_of_rows(0, form.b.rows))
    }

    fn check_operand(
        &mut self,
        warp: &Warp,
        pc: u32,
        actor: &Actor,
        chunks: impl Iterator<Item = super::operand::Chunk>,
    ) -> Outcome<()> {
        for chunk in chunks {
            let target = Target::new(Space::Shared, chunk.address, super::operand::CHUNK_BYTES, pc);
            self.readable(warp, 0, target, actor)?;
        }
        Ok(())
    }

    fn products_agent(&mut self, block: usize, group: usize) -> Outcome<Agent> {
        let kind = AgentKind::Products { block, warpgroup: group as u32 };
        self.agents.get(kind).map_err(|found| misuse(0, found))
    }

    fn read_operands(&mut self, block: usize, group: usize, index: usize) {
        let form = self.blocks[block].warpgroups[group].products[index].form;
        let mut read = |operand: &Operand| {
            let mut numbers = vec![0.0; operand.rows * operand.k];
            for chunk in operand.chunks_of_rows(0, operand.rows) {
                let bytes = self.bytes(block, Space::Shared, chunk.address, super::operand::CHUNK_BYTES);
                operand.place(&chunk, bytes, &mut numbers);
            }
            numbers
        };
        let a = form.a.as_ref().map(&mut read).unwrap_or_default();
        let b = transpose(&read(&form.b), form.b.rows, form.b.k);
        self.blocks[block].warpgroups[group].products[index].tiles = Some(Rc::new(Tiles { a, b }));
    }

    pub fn fence_products(&mut self, warp: &mut Warp, pc: u32, lanes: Mask) -> Outcome<()> {
        whole_warp(warp, lanes)?;
        self.in_step(warp, pc)?;
        warp.registers.fences += 1;
        Ok(())
    }

    pub fn commit_products(&mut self, warp: &mut Warp, pc: u32, lanes: Mask) -> Outcome<()> {
        whole_warp(warp, lanes)?;
        self.in_step(warp, pc)?;
        let open = std::mem::take(&mut warp.products.open);
        warp.products.groups.push_back(open);
        warp.products.committed += 1;
        Ok(())
    }

    pub fn wait_for_products(&mut self, warp: &mut Warp, path: usize, lanes: Mask, pending: u32) -> Outcome<Next> {
        whole_warp(warp, lanes)?;
        let pc = warp.paths.get(path).pc;
        self.in_step(warp, pc)?;
        warp.paths.get_mut(path).wait = Some(Wait::Products { pending });
        self.wake(warp, path, Wait::Products { pending })?;
        Ok(Next::Done)
    }

    /// Finishes all groups but the last `pending`, if the other warps issued their part.
    pub fn finish_products(&mut self, warp: &mut Warp, pending: u32) -> Outcome<bool> {
        let (group, rank) = (warp.index as usize / WARPS, warp.index as usize % WARPS);
        let done = warp.products.groups.len().saturating_sub(pending as usize);
        let Some(last) = warp.products.groups.iter().take(done).flatten().last().map(|issued| issued.number) else {
            warp.products.groups.drain(..done);
            return Ok(true);
        };
        let first = self.blocks[warp.block].warpgroups[group].first;
        let state = &self.blocks[warp.block].warpgroups[group];
        if state.products.iter().take((last - first) as usize + 1).any(|product| product.issued != ALL_WARPS) {
            return Ok(false);
        }
        let product = &state.products[(last - first) as usize];
        let (mut known, group_number) = (Knowledge::clone(&product.known[rank]), product.form.group);
        known.generic.raise(self.products_agent(warp.block, group)?, 1 << rank, group_number);
        warp.acquire(warp.lanes, &Rc::new(known));
        let finished: Vec<Issued> = warp.products.groups.drain(..done).flatten().collect();
        for issued in &finished {
            let index = (issued.number - first) as usize;
            if self.blocks[warp.block].warpgroups[group].products[index].tiles.is_none() {
                self.read_operands(warp.block, group, index);
            }
            let product = &mut self.blocks[warp.block].warpgroups[group].products[index];
            product.finished |= 1 << rank;
            let tiles = product.tiles.clone().expect("the operands were just read");
            accumulate(warp, issued, &tiles, &product.form, rank);
        }
        let state = &mut self.blocks[warp.block].warpgroups[group];
        while state.products.front().is_some_and(|product| product.finished == ALL_WARPS) {
            state.products.pop_front();
            state.first += 1;
        }
        self.progress += 1;
        Ok(true)
    }
}

impl Products {
    /// The instruction of a product that was never waited for.
    pub fn unfinished(&self) -> Option<u32> {
        self.groups.iter().flatten().chain(&self.open).map(|issued| issued.at).next()
    }
}

/// The warp's 16 rows of A from its registers.
fn register_rows(warp: &Warp, element: Element, k: usize, words: &[Word]) -> Outcome<Vec<f32>> {
    let mut rows = vec![0.0; WARP_ROWS * k];
    for (register, word) in words.iter().enumerate() {
        let values = warp.registers.word_of_product(*word, "a")?;
        each_element(element, values, |lane, i, value| {
            let (row, column) = fragment_a(element, lane, register, i);
            rows[row * k + column] = value;
        });
    }
    Ok(rows)
}

fn transpose(numbers: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut turned = vec![0.0; numbers.len()];
    for (i, row) in numbers.chunks_exact(columns).enumerate() {
        row.iter().enumerate().for_each(|(j, number)| turned[j * rows + i] = *number);
    }
    turned
}

/// A warp's rows of a product, into its registers.
fn accumulate(warp: &mut Warp, issued: &Issued, tiles: &Tiles, form: &Form, rank: usize) {
    let (n, k) = (form.b.rows, form.b.k);
    let a = issued.rows.as_deref().unwrap_or_else(|| &tiles.a[rank * WARP_ROWS * k..][..WARP_ROWS * k]);
    let mut sums = vec![0f32; WARP_ROWS * n];
    for (sums, a) in sums.chunks_exact_mut(n).zip(a.chunks_exact(k)) {
        for (a, b) in a.iter().zip(tiles.b.chunks_exact(n)) {
            let a = if form.negate { -a } else { *a };
            sums.iter_mut().zip(b).for_each(|(sum, b)| *sum += a * b);
        }
    }
    for (register, d) in issued.d.iter().enumerate() {
        let row = register / 2 % 2 * 8;
        let column = register / 4 * 8 + register % 2;
        let sum = |lane: usize| sums[(row + lane / 4) * n + column + lane % 4 * 2];
        warp.registers.finish_product(*d, issued.accumulate, sum);
    }
    warp.registers.let_go(&issued.a);
}
