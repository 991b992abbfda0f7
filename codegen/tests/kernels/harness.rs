//! Compiles kernels, runs them on buffers that end where memory ends, and compares with f64.
use crate::interpreted::Interpreted;
use amc_codegen::{host_target, shared_object};
use amc_kernels::emit::Elem;
use amc_kernels::steps::{Slot, Steps};
use amc_kernels::{Code, Kernel};
use amc_ptx::Mode;
use libloading::{Library, Symbol};
use std::ffi::c_void;

type Entry = unsafe extern "C" fn(*const *mut u8, i64, i64, *mut u8);

const PAGE: usize = 4096;

// SAFETY: the declarations match POSIX on Linux x86-64.
unsafe extern "C" {
    fn mmap(address: *mut c_void, length: usize, protection: i32, flags: i32, file: i32, offset: i64) -> *mut c_void;
    fn mprotect(address: *mut c_void, length: usize, protection: i32) -> i32;
    fn munmap(address: *mut c_void, length: usize) -> i32;
}

/// Memory whose last byte is followed by a page that nothing may touch, and whose first is preceded by marked bytes.
struct Fenced {
    base: *mut u8,
    mapped: usize,
    start: usize,
    length: usize,
}

impl Fenced {
    fn new(content: &[u8]) -> Fenced {
        let body = content.len().div_ceil(PAGE).max(1) * PAGE + PAGE;
        // SAFETY: a fresh private anonymous mapping (flags 0x22), read and write; its last page becomes inaccessible.
        let base = unsafe {
            let base = mmap(std::ptr::null_mut(), body + PAGE, 3, 0x22, -1, 0).cast::<u8>();
            assert!(base as isize != -1 && mprotect(base.add(body).cast(), PAGE, 0) == 0, "cannot map memory");
            base
        };
        let fenced = Fenced { base, mapped: body + PAGE, start: body - content.len(), length: content.len() };
        // SAFETY: `start + length` is the end of the accessible part.
        unsafe {
            std::ptr::write_bytes(base, 0xA5, fenced.start);
            std::ptr::copy_nonoverlapping(content.as_ptr(), base.add(fenced.start), content.len());
        }
        fenced
    }

    fn pointer(&self) -> *mut u8 {
        // SAFETY: `start` lies within the mapping.
        unsafe { self.base.add(self.start) }
    }

    fn content(&self) -> Vec<u8> {
        // SAFETY: the accessible part has `start + length` initialised bytes.
        let all = unsafe { std::slice::from_raw_parts(self.base, self.start + self.length) };
        assert!(all[..self.start].iter().all(|&b| b == 0xA5), "a kernel wrote before its buffer");
        all[self.start..].to_vec()
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` and nothing points into it any more.
        unsafe { munmap(self.base.cast(), self.mapped) };
    }
}

/// An operand: its storage form and its values' bytes.
#[derive(Clone, PartialEq, Debug)]
pub struct Buffer {
    elem: Elem,
    bytes: Vec<u8>,
}

impl Buffer {
    pub fn floats(elem: Elem, values: &[f64]) -> Buffer {
        let bytes = match elem {
            Elem::F32 => values.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect(),
            Elem::Bf16 => values.iter().flat_map(|v| round_bf16(*v as f32).to_le_bytes()).collect(),
            Elem::I32 => panic!("integers are given by `ints`"),
        };
        Buffer { elem, bytes }
    }

    pub fn ints(values: &[i32]) -> Buffer {
        Buffer { elem: Elem::I32, bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect() }
    }

    /// A buffer of `count` elements whose bytes are all ones: NaN, or -1.
    pub fn garbage(elem: Elem, count: usize) -> Buffer {
        Buffer { elem, bytes: vec![0xFF; count * elem.bytes() as usize] }
    }

    /// `count` elements from the `first` on, of these bytes taken as `elem`.
    pub fn part(&self, elem: Elem, first: usize, count: usize) -> Buffer {
        let width = elem.bytes() as usize;
        Buffer { elem, bytes: self.bytes[first * width..(first + count) * width].to_vec() }
    }

    /// The values as f64; integers too.
    pub fn values(&self) -> Vec<f64> {
        match self.elem {
            Elem::F32 => self.words().map(|w| f64::from(f32::from_bits(w))).collect(),
            Elem::I32 => self.words().map(|w| f64::from(w as i32)).collect(),
            Elem::Bf16 => {
                let word = |b: &[u8]| f64::from(f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16));
                self.bytes.chunks_exact(2).map(word).collect()
            }
        }
    }

    fn words(&self) -> impl Iterator<Item = u32> {
        self.bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }
}

fn round_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) as u16
}

/// Some kernels, ready to run.
pub enum Loaded {
    Cpu(Library),
    Gpu(Interpreted),
}

/// Kernels of a CPU as a shared object, kernels of a GPU for the interpreter.
pub fn load(kernels: &[&Kernel]) -> Loaded {
    if kernels.iter().any(|kernel| matches!(kernel.code, Code::Gpu(..))) {
        return Loaded::Gpu(Interpreted::load(kernels));
    }
    let target = host_target().expect("a CPU with AVX2");
    let kernels: Vec<Kernel> = kernels.iter().map(|k| (*k).clone()).collect();
    let bytes = shared_object(&kernels, &target).unwrap_or_else(|error| panic!("{error}"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("kernels.so");
    std::fs::write(&path, bytes).expect("writing the shared object");
    // SAFETY: the object has no initialisers.
    Loaded::Cpu(unsafe { Library::new(&path) }.expect("loading the shared object"))
}

impl Loaded {
    /// Runs all tasks on copies of `operands`: on a CPU once in order and once backwards one by one, on a GPU once with
    /// asynchronous copies as late as they may come and once as early. Both must give the same bits.
    /// Puts the results into `operands`; `aliases` are pairs of operands that share the first one's memory.
    pub fn run_aliased(&self, kernel: &Kernel, operands: &mut [&mut Buffer], aliases: &[(usize, usize)]) {
        let [first, second] = match self {
            Loaded::Cpu(library) => {
                let tasks = i64::from(kernel.tasks);
                let single: Vec<_> = (0..tasks).rev().map(|t| (t, t + 1)).collect();
                [&[(0, tasks)], &single[..]].map(|ranges| outcome(library, kernel, operands, aliases, ranges))
            }
            Loaded::Gpu(module) => {
                let contents: Vec<&[u8]> = operands.iter().map(|operand| &operand.bytes[..]).collect();
                [Mode::Late, Mode::Early].map(|mode| module.run(kernel, &contents, aliases, mode))
            }
        };
        assert!(first == second, "{}: the order of what is done matters", kernel.symbol);
        for (operand, bytes) in operands.iter_mut().zip(first) {
            operand.bytes = bytes;
        }
    }

    pub fn run(&self, kernel: &Kernel, operands: &mut [&mut Buffer]) {
        self.run_aliased(kernel, operands, &[]);
    }
}

fn outcome(
    library: &Library,
    kernel: &Kernel,
    operands: &[&mut Buffer],
    aliases: &[(usize, usize)],
    ranges: &[(i64, i64)],
) -> Vec<Vec<u8>> {
    // SAFETY: the symbol has the kernels' calling convention.
    let entry: Symbol<Entry> = unsafe { library.get(kernel.symbol.as_bytes()) }.expect("the kernel's symbol");
    let memory: Vec<Fenced> = operands.iter().map(|o| Fenced::new(&o.bytes)).collect();
    let mut pointers: Vec<*mut u8> = memory.iter().map(Fenced::pointer).collect();
    for &(from, to) in aliases {
        pointers[to] = pointers[from];
    }
    let scratch = Fenced::new(&vec![0xFF; kernel.scratch_bytes as usize]);
    for &(begin, end) in ranges {
        // SAFETY: the operands have the sizes that the template states, which is what is tested.
        unsafe { entry(pointers.as_ptr(), begin, end, scratch.pointer()) };
    }
    scratch.content();
    let owner = |i: usize| aliases.iter().find(|a| a.1 == i).map_or(i, |a| a.0);
    (0..memory.len()).map(|i| memory[owner(i)].content()).collect()
}
/// Runs all launches on the operands of the whole, of which pairs share memory.
pub fn run_steps(steps: &Steps, operands: &mut [&mut Buffer], aliases: &[(usize, usize)]) {
    let kernels: Vec<&Kernel> = steps.launches.iter().map(|(kernel, _)| kernel).collect();
    let library = load(&kernels);
    let mut temporaries: Vec<Buffer> =
        steps.temporaries.iter().map(|bytes| Buffer::garbage(Elem::F32, bytes / 4)).collect();
    for (kernel, slots) in &steps.launches {
        let mut taken: Vec<Buffer> = (slots.iter())
            .map(|slot| match slot {
                Slot::Operand(i) => operands[*i].clone(),
                Slot::Temporary(i) => temporaries[*i].clone(),
            })
            .collect();
        let place = |operand: usize| slots.iter().position(|slot| *slot == Slot::Operand(operand));
        let aliases: Vec<(usize, usize)> =
            aliases.iter().filter_map(|(from, to)| Some((place(*from)?, place(*to)?))).collect();
        library.run_aliased(kernel, &mut taken.iter_mut().collect::<Vec<_>>(), &aliases);
        for (slot, buffer) in slots.iter().zip(taken) {
            match slot {
                Slot::Operand(i) => *operands[*i] = buffer,
                Slot::Temporary(i) => temporaries[*i] = buffer,
            }
        }
    }
}

/// Numbers in (-1, 1), the same for the same seed.
pub fn random(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// [`random`] as a buffer, and the values that it holds after rounding.
pub fn random_buffer(seed: u64, elem: Elem, count: usize) -> (Buffer, Vec<f64>) {
    let buffer = Buffer::floats(elem, &random(seed, count));
    let values = buffer.values();
    (buffer, values)
}

/// `|got - want| <= relative * |want| + absolute` everywhere.
pub fn assert_close(what: &str, got: &Buffer, want: &[f64], relative: f64, absolute: f64) {
    let got = got.values();
    assert_eq!(got.len(), want.len(), "{what}: number of elements");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let near = (g - w).abs() <= relative * w.abs() + absolute || g == w;
        assert!(near, "{what}: element {i} of {} is {g}, not {w}", want.len());
    }
}

/// Relative error of one rounding to storage, with room for a little arithmetic.
pub fn rounding(elem: Elem) -> f64 {
    if elem == Elem::Bf16 { 1.0 / 256.0 } else { 4e-7 }
}
