//! The order of the data: a pure function of (seed, epoch).
//!
//! The order is that of torch's `DistributedSampler(drop_last=True)` behind a `DataLoader`, bit for
//! bit, so that a run here and a run of the Python stack with the same seed see the same rows in the same microbatches.
//! A resumed run recomputes the order and skips what it has seen; nothing about the order is stored.
use serde::{Deserialize, Serialize};

/// Which rows a rank trains on, in which order and in which groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sampler {
    /// Rows of the dataset.
    pub rows: u32,
    /// A new permutation every epoch; otherwise the order of the dataset.
    pub shuffle: bool,
    pub seed: u64,
    /// Data-parallel size, at least 1.
    pub replicas: u32,
    /// This rank, below `replicas`.
    pub rank: u32,
    /// Rows of a microbatch, at least 1.
    pub local_batch_size: u32,
    /// Microbatches of an optimizer step, at least 1.
    pub accumulation: u32,
    /// Whether rows that are left over at the end of an epoch, too few for a microbatch, are not trained on.
    #[serde(default)]
    pub drop_last: bool,
}

impl Sampler {
    /// Rows that a rank sees in an epoch: the dataset cut to a multiple of the ranks, and of the microbatch with `drop_last`.
    pub fn rows_per_rank(&self) -> u32 {
        let (rows, batch) = (self.rows / self.replicas.max(1), self.local_batch_size.max(1));
        if self.drop_last { rows / batch * batch } else { rows }
    }

    /// Microbatches of an epoch; the last one may hold fewer rows than the others.
    pub fn microbatches_per_epoch(&self) -> u32 {
        self.rows_per_rank().div_ceil(self.local_batch_size.max(1))
    }

    /// Optimizer steps of an epoch; the last one may hold fewer microbatches than the others, and is trained on.
    pub fn steps_per_epoch(&self) -> u32 {
        self.microbatches_per_epoch().div_ceil(self.accumulation.max(1))
    }

    /// The rows of this rank in epoch `epoch`, counted from 0.
    pub fn epoch(&self, epoch: u64) -> Epoch {
        let all =
            if self.shuffle { randperm(self.rows, self.seed.wrapping_add(epoch)) } else { (0..self.rows).collect() };
        let replicas = self.replicas.max(1) as usize;
        let kept = self.rows_per_rank() as usize;
        let order = all.into_iter().skip(self.rank as usize).step_by(replicas).take(kept).collect();
        Epoch { order, batch: self.local_batch_size.max(1) as usize, accumulation: self.accumulation.max(1) as usize }
    }
}

/// The order of one epoch on one rank.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Epoch {
    order: Vec<u32>,
    batch: usize,
    accumulation: usize,
}

impl Epoch {
    /// Every row of the epoch, in order.
    pub fn rows(&self) -> &[u32] {
        &self.order
    }

    /// The microbatches in order, each 1 to `local_batch_size` rows.
    pub fn microbatches(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.order.chunks(self.batch)
    }

    /// The optimizer steps in order, each the rows of its microbatches, 1 to `accumulation` of them.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = impl ExactSizeIterator<Item = &[u32]>> {
        self.order.chunks(self.batch * self.accumulation).map(|step| step.chunks(self.batch))
    }

    /// The microbatches of optimizer step `step` of the epoch; none beyond its end.
    pub fn step(&self, step: usize) -> impl ExactSizeIterator<Item = &[u32]> {
        let size = self.batch * self.accumulation;
        let begin = step.saturating_mul(size).min(self.order.len());
        let end = begin.saturating_add(size).min(self.order.len());
        self.order[begin..end].chunks(self.batch)
    }
}

/// The permutation of `0..n` that `torch.randperm(n, generator=g)` gives on the CPU after `g.manual_seed(seed)`.
///
/// Source: ATen `randperm_cpu` over mt19937. Below `(2^32 - 1) / 20` elements it is the Fisher-Yates walk from the
/// front with 32-bit draws; from there on the inside-out form with 64-bit draws, the first draw in the high word.
pub fn randperm(n: u32, seed: u64) -> Vec<u32> {
    let mut generator = Mt19937::new(seed);
    let mut order: Vec<u32> = (0..n).collect();
    if n < u32::MAX / 20 {
        for i in 0..n.saturating_sub(1) {
            let draw = generator.next_u32() % (n - i);
            order.swap(i as usize, (i + draw) as usize);
        }
    } else {
        for i in 0..n {
            let draw = generator.next_u64() % (u64::from(i) + 1);
            order.swap(i as usize, draw as usize);
        }
    }
    order
}

/// The Mersenne Twister of Matsumoto and Nishimura (1998), as torch seeds it: by the low 32 bits of the seed.
struct Mt19937 {
    state: [u32; Self::N],
    next: usize,
}

impl Mt19937 {
    const N: usize = 624;
    const M: usize = 397;

    fn new(seed: u64) -> Self {
        let mut state = [0u32; Self::N];
        state[0] = seed as u32;
        for j in 1..Self::N {
            let before = state[j - 1];
            state[j] = 1_812_433_253u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(j as u32);
        }
        Mt19937 { state, next: Self::N }
    }

    fn refill(&mut self) {
        for k in 0..Self::N {
            let mixed = (self.state[k] & 0x8000_0000) | (self.state[(k + 1) % Self::N] & 0x7fff_ffff);
            let twist = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[k] = self.state[(k + Self::M) % Self::N] ^ (mixed >> 1) ^ twist;
        }
        self.next = 0;
    }

    fn next_u32(&mut self) -> u32 {
        if self.next == Self::N {
            self.refill();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn next_u64(&mut self) -> u64 {
        let high = u64::from(self.next_u32());
        (high << 32) | u64::from(self.next_u32())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (n, seed, first eight of `torch.randperm`, sum of i * perm[i] mod 2^32), from torch 2.15.
    const TORCH: &[(u32, u64, [u32; 8], u32)] = &[
        (8, 0, [4, 0, 7, 3, 2, 5, 1, 6], 104),
        (8, 42, [6, 3, 0, 7, 2, 1, 4, 5], 96),
        (8, 1111, [4, 7, 1, 3, 0, 2, 6, 5], 99),
        (8, 4294967303, [7, 0, 3, 4, 1, 5, 2, 6], 101),
        (9, 0, [8, 0, 2, 3, 7, 1, 4, 5], 153),
        (9, 42, [6, 4, 0, 7, 5, 8, 3, 2], 125),
        (9, 1111, [5, 8, 7, 6, 4, 2, 1, 0], 96),
        (9, 4294967303, [0, 5, 8, 1, 7, 2, 3, 6], 154),
        (31, 0, [18, 10, 19, 2, 29, 22, 8, 14], 6911),
        (31, 42, [19, 18, 23, 29, 13, 16, 26, 27], 6024),
        (31, 1111, [3, 20, 21, 28, 8, 11, 14, 15], 6865),
        (31, 4294967303, [5, 23, 16, 25, 17, 10, 18, 30], 6559),
        (100, 0, [44, 19, 93, 90, 71, 69, 37, 95], 232386),
        (100, 42, [42, 96, 62, 98, 46, 95, 60, 24], 232919),
        (100, 1111, [0, 32, 35, 28, 80, 16, 84, 27], 253765),
        (100, 4294967303, [15, 59, 71, 57, 2, 27, 87, 54], 241078),
        (623, 0, [592, 428, 535, 203, 315, 518, 347, 150], 58613690),
        (623, 42, [456, 424, 117, 17, 172, 10, 79, 579], 60666559),
        (623, 1111, [9, 574, 106, 168, 48, 247, 149, 15], 59576906),
        (623, 4294967303, [5, 159, 180, 349, 474, 50, 401, 134], 60258973),
        (624, 0, [380, 515, 279, 243, 527, 189, 55, 590], 59652851),
        (624, 42, [486, 66, 560, 484, 230, 51, 580, 180], 61125979),
        (624, 1111, [236, 469, 477, 369, 44, 454, 50, 5], 60452117),
        (624, 4294967303, [591, 322, 81, 230, 267, 88, 407, 570], 61576847),
        (625, 0, [419, 16, 352, 459, 569, 524, 276, 404], 62469945),
        (625, 42, [42, 516, 342, 69, 526, 240, 332, 291], 60910498),
        (625, 1111, [75, 536, 238, 50, 278, 391, 136, 183], 61170866),
        (625, 4294967303, [365, 533, 505, 385, 557, 392, 617, 180], 61330566),
        (1000, 0, [44, 37, 675, 775, 947, 209, 719, 500], 251667852),
        (1000, 42, [542, 618, 816, 68, 94, 215, 60, 585], 250882558),
        (1000, 1111, [700, 248, 291, 997, 872, 391, 536, 873], 247208433),
        (1000, 4294967303, [615, 284, 599, 580, 347, 92, 383, 891], 251046965),
        (7473, 0, [2384, 7328, 5814, 6363, 3939, 2760, 562, 5042], 1143639678),
        (7473, 42, [7035, 3620, 4357, 457, 1205, 6524, 1978, 831], 1863096626),
        (7473, 1111, [905, 5464, 6977, 3888, 1232, 3935, 1586, 4001], 1508970813),
        (7473, 4294967303, [5727, 2821, 5750, 7169, 3449, 5764, 1649, 3142], 908495858),
        (65537, 0, [32302, 43568, 23950, 32009, 33335, 49556, 12361, 37610], 2506790949),
        (65537, 42, [31877, 15796, 63168, 62203, 9888, 62140, 44310, 49391], 1977227379),
        (65537, 1111, [53543, 49464, 63412, 12320, 30063, 12559, 63526, 14435], 1923125742),
        (65537, 4294967303, [56615, 58565, 35268, 52553, 59131, 47768, 41397, 62016], 2541052987),
        (87599, 0, [22152, 37174, 38533, 57343, 66337, 31586, 33252, 84054], 983201818),
        (87599, 42, [57105, 73776, 40320, 7993, 17885, 28720, 13704, 72051], 1191092541),
        (87599, 1111, [66984, 3248, 73906, 42648, 11254, 29833, 60075, 50159], 1174002926),
        (87599, 4294967303, [33756, 46585, 16443, 61445, 11167, 76736, 72804, 4598], 2416644359),
    ];

    /// The last `n` with 32-bit draws and the first with 64-bit draws.
    const TORCH_LARGE: &[(u32, u64, [u32; 8], u32)] = &[
        (
            214_748_363,
            42,
            [105399001, 199900638, 3068019, 143601337, 137413004, 127521970, 208986699, 201220015],
            3902818698,
        ),
        (
            214_748_364,
            42,
            [85514504, 93417259, 199404010, 60269803, 87481865, 115296688, 108395808, 23093201],
            110012839,
        ),
    ];

    fn check(cases: &[(u32, u64, [u32; 8], u32)]) {
        for (n, seed, first, checksum) in cases {
            let order = randperm(*n, *seed);
            assert_eq!(&order[..8], first, "n {n} seed {seed}");
            let sum = order.iter().enumerate().fold(0u32, |sum, (i, x)| sum.wrapping_add((i as u32).wrapping_mul(*x)));
            assert_eq!(sum, *checksum, "n {n} seed {seed}");
        }
    }

    #[test]
    #[ignore = "needs a gigabyte and half a minute"]
    fn randperm_is_torchs_at_the_threshold() {
        check(TORCH_LARGE);
    }

    #[test]
    fn randperm_is_torchs() {
        check(TORCH);
        assert!(randperm(0, 1).is_empty());
        assert_eq!(randperm(1, 1), [0]);
    }

    fn sampler(rows: u32, replicas: u32, rank: u32, batch: u32, accumulation: u32) -> Sampler {
        Sampler {
            rows,
            shuffle: false,
            seed: 42,
            replicas,
            rank,
            local_batch_size: batch,
            accumulation,
            drop_last: false,
        }
    }

    #[test]
    fn ranks_take_turns_and_the_rest_is_dropped() {
        let order = |rank| sampler(11, 3, rank, 2, 1).epoch(0).rows().to_vec();
        assert_eq!([order(0), order(1), order(2)], [[0, 3, 6], [1, 4, 7], [2, 5, 8]]);
    }

    #[test]
    fn partial_groups_are_kept() {
        let sampler = sampler(11, 1, 0, 2, 2);
        assert_eq!((sampler.microbatches_per_epoch(), sampler.steps_per_epoch()), (6, 3));
        let epoch = sampler.epoch(0);
        let steps: Vec<Vec<&[u32]>> = epoch.steps().map(Iterator::collect).collect();
        assert_eq!(steps[2], [&[8, 9][..], &[10][..]]);
        for (index, step) in steps.iter().enumerate() {
            assert_eq!(*step, epoch.step(index).collect::<Vec<_>>());
        }
        assert_eq!(epoch.step(3).len(), 0);
    }

    #[test]
    fn rows_left_over_can_be_dropped() {
        let sampler = Sampler { drop_last: true, ..sampler(11, 1, 0, 2, 2) };
        assert_eq!((sampler.microbatches_per_epoch(), sampler.steps_per_epoch()), (5, 3));
        assert_eq!(sampler.epoch(0).rows(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn epochs_differ_and_repeat() {
        let sampler = Sampler { shuffle: true, ..sampler(100, 1, 0, 4, 2) };
        assert_eq!(sampler.epoch(3), sampler.epoch(3));
        assert_ne!(sampler.epoch(3), sampler.epoch(4));
        assert_eq!(sampler.epoch(5).rows(), randperm(100, 47));
    }
}
