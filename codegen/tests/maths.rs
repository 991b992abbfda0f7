//! The error of every scalar function that kernels have, on CPUs and on a GPU (whose code is interpreted), in units of the
//! result's last place: each keeps to its stated bound, and `docs/maths.md` is the table (`AMC_BLESS=1` writes it).
#[path = "support/erf.rs"]
mod erf;
#[path = "support/functions.rs"]
mod functions;
// Shared with the tests of kernels, which need more of it.
#[path = "kernels/device.rs"]
mod device;
#[allow(dead_code)]
#[path = "kernels/harness.rs"]
mod harness;
#[path = "kernels/interpreted.rs"]
mod interpreted;

use amc_kernels::emit::Elem;
use amc_kernels::pointwise::Pointwise;
use amc_kernels::region::*;
use amc_kernels::{Gpu, Kernel, Machine, Target};
use functions::{Function, arguments, functions};
use harness::{Buffer, load};
use std::fmt::Write;
use std::path::Path;

const HEAD: &str = "\
# Errors of scalar functions

Kernels call no library: `kernels/src/math.rs` has their own expansions, the same for CPUs and GPUs. Here are their errors against
f64, in units of the last place of an f32 result: the bound that `codegen/tests/maths.rs` holds them to, and the worst that it found
on some 80,000 arguments of all magnitudes up to the largest one, of both signs where the function takes both. The GPU's code runs in
the interpreter, whose arithmetic rounds as the hardware's does. Written by `./x bless`.

| function | largest argument | bound | CPU | at | GPU | at |
|---|---|---|---|---|---|---|
";

const TAIL: &str = "
- `gelu` (by `erf`) is held to 5e-7 relative and 3e-7 absolute: for large negative arguments it is a difference of near equals.
- Results of `exp` that would be denormal are zero. NaN stays NaN; infinities and zeros give what mathematics does.
- Attention in bf16 on a GPU takes `ex2.approx.ftz` of the hardware for the exponentials of its probabilities, which are rounded to
  bf16 next (relative error 2^-22 by the PTX manual), and where scores are capped computes their `tanh` as `1 - 2 / (e^2x + 1)` with
  `rcp.approx.ftz` (an absolute error of some 2^-22); in f32 it takes `exp` and `tanh`.
- Elementwise functions of which all results are rounded to bf16, alone or behind a product, and the gradient of bf16 logits take both on a
  GPU, too: errors of some 2^-20 of a result (more by 2^-24 for every unit of an exponential's argument), where its rounding makes up to 2^-8.
- No kernel computes `sin`, `cos` or `pow`: the tables of rotary positions and their frequencies are made when a recipe is compiled
  (`frontend/src/rope.rs`).
";

/// The kernel of one op on full f32 inputs.
fn kernel_of(op: ScalarOp, n: usize, machine: &dyn Machine) -> Kernel {
    let region = Region {
        inputs: vec![RegionInput { elem: Elem::F32, broadcast: Broadcast::Full }],
        nodes: vec![RegionNode { op, args: vec![RegionValue::Input(0)] }],
        outputs: vec![RegionOutput { value: RegionValue::Node(0), elem: Elem::F32 }],
    };
    Pointwise { m: 1, n, region }.build(machine)
}

/// The worst error of each function on a machine, and the argument that it has it at.
fn worst(rows: &[Function], inputs: &[Vec<f64>], machine: &dyn Machine) -> Vec<(f64, f64)> {
    let kernels: Vec<Kernel> = rows.iter().zip(inputs).map(|(row, x)| kernel_of(row.0, x.len(), machine)).collect();
    let library = load(&kernels.iter().collect::<Vec<_>>());
    let one = |((row, kernel), x): ((&Function, &Kernel), &Vec<f64>)| {
        let mut x = Buffer::floats(Elem::F32, x);
        let mut y = Buffer::garbage(Elem::F32, x.values().len());
        library.run(kernel, &mut [&mut x, &mut y]);
        let pairs = x.values().into_iter().zip(y.values());
        pairs.map(|(x, y)| (error(row.1(x), y), x)).fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a })
    };
    rows.iter().zip(&kernels).zip(inputs).map(one).collect()
}

/// In units of the last place of the value that is wanted.
fn error(want: f64, found: f64) -> f64 {
    let place = 2f64.powi((want.abs().max(1e-37).log2().floor() as i32) - 23);
    let error = (found - want).abs() / place;
    if error.is_nan() { f64::INFINITY } else { error }
}

/// What the hardware only approximates, the interpreter computes exactly: nobody would see its errors.
#[test]
fn nothing_is_left_to_approximations_of_the_hardware() {
    let gpu = Gpu::ALL[0];
    let kernels: Vec<Kernel> = functions().iter().map(|row| kernel_of(row.0, 64, &gpu)).collect();
    let text = amc_codegen::ptx(&kernels, gpu).unwrap_or_else(|error| panic!("{error}"));
    let approximate = text.lines().find(|line| line.contains(".approx") || line.contains(".ftz"));
    assert!(approximate.is_none(), "{approximate:?}");
}

#[test]
fn functions_have_their_stated_errors() {
    let rows = functions();
    let positive = |op| matches!(op, ScalarOp::Log | ScalarOp::Sqrt | ScalarOp::Rsqrt);
    let inputs: Vec<Vec<f64>> = rows.iter().map(|row| arguments(row.3, positive(row.0))).collect();
    let (cpu, gpu) = (worst(&rows, &inputs, &Target::avx2()), worst(&rows, &inputs, &Gpu::ALL[0]));
    let mut page = HEAD.to_string();
    for ((row, cpu), gpu) in rows.iter().zip(cpu).zip(gpu) {
        for (machine, (error, at)) in [("a CPU", cpu), ("a GPU", gpu)] {
            assert!(error <= row.2, "{} on {machine}: {error} units in the last place at {at}", row.0.name());
        }
        let (name, bound, largest) = (row.0.name(), row.2, row.3);
        writeln!(
            page,
            "| `{name}` | {largest:e} | {bound} | {:.2} | {:.4e} | {:.2} | {:.4e} |",
            cpu.0, cpu.1, gpu.0, gpu.1
        )
        .expect("writing to a string");
    }
    page += TAIL;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/maths.md");
    if std::env::var_os("AMC_BLESS").is_some() {
        return std::fs::write(&path, page).expect("writing the table");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == page, "docs/maths.md is stale: `./x bless` writes it\n{page}");
}
