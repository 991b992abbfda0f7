//! Tuning as data: a row for each kind of vector unit or GPU, with the figures that justify it.
use crate::emit::Elem;
use crate::gpu::Arch;
use crate::gpu::vendor::VendorProduct;

/// What the matrix product template chooses from on one kind of CPU.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GemmTuning {
    /// Register tiles, rows by vectors.
    pub tiles: &'static [(usize, usize)],
    /// Depth (elements of K, all terms together) up to which a tile is computed in one go.
    pub whole_depth: usize,
    /// Depth of a block where K is longer than that.
    pub block_depth: usize,
    /// Bytes of a packed block of A, which stays in cache while panels of B pass by.
    pub a_block_bytes: usize,
    /// Steps of K that one turn of the tile's loop takes.
    pub unroll: usize,
    /// Cycles to pack a word of B, in either layout and form.
    pub pack_b: f64,
    /// Cycles for a byte of an operand that comes from memory for every task, where two cores read.
    pub far_byte: f64,
}

/// Zen 3, one core, f32, GFLOP/s of 103.7 (`./x bench kernels --plan 4,3,0,0,0,0`), of 1024x192x576 · 1024x576x576 ·
/// 960x240x1536:
///
/// | tile | | |
/// |---|---|---|
/// | 4 x 3 | 99 · 97 · 97 | the registers exactly; divides 192, 576, 1536, 49152 |
/// | 6 x 2 | 98 · 94 · 94 | |
/// | 5 x 2 | 97 · 93 · 98 | |
/// | 3 x 3 | 97 · 93 · 96 | |
/// | 12 x 1 | 68 · 66 · 62 | for 8 columns or fewer |
///
/// Unrolling by 1, 4 or 8 and asking for lines of A, B or C ahead of the tile: no difference beyond noise. K of 2048 in
/// one go 92, in blocks of 1024 89, of 256 87; K of 9600, 256 rows, in blocks of 1536 or 1024 86, of 512 82. 256 x 576 x
/// 49152, both cores: 147 by blocks of 128 x 72, 152 of 128 x 144, 168 of 256 x 72, 171 of 256 x 144.
const AVX2: GemmTuning = GemmTuning {
    tiles: &[(4, 3), (6, 2), (12, 1)],
    whole_depth: 2048,
    block_depth: 1536,
    a_block_bytes: 1 << 20,
    unroll: 4,
    pack_b: 0.4,
    far_byte: 0.5,
};

/// Zen 5, one core, percent of the peak (266 GFLOP/s in f32, 530 in bf16; `./x bench kernels --plan …`).
///
/// Tiles, 1024 x 1536 x 576, f32: 8 x 3, 9 x 3, 6 x 4 and 12 x 2 within 2 % of each other, 5 x 5 4 % behind. Unrolling by 8
/// or 16, and asking for the next rows of A, made products with wide epilogues up to 10 % slower and none faster.
///
/// Depth of a block, f32 and bf16:
///
/// | | whole or 1536 | 768 | 384 | 256 | 192 |
/// |---|---|---|---|---|---|
/// | 1024 x 1536 x 576 | 92, 90 | | 89, 88 (288) | | 91, 87 |
/// | 1024 x 576 x 1536 | 88, 88 | 90, 88 | 90, 90 | 90, 90 | 89, 88 |
/// | 256 x 576 x 49152 | 82, 82 | 87, 87 | 91, 89 | 92, 89 | 91 |
const AVX512: GemmTuning = GemmTuning {
    tiles: &[(8, 3), (12, 2), (14, 1)],
    whole_depth: 768,
    block_depth: 384,
    a_block_bytes: 1 << 20,
    unroll: 4,
    pack_b: 0.8,
    far_byte: 0.2,
};

/// The row for vectors of `lanes` f32.
pub fn gemm(lanes: usize) -> &'static GemmTuning {
    if lanes >= 16 { &AVX512 } else { &AVX2 }
}

/// How a matrix product is cut on a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GpuGemmTuning {
    /// A block's part of the result, and the steps of K that it takes at a time.
    pub rows: usize,
    pub columns: usize,
    pub depth: usize,
    /// A warp's part of that; it divides the block's, rows by 16 and columns by 16.
    pub warp_rows: usize,
    pub warp_columns: usize,
    /// Tiles in flight between memory and the tensor cores, the one in use counted; 1 where they are not used.
    pub stages: usize,
}

/// The tensor cores, largest first. The first is that of the reference GEMM for sm_80 (128 x 128, four warps of 64 x 64, no
/// spills); the other serves small results. No figures yet: they wait for a GPU.
const GPU_BF16: [GpuGemmTuning; 2] = [
    GpuGemmTuning { rows: 128, columns: 128, depth: 32, warp_rows: 64, warp_columns: 64, stages: 4 },
    GpuGemmTuning { rows: 64, columns: 64, depth: 32, warp_rows: 32, warp_columns: 32, stages: 4 },
];

/// The tensor cores, for results with few columns, the fewest first; with few rows it is the other way round. LoRA's products
/// have them: they read one matrix once and do little with it, so what counts is how many of its bytes are on their way. With
/// these tiles of 64 steps it is 48 KiB for a block, 24 where the other matrix is f32; memory of 3.35 TB/s and 800 ns, as an H100
/// has it, takes 20 KiB for each multiprocessor. No figures yet: they wait for a GPU.
const GPU_BF16_THIN: [GpuGemmTuning; 2] = [
    GpuGemmTuning { rows: 64, columns: 16, depth: 64, warp_rows: 16, warp_columns: 16, stages: 8 },
    GpuGemmTuning { rows: 64, columns: 32, depth: 64, warp_rows: 16, warp_columns: 32, stages: 8 },
];

/// The ordinary units.
const GPU_F32: [GpuGemmTuning; 2] = [
    GpuGemmTuning { rows: 64, columns: 64, depth: 32, warp_rows: 32, warp_columns: 32, stages: 1 },
    GpuGemmTuning { rows: 32, columns: 32, depth: 32, warp_rows: 16, warp_columns: 16, stages: 1 },
];

/// How rows and flat arrays are dealt out to the threads of a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowTuning {
    /// Turns of the threads that share a row, so many of whose loads are on their way together and are kept in registers. A row
    /// belongs to the fewest threads that read it in as many turns: a warp, or one of the following.
    pub ahead: usize,
    /// Threads of most blocks, and of those for the longest rows.
    pub threads: usize,
    pub most_threads: usize,
    /// Parts of the rows that are summed by a task each, and rows of a part at the least.
    pub parts: usize,
    pub least_rows: usize,
    /// Elements of rows that are added up by more tasks.
    pub short_row: usize,
}

/// Memory of 3.35 TB/s and some 0.7 µs, as an H100 has it, wants 18 KB on their way for each of 132 multiprocessors. A turn of 256
/// threads asks for 4 KB of an operand, and five to eight such blocks fit: 41 to 98 KB of rows of 4096 in bf16, which a block reads in
/// two turns (`docs/performance.md` has the table). Four turns of eight bf16 are 32 registers of sums or values, 64 in the norm's
/// gradient. 396 parts are three blocks for each multiprocessor, with 49 KB on their way; their sums are 5 % of what they read of 8192
/// rows. No figures yet: they wait for a GPU.
pub const GPU_ROWS: RowTuning =
    RowTuning { ahead: 4, threads: 256, most_threads: 512, parts: 396, least_rows: 4, short_row: 1024 };

/// How columns are summed on a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ColumnTuning {
    /// Rows of a warp whose loads are on their way together.
    pub ahead: usize,
    /// Blocks that parts of the rows are to make.
    pub blocks: usize,
    /// Rows of a part at the least.
    pub least_rows: usize,
}

/// Four blocks for each of 132 multiprocessors, each with 32 KB on their way: 8 rows of 8 warps, 512 bytes each. Parts of 256 rows
/// write and read 8 bytes for 512 of bf16. No figures yet: they wait for a GPU.
pub const GPU_COLUMNS: ColumnTuning = ColumnTuning { ahead: 8, blocks: 528, least_rows: 256 };

/// Blocks that keep a GPU of some hundred multiprocessors busy.
const BUSY_BLOCKS: usize = 96;

impl GpuGemmTuning {
    /// Blocks of an `[m, n]` result.
    pub fn blocks(&self, m: usize, n: usize) -> usize {
        m.div_ceil(self.rows) * n.div_ceil(self.columns)
    }

    /// The same for the transposed result.
    fn turned(self) -> GpuGemmTuning {
        let GpuGemmTuning { rows, columns, warp_rows, warp_columns, .. } = self;
        GpuGemmTuning { rows: columns, columns: rows, warp_rows: warp_columns, warp_columns: warp_rows, ..self }
    }
}

/// The cut for an `[m, n]` result: a thin one where it has few columns or rows, otherwise the first that has blocks enough, else
/// the last.
pub fn gpu_gemm(m: usize, n: usize, elem: Elem) -> GpuGemmTuning {
    if elem == Elem::Bf16 {
        if let Some(cut) = GPU_BF16_THIN.into_iter().find(|cut| n <= cut.columns) {
            return cut;
        }
        if let Some(cut) = GPU_BF16_THIN.into_iter().find(|cut| m <= cut.columns) {
            return cut.turned();
        }
    }
    let rows: &[GpuGemmTuning] = if elem == Elem::Bf16 { &GPU_BF16 } else { &GPU_F32 };
    let wasteful = |cut: &GpuGemmTuning| m.min(n) <= 32 && cut.rows.max(cut.columns) > 32;
    let suits = |cut: &&GpuGemmTuning| cut.blocks(m, n) >= BUSY_BLOCKS && !wasteful(cut);
    *rows.iter().find(suits).unwrap_or_else(|| rows.last().expect("a table has rows"))
}

/// Streams of a GPU, as many as a layer has branches at most: LoRA's products beside those of their linear, in one direction or
/// the other. No figures yet: they wait for a GPU.
pub const GPU_STREAMS: usize = 4;

/// When a GPU computes a product of few blocks in parts of K, which blocks of their own sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartsTuning {
    /// Blocks of all parts together at the most: one for each multiprocessor.
    pub most_blocks: usize,
    /// Steps of a part at the least, so that what a part adds in memory, 4 bytes to write and to read for an element of the result, is
    /// little beside what it reads.
    pub least_steps: usize,
}

/// Of an A100 (108 multiprocessors), and of an H100 or H200 with SXM (132). No figures yet: they wait for a GPU.
const PARTS_SM80: PartsTuning = PartsTuning { most_blocks: 108, least_steps: 512 };
const PARTS_SM90A: PartsTuning = PartsTuning { most_blocks: 132, ..PARTS_SM80 };

/// The row for GPUs of an architecture.
pub fn product_parts(arch: Arch) -> PartsTuning {
    match arch {
        Arch::Sm80 => PARTS_SM80,
        Arch::Sm90a => PARTS_SM90A,
    }
}

impl PartsTuning {
    /// In how many parts a product of so many blocks and steps is computed; in one that is the whole.
    pub fn parts(&self, blocks: usize, steps: usize) -> usize {
        (self.most_blocks / blocks).min(steps / self.least_steps).max(1)
    }
}

/// How warpgroups of a Hopper GPU cut a product of bf16 matrices: blocks of 128 rows, tiles of 64 steps of K.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WarpgroupTuning {
    /// Columns of a block, a multiple of 64 up to 256.
    pub columns: usize,
    /// Blocks of a band of rows, whose columns are computed one after the other.
    pub band: usize,
    /// Tiles in flight between memory and the tensor cores, the one in use counted.
    pub stages: usize,
    /// Most tasks, which share the blocks.
    pub tasks: usize,
    /// Blocks of a cluster, one below the other, which copy their tiles of B together; 1 for none. `tasks` and `band`
    /// are multiples of it, `columns` of 64 times it.
    pub cluster: usize,
    /// Smaller results waste more of a block than they fill.
    pub least_rows: usize,
    pub least_columns: usize,
}

/// The reference GEMM's for sm_90a (128 x 256, two consumers, four stages, no spills), with as many tasks as an H100 or H200 with
/// SXM has multiprocessors.
const HOPPER_LARGEST: WarpgroupTuning =
    WarpgroupTuning { columns: 256, band: 16, stages: 4, tasks: 132, cluster: 2, least_rows: 65, least_columns: 129 };

/// Largest first. All take 192 of the 227 KiB of shared memory for the ring, and 20 for the epilogue's sums. In bands of 16, the
/// hundred blocks or so that run at a time need about as many rows of A as columns of B. What is smaller than the last row
/// allows, such as LoRA's own narrow products, is left to the kernels of sm_80. No figures yet: they wait for a GPU.
///
/// What a block takes from the L2 cache for a tile, counted, and the most operations a second that this allows at
/// 6.65 TB/s, which XLA's cost model of products counts with, as measured of an H100:
///
/// | columns | alone | in a cluster of 2 |
/// |---|---|---|
/// | 256 | 48 KiB, 567 TFLOP/s | 32 KiB, 851 TFLOP/s |
/// | 128 | 32 KiB, 425 TFLOP/s | 24 KiB, 567 TFLOP/s |
/// | 64 | 24 KiB, 284 TFLOP/s | |
///
/// In clusters of 64 columns parts of B would be narrower than a box where K runs down.
const HOPPER_BF16: [WarpgroupTuning; 3] = [
    HOPPER_LARGEST,
    WarpgroupTuning { columns: 128, stages: 6, least_columns: 65, ..HOPPER_LARGEST },
    WarpgroupTuning { columns: 64, stages: 8, cluster: 1, least_columns: 33, ..HOPPER_LARGEST },
];

/// Fewest steps of a product over groups of rows: a tile's. With fewer, most of what is multiplied would be zeros.
const HOPPER_LEAST_DEPTH: usize = 64;

/// Most steps of a term that threads load themselves, as A is f32 or rows are no multiple of 16 bytes: LoRA's ranks. No
/// figures yet.
pub const HOPPER_SHORT_DEPTH: usize = 256;

/// The cut for an `[m, n]` result, if warpgroups are to compute it: the first that has blocks enough, else the last.
pub fn hopper_gemm(m: usize, n: usize) -> Option<WarpgroupTuning> {
    hopper_gemms(1, m, n)
}

/// The cut for so many of them in one launch.
fn hopper_gemms(count: usize, m: usize, n: usize) -> Option<WarpgroupTuning> {
    let cut = hopper_row(count, m, n)?;
    Some(if cut.fills_clusters(count, m, n) { cut } else { cut.alone() })
}

/// The same, whatever clusters leave unused.
fn hopper_row(count: usize, m: usize, n: usize) -> Option<WarpgroupTuning> {
    let fits = |cut: &&WarpgroupTuning| m >= cut.least_rows && n >= cut.least_columns;
    let blocks = |cut: &WarpgroupTuning| count * m.div_ceil(128) * n.div_ceil(cut.columns);
    let fitting = || HOPPER_BF16.iter().filter(fits);
    fitting().find(|cut| blocks(cut) >= BUSY_BLOCKS).or_else(|| fitting().next_back()).copied()
}

impl WarpgroupTuning {
    /// The same without clusters.
    pub fn alone(self) -> WarpgroupTuning {
        WarpgroupTuning { cluster: 1, ..self }
    }

    /// Whether clusters compute so many `[m, n]` results in as many blocks as there are without them, and tasks in as many
    /// turns, or in an eighth more: the last cluster may reach below the result.
    fn fills_clusters(&self, count: usize, m: usize, n: usize) -> bool {
        let (down, across) = (m.div_ceil(128), n.div_ceil(self.columns));
        let in_clusters = down.next_multiple_of(self.cluster);
        let turns = |down: usize| (count * down * across).div_ceil(self.tasks);
        let hardly_more = |count: usize, alone: usize| 8 * count <= 9 * alone;
        hardly_more(in_clusters, down) && hardly_more(turns(in_clusters), turns(down))
    }
}

/// The cut for the products of groups of about so many rows, each by a matrix of `n` columns, if warpgroups are to compute them.
/// A group leaves half of a block unused on average: with 512 rows, as each of 128 experts gets of 8192 tokens that choose 8,
/// 11 % of what is multiplied. With fewer than half a block's rows it would be more than half, and blocks of 64 rows by
/// `mma.sync` are the better ones. A cluster of two leaves a whole block unused on average: there are clusters where half a block
/// is at most an eighth of the rows. No figures yet.
pub fn hopper_grouped_rows(groups: usize, rows: usize, n: usize) -> Option<WarpgroupTuning> {
    let cut = hopper_row(groups, rows, n)?;
    let unused = (cut.cluster - 1) * 64;
    Some(if 8 * unused <= rows { cut } else { cut.alone() })
}

/// The cut for `[m, n]` products over the rows of groups of about so many, which are the steps: some more than a tile has.
pub fn hopper_grouped_depth(groups: usize, rows: usize, (m, n): (usize, usize)) -> Option<WarpgroupTuning> {
    hopper_gemms(groups, m, n).filter(|_| rows >= HOPPER_LEAST_DEPTH)
}

/// Which of the products that cuBLASLt can compute (`gpu/vendor.rs`) it is to compute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VendorTuning {
    /// Smaller results, and shorter sums, stay with kernels of our own.
    pub least_rows: usize,
    pub least_columns: usize,
    pub least_depth: usize,
    /// Whether it also adds to bf16, as the residual stream wants, and not only to gradients.
    pub residuals: bool,
    /// What it may use beside the operands.
    pub workspace_bytes: usize,
}

/// Plain products that fill a GPU many times over, where nothing of ours is fused. Workspaces are those that NVIDIA recommends
/// (cuBLAS, `cublasSetWorkspace`). No figures yet: they wait for a GPU.
const VENDOR_SM80: VendorTuning = VendorTuning {
    least_rows: 1024,
    least_columns: 1024,
    least_depth: 512,
    residuals: false,
    workspace_bytes: 4 << 20,
};
const VENDOR_SM90A: VendorTuning = VendorTuning { workspace_bytes: 32 << 20, ..VENDOR_SM80 };

/// The row for GPUs of an architecture.
pub fn vendor_product(arch: Arch) -> VendorTuning {
    match arch {
        Arch::Sm80 => VENDOR_SM80,
        Arch::Sm90a => VENDOR_SM90A,
    }
}

impl VendorTuning {
    /// The row that takes everything.
    pub fn without_limits(self) -> VendorTuning {
        VendorTuning { least_rows: 1, least_columns: 1, least_depth: 1, residuals: true, ..self }
    }

    pub fn takes(&self, product: &VendorProduct) -> bool {
        let VendorProduct { m, n, k, out, adds, .. } = *product;
        let residual = adds && out == Elem::Bf16;
        m >= self.least_rows && n >= self.least_columns && k >= self.least_depth && (self.residuals || !residual)
    }
}

/// How warpgroups of a Hopper GPU walk through attention: blocks of 128 queries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WarpgroupAttention {
    /// Keys of a tile.
    pub keys: usize,
    /// Tiles of keys and of values in flight, together.
    pub stages: usize,
    /// The largest head whose results and scores fit into registers, and its tiles into shared memory.
    pub most_entries: usize,
}

/// Smallest heads first; the first is that of the reference kernel. A thread has half as many results as a head has entries, half as
/// many scores as a tile has keys, and meanwhile half of that in words of the last tile's probabilities: at most 176 registers. Shared
/// memory holds 128 queries and the tiles in flight: of heads of 128, 192 and 256 they take 160, 192 and 192 of the 227 KiB. What
/// a tile costs is counted in docs/performance.md. No figures yet: they wait for a GPU.
const HOPPER_ATTENTION: [WarpgroupAttention; 3] = [
    WarpgroupAttention { keys: 128, stages: 4, most_entries: 128 },
    WarpgroupAttention { keys: 96, stages: 4, most_entries: 192 },
    WarpgroupAttention { keys: 64, stages: 4, most_entries: 256 },
];

/// How rows of so many tokens are walked through, if warpgroups are to do it: rows that fill more than half a block, of heads
/// that are not too large.
pub fn hopper_attention(seq: usize, head_dim: usize) -> Option<WarpgroupAttention> {
    let cut = HOPPER_ATTENTION.into_iter().find(|cut| head_dim <= cut.most_entries);
    cut.filter(|_| seq > 64)
}

/// What a block of 128 tokens walks over in attention's gradient.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WarpgroupWalk {
    /// Tokens of a tile.
    pub tokens: usize,
    /// Tiles of the two arrays in flight, together.
    pub stages: usize,
}

/// How the gradients of keys and of values are computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeysWalk {
    /// In one walk over queries.
    Together(WarpgroupWalk),
    /// In a walk for each, as the sums of both do not fit into registers.
    Apart { keys: WarpgroupWalk, values: WarpgroupWalk },
}

/// How warpgroups of a Hopper GPU compute attention's gradient.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WarpgroupGradient {
    /// The walk of queries over keys, and those of keys over queries.
    pub queries: WarpgroupWalk,
    pub keys: KeysWalk,
    /// The largest head whose results and scores fit into registers, and its tiles into shared memory.
    pub most_entries: usize,
}

/// Smallest heads first. A thread has half as many sums of results as a head has entries, twice that for keys and values together, and
/// of scores and their gradients together as many as a tile has tokens, half of that for values alone: 192 of its 240 registers
/// at the most. Shared memory holds 128 own tokens of two arrays, one for values alone, and the tiles in flight: up to 226 of
/// the 227 KiB. Tiles of fewer than 64 tokens wait for shared memory, which `wgmma` reads own tokens from; the walk of keys for
/// heads of 256 has them nevertheless, as a fourth stage lets copies run ahead. No figures yet: they wait for a GPU.
const HOPPER_GRADIENT: [WarpgroupGradient; 6] = [
    WarpgroupGradient {
        queries: WarpgroupWalk { tokens: 128, stages: 8 },
        keys: KeysWalk::Together(WarpgroupWalk { tokens: 128, stages: 8 }),
        most_entries: 64,
    },
    WarpgroupGradient {
        queries: WarpgroupWalk { tokens: 128, stages: 6 },
        keys: KeysWalk::Together(WarpgroupWalk { tokens: 80, stages: 8 }),
        most_entries: 80,
    },
    WarpgroupGradient {
        queries: WarpgroupWalk { tokens: 128, stages: 6 },
        keys: KeysWalk::Together(WarpgroupWalk { tokens: 96, stages: 8 }),
        most_entries: 96,
    },
    WarpgroupGradient {
        queries: WarpgroupWalk { tokens: 128, stages: 4 },
        keys: KeysWalk::Together(WarpgroupWalk { tokens: 64, stages: 8 }),
        most_entries: 128,
    },
    WarpgroupGradient {
        queries: WarpgroupWalk { tokens: 80, stages: 4 },
        keys: KeysWalk::Apart {
            keys: WarpgroupWalk { tokens: 80, stages: 4 },
            values: WarpgroupWalk { tokens: 112, stages: 4 },
        },
        most_entries: 192,
    },
    WarpgroupGradient {
        queries: WarpgroupWalk { tokens: 64, stages: 3 },
        keys: KeysWalk::Apart {
            keys: WarpgroupWalk { tokens: 48, stages: 4 },
            values: WarpgroupWalk { tokens: 80, stages: 4 },
        },
        most_entries: 256,
    },
];

/// How the gradient of rows of so many tokens is computed, if warpgroups are to do it: as [`hopper_attention`] has it.
pub fn hopper_attention_gradient(seq: usize, head_dim: usize) -> Option<WarpgroupGradient> {
    let row = HOPPER_GRADIENT.into_iter().find(|row| head_dim <= row.most_entries);
    row.filter(|_| seq > 64)
}
