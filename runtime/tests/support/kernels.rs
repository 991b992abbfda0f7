//! The toy's kernels: Rust functions with the calling convention of compiled ones.
use super::{BATCH, SEQUENCE, VOCABULARY};
use amc_artifact::IGNORED;
use amc_runtime::device::{KernelFn, Symbols};
use anyhow::{Result, bail};
use half::bf16;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The kernels by name.
pub struct Table(pub BTreeMap<&'static str, KernelFn>);

// SAFETY: the kernels below keep to the plan below.
unsafe impl Symbols for Table {
    fn resolve(&self, name: &str) -> Result<KernelFn> {
        match self.0.get(name) {
            Some(kernel) => Ok(*kernel),
            None => bail!("no kernel `{name}`"),
        }
    }
}

pub fn table() -> Table {
    let rows: [(&'static str, KernelFn); 5] =
        [("forward", forward), ("backward", backward), ("sum", sum), ("norm", norm), ("adam", adam)];
    Table(BTreeMap::from(rows))
}

/// Operand `index` as an array.
unsafe fn array<'a, T>(args: *const *mut u8, index: usize, count: usize) -> &'a mut [T] {
    unsafe { std::slice::from_raw_parts_mut((*args.add(index)).cast(), count) }
}

/// Losses of the positions whose token is the task's, and what else the visitor does with the softmax of its logits.
unsafe fn visit(args: *const *mut u8, row: usize, scratch: *mut u8, mut visitor: impl FnMut(&mut [f64], usize, f32)) {
    let cells = VOCABULARY * VOCABULARY;
    let (base, w, a): (&[f32], &[f32], &[bf16]) =
        unsafe { (array(args, 0, cells), array(args, 1, cells), array(args, 2, cells)) };
    let (tokens, labels): (&[i32], &[i32]) =
        unsafe { (array(args, 3, BATCH * SEQUENCE), array(args, 4, BATCH * SEQUENCE)) };
    let scale = unsafe { array::<f32>(args, 5, 1)[0] };
    let part = unsafe { &mut array::<f32>(args, 6, VOCABULARY)[row] };
    let softmax: &mut [f64] = unsafe { std::slice::from_raw_parts_mut(scratch.cast(), VOCABULARY) };
    *part = 0.0;
    for (&token, &label) in tokens.iter().zip(labels) {
        if token as usize == row && label != IGNORED {
            for (column, value) in softmax.iter_mut().enumerate() {
                let cell = row * VOCABULARY + column;
                *value = f64::from(base[cell]) + f64::from(w[cell]) + f64::from(a[cell].to_f32());
            }
            let logit = softmax[label as usize];
            softmax.iter_mut().for_each(|value| *value = value.exp());
            let sum: f64 = softmax.iter().sum();
            softmax.iter_mut().for_each(|value| *value /= sum);
            *part += ((sum.ln() - logit) as f32) * scale;
            visitor(softmax, label as usize, scale);
        }
    }
}

unsafe extern "C" fn forward(args: *const *mut u8, begin: i64, end: i64, scratch: *mut u8) {
    for row in begin..end {
        unsafe { visit(args, row as usize, scratch, |_, _, _| ()) };
    }
}

unsafe extern "C" fn backward(args: *const *mut u8, begin: i64, end: i64, scratch: *mut u8) {
    for row in begin as usize..end as usize {
        let cells = VOCABULARY * VOCABULARY;
        let grads: [&mut [f32]; 2] = unsafe { [array(args, 7, cells), array(args, 8, cells)] };
        let [w, a] = grads.map(|grad| &mut grad[row * VOCABULARY..(row + 1) * VOCABULARY]);
        let add = |softmax: &mut [f64], label: usize, scale: f32| {
            for column in 0..VOCABULARY {
                let target = if column == label { 1.0 } else { 0.0 };
                let slope = ((softmax[column] - target) as f32) * scale;
                w[column] += slope;
                a[column] += slope;
            }
        };
        unsafe { visit(args, row, scratch, add) };
    }
}

/// Milliseconds that a batch takes longer than it must.
pub static PAUSE: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" fn sum(args: *const *mut u8, _begin: i64, _end: i64, _scratch: *mut u8) {
    std::thread::sleep(Duration::from_millis(PAUSE.load(Ordering::Relaxed)));
    let (parts, result) = unsafe { (array::<f32>(args, 0, VOCABULARY), array::<f32>(args, 1, 1)) };
    result[0] = parts.iter().sum();
}

unsafe extern "C" fn norm(args: *const *mut u8, _begin: i64, _end: i64, _scratch: *mut u8) {
    let cells = VOCABULARY * VOCABULARY;
    let squares =
        |index| unsafe { array::<f32>(args, index, cells) }.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
    let total = squares(0) + squares(1);
    unsafe { array::<f32>(args, 2, 1)[0] = total.sqrt() as f32 };
}

unsafe extern "C" fn adam(args: *const *mut u8, begin: i64, end: i64, _scratch: *mut u8) {
    let cells = VOCABULARY * VOCABULARY;
    let scalars = unsafe { array::<f32>(args, 8, 5) };
    let norm = unsafe { array::<f32>(args, 9, 1)[0] };
    let clip = (scalars[4] / (norm + 1e-6)).min(1.0);
    for cell in begin as usize * VOCABULARY..end as usize * VOCABULARY {
        let step = |base: usize, value: f32| unsafe {
            let [grad, first, second] = [1, 2, 3].map(|part| &mut array::<f32>(args, base + part, cells)[cell]);
            let slope = *grad * clip;
            *first = 0.9 * *first + 0.1 * slope;
            *second = 0.999 * *second + 0.001 * slope * slope;
            *grad = 0.0;
            let denominator = (*second / scalars[3]).sqrt() + 1e-8;
            value * (1.0 - scalars[0] * scalars[1]) - scalars[0] * (*first / scalars[2]) / denominator
        };
        let w = unsafe { &mut array::<f32>(args, 0, cells)[cell] };
        *w = step(0, *w);
        let a = unsafe { &mut array::<bf16>(args, 4, cells)[cell] };
        *a = bf16::from_f32(step(4, a.to_f32()));
    }
}
