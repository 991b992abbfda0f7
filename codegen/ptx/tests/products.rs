//! wgmma against plain sums, for all layouts that operands can have in shared memory: the swizzles, either dimension
//! contiguous, and the element types, each brought by a tensor map's copy as a kernel would bring it.
use amc_ptx::{Argument, Device, Launch, Mode, Swizzle, TensorElement, TensorMap, load};
use half::{bf16, f16};
use std::fmt::Write;

#[derive(Clone, Copy, Debug)]
struct Case {
    element: TensorElement,
    swizzle: Swizzle,
    n: usize,
    /// Whether rows of A, and of B, are contiguous instead of rows of k.
    transposed: (bool, bool),
}

const M: usize = 64;
/// Both operands' k: one row of the widest swizzle in 16-bit elements.
const K: usize = 64;

#[test]
fn products_of_every_layout_match_sums() {
    let mut count = 0;
    for element in [TensorElement::Bf16, TensorElement::F16, TensorElement::F32] {
        for swizzle in [Swizzle::Bytes32, Swizzle::Bytes64, Swizzle::Bytes128] {
            for transposed in [(false, false), (true, false), (false, true), (true, true)] {
                if element == TensorElement::F32 && transposed != (false, false) {
                    continue;
                }
                for n in [64, 128] {
                    check(Case { element, swizzle, n, transposed });
                    count += 1;
                }
            }
        }
    }
    println!("{count} layouts");
}

fn check(case: Case) {
    let (a, b) = (numbers(M * K, 1), numbers(case.n * K, 2));
    let found = run(case, &a, &b);
    for row in 0..M {
        for column in 0..case.n {
            let wanted: f32 = (0..K).map(|k| a[row * K + k] * b[column * K + k]).sum();
            let (warp, lane) = (row / 16, row % 8 * 4 + column % 8 / 2);
            let register = column / 8 * 4 + row % 16 / 8 * 2 + column % 2;
            let found = found[(warp * 32 + lane) * (case.n / 2) + register];
            assert_eq!(found, wanted, "{case:?}, row {row}, column {column}");
        }
    }
}

/// Small integers, so that every type holds them and every sum is exact.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as f32 % 9.0 - 4.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// The sums by thread and register.
fn run(case: Case, a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut device = Device::new();
    let maps = [(a, M, case.transposed.0), (b, case.n, case.transposed.1)].map(|(numbers, rows, transposed)| {
        let address = device.upload("operand", &bytes(case.element, numbers, rows, transposed));
        Argument::Bytes(map(case, address, rows, transposed).encode().unwrap())
    });
    let d = device.allocate("d", (M * case.n * 4) as u64);
    let [a, b] = maps;
    let kernel = load(&kernel(case)).unwrap().remove(0);
    let launch = Launch { dynamic_shared: 64 * 1024, mode: Mode::Late, ..Launch::new([1, 1, 1], [128, 1, 1]) };
    device.launch(&kernel, &launch, &[a, b, Argument::U64(d)]).unwrap_or_else(|error| panic!("{case:?}: {error}"));
    let bytes = device.read(d, (M * case.n * 4) as u64).unwrap();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn bytes(element: TensorElement, numbers: &[f32], rows: usize, transposed: bool) -> Vec<u8> {
    let number = |i: usize| {
        let (row, k) = if transposed { (i % rows, i / rows) } else { (i / K, i % K) };
        numbers[row * K + k]
    };
    let encode = |x: f32| match element {
        TensorElement::Bf16 => bf16::from_f32(x).to_le_bytes().to_vec(),
        TensorElement::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
        _ => x.to_le_bytes().to_vec(),
    };
    (0..numbers.len()).flat_map(|i| encode(number(i))).collect()
}

/// Elements of a box's row: as many as the swizzle spans.
fn row_elements(case: Case) -> usize {
    (case.swizzle.span() / case.element.bytes()) as usize
}

fn map(case: Case, address: u64, rows: usize, transposed: bool) -> TensorMap {
    let (inner, outer) = if transposed { (rows, K) } else { (K, rows) };
    TensorMap {
        element: case.element,
        address,
        sizes: vec![inner as u64, outer as u64],
        strides: vec![inner as u64 * case.element.bytes()],
        box_sizes: vec![row_elements(case) as u32, outer as u32],
        element_strides: vec![1, 1],
        swizzle: case.swizzle,
        fill_nan: false,
    }
}

/// Loads both operands box by box, then multiplies step by step of k.
fn kernel(case: Case) -> String {
    let Case { element, swizzle, n, transposed } = case;
    let (name, step) = match element {
        TensorElement::Bf16 => ("bf16", 16),
        TensorElement::F16 => ("f16", 16),
        _ => ("tf32", 8),
    };
    let mut text = String::from(
        ".version 8.3\n.target sm_90a\n.address_size 64\n.extern .shared .align 1024 .b8 buffer[];\n\
         .visible .entry product(.param .align 64 .b8 a[128], .param .align 64 .b8 b[128], .param .u64 d) {\n\
         .reg .pred %p<4>;\n.reg .b32 %r<16>;\n.reg .b64 %rd<16>;\n.reg .b32 %acc<128>;\n\
         .shared .align 8 .b8 full[8];\n\
         mov.u32 %r1, %tid.x;\nsetp.ne.u32 %p1, %r1, 0;\n@%p1 bra $loading;\n\
         mbarrier.init.shared.b64 [full], 1;\nfence.mbarrier_init.release.cluster;\n",
    );
    let b_start = M * K * element.bytes() as usize;
    let total = b_start + n * K * element.bytes() as usize;
    writeln!(text, "mbarrier.arrive.expect_tx.shared.b64 %rd1, [full], {total};").unwrap();
    for (parameter, start, rows, transposed) in [("a", 0, M, transposed.0), ("b", b_start, n, transposed.1)] {
        let (inner, outer) = if transposed { (rows, K) } else { (K, rows) };
        writeln!(text, "mov.b64 %rd2, {parameter};\ncvta.param.u64 %rd3, %rd2;").unwrap();
        for (i, column) in (0..inner).step_by(row_elements(case)).enumerate() {
            let at = start + i * outer * swizzle.span() as usize;
            writeln!(
                text,
                "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes \
                 [buffer+{at}], [%rd3, {{{column}, 0}}], [full];"
            )
            .unwrap();
        }
    }
    text.push_str(
        "$loading:\nbar.sync 0;\n$wait:\nmbarrier.try_wait.parity.shared.b64 %p2, [full], 0;\n@!%p2 bra $wait;\n\
         wgmma.fence.sync.aligned;\nmov.b64 %rd4, buffer;\nshr.u64 %rd5, %rd4, 4;\n",
    );
    let accumulators = (0..n / 2).map(|i| format!("%acc{i}")).collect::<Vec<_>>().join(", ");
    for k in (0..K).step_by(step) {
        let a = descriptor(case, 0, M, transposed.0, k);
        let b = descriptor(case, b_start, n, transposed.1, k);
        let flags = if element == TensorElement::F32 {
            String::new()
        } else {
            format!(", {}, {}", u8::from(transposed.0), u8::from(transposed.1))
        };
        writeln!(
            text,
            "add.s64 %rd6, %rd5, {a};\nadd.s64 %rd7, %rd5, {b};\n\
             wgmma.mma_async.sync.aligned.m64n{n}k{step}.f32.{name}.{name} {{{accumulators}}}, %rd6, %rd7, {}, 1, 1{flags};",
            u8::from(k > 0)
        )
        .unwrap();
    }
    text.push_str("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\nld.param.b64 %rd8, [d];\n");
    writeln!(text, "mul.wide.u32 %rd9, %r1, {};\nadd.s64 %rd10, %rd8, %rd9;", n / 2 * 4).unwrap();
    for i in 0..n / 2 {
        writeln!(text, "st.global.b32 [%rd10+{}], %acc{i};", 4 * i).unwrap();
    }
    text.push_str("ret;\n}\n");
    text
}

/// The descriptor of an operand from column `k` on, less the buffer's address.
fn descriptor(case: Case, start: usize, rows: usize, transposed: bool, k: usize) -> u64 {
    let span = case.swizzle.span();
    let (stride, mut start) = (8 * span, start as u64);
    let leading = if transposed {
        // Eight values of k are a pattern; the next columns of rows are the next box.
        start += k as u64 * span;
        K as u64 * span
    } else {
        let bytes = k as u64 * case.element.bytes();
        start += bytes / span * rows as u64 * span + bytes % span;
        16
    };
    let kind = match case.swizzle {
        Swizzle::None => 0,
        Swizzle::Bytes128 => 1,
        Swizzle::Bytes64 => 2,
        Swizzle::Bytes32 => 3,
    };
    start >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | kind << 62
}
