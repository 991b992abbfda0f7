//! Products that the vendor's library computes: every way in which matrices can lie, against sums in f64, and what is said where
//! the library is missing or fails.
mod artifact;
#[path = "../../tests/support/mod.rs"]
mod support;

use amc_artifact::*;
use amc_fake_cuda::on_machines;
use amc_runtime::device::cuda;
use amc_runtime::session::{Session, SessionOptions};
use artifact::{PTX, artifact, on_gpu};
use half::bf16;
use support::{Toy, temporary, toy};

/// Sizes that divide nothing but what 16 bytes want of the result's rows.
const M: u64 = 7;
const N: u64 = 24;
const K: u64 = 13;
/// Elements from one row of a factor to the next, all larger than they need be.
const STRIDE: u64 = 40;
const WORKSPACE: u64 = 512;
/// Relative to the sum of the terms' sizes: a dozen roundings of f32.
const TOLERANCE: f64 = 1e-6;

/// A product and what C is: another matrix, or the result itself.
#[derive(Clone, Copy, Debug)]
struct Case {
    product: VendorProduct,
    in_place: bool,
}

fn cases() -> Vec<Case> {
    let sides = [(false, false), (true, false), (false, true), (true, true)];
    let mut cases = Vec::new();
    for (a, b) in sides {
        for (out, adds, in_place) in [
            (Storage::F32, false, false),
            (Storage::F32, true, true),
            (Storage::Bf16, false, false),
            (Storage::Bf16, true, false),
        ] {
            let factor = |transposed| Factor { transposed, stride: STRIDE };
            let product =
                VendorProduct { m: M, n: N, k: K, a: factor(a), b: factor(b), out, adds, workspace_bytes: WORKSPACE };
            cases.push(Case { product, in_place });
        }
    }
    cases
}

/// Appends a program of one launch for each of the cases to the toy's plan.
fn with_products(toy: &Toy, cases: &[Case]) -> Plan {
    let mut plan = on_gpu(&toy.plan);
    for (number, Case { product, in_place }) in cases.iter().enumerate() {
        let mut place = |bytes: u64| {
            let offset = plan.arena_bytes.next_multiple_of(16);
            plan.arena_bytes = offset + bytes;
            offset
        };
        let [a, b] = [product.a(), product.b()].map(|matrix| (place(matrix.rows * STRIDE * 2), matrix.rows * STRIDE));
        let elements = M * N;
        let d = place(elements * product.out.bytes());
        let c = if *in_place { d } else { place(elements * product.out.bytes()) };
        let workspace = place(WORKSPACE);
        let port =
            |name: &str, storage, (offset, count)| Port { name: name.into(), storage, shape: vec![count], offset };
        let operands = [Some(a.0), Some(b.0), product.adds.then_some(c), Some(d), Some(workspace)];
        plan.kernels.push(Kernel {
            symbol: format!("product{number}"),
            work: Work::default(),
            code: Code::Vendor(*product),
        });
        plan.programs.push(Program {
            name: format!("case{number}"),
            kind: ProgramKind::Logits,
            batch: 1,
            seq: 1,
            inputs: vec![
                port("a", Storage::Bf16, a),
                port("b", Storage::Bf16, b),
                port("c", product.out, (c, elements)),
            ],
            outputs: vec![port("d", product.out, (d, elements))],
            launches: vec![Launch {
                kernel: plan.kernels.len() as u32 - 1,
                tasks: 1,
                args: operands.into_iter().flatten().map(Arg::Arena).collect(),
                label: format!("main: %{number} matmul"),
                begins: Begins::InStream { stream: 0, behind: vec![] },
                module: String::new(),
            }],
            buffers: Vec::new(),
        });
    }
    plan
}

/// A matrix's elements, and what its memory holds: in the gaps between rows there are no numbers.
fn filled(matrix: &Matrix, salt: u64) -> (Vec<f64>, Vec<bf16>) {
    let value = |i: u64| bf16::from_f32((((i * 37 + salt * 11) % 97) as f32 - 48.0) / 31.0);
    let memory = (0..matrix.rows * matrix.stride)
        .map(|i| if i % matrix.stride < matrix.columns { value(i) } else { bf16::NAN })
        .collect::<Vec<_>>();
    (memory.iter().map(|x| x.to_f64()).collect(), memory)
}

/// The product by plain sums, and the sum of its terms' sizes.
fn expected(product: &VendorProduct, a: &[f64], b: &[f64], c: &[f64]) -> Vec<(f64, f64)> {
    let at = |memory: &[f64], factor: Factor, row: u64, column: u64| {
        let (row, column) = if factor.transposed { (column, row) } else { (row, column) };
        memory[(row * factor.stride + column) as usize]
    };
    let element = |i: u64| {
        let terms = (0..K).map(|k| at(a, product.a, i / N, k) * at(b, product.b, k, i % N));
        let added = if product.adds { c[i as usize] } else { 0.0 };
        terms.fold((added, added.abs()), |(sum, sizes), term| (sum + term, sizes + term.abs()))
    };
    (0..M * N).map(element).collect()
}

#[test]
fn products_are_those_of_the_plan() {
    on_machines("products_are_those_of_the_plan", &["", "cublaslt=13 driver=13000 capability=8.0"], |_| {
        let (folder, cases) = (temporary(), cases());
        let toy = toy(folder.path(), false);
        let artifact = artifact(&toy, &with_products(&toy, &cases), PTX, "sm_80");
        let mut session = Session::open(&artifact, &SessionOptions::default()).unwrap();
        for (number, Case { product, in_place }) in cases.iter().enumerate() {
            let program = session.program(&format!("case{number}")).unwrap();
            // The first run is a walk through the launches, the second a graph.
            for run in 0..2 {
                let ((a, a_memory), (b, b_memory)) = (filled(&product.a(), run), filled(&product.b(), 5 + run));
                let (c, c_memory) = filled(&Matrix { storage: Storage::Bf16, ..product.result() }, 9 + run);
                session.write(program, "a", &a_memory).unwrap();
                session.write(program, "b", &b_memory).unwrap();
                if product.out == Storage::Bf16 {
                    session.write(program, "c", &c_memory).unwrap();
                } else {
                    session.write(program, "c", &c.iter().map(|x| *x as f32).collect::<Vec<_>>()).unwrap();
                }
                session.run(program).unwrap();
                let found = session.read(program, "d").unwrap();
                let rounding = if product.out == Storage::Bf16 { 1.0 / 256.0 } else { 0.0 };
                for (i, (found, (wanted, sizes))) in found.iter().zip(expected(product, &a, &b, &c)).enumerate() {
                    let error = (f64::from(*found) - wanted).abs();
                    let most = TOLERANCE * sizes + rounding * wanted.abs();
                    assert!(error <= most, "{product:?}, in place {in_place}, element {i}: {found}, wanted {wanted}");
                }
            }
        }
    });
}

/// What is said of a session that does not open.
fn error(toy: &Toy, plan: &Plan, ptx: &str) -> String {
    match Session::open(&artifact(toy, plan, ptx, "sm_80"), &SessionOptions::default()) {
        Ok(_) => panic!("a session without its products"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn the_newest_release_that_the_driver_runs_is_taken() {
    let machines = [
        "driver=12040",
        "driver=13000",
        "driver=13000 cublaslt=12",
        "driver=13020 cublaslt=environment",
        "driver=12040 cublaslt=13",
    ];
    on_machines("the_newest_release_that_the_driver_runs_is_taken", &machines, |machine| {
        let found = cuda::products().map_err(|error| format!("{error:#}"));
        let wanted = match machine {
            "driver=12040" | "driver=13000 cublaslt=12" => "cuBLASLt 12.9 (libcublasLt.so.12)",
            "driver=13000" => "cuBLASLt 12.9 (libcublasLt.so.13)",
            "driver=13020 cublaslt=environment" => "/nvidia/cu13/lib/libcublasLt.so.13)",
            _ => {
                let said = found.unwrap_err();
                assert!(said.contains("install libcublasLt.so.12 where the loader finds it"), "{said}");
                return;
            }
        };
        assert!(found.as_ref().is_ok_and(|found| found.ends_with(wanted)), "{found:?}");
    });
}

#[test]
fn collectives_are_found_by_the_name_of_their_release() {
    let machines = ["", "nccl=environment driver=13000", "nccl=none"];
    on_machines("collectives_are_found_by_the_name_of_their_release", &machines, |machine| {
        let found = cuda::collectives().map_err(|error| format!("{error:#}"));
        match machine {
            "" => assert_eq!(found.unwrap(), "2.27.3 (libnccl.so.2)"),
            "nccl=none" => {
                let said = found.unwrap_err();
                assert!(said.contains("where the package nvidia-nccl-cu12 puts it"), "{said}");
            }
            _ => assert!(
                found.as_ref().is_ok_and(|found| found.ends_with("/nvidia/nccl/lib/libnccl.so.2)")),
                "{found:?}"
            ),
        }
    });
}

#[test]
fn what_is_missing_is_said_and_only_where_it_is_wanted() {
    let machines =
        ["cublaslt=none", "cublaslt=none driver=13010", "lacks=cublasLtMatmulAlgoGetHeuristic", "algorithms=0"];
    on_machines("what_is_missing_is_said_and_only_where_it_is_wanted", &machines, |machine| {
        let folder = temporary();
        let toy = toy(folder.path(), false);
        let wanted: &[&str] = match machine {
            "cublaslt=none" => &[
                "this machine has no cuBLASLt for its driver (",
                "install libcublasLt.so.12 where the loader finds it, or the package nvidia-cublas-cu12 into the active \
                 virtual environment, or compile with `amc compile --no-vendor`",
            ],
            "cublaslt=none driver=13010" => &["install libcublasLt.so.13", "the package nvidia-cublas into"],
            "algorithms=0" => {
                &["product `product0`, launch 0 of program `case0`, which computes `main: %0 matmul`: cuBLASLt 12.9 \
                 (libcublasLt.so.12) has no algorithm for it that keeps to 512 bytes of workspace: compile with `amc compile \
                 --no-vendor`"]
            }
            _ => &[
                "libcublasLt.so.12: cuBLASLt has no function `cublasLtMatmulAlgoGetHeuristic`: install another release, or \
                 compile with `--no-vendor`",
            ],
        };
        // Without the library, the PTX is not looked at.
        let ptx = if machine == "algorithms=0" { PTX } else { "no PTX" };
        let said = error(&toy, &with_products(&toy, &cases()[..2]), ptx);
        assert!(wanted.iter().all(|part| said.contains(part)), "{said}");
        artifact::session(&toy).unwrap();
    });
}

#[test]
fn a_product_that_fails_is_named_with_what_it_computes() {
    on_machines("a_product_that_fails_is_named_with_what_it_computes", &["multiplies=0"], |_| {
        let folder = temporary();
        let toy = toy(folder.path(), false);
        let said = error(&toy, &with_products(&toy, &cases()[..2]), PTX);
        let wanted = "program `case0`: cannot launch kernel `product0` for `main: %0 matmul`: cuBLASLt refuses it: \
                      CUBLAS_STATUS_INVALID_VALUE (of the fake library)";
        assert!(said.contains(wanted), "{said}");
    });
}
