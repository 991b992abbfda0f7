//! Dropout whose mask is a pure function of (seed, site, element), so that forward and backward agree without storing it.
use super::{operands, want, want_float};
use crate::eval::Tensor;
use crate::graph::Function;
use crate::op::{Named, OpDef, Vjp};
use crate::{DType, Type, Value, op};

op! {
    /// `x / (1 - p)` where the element is kept, else 0. Element i is kept where word i mod 4 of
    /// Philox4x32-10(key = seed, counter = (i / 4, site, 0, 0)) is at least `p · 2³²`.
    "dropout" Dropout { p: f32, site: usize } (x, seed) -> "x"
}

impl OpDef for Dropout {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [x, seed] = operands(args, Self::OPERANDS)?;
        want_float("x", &x)?;
        want("seed", &seed, &Type::new(DType::Seed, [2]))?;
        if !(0.0..1.0).contains(&self.p) {
            return Err(format!("`p` is {}, wanted 0 ≤ p < 1", self.p));
        }
        Ok(vec![x])
    }

    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        let key = [args[1].data[0] as i64 as u32, args[1].data[1] as i64 as u32];
        let threshold = (self.p as f64 * 4_294_967_296.0) as u32;
        let mut y = args[0].clone();
        for (i, y) in y.data.iter_mut().enumerate() {
            let word = philox([(i / 4) as u32, self.site as u32, 0, 0], key)[i % 4];
            *y = if word >= threshold { *y / (1.0 - self.p as f64) } else { 0.0 };
        }
        Some(vec![y])
    }

    fn vjp(&self, g: &mut Function, at: &Vjp) -> Option<Vec<Option<Value>>> {
        debug_assert_eq!(g.ty(at.args[1]).dtype, DType::Seed);
        Some(vec![Some(g.op(self.clone(), &[at.dy(), at.args[1]])), None])
    }
}

op! {
    /// The seed of call `index` of a function that is called many times: `seed` with `index · 0x9E3779B9` added to its
    /// first word. Equal sites of different layers thus draw different masks.
    "derive_seed" DeriveSeed { index: usize } (seed) -> "seed"
}

impl OpDef for DeriveSeed {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [seed] = operands(args, Self::OPERANDS)?;
        want("seed", &seed, &Type::new(DType::Seed, [2]))?;
        Ok(vec![seed])
    }

    fn eval(&self, args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        let low = (args[0].data[0] as i64 as u32).wrapping_add((self.index as u32).wrapping_mul(0x9E37_79B9));
        Some(vec![Tensor::new([2], vec![low as i32 as f64, args[0].data[1]])])
    }
}

/// Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011).
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = 0xD251_1F53_u64 * counter[0] as u64;
        let b = 0xCD9E_8D57_u64 * counter[2] as u64;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    /// The known answers that the authors publish with Random123.
    #[test]
    fn philox_gives_the_published_words() {
        assert_eq!(super::philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(super::philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }
}
