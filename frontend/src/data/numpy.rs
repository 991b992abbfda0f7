//! `numpy.random.default_rng(seed).permutation(n)`, which is how `datasets.Dataset.shuffle(seed)` orders rows.

/// The permutation of `0..n` for a seed.
///
/// Source: numpy's `SeedSequence` (seed to state), PCG64 XSL-RR (O'Neill 2014), `random_interval` and
/// `Generator._shuffle_int`.
pub fn permutation(n: usize, seed: u64) -> Vec<usize> {
    let mut generator = Pcg64::new(seed);
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, generator.below_or_equal(i as u64) as usize);
    }
    order
}

struct Pcg64 {
    state: u128,
    increment: u128,
    /// The upper half of a draw of which the lower half was used.
    half: Option<u32>,
}

const MULTIPLIER: u128 = 0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645;

impl Pcg64 {
    fn new(seed: u64) -> Self {
        let words = seed_sequence(seed);
        let wide = |i: usize| (u128::from(words[i]) << 64) | u128::from(words[i + 1]);
        let mut generator = Pcg64 { state: 0, increment: (wide(2) << 1) | 1, half: None };
        generator.step();
        generator.state = generator.state.wrapping_add(wide(0));
        generator.step();
        generator
    }

    fn step(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }

    fn next_u64(&mut self) -> u64 {
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    fn next_u32(&mut self) -> u32 {
        if let Some(half) = self.half.take() {
            return half;
        }
        let word = self.next_u64();
        self.half = Some((word >> 32) as u32);
        word as u32
    }

    /// A number in `0..=most`: draws, cut to as many bits as `most` has, until one is not above it.
    fn below_or_equal(&mut self, most: u64) -> u64 {
        let mask = u64::MAX.checked_shr(most.leading_zeros()).unwrap_or(0);
        loop {
            let draw = if most <= u64::from(u32::MAX) { u64::from(self.next_u32()) } else { self.next_u64() };
            if draw & mask <= most {
                return draw & mask;
            }
        }
    }
}

/// Four 64-bit words from a seed: numpy's `SeedSequence(seed).generate_state(4, uint64)`.
fn seed_sequence(seed: u64) -> [u64; 4] {
    const POOL: usize = 4;
    let mut constant = 0x43b0_d7e5u32;
    let mut hashed = |value: u32| {
        let value = value ^ constant;
        constant = constant.wrapping_mul(0x931e_8875);
        let value = value.wrapping_mul(constant);
        value ^ (value >> 16)
    };
    let entropy = [seed as u32, (seed >> 32) as u32, 0, 0];
    let mut pool = entropy.map(&mut hashed);
    for from in 0..POOL {
        for to in 0..POOL {
            if from != to {
                let mixed =
                    pool[to].wrapping_mul(0xca01_f9dd).wrapping_sub(hashed(pool[from]).wrapping_mul(0x4973_f715));
                pool[to] = mixed ^ (mixed >> 16);
            }
        }
    }
    let mut constant = 0x8b51_f9ddu32;
    let mut words = [0u32; 8];
    for (i, word) in words.iter_mut().enumerate() {
        let value = pool[i % POOL] ^ constant;
        constant = constant.wrapping_mul(0x58f3_8ded);
        let value = value.wrapping_mul(constant);
        *word = value ^ (value >> 16);
    }
    std::array::from_fn(|i| u64::from(words[2 * i]) | (u64::from(words[2 * i + 1]) << 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (n, seed, first eight, sum of i * perm[i] mod 2^32), from numpy 2.4.
    const NUMPY: &[(usize, u64, [usize; 8], u32)] = &[
        (8, 0, [2, 4, 3, 6, 5, 0, 1, 7], 103),
        (8, 42, [3, 4, 2, 7, 6, 1, 5, 0], 88),
        (8, 1111, [0, 5, 1, 4, 2, 7, 6, 3], 119),
        (8, 4294967303, [6, 3, 1, 0, 2, 4, 7, 5], 110),
        (9, 0, [4, 5, 2, 6, 3, 8, 7, 0], 129),
        (9, 42, [3, 0, 7, 2, 4, 6, 1, 5], 171),
        (9, 1111, [4, 0, 7, 5, 1, 2, 8, 3], 160),
        (9, 4294967303, [6, 0, 1, 3, 7, 2, 8, 4], 165),
        (64, 0, [16, 36, 27, 8, 44, 23, 53, 4], 67097),
        (64, 42, [29, 42, 18, 24, 7, 17, 27, 54], 60131),
        (64, 1111, [12, 17, 10, 30, 1, 63, 0, 51], 65154),
        (64, 4294967303, [32, 26, 50, 15, 30, 3, 41, 17], 67293),
        (1000, 0, [459, 206, 222, 162, 711, 814, 350, 890], 250431167),
        (1000, 42, [978, 933, 859, 916, 127, 608, 856, 260], 248321539),
        (1000, 1111, [11, 415, 989, 728, 885, 832, 688, 594], 246716998),
        (1000, 4294967303, [513, 857, 583, 397, 337, 612, 939, 226], 252154250),
        (7473, 0, [5441, 2360, 5646, 1485, 1469, 824, 5624, 3950], 1301895693),
        (7473, 42, [3082, 2184, 5897, 2437, 6330, 819, 3812, 5878], 1171918700),
        (7473, 1111, [1283, 3659, 5028, 2346, 4677, 5446, 4008, 812], 913706475),
        (7473, 4294967303, [549, 1112, 6268, 7010, 3574, 210, 5055, 3399], 1326736373),
        (87599, 0, [23521, 31836, 17774, 66661, 44353, 47453, 21401, 76596], 3558055470),
        (87599, 42, [83168, 49357, 60182, 66356, 62643, 46228, 85725, 22037], 1094664419),
        (87599, 1111, [2043, 71171, 48905, 49230, 70527, 27898, 72262, 9986], 2646824439),
        (87599, 4294967303, [1210, 44022, 30163, 24336, 30165, 50668, 5839, 39309], 2012170596),
    ];

    #[test]
    fn permutations_are_numpys() {
        for (n, seed, first, checksum) in NUMPY {
            let order = permutation(*n, *seed);
            assert_eq!(&order[..8], first, "n {n} seed {seed}");
            let sum = order.iter().enumerate().fold(0u32, |sum, (i, x)| sum.wrapping_add((i * x) as u32));
            assert_eq!(sum, *checksum, "n {n} seed {seed}");
        }
        assert_eq!(permutation(1, 0), [0]);
    }
}
