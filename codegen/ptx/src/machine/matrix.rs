//! `ldmatrix`, `stmatrix` and `mma.sync`.
//!
//! Products of `mma` are summed in `f32` in order of k, then added to C. Tensor cores sum in another order and with
//! other roundings, so results agree only within the usual bound for such sums.
use super::{
    Outcome,
    access::{Target, addresses},
    barrier::whole_warp,
    cluster::Cluster,
    warp::Warp,
};
use crate::{
    op::{Address, Element, MultiplyOp, Word},
    ops::{LANES, Mask, Words, half},
    parse::Space,
};

const ROW_BYTES: u64 = 16;

impl Cluster<'_> {
    /// Lanes 8i to 8i+7 hold the row addresses of matrix i; lane l gets elements 2(l%4) and 2(l%4)+1 of row l/4.
    pub fn load_matrix(
        &mut self,
        warp: &mut Warp,
        lanes: Mask,
        pc: u32,
        to: &[Word],
        address: Address,
        transposed: bool,
    ) -> Outcome<()> {
        whole_warp(warp, lanes)?;
        let rows = addresses(warp, rows_used(to.len()), address)?;
        for (i, to) in to.iter().enumerate() {
            let mut matrix = [[0u16; 8]; 8];
            for (row, elements) in matrix.iter_mut().enumerate() {
                let lane = 8 * i + row;
                let target = Target::new(Space::Shared, rows[lane], ROW_BYTES, pc);
                self.check_row(warp, row, target)?;
                let bytes = self.bytes(warp.block, Space::Shared, rows[lane], ROW_BYTES);
                elements.iter_mut().zip(bytes.chunks_exact(2)).for_each(|(e, b)| *e = u16::from_le_bytes([b[0], b[1]]));
            }
            let element = |row: usize, column: usize| {
                u32::from(if transposed { matrix[column][row] } else { matrix[row][column] })
            };
            let pair = |lane: usize| element(lane / 4, lane % 4 * 2 + 1) << 16 | element(lane / 4, lane % 4 * 2);
            warp.registers.set_word(*to, lanes, &std::array::from_fn(pair))?;
        }
        Ok(())
    }

    /// A row is read piecewise by the four lanes that get it.
    fn check_row(&mut self, warp: &Warp, row: usize, target: Target) -> Outcome<()> {
        for part in 0..4 {
            let lane = row * 4 + part;
            let own = warp.own(lane);
            let actor = warp.actor(lane, &own, false);
            if part == 0 {
                self.aligned(lane, target)?;
            }
            let target = Target::new(Space::Shared, target.address + 4 * part as u64, 4, target.at);
            self.readable(warp, lane, target, &actor)?;
        }
        Ok(())
    }

    pub fn store_matrix(
        &mut self,
        warp: &mut Warp,
        lanes: Mask,
        pc: u32,
        from: &[Word],
        address: Address,
        transposed: bool,
    ) -> Outcome<()> {
        whole_warp(warp, lanes)?;
        let rows = addresses(warp, rows_used(from.len()), address)?;
        for (i, from) in from.iter().enumerate() {
            let values = *warp.registers.word(*from, lanes, "the stored matrix")?;
            for (lane, value) in values.into_iter().enumerate() {
                let (row, column) = (lane / 4, lane % 4 * 2);
                let pieces: [(usize, usize, u64, u64); 2] = if transposed {
                    [(column, row, 0, 2), (column + 1, row, 16, 2)]
                } else {
                    [(row, column, 0, 4), (row, column, 0, 0)]
                };
                for (row, column, shift, bytes) in pieces.into_iter().filter(|piece| piece.3 > 0) {
                    let start = rows[8 * i + row];
                    let whole = Target::new(Space::Shared, start, ROW_BYTES, pc);
                    self.aligned(8 * i + row, whole)?;
                    let own = warp.own(lane);
                    let actor = warp.actor(lane, &own, false);
                    let target = Target::new(Space::Shared, start + 2 * column as u64, bytes, pc);
                    let (region, offset) = self.writable(warp.block, lane, target, &actor)?;
                    region.store(offset, bytes, u64::from(value >> shift));
                }
            }
        }
        self.progress += 1;
        Ok(())
    }

    pub fn multiply(&mut self, warp: &mut Warp, lanes: Mask, op: &MultiplyOp) -> Outcome<()> {
        whole_warp(warp, lanes)?;
        let (mut a, mut b) = ([[0f32; 16]; 16], [[0f32; 8]; 16]);
        for (register, word) in op.a.iter().enumerate() {
            let values = warp.registers.word(*word, lanes, "a")?;
            each_element(op.element, values, |lane, i, value| {
                let (row, column) = fragment_a(op.element, lane, register, i);
                a[row][column] = value;
            });
        }
        for (register, word) in op.b.iter().enumerate() {
            let values = warp.registers.word(*word, lanes, "b")?;
            each_element(op.element, values, |lane, i, value| {
                let (row, column) = fragment_b(op.element, lane, register, i);
                b[row][column] = value;
            });
        }
        let mut product = [[0f32; 8]; 16];
        for (sums, a) in product.iter_mut().zip(&a) {
            for k in 0..op.k {
                sums.iter_mut().zip(&b[k]).for_each(|(sum, b)| *sum += a[k] * b);
            }
        }
        for (register, (d, c)) in op.d.iter().zip(&op.c).enumerate() {
            let c = warp.registers.word(*c, lanes, "c")?;
            let value = |lane: usize| {
                let (row, column) = (lane / 4 + 8 * (register / 2), lane % 4 * 2 + register % 2);
                (f32::from_bits(c[lane]) + product[row][column]).to_bits()
            };
            let values = std::array::from_fn(value);
            warp.registers.set_word(*d, lanes, &values)?;
        }
        Ok(())
    }
}

/// Lanes whose addresses a load or store of so many matrices uses.
fn rows_used(matrices: usize) -> Mask {
    Mask::MAX >> (LANES - 8 * matrices)
}

/// Calls `f(lane, index in the register, value)` for all elements of a register.
pub fn each_element(element: Element, values: &Words, mut f: impl FnMut(usize, usize, f32)) {
    for (lane, &bits) in values.iter().enumerate() {
        match element {
            Element::Bf16 => (0..2).for_each(|i| f(lane, i, half::from_bf16(bits >> (16 * i) & 0xffff))),
            Element::F16 => (0..2).for_each(|i| f(lane, i, half::from_f16(bits >> (16 * i) & 0xffff))),
            Element::Tf32 => f(lane, 0, from_tf32(bits)),
        }
    }
}

/// Tensor cores do not look at the low 13 bits.
pub fn from_tf32(bits: u32) -> f32 {
    f32::from_bits(bits & !0x1fff)
}

/// Row and column of A that a lane's register holds: rows by lane/4, 8 more for odd registers; columns by lane%4, the
/// upper half of k for registers 2 and 3.
pub fn fragment_a(element: Element, lane: usize, register: usize, i: usize) -> (usize, usize) {
    let row = lane / 4 + 8 * (register % 2);
    match element {
        Element::Bf16 | Element::F16 => (row, lane % 4 * 2 + i + 8 * (register / 2)),
        Element::Tf32 => (row, lane % 4 + 4 * (register / 2)),
    }
}

fn fragment_b(element: Element, lane: usize, register: usize, i: usize) -> (usize, usize) {
    match element {
        Element::Bf16 | Element::F16 => (lane % 4 * 2 + i + 8 * register, lane / 4),
        Element::Tf32 => (lane % 4 + 4 * register, lane / 4),
    }
}
