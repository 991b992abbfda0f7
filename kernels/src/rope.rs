//! Rotary position embedding (Su et al., "RoFormer") on halves, as transformers' `rotate_half`, or on neighbours.
use crate::emit::{Elem, Emitter, Value, float_type};
use crate::{Kernel, Machine, Work};

/// Rotates `rotary_dim` entries of every head, from entry `first` on; the others are copied.
///
/// With `c`, `s` the table rows of the token's position, `x` and `y` counted from `first`, and `j < rotary_dim / 2`:
/// `y[j] = x[j]·c[j] - x[j + half]·s[j]`, `y[j + half] = x[j + half]·c[j] + x[j]·s[j]`; `inverse` negates `s`, which is the
/// gradient. With `neighbours`, `x[2j]` and `x[2j + 1]` take the place of `x[j]` and `x[j + half]`. Positions are clamped to the
/// table.
///
/// Operands: `x [tokens, heads * head_dim]`, `positions` i32 `[tokens]`, `cos` f32 `[positions, rotary_dim / 2]`, `sin`
/// likewise, `y` like `x`; `y` may be `x`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rope {
    pub tokens: usize,
    pub heads: usize,
    pub head_dim: usize,
    pub first: usize,
    /// Even; `first` and it are at most `head_dim`.
    pub rotary_dim: usize,
    /// Rows of the tables.
    pub positions: usize,
    /// Whether pairs are of neighbours rather than of elements half of `rotary_dim` apart.
    pub neighbours: bool,
    pub inverse: bool,
    /// Storage of `x` and `y`.
    pub elem: Elem,
}

impl Rope {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let (half, elem) = (self.rotary_dim / 2, self.elem);
        let mut e = self.emitter(machine);
        let [x, positions, cos, sin, y] = [0, 1, 2, 3, 4].map(|i| e.arg(i));
        e.tasks(|e, token| {
            let position = e.load_int_at(&positions, token);
            let position = self.clamped(e, &position);
            let [cos, sin] = [&cos, &sin].map(|table| e.row(table, &position, half, Elem::F32));
            let [x, y] = [&x, &y].map(|p| e.row(p, token, self.heads * self.head_dim, elem));
            if e.threads().is_some() {
                return self.all_heads(e, [&x, &y, &cos, &sin]);
            }
            let (zero, heads) = (e.index(0), e.index(self.heads as i64));
            e.repeat(&zero, &heads, 1, |e, head| {
                let [x, y] = [&x, &y].map(|p| e.row(p, head, self.head_dim, elem));
                if self.first > 0 {
                    e.copy_row(&x, &y, elem, self.first, 2 * machine.lanes());
                }
                let [x, y] = [x, y].map(|p| if self.first > 0 { e.at(&p, self.first as i64, elem) } else { p });
                if self.neighbours {
                    self.rotate_neighbours(e, machine, [&x, &y, &cos, &sin]);
                } else {
                    let count = e.index(half as i64);
                    e.each(&count, 2 * machine.lanes(), |e, j, lanes| self.rotate(e, [&x, &y, &cos, &sin], j, lanes));
                }
                let [x, y] = [&x, &y].map(|p| e.at(p, self.rotary_dim as i64, elem));
                let rest = self.head_dim - self.rotary_dim - self.first;
                e.copy_row(&x, &y, elem, rest, 2 * machine.lanes());
            });
        });
        let direction = if self.inverse { "_inverse" } else { "" };
        let direction = format!("{}{direction}", if self.neighbours { "_neighbours" } else { "" });
        let name = format!("rope{direction}_{}x{}x{}_{}", self.tokens, self.heads, self.head_dim, elem.name());
        let elements = self.tokens * self.heads * self.head_dim;
        let work = Work::new("rope", 3 * elements).moving(2 * elements, self.elem);
        e.finish(&name, self.tokens, 0, work)
    }

    /// A GPU's: its threads take as many pairs side by side as begin at multiples of 16 bytes.
    fn emitter(&self, machine: &dyn Machine) -> Emitter {
        let all = (self.rotary_dim / 2) | self.first | self.head_dim;
        match self.neighbours {
            false => machine.rows(self.heads * self.rotary_dim / 2, all, self.elem),
            true if all % 2 == 1 => machine.rows(self.heads * self.rotary_dim / 2, 1, Elem::F32),
            true => machine.rows(self.heads * self.rotary_dim / 2, all / 2, Elem::F32),
        }
    }

    /// Of a token, on a GPU: the pairs of all heads are dealt out as those of one.
    fn all_heads(&self, e: &mut Emitter, [x, y, cos, sin]: [&Value; 4]) {
        let (half, first, rest) = (self.rotary_dim / 2, self.first, self.head_dim - self.rotary_dim - self.first);
        let behind = (first + self.rotary_dim) as i64;
        for (place, size) in [(0, first), (behind, rest)] {
            let [x, y] = [x, y].map(|p| e.at(p, place, self.elem));
            e.copy_rows([(&x, self.head_dim), (&y, self.head_dim)], (self.heads, size), self.elem, 1);
        }
        let count = e.index((self.heads * half) as i64);
        let place = |e: &mut Emitter, p: &Value, i: &str| {
            let (head, j) = e.row_and_column(i, half);
            let head = e.row(p, &head, self.head_dim, self.elem);
            (e.at(&head, first as i64, self.elem), j)
        };
        let read = |e: &mut Emitter, i: &str, lanes: usize| {
            let (x, j) = place(e, x, i);
            let [c, s] = [cos, sin].map(|table| e.load_at(table, &j, Elem::F32, lanes));
            let (a, b) = self.load_pairs(e, &x, &j, lanes);
            let (a, b) = self.turned(e, [&a, &b, &c, &s], lanes);
            vec![a, b]
        };
        e.each_ahead(&count, 1, read, |e, pair, i, lanes| {
            let (y, j) = place(e, y, i);
            self.store_pairs(e, [&pair[0], &pair[1]], &y, &j, lanes);
        });
    }

    /// Rotates pairs from number `j` on.
    fn rotate(&self, e: &mut Emitter, [x, y, cos, sin]: [&Value; 4], j: &str, lanes: usize) {
        let [c, s] = [cos, sin].map(|table| e.load_at(table, j, Elem::F32, lanes));
        let (a, b) = self.load_pairs(e, x, j, lanes);
        let (a, b) = self.turned(e, [&a, &b, &c, &s], lanes);
        self.store_pairs(e, [&a, &b], y, j, lanes);
    }

    /// The first elements of pairs from number `j` on, and the second ones.
    fn load_pairs(&self, e: &mut Emitter, x: &str, j: &str, lanes: usize) -> (Value, Value) {
        if !self.neighbours {
            let x2 = e.at(x, self.rotary_dim as i64 / 2, self.elem);
            return (e.load_at(x, j, self.elem, lanes), e.load_at(&x2, j, self.elem, lanes));
        }
        let first = e.times(j, 2);
        let x = e.offset(x, &first, self.elem);
        if lanes == 1 {
            let x2 = e.at(&x, 1, self.elem);
            return (e.load(&x, self.elem, 1), e.load(&x2, self.elem, 1));
        }
        let both = e.load(&x, self.elem, 2 * lanes);
        let wide = float_type(2 * lanes);
        let every_second = |e: &mut Emitter, from: usize| {
            let words: Vec<usize> = (0..lanes).map(|i| 2 * i + from).collect();
            e.op(format!("vector.shuffle {both}, {both} {words:?} : {wide}, {wide}"))
        };
        (every_second(e, 0), every_second(e, 1))
    }

    fn store_pairs(&self, e: &mut Emitter, [a, b]: [&Value; 2], y: &str, j: &str, lanes: usize) {
        if !self.neighbours {
            let y2 = e.at(y, self.rotary_dim as i64 / 2, self.elem);
            e.store_at(a, y, j, self.elem, lanes);
            return e.store_at(b, &y2, j, self.elem, lanes);
        }
        let first = e.times(j, 2);
        let y = e.offset(y, &first, self.elem);
        if lanes == 1 {
            let y2 = e.at(&y, 1, self.elem);
            e.store(a, &y, self.elem, 1);
            return e.store(b, &y2, self.elem, 1);
        }
        let (narrow, wide) = (float_type(lanes), float_type(2 * lanes));
        let both = e.op(format!("vector.interleave {a}, {b} : {narrow} -> {wide}"));
        e.store(&both, &y, self.elem, 2 * lanes);
    }

    /// `a` and `b` turned by the angle of cosine `c` and sine `s`.
    fn turned(&self, e: &mut Emitter, [a, b, c, s]: [&Value; 4], lanes: usize) -> (Value, Value) {
        let minus = e.float1("negf", s, lanes);
        let (s, minus) = if self.inverse { (minus, s.clone()) } else { (s.clone(), minus) };
        let first = e.float2("mulf", a, c, lanes);
        let first = e.fma(b, &minus, &first, lanes);
        let second = e.float2("mulf", b, c, lanes);
        (first, e.fma(a, &s, &second, lanes))
    }

    /// Rotates all pairs of a head on a CPU: a vector of pairs at a time, then those that are left one by one. Masks are for as many
    /// elements as a loop has turns, so they cannot tell which of twice as many are left.
    fn rotate_neighbours(&self, e: &mut Emitter, machine: &dyn Machine, operands: [&Value; 4]) {
        let (half, lanes) = (self.rotary_dim / 2, machine.lanes());
        let count = e.index(half as i64);
        let (zero, whole) = (e.index(0), e.index((half / lanes * lanes) as i64));
        e.repeat(&zero, &whole, lanes as i64, |e, j| self.rotate(e, operands, j, lanes));
        e.repeat(&whole, &count, 1, |e, j| self.rotate(e, operands, j, 1));
    }

    fn clamped(&self, e: &mut Emitter, position: &str) -> Value {
        let (zero, last) = (e.index(0), e.index(self.positions as i64 - 1));
        let position = e.int2("maxsi", position, &zero);
        e.int2("minsi", &position, &last)
    }
}
