//! Rotary position embedding (Su et al., "RoFormer") on halves, as transformers' `rotate_half`.
use crate::emit::{Elem, Emitter, Value};
use crate::{Kernel, Machine, Work};

/// Rotates `rotary_dim` entries of every head, from entry `first` on; the others are copied.
///
/// With `c`, `s` the table rows of the token's position, `x` and `y` counted from `first`, and `j < rotary_dim / 2`:
/// `y[j] = x[j]·c[j] - x[j + half]·s[j]`, `y[j + half] = x[j + half]·c[j] + x[j]·s[j]`; `inverse` negates `s`, which is the
/// gradient. Positions are clamped to the table.
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
    pub inverse: bool,
    /// Storage of `x` and `y`.
    pub elem: Elem,
}

impl Rope {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let (half, elem) = (self.rotary_dim / 2, self.elem);
        let mut e = machine.emitter();
        let [x, positions, cos, sin, y] = [0, 1, 2, 3, 4].map(|i| e.arg(i));
        e.tasks(|e, token| {
            let position = e.load_int_at(&positions, token);
            let position = self.clamped(e, &position);
            let [cos, sin] = [&cos, &sin].map(|table| e.row(table, &position, half, Elem::F32));
            let [x, y] = [&x, &y].map(|p| e.row(p, token, self.heads * self.head_dim, elem));
            let (zero, heads) = (e.index(0), e.index(self.heads as i64));
            e.repeat(&zero, &heads, 1, |e, head| {
                let [x, y] = [&x, &y].map(|p| e.row(p, head, self.head_dim, elem));
                if self.first > 0 {
                    e.copy_row(&x, &y, elem, self.first, 2 * machine.lanes());
                }
                let [x, y] = [x, y].map(|p| if self.first > 0 { e.at(&p, self.first as i64, elem) } else { p });
                let count = e.index(half as i64);
                e.each(&count, 2 * machine.lanes(), |e, j, lanes| self.rotate(e, [&x, &y, &cos, &sin], j, lanes));
                let [x, y] = [&x, &y].map(|p| e.at(p, self.rotary_dim as i64, elem));
                let rest = self.head_dim - self.rotary_dim - self.first;
                e.copy_row(&x, &y, elem, rest, 2 * machine.lanes());
            });
        });
        let direction = if self.inverse { "_inverse" } else { "" };
        let name = format!("rope{direction}_{}x{}x{}_{}", self.tokens, self.heads, self.head_dim, elem.name());
        let elements = self.tokens * self.heads * self.head_dim;
        let work = Work::new("rope", 3 * elements).moving(2 * elements, self.elem);
        e.finish(&name, self.tokens, 0, work)
    }

    fn rotate(&self, e: &mut Emitter, [x, y, cos, sin]: [&Value; 4], j: &str, lanes: usize) {
        let half = self.rotary_dim as i64 / 2;
        let [x2, y2] = [x, y].map(|p| e.at(p, half, self.elem));
        let [c, s] = [cos, sin].map(|table| e.load_at(table, j, Elem::F32, lanes));
        let (a, b) = (e.load_at(x, j, self.elem, lanes), e.load_at(&x2, j, self.elem, lanes));
        let minus = e.float1("negf", &s, lanes);
        let (s, minus) = if self.inverse { (minus, s) } else { (s, minus) };
        let first = e.float2("mulf", &a, &c, lanes);
        let first = e.fma(&b, &minus, &first, lanes);
        let second = e.float2("mulf", &b, &c, lanes);
        let second = e.fma(&a, &s, &second, lanes);
        e.store_at(&first, y, j, self.elem, lanes);
        e.store_at(&second, &y2, j, self.elem, lanes);
    }

    fn clamped(&self, e: &mut Emitter, position: &str) -> Value {
        let (zero, last) = (e.index(0), e.index(self.positions as i64 - 1));
        let position = e.int2("maxsi", position, &zero);
        e.int2("minsi", &position, &last)
    }
}
