use super::*;
use crate::{Factor, Init, Kernel, OperandArray, VendorProduct, WeightTensor, Work};

fn plan() -> Plan {
    let param = Param {
        name: "w".into(),
        storage: Storage::Bf16,
        shape: vec![4, 4],
        init: Init::Zeros,
        value_offset: 0,
        grad_offset: 64,
        exp_avg_offset: 128,
        exp_avg_sq_offset: 192,
    };
    let port = |name: &str, offset| Port { name: name.into(), storage: Storage::I32, shape: vec![8], offset };
    let args = vec![Arg::Arena(0), Arg::Weight { tensor: 0, offset: 0 }, Arg::Constant(3)];
    let buffer =
        Buffer { label: "main: %1 x".into(), module: String::new(), offset: 256, bytes: 64, first: 0, last: 1 };
    let program = Program {
        name: "train".into(),
        kind: ProgramKind::Train,
        batch: 1,
        seq: 8,
        inputs: vec![port("tokens", 256)],
        outputs: vec![port("loss", 288)],
        launches: vec![Launch {
            kernel: 0,
            tasks: 2,
            args,
            label: "x".into(),
            begins: Begins::BehindAll,
            module: String::new(),
        }],
        buffers: vec![buffer],
    };
    Plan {
        arena_bytes: 320,
        scratch_bytes: 64,
        kernels: vec![Kernel { symbol: "k".into(), work: Work::default(), code: Code::Cpu }],
        constants: vec![0; 4],
        weights: vec![WeightTensor { name: "e".into(), storage: Storage::F32, shape: vec![2], init: Init::Checkpoint }],
        params: vec![param],
        programs: vec![program],
    }
}

fn in_stream(stream: u32, behind: &[u32]) -> Begins {
    Begins::InStream { stream, behind: behind.to_vec() }
}

/// All of the arena but for its first 16 bytes: 19 rows of 8 bf16, 16 bytes apart.
const MAP: TensorMap =
    TensorMap { operand: 3, storage: Storage::Bf16, rows: 19, columns: 8, stride: 8, box_rows: 64, box_row_bytes: 32 };

/// The error of a plan after one fault was put in.
fn fault(break_it: impl FnOnce(&mut Plan)) -> String {
    let mut broken = plan();
    break_it(&mut broken);
    format!("{:#}", broken.validate().unwrap_err())
}

#[test]
fn a_sound_plan_passes() {
    plan().validate().unwrap();
}

#[test]
fn without_training_there_are_values_alone() {
    let mut plan = plan();
    plan.params[0].grad_offset = plan.params[0].exp_avg_offset;
    assert!(plan.validate().is_err());
    plan.programs[0].kind = ProgramKind::Decode;
    plan.validate().unwrap();
}

#[test]
fn faults_of_tensor_maps_are_named() {
    let map = MAP;
    let put = |plan: &mut Plan, maps: Vec<TensorMap>, offset| {
        plan.kernels[0].code = Code::Gpu(Block { threads: 1, shared_bytes: 0, maps, arrays: vec![] });
        let launch = &mut plan.programs[0].launches[0];
        launch.args.push(Arg::Arena(offset));
        launch.begins = in_stream(0, &[]);
    };
    let mut sound = plan();
    put(&mut sound, vec![map], 16);
    sound.validate().unwrap();
    let broken = |map, offset| fault(|p| put(p, vec![map], offset));
    assert!(broken(map, 24).contains("a tensor map from byte 24 on, wanted a multiple of 16"));
    assert!(broken(map, 32).contains("a tensor map of 19 x 8 from byte 32 on, of 320 bytes of arena"));
    assert!(broken(TensorMap { operand: 4, ..map }, 16).contains("a tensor map of argument 4, of 4"));
    assert!(broken(TensorMap { rows: 0, ..map }, 16).contains("operand 3 has 0 x 8 elements"));
    assert!(broken(TensorMap { rows: 1 << 33, ..map }, 16).contains("elements"));
    assert!(broken(TensorMap { columns: 9, ..map }, 16).contains("rows of 9 elements that are 8 apart"));
    assert!(broken(TensorMap { stride: 9, ..map }, 16).contains("wanted a multiple of 16 bytes"));
    assert!(broken(TensorMap { stride: u64::MAX, ..map }, 16).contains("wanted a multiple of 16 bytes"));
    assert!(broken(TensorMap { stride: 1 << 39, ..map }, 16).contains("wanted a multiple of 16 bytes"));
    assert!(broken(TensorMap { stride: 1 << 38, rows: 1 << 32, ..map }, 16).contains("of 320 bytes of arena"));
    assert!(broken(TensorMap { box_rows: 257, ..map }, 16).contains("boxes of 257 rows"));
    assert!(broken(TensorMap { box_row_bytes: 16, ..map }, 16).contains("boxes with rows of 16 bytes"));
    assert!(fault(|p| put(p, vec![map, map], 16)).contains("not in the order of its operands"));
}

#[test]
fn faults_of_operand_arrays_are_named() {
    let array = |first, count| OperandArray { first, count };
    let put = |plan: &mut Plan, arrays: Vec<OperandArray>, last| {
        plan.kernels[0].code = Code::Gpu(Block { threads: 1, shared_bytes: 0, maps: vec![MAP], arrays });
        let launch = &mut plan.programs[0].launches[0];
        launch.args.extend([16, last].map(Arg::Arena));
        launch.begins = in_stream(0, &[]);
    };
    let mut sound = plan();
    put(&mut sound, vec![array(0, 2), array(3, 2)], 16);
    sound.validate().unwrap();
    let broken = |arrays, last| fault(|p| put(p, arrays, last));
    assert!(broken(vec![array(3, 2)], 24).contains("argument 4: a tensor map from byte 24 on"));
    assert!(broken(vec![array(3, 3)], 16).contains("an array of arguments 3 to 6, of 5"));
    assert!(broken(vec![array(0, u32::MAX), array(3, 2)], 16).contains("overlap or are not in the order"));
    assert!(broken(vec![array(3, 2), array(0, 1)], 16).contains("overlap or are not in the order"));
    assert!(broken(vec![array(0, 0)], 16).contains("an array of no operands"));
}

#[test]
fn faults_in_the_order_of_launches_are_named() {
    let on_gpu = |plan: &mut Plan, second: Begins| {
        plan.kernels[0].code = Code::Gpu(Block { threads: 32, shared_bytes: 0, maps: vec![], arrays: vec![] });
        let launches = &mut plan.programs[0].launches;
        launches[0].begins = in_stream(0, &[]);
        launches.push(Launch { begins: second, ..launches[0].clone() });
    };
    let mut sound = plan();
    on_gpu(&mut sound, in_stream(1, &[0]));
    sound.validate().unwrap();
    let broken = |second| fault(|p| on_gpu(p, second));
    assert!(broken(in_stream(0, &[1])).contains("launch 1 (`x`): it waits for launches [1], wanted earlier ones"));
    assert!(broken(in_stream(0, &[0, 0])).contains("it waits for launches [0, 0], wanted the latest first"));
    assert!(broken(in_stream(16, &[])).contains("stream 16 of 16"));
    assert!(broken(Begins::BehindAll).contains("a kernel of a GPU, but in no stream"));
    let on_cpu = fault(|p| p.programs[0].launches[0].begins = in_stream(0, &[]));
    assert!(on_cpu.contains("launch 0 (`x`): a kernel of a CPU in a stream"));
}

#[test]
fn faults_of_products_of_the_vendor_are_named() {
    // Half of the weights' 32 bytes; C and D are 4 x 4 of f32.
    let (a, b) = (Factor { transposed: true, stride: 8 }, Factor { transposed: false, stride: 8 });
    let product = VendorProduct { m: 4, n: 4, k: 2, a, b, out: Storage::F32, adds: true, workspace_bytes: 16 };
    let args = [0, 16, 0, 256, 304].map(Arg::Arena);
    let put = |plan: &mut Plan, product, args: &[Arg]| {
        plan.kernels[0].code = Code::Vendor(product);
        let launch = &mut plan.programs[0].launches[0];
        (launch.tasks, launch.args, launch.begins) = (1, args.to_vec(), in_stream(0, &[]));
    };
    let mut sound = plan();
    sound.weights[0].shape = vec![8];
    let with_weight = |arg| [args[0], arg, args[2], args[3], args[4]];
    put(&mut sound, product, &with_weight(Arg::Weight { tensor: 0, offset: 0 }));
    sound.validate().unwrap();
    let product_fault = |product| fault(|p| put(p, product, &args));
    assert!(product_fault(VendorProduct { m: 0, ..product }).contains("kernel `k`: a matrix of 2 x 0"));
    let narrow = Factor { stride: 3, ..a };
    assert!(product_fault(VendorProduct { a: narrow, ..product }).contains("rows of 4 elements that are 3 apart"));
    let odd = Factor { stride: 9, ..b };
    assert!(product_fault(VendorProduct { b: odd, ..product }).contains("rows 9 elements apart, wanted a multiple"));
    let short = VendorProduct { n: 3, ..product };
    assert!(product_fault(short).contains("rows 3 elements apart"));
    assert!(product_fault(VendorProduct { out: Storage::I32, ..product }).contains("stored as I32"));
    let endless = Factor { stride: u64::MAX / 8 * 8, ..a };
    assert!(product_fault(VendorProduct { a: endless, ..product }).contains("wanted a multiple of 16 bytes"));
    let far = Factor { stride: 1 << 62, ..a };
    assert!(product_fault(VendorProduct { a: far, ..product }).contains("argument 0: a product's operand from byte 0"));
    let launch_fault = |change: &dyn Fn(&mut Launch)| {
        fault(|p| {
            put(p, product, &args);
            change(&mut p.programs[0].launches[0]);
        })
    };
    let moved = |index: usize, arg| launch_fault(&move |launch| launch.args[index] = arg);
    assert!(moved(0, Arg::Arena(8)).contains("argument 0: a product's operand from byte 8 on, wanted a multiple"));
    assert!(moved(1, Arg::Arena(304)).contains("argument 1: a product's operand from byte 304 on reaches behind"));
    assert!(moved(3, Arg::Arena(272)).contains("argument 3: a product's operand from byte 272 on reaches behind"));
    assert!(moved(3, Arg::Weight { tensor: 0, offset: 0 }).contains("stored outside of the arena"));
    assert!(moved(4, Arg::Constant(0)).contains("stored outside of the arena"));
    let large = VendorProduct { workspace_bytes: 17, ..product };
    assert!(product_fault(large).contains("argument 4: a product's operand from byte 304 on reaches behind byte 320"));
    assert!(launch_fault(&|launch| launch.args.truncate(4)).contains("4 arguments of a product that takes 5"));
    assert!(launch_fault(&|launch| launch.tasks = 2).contains("2 tasks of a product that is one"));
}

#[test]
fn each_fault_is_named() {
    let launch = |plan: &mut Plan, arg| plan.programs[0].launches[0].args.push(arg);
    assert!(fault(|p| launch(p, Arg::Arena(320))).contains("argument 3: byte 320 of 320 bytes of arena"));
    assert!(fault(|p| launch(p, Arg::Arena(u64::MAX))).contains("of arena"));
    assert!(fault(|p| launch(p, Arg::Constant(4))).contains("byte 4 of 4 bytes of constants"));
    assert!(fault(|p| launch(p, Arg::Weight { tensor: 0, offset: 8 })).contains("byte 8 of 8 bytes of frozen tensor"));
    assert!(fault(|p| launch(p, Arg::Weight { tensor: 1, offset: 0 })).contains("frozen tensor 1 of 1"));
    assert!(fault(|p| p.programs[0].launches[0].kernel = 1).contains("kernel 1 of 1"));
    assert!(fault(|p| p.programs[0].launches[0].tasks = 0).contains("no tasks"));
    assert!(fault(|p| p.programs[0].inputs[0].offset = 292).contains("do not fit"));
    assert!(fault(|p| p.programs[0].inputs[0].offset = u64::MAX - 3).contains("do not fit"));
    assert!(fault(|p| p.programs[0].inputs[0].offset = 257).contains("multiple of 4"));
    assert!(fault(|p| p.programs[0].inputs[0].offset = 240).contains("overlaps parameter state at 192..256"));
    assert!(fault(|p| p.params[0].grad_offset = 24).contains("overlaps"));
    assert!(fault(|p| p.params[0].shape = vec![u64::MAX, 2]).contains("addressable"));
    assert!(fault(|p| p.weights[0].shape = vec![1 << 62]).contains("addressable"));
    assert!(fault(|p| p.programs[0].buffers[0].bytes = 65).contains("outside the arena"));
    assert!(fault(|p| p.programs[0].buffers[0].last = 2).contains("lives from 0 to 2"));
    assert!(fault(|p| p.kernels[0].symbol = "a\0b".into()).contains("plain name"));
    let empty = Code::Gpu(Block { threads: 0, shared_bytes: 0, maps: vec![], arrays: vec![] });
    assert!(fault(|p| p.kernels[0].code = empty).contains("blocks of no threads"));
    assert!(fault(|p| p.programs.push(p.programs[0].clone())).contains("two programs are named `train`"));
    assert!(fault(|p| p.arena_bytes = u64::MAX).contains("not addressable"));
}
