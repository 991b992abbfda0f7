//! Text to shared object: what it computes, that it is reproducible, and what it says about bad text.
use amc_codegen::{Error, assembly, host_target, llvm_ir, shared_object, shared_object_with_threads};
use amc_kernels::{
    Code, Kernel, Work,
    emit::{Elem, Emitter},
};

type Entry = unsafe extern "C" fn(*const *mut u8, i64, i64, *mut u8);

/// `y[i] = x[i] * factor + 1` for tasks of eight elements.
fn scale(symbol: &str, factor: f32) -> Kernel {
    let mut e = Emitter::new();
    let (x, y) = (e.arg(0), e.arg(1));
    let (factor, one) = (e.float(factor, 8), e.float(1.0, 8));
    e.for_loop("%begin", "%end", 1, &[], |e, task, _| {
        let eight = e.index(8);
        let at = e.int2("muli", task, &eight);
        let (x, y) = (e.offset(&x, &at, Elem::F32), e.offset(&y, &at, Elem::F32));
        let value = e.load(&x, Elem::F32, 8);
        let value = e.fma(&value, &factor, &one, 8);
        e.store(&value, &y, Elem::F32, 8);
        vec![]
    });
    Kernel {
        symbol: symbol.into(),
        code: Code::Cpu(e.kernel(symbol)),
        tasks: 4,
        scratch_bytes: 0,
        work: Work::new("test", 0),
    }
}

#[test]
fn kernels_run() {
    let kernels = [scale("twice", 2.0), scale("thrice", 3.0)];
    let bytes = shared_object(&kernels, &host_target().unwrap()).unwrap();
    let path = std::env::temp_dir().join(format!("amc-codegen-{}.so", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    // SAFETY: the object was just built from the kernels above; operands outlive the calls and are as large as they say.
    unsafe {
        let library = libloading::Library::new(&path).unwrap();
        for (symbol, factor) in [("twice", 2.0f32), ("thrice", 3.0)] {
            let entry: libloading::Symbol<Entry> = library.get(symbol).unwrap();
            let x: Vec<f32> = (0..32).map(|i| i as f32).collect();
            let mut y = vec![0f32; 32];
            let args = [x.as_ptr() as *mut u8, y.as_mut_ptr() as *mut u8];
            entry(args.as_ptr(), 1, 4, std::ptr::null_mut());
            let want: Vec<f32> = (0..32).map(|i| if i < 8 { 0.0 } else { i as f32 * factor + 1.0 }).collect();
            assert_eq!(y, want);
        }
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn the_same_kernels_give_the_same_bytes() {
    let kernels: Vec<Kernel> = (0..6).map(|i| scale(&format!("scale{i}"), i as f32)).collect();
    let target = host_target().unwrap();
    let one = shared_object_with_threads(&kernels, &target, 1).unwrap();
    assert!(one == shared_object_with_threads(&kernels, &target, 3).unwrap(), "bytes depend on the number of threads");
    let text = String::from_utf8_lossy(&one).into_owned();
    assert!(!text.contains("/tmp") && !text.contains("000001.o"), "the place of the build is in the object");
}

#[test]
fn bad_text_is_named() {
    let good = scale("bad", 1.0);
    let text = good.text().expect("a kernel with text").replace("math.fma", "math.fmz");
    let bad = Kernel { code: Code::Cpu(text), ..good };
    let error = shared_object(&[scale("good", 1.0), bad], &host_target().unwrap()).unwrap_err().to_string();
    assert!(error.starts_with("kernel `bad`: MLIR refuses its text: line 15:10:"), "{error}");
    assert!(error.contains("math.fmz"), "{error}");
}

#[test]
fn two_kernels_of_one_name_are_refused() {
    let error = shared_object(&[scale("same", 1.0), scale("same", 2.0)], &host_target().unwrap()).unwrap_err();
    assert!(matches!(error, Error::Duplicate { symbol } if symbol == "same"));
}

#[test]
fn a_call_into_a_library_is_refused() {
    let mut e = Emitter::new();
    let x = e.arg(0);
    let value = e.load(&x, Elem::F32, 1);
    let value = e.op(format!("math.powf {value}, {value} : f32"));
    e.store(&value, &x, Elem::F32, 1);
    let kernel = Kernel {
        symbol: "calls".into(),
        code: Code::Cpu(e.kernel("calls")),
        tasks: 1,
        scratch_bytes: 0,
        work: Work::new("test", 0),
    };
    let error = shared_object(&[kernel], &host_target().unwrap()).unwrap_err().to_string();
    assert!(error.contains("powf"), "{error}");
}

#[test]
fn code_can_be_read() {
    let target = host_target().unwrap();
    assert!(llvm_ir(&scale("shown", 2.0), &target).unwrap().contains("define void @shown("));
    assert!(assembly(&scale("shown", 2.0), &target).unwrap().contains("vfmadd"));
}
