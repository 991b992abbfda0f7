//! What is said when something is missing, does not fit, or fails.
mod artifact;
#[path = "../../tests/support/mod.rs"]
mod support;

use amc_artifact::{Begins, Block, Code, Plan, Storage, TensorMap};
use amc_fake_cuda::{NO_DRIVER, on_machines};
use amc_runtime::device::cuda;
use amc_runtime::session::{Session, SessionOptions};
use artifact::{PTX, artifact, on_gpu, session};
use support::{BATCH, SEQUENCE, Toy, temporary, toy};

/// What is said of something that does not load.
fn error(toy: &Toy, plan: &Plan, ptx: &str, arch: &str) -> String {
    match Session::open(&artifact(toy, plan, ptx, arch), &SessionOptions::default()) {
        Ok(_) => panic!("a session of something broken"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn what_the_machine_lacks_is_said() {
    let machines = [NO_DRIVER, "driver=11040", "devices=0", "capability=7.5", "capability=10.0"];
    on_machines("what_the_machine_lacks_is_said", &machines, |machine| {
        let folder = temporary();
        let toy = toy(folder.path(), false);
        let plan = on_gpu(&toy.plan);
        let (arch, wanted) = match machine {
            NO_DRIVER => ("sm_80", "this machine has no NVIDIA driver ("),
            "driver=11040" => {
                ("sm_80", "the NVIDIA driver is for CUDA 11.4, wanted 12.1 or later: install a newer driver")
            }
            "devices=0" => ("sm_80", "the NVIDIA driver shows no GPU"),
            "capability=7.5" => (
                "sm_80",
                "compiled for sm_80, GPUs of compute capability 8.0 or later; Fake GPU has 7.5: compile it for this GPU with \
                 `amc compile --target`",
            ),
            _ => ("sm_90a", "compiled for sm_90a, GPUs of compute capability 9.0; Fake GPU has 10.0"),
        };
        let found = error(&toy, &plan, PTX, arch);
        assert!(found.contains(wanted), "{found}");
        let summary = cuda::summary().map_err(|error| error.to_string());
        match machine.starts_with("capability") {
            true => assert!(summary.unwrap().starts_with("Fake GPU, compute capability"), "{machine}"),
            false => assert!(found.contains(&summary.unwrap_err()), "{found}"),
        }
    });
}

#[test]
fn too_little_memory_is_said_before_anything_is_loaded() {
    on_machines("too_little_memory_is_said_before_anything_is_loaded", &["memory=5824", "memory=5823"], |machine| {
        let folder = temporary();
        let toy = toy(folder.path(), false);
        let mut plan = on_gpu(&toy.plan);
        assert_eq!(plan.arena_bytes + 768, 5824);
        if machine == "memory=5824" {
            session(&toy).unwrap();
            return;
        }
        // Neither the PTX nor the weights are looked at.
        plan.weights[0].name = "missing".into();
        let found = error(&toy, &plan, "no PTX", "sm_80");
        let wanted = "the run needs 5824 bytes of GPU memory (5056 for the step, 768 for frozen weights, 0 for constants); \
                      Fake GPU has 5823 of 5823 free";
        assert!(found.contains(wanted), "{found}");
    });
}

/// The block of the kernel `backward`.
fn block(plan: &mut Plan) -> &mut Block {
    let Code::Gpu(block) = &mut plan.kernels[1].code else { panic!("a kernel of a GPU's") };
    block
}

#[test]
fn what_does_not_load_is_named() {
    on_machines("what_does_not_load_is_named", &[""], |_| {
        let folder = temporary();
        let toy = toy(folder.path(), false);
        let plan = on_gpu(&toy.plan);
        let found = error(&toy, &plan, &PTX.replace("bar.sync 0;", "bar.sink 0;"), "sm_80");
        let wanted =
            ["cannot load the compiled kernels", "kernel `backward`, line ", "bar.sink", "CUDA_ERROR_INVALID_PTX"];
        assert!(wanted.iter().all(|part| found.contains(part)), "{found}");
        let found = error(&toy, &plan, &PTX.replace("entry norm", "entry nrom"), "sm_80");
        assert!(found.contains("the compiled kernels lack `norm`: run `amc compile` again"), "{found}");
        assert!(error(&toy, &plan, PTX, "gfx90a").contains("for the GPU `gfx90a`, wanted a name like sm_80"));
        let changed = |change: &dyn Fn(&mut Plan)| {
            let mut plan = plan.clone();
            change(&mut plan);
            error(&toy, &plan, PTX, "sm_80")
        };
        let found = changed(&|plan| {
            plan.kernels[1].code = Code::Cpu;
            let launches = plan.programs.iter_mut().flat_map(|program| &mut program.launches);
            launches.filter(|launch| launch.kernel == 1).for_each(|launch| launch.begins = Begins::BehindAll);
        });
        assert!(found.contains("kernel `backward` of the plan has no block of threads"), "{found}");
        let found = changed(&|plan| plan.scratch_bytes = 8);
        assert!(found.contains("kernels want scratch"), "{found}");
        let found = changed(&|plan| plan.weights[0].name = "missing".into());
        assert!(found.contains("there is no tensor `missing`"), "{found}");
        let large = |bytes| move |plan: &mut Plan| block(plan).shared_bytes = bytes;
        let found = changed(&large(300 << 10));
        assert!(found.contains("kernel `backward` cannot have 307200 bytes of shared memory"), "{found}");
        let found = changed(&|plan| block(plan).threads = 1025);
        let wanted =
            "program `train`: cannot launch kernel `backward` for `main: %1 backward`: CUDA_ERROR_INVALID_VALUE";
        assert!(found.contains(wanted), "{found}");
        let mut roomy = plan.clone();
        large(100 << 10)(&mut roomy);
        Session::open(&artifact(&toy, &roomy, PTX, "sm_80"), &SessionOptions::default()).unwrap();
    });
}

#[test]
fn a_driver_without_a_function_is_said_where_kernels_want_it() {
    let machines = ["lacks=cuTensorMapEncodeTiled", ""];
    on_machines("a_driver_without_a_function_is_said_where_kernels_want_it", &machines, |machine| {
        let folder = temporary();
        let toy = toy(folder.path(), false);
        let mut plan = on_gpu(&toy.plan);
        // Of the frozen tensor, rows of 48 bytes.
        let map = TensorMap {
            operand: 0,
            storage: Storage::F32,
            rows: 12,
            columns: 12,
            stride: 12,
            box_rows: 8,
            box_row_bytes: 128,
        };
        block(&mut plan).maps = vec![map];
        let opened = Session::open(&artifact(&toy, &plan, PTX, "sm_80"), &SessionOptions::default());
        if machine.is_empty() {
            opened.unwrap();
            return;
        }
        let found = format!("{:#}", opened.err().expect("a session without maps"));
        let wanted = "the NVIDIA driver has no function `cuTensorMapEncodeTiled`, which the compiled kernels want: install a \
                      newer one";
        assert!(found.contains(wanted), "{found}");
        session(&toy).unwrap();
    });
}

const PLACES: usize = BATCH * SEQUENCE;
/// No such column: the kernel reads behind its shared memory.
const WRONG_LABEL: i32 = 1000;

fn step(session: &mut Session, label: i32) -> anyhow::Result<()> {
    let train = session.program("train")?;
    session.write(train, "tokens", &[3; PLACES])?;
    session.write(train, "labels", &[label; PLACES])?;
    session.write(train, "loss_scale", &[1f32])?;
    session.run(train)?;
    assert!(session.read(train, "loss")?[0] > 0.0);
    Ok(())
}

#[test]
fn a_kernel_that_fails_is_named_with_what_it_computes() {
    on_machines("a_kernel_that_fails_is_named_with_what_it_computes", &[""], |_| {
        let folder = temporary();
        let mut session = session(&toy(folder.path(), false)).unwrap();
        let found = step(&mut session, WRONG_LABEL).unwrap_err().to_string();
        let kernel =
            "kernel `backward` on Fake GPU, launch 0 of program `train`, which computes `main: %1 backward`: it failed";
        assert!(found.starts_with(kernel) && found.contains("(kernel `backward`, line"), "{found}");
        assert!(found.contains("block (3, 0, 0)") && found.contains("of shared memory"), "{found}");
        // From then on, the driver says nothing else.
        assert!(step(&mut session, 1).unwrap_err().to_string().contains("block (3, 0, 0)"));
    });
}

#[test]
fn a_later_launch_that_fails_is_told_from_those_before_it() {
    on_machines("a_later_launch_that_fails_is_told_from_those_before_it", &[""], |_| {
        let folder = temporary();
        let toy = toy(folder.path(), false);
        // The kernel that sums reads behind the arena.
        let ptx = PTX
            .replace("ld.global.f32 %x, [%at];\n    add.f32 %sum", "ld.global.f32 %x, [%at+65536];\n    add.f32 %sum");
        assert_ne!(ptx, PTX);
        let artifact = artifact(&toy, &on_gpu(&toy.plan), &ptx, "sm_80");
        let mut session = Session::open(&artifact, &SessionOptions::default()).unwrap();
        let found = step(&mut session, 1).unwrap_err().to_string();
        let kernel = "kernel `sum` on Fake GPU, launch 1 of program `train`, which computes `main: %2 sum`: it failed: \
                      CUDA_ERROR_ILLEGAL_ADDRESS";
        assert!(found.starts_with(kernel), "{found}");
    });
}

#[test]
fn a_replay_that_fails_says_how_to_learn_more() {
    on_machines("a_replay_that_fails_says_how_to_learn_more", &[""], |_| {
        let folder = temporary();
        let toy = toy(folder.path(), false);
        let second_run = |measured: bool| {
            let mut session = session(&toy).unwrap();
            step(&mut session, 1).unwrap();
            if measured {
                session.start_profile().unwrap();
            }
            step(&mut session, WRONG_LABEL).unwrap_err().to_string()
        };
        // A thread that has had a failure has no GPU any more.
        let [replayed, measured] = std::thread::scope(|scope| {
            [false, true].map(|measured| scope.spawn(move || second_run(measured)).join().unwrap())
        });
        assert!(
            replayed.starts_with("program `train` failed on Fake GPU (") && replayed.contains("--profile"),
            "{replayed}"
        );
        assert!(measured.starts_with("kernel `backward` on Fake GPU, launch 0 of program `train`"), "{measured}");
    });
}
