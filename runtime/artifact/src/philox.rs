//! Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//!
//! A number depends on what it is for (seed, name, index), never on what was drawn before it.
use std::ops::Range;

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Ten rounds of Philox.
pub fn philox(counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let mut block = counter;
    for _ in 0..10 {
        let [a, b] = [u64::from(MULTIPLIERS[0]) * u64::from(block[0]), u64::from(MULTIPLIERS[1]) * u64::from(block[2])];
        block = [(b >> 32) as u32 ^ block[1] ^ key[0], b as u32, (a >> 32) as u32 ^ block[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    block
}

/// The stream of numbers for a named thing under a seed.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    key: [u32; 2],
    /// First 64 bits of the name's blake3.
    name: [u32; 2],
}

impl Stream {
    pub fn new(seed: u64, name: &str) -> Stream {
        let hash = blake3::hash(name.as_bytes());
        let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
        Stream { key: words(seed), name: [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])] }
    }

    /// Block `index` of the stream: four independent words.
    pub fn block(&self, index: u64) -> [u32; 4] {
        let [low, high] = words(index);
        philox([low, high, self.name[0], self.name[1]], self.key)
    }

    /// Element `index` of a stream of uniform numbers in (0, 1).
    pub fn uniform(&self, index: u64) -> f64 {
        self.pair(index / 2)[(index % 2) as usize]
    }

    /// Elements of a stream of standard normal numbers (Box-Muller).
    pub fn normals(&self, range: Range<u64>) -> impl Iterator<Item = f64> {
        let pairs = (range.start / 2..range.end.div_ceil(2)).flat_map(|index| {
            let [a, b] = self.pair(index);
            let radius = (-2.0 * a.ln()).sqrt();
            let (sine, cosine) = (std::f64::consts::TAU * b).sin_cos();
            [radius * cosine, radius * sine]
        });
        pairs.skip((range.start % 2) as usize).take((range.end - range.start) as usize)
    }

    /// Two numbers in (0, 1) with 52 bits, from one block.
    fn pair(&self, index: u64) -> [f64; 2] {
        let [a, b, c, d] = self.block(index);
        let unit = |high: u32, low: u32| {
            let bits = (u64::from(high) << 20) | u64::from(low >> 12);
            (bits as f64 + 0.5) / (1u64 << 52) as f64
        };
        [unit(a, b), unit(c, d)]
    }
}

/// Low and high word.
pub fn words(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that Random123 ships (`kat_vectors`, philox 4x32 10).
    #[test]
    fn known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(philox(pi, [0xa409_3822, 0x299f_31d0]), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn moments_are_those_of_the_distribution() {
        let (stream, count) = (Stream::new(7, "x"), 100_000);
        let mean = |f: &dyn Fn(u64) -> f64| (0..count).map(f).sum::<f64>() / count as f64;
        let normal = |i: u64| stream.normals(i..i + 1).next().expect("one number");
        assert!(stream.normals(3..8).eq((3..8).map(normal)));
        assert!((mean(&|i| stream.uniform(i)) - 0.5).abs() < 0.005);
        assert!(mean(&|i| normal(i)).abs() < 0.01);
        assert!((mean(&|i| normal(i).powi(2)) - 1.0).abs() < 0.02);
        assert!((mean(&|i| normal(i).powi(4)) - 3.0).abs() < 0.15);
        assert!(mean(&|i| normal(i) * normal(i + 1)).abs() < 0.01);
    }

    #[test]
    fn names_and_seeds_give_other_numbers() {
        let first = |seed, name| Stream::new(seed, name).block(0);
        assert_eq!(first(1, "a"), first(1, "a"));
        assert_ne!(first(1, "a"), first(2, "a"));
        assert_ne!(first(1, "a"), first(1, "b"));
        assert_ne!(first(1, "a"), first(1 << 32 | 1, "a"));
    }
}
