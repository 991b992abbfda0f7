//! Products of groups of rows by warpgroups, however rows are divided, with sizes that divide nothing.
use super::grouped::{check_depth, check_rows, rows};
use crate::harness::{Buffer, load, random_buffer};
use amc_kernels::emit::Elem::{self, Bf16, F32};
use amc_kernels::gpu::{grouped_depth_by_warpgroups, grouped_rows_by_warpgroups};
use amc_kernels::grouped::{GroupedDepth, GroupedRows};
use amc_kernels::tuning::WarpgroupTuning;
use amc_kernels::{Kernel, Machine};

/// Blocks of so many columns, shared by so many tasks, in bands of two and with a short ring.
fn cut(columns: usize, tasks: usize) -> WarpgroupTuning {
    WarpgroupTuning { columns, band: 2, stages: 3, tasks, cluster: 1, least_rows: 1, least_columns: 1 }
}

/// The same in pairs.
fn pairs(columns: usize, tasks: usize) -> WarpgroupTuning {
    WarpgroupTuning { cluster: 2, band: 4, ..cut(columns, tasks) }
}

/// The kernel that the tuning table chooses, one of warpgroups.
fn chosen(problem: &GroupedRows) -> Kernel {
    by_warpgroups(super::target().grouped_rows(problem))
}

fn by_warpgroups(kernel: Kernel) -> Kernel {
    assert!(kernel.symbol.contains("_wg"), "{}", kernel.symbol);
    kernel
}

#[test]
fn layouts() {
    for (groups, size, form, output) in [
        (3, (300, 72, 200), "nt", F32),
        (2, (410, 104, 64), "nn", Bf16),
        (1, (130, 67, 72), "nt", Bf16),
        (4, (270, 40, 24), "nn", F32),
    ] {
        let problem = rows(groups, size, form, [Bf16; 2], output);
        check_rows(&problem, &chosen(&problem));
    }
}

/// Wider blocks, and more of them down a group than a band has.
#[test]
fn cuts() {
    for (columns, groups, size, form, tasks) in
        [(128, 2, (300, 200, 72), "nt", 132), (256, 3, (290, 264, 136), "nn", 132), (64, 2, (700, 136, 40), "nt", 3)]
    {
        let problem = rows(groups, size, form, [Bf16; 2], Bf16);
        check_rows(&problem, &grouped_rows_by_warpgroups(&problem, cut(columns, tasks)));
    }
}

/// Pairs of blocks, of which a group with an odd number leaves the last one's second without rows, and groups smaller than a
/// block.
#[test]
fn clusters() {
    for (columns, groups, size, form, tasks) in
        [(128, 3, (700, 200, 72), "nt", 4), (256, 2, (290, 264, 40), "nn", 132), (128, 5, (200, 136, 264), "nn", 2)]
    {
        let problem = rows(groups, size, form, [Bf16; 2], Bf16);
        check_rows(&problem, &grouped_rows_by_warpgroups(&problem, pairs(columns, tasks)));
    }
    let short = rows(3, (290, 136, 16), "nt", [F32, Bf16], F32);
    check_rows(&short, &grouped_rows_by_warpgroups(&short, pairs(128, 2)));
}

/// What a LoRA has summed in f32, times a matrix of every group: by copies, and where rows are no multiple of 16 bytes by
/// threads.
#[test]
fn short_terms() {
    for (k, form, a) in
        [(16, "nt", F32), (8, "nn", F32), (4, "nt", F32), (12, "nt", Bf16), (36, "nt", F32), (72, "nn", F32)]
    {
        let problem = rows(3, (290, 136, k), form, [a, Bf16], F32);
        check_rows(&problem, &chosen(&problem));
        check_rows(&problem, &grouped_rows_by_warpgroups(&problem, cut(64, 2)));
    }
}

/// Tasks that compute several blocks, of several groups, of which many are empty; rings that go around more than once.
#[test]
fn few_tasks() {
    for (groups, size, tasks) in [(5, (300, 136, 600), 2), (9, (520, 72, 40), 4), (40, (200, 40, 64), 1)] {
        let problem = rows(groups, size, "nt", [Bf16; 2], F32);
        let kernel = grouped_rows_by_warpgroups(&problem, cut(64, tasks));
        assert_eq!(kernel.tasks as usize, tasks);
        check_rows(&problem, &kernel);
    }
}

/// As many experts as Qwen3's mixtures have: 16 KiB of tensor maps, or 1 of addresses.
#[test]
fn many_groups() {
    for (k, a) in [(24, Bf16), (4, F32)] {
        let problem = rows(128, (200, 40, k), "nt", [a, Bf16], Bf16);
        check_rows(&problem, &grouped_rows_by_warpgroups(&problem, cut(64, 7)));
    }
    let problem = GroupedDepth { groups: 128, rows: 200, m: 40, n: 24, elems: [Bf16; 2], accumulate: true };
    check_depth(&problem, &grouped_depth_by_warpgroups(&problem, cut(64, 7)));
}

/// Which task computes a block changes no bit.
#[test]
fn any_number_of_tasks_gives_the_same_bits() {
    let (groups, m, n, k) = (4, 500, 136, 72);
    let problem = rows(groups, (m, n, k), "nt", [Bf16; 2], F32);
    let kernels = [1, 3, 50].map(|tasks| grouped_rows_by_warpgroups(&problem, cut(64, tasks)));
    let library = load(&kernels.iter().collect::<Vec<_>>());
    let results = kernels.each_ref().map(|kernel| {
        let mut operands = vec![random_buffer(1, Bf16, m * k).0, Buffer::ints(&[0, 131, 131, 390, 500])];
        operands.push(Buffer::garbage(F32, m * n));
        operands.extend((0..groups).map(|g| random_buffer(2 + g as u64, Bf16, n * k).0));
        library.run(kernel, &mut operands.iter_mut().collect::<Vec<_>>());
        operands.swap_remove(2)
    });
    assert!(results[0] == results[1] && results[0] == results[2]);
}

fn depth(groups: usize, (rows, m, n): (usize, usize, usize), accumulate: bool) -> GroupedDepth {
    GroupedDepth { groups, rows, m, n, elems: [Bf16; 2], accumulate }
}

#[test]
fn products_over_rows() {
    for accumulate in [false, true] {
        for (groups, size) in [(3, (290, 136, 72)), (2, (130, 72, 136)), (1, (64, 128, 40))] {
            let problem = depth(groups, size, accumulate);
            check_depth(&problem, &by_warpgroups(super::target().grouped_depth(&problem)));
        }
        for (columns, groups, size, tasks) in [(256, 2, (150, 136, 264), 132), (64, 5, (400, 136, 72), 3)] {
            let problem = depth(groups, size, accumulate);
            check_depth(&problem, &grouped_depth_by_warpgroups(&problem, cut(columns, tasks)));
        }
        let problem = depth(3, (300, 296, 136), accumulate);
        check_depth(&problem, &grouped_depth_by_warpgroups(&problem, pairs(128, 2)));
    }
}

/// Rows of no number spoil their own group's results alone, though copies bring them where another group ends.
#[test]
fn groups_keep_to_themselves() {
    let offsets = [0, 70, 205, 290];
    let spoilt = 70..205;
    let spoil = |elem: Elem, columns: usize, seed| {
        let mut values = crate::harness::random(seed, 290 * columns);
        values[spoilt.start * columns..spoilt.end * columns].fill(f64::NAN);
        Buffer::floats(elem, &values)
    };
    let (m, n) = (136, 72);
    let problem = depth(3, (290, m, n), false);
    let kernel = grouped_depth_by_warpgroups(&problem, cut(64, 2));
    let mut operands = vec![spoil(Bf16, m, 1), spoil(Bf16, n, 2), Buffer::ints(&offsets)];
    operands.extend((0..3).map(|_| Buffer::garbage(F32, m * n)));
    load(&[&kernel]).run(&kernel, &mut operands.iter_mut().collect::<Vec<_>>());
    for (group, result) in operands[3..].iter().enumerate() {
        assert!(result.values().iter().all(|value| value.is_nan() == (group == 1)), "group {group}");
    }
    for a in [Bf16, F32] {
        let k = 16;
        let problem = rows(3, (290, n, k), "nt", [a, Bf16], F32);
        let kernel = grouped_rows_by_warpgroups(&problem, cut(64, 2));
        let mut operands = vec![spoil(a, k, 1), Buffer::ints(&offsets), Buffer::garbage(F32, 290 * n)];
        operands.extend((0..3).map(|g| random_buffer(g, Bf16, n * k).0));
        load(&[&kernel]).run(&kernel, &mut operands.iter_mut().collect::<Vec<_>>());
        let values = operands[2].values();
        assert!((0..290 * n).all(|i| values[i].is_nan() == spoilt.contains(&(i / n))), "{a:?}");
    }
}

/// What warpgroups cannot compute, would waste most of, or have too few parameters for, is left to the kernels of any GPU.
#[test]
fn other_products() {
    let of = |groups, size, form, elems| rows(groups, size, form, elems, F32);
    for problem in [
        of(8, (500, 136, 64), "nt", [Bf16; 2]),
        of(2, (300, 32, 64), "nt", [Bf16; 2]),
        of(2, (300, 136, 64), "nt", [F32; 2]),
        of(2, (300, 136, 264), "nt", [F32, Bf16]),
        of(2, (300, 134, 64), "nn", [Bf16; 2]),
        of(256, (16640, 136, 64), "nt", [Bf16; 2]),
    ] {
        let kernel = super::target().grouped_rows(&problem);
        assert!(!kernel.symbol.contains("_wg"), "{problem:?}: {}", kernel.symbol);
    }
    let most = of(250, (16640, 136, 64), "nt", [Bf16; 2]);
    chosen(&most);
    let elems = [F32, Bf16];
    for problem in [
        depth(8, (500, 136, 136), true),
        depth(2, (300, 136, 16), true),
        GroupedDepth { elems, ..depth(2, (300, 136, 72), true) },
    ] {
        let kernel = super::target().grouped_depth(&problem);
        assert!(!kernel.symbol.contains("_wg"), "{problem:?}: {}", kernel.symbol);
    }
}
