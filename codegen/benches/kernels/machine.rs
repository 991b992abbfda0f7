//! What the machine does at best: kernels that nothing but the multipliers, or nothing but memory, bounds.
use crate::rounds::{Operand, Use};
use amc_kernels::emit::Elem::F32;
use amc_kernels::emit::{Emitter, Value, float_type};
use amc_kernels::{Kernel, Target, Work};

/// Turns of the peak's loop, and its tasks.
const TURNS: usize = 1000;
const PEAK_TASKS: usize = 64;
/// Bytes that a task of a stream goes over.
const TASK_BYTES: u64 = 128 << 10;

/// Independent chains of multiply-adds on registers alone, in f32, or by `vdpbf16ps` with `pairs`. No chain of f32 starts
/// where it would stay, so that the compiler cannot fold it.
pub fn peak(target: &Target, pairs: bool) -> Kernel {
    let lanes = target.lanes;
    // As many as the registers hold: `vdpbf16ps` takes 6 cycles on Zen 5, where twelve chains reach 95 % of its rate.
    let chains = target.registers * 3 / 4;
    let mut e = Emitter::new();
    let (zero, turns) = (e.index(0), e.index(TURNS as i64));
    let factor = e.float(0.5, lanes);
    let starts: Vec<_> = (0..chains).map(|i| (e.float(i as f32 + 2.0, lanes), float_type(lanes))).collect();
    e.tasks(|e, _| {
        let sums = e.for_loop(&zero, &turns, 1, &starts, |e, _, sums| {
            let add =
                |sum: &Value| if pairs { dot(e, &factor, sum, lanes) } else { e.fma(sum, &factor, &factor, lanes) };
            sums.iter().map(add).collect()
        });
        let total = sums[1..].iter().fold(sums[0].clone(), |a, b| e.float2("addf", &a, b, lanes));
        e.store(&total, "%scratch", F32, lanes);
    });
    let operations = 2 * chains * TURNS * lanes * PEAK_TASKS * if pairs { 2 } else { 1 };
    e.finish("peak", PEAK_TASKS, 4 * lanes as u64, Work::new("peak", operations))
}

/// `sum += a · a`, of pairs of bf16.
fn dot(e: &mut Emitter, a: &str, sum: &str, lanes: usize) -> Value {
    let (words, halves, bits) = (float_type(lanes), format!("vector<{}xbf16>", 2 * lanes), 32 * lanes);
    let a = e.op(format!("vector.bitcast {a} : {words} to {halves}"));
    e.op(format!(
        "llvm.call_intrinsic \"llvm.x86.avx512bf16.dpbf16ps.{bits}\"({sum}, {a}, {a}) : ({words}, {halves}, {halves}) -> {words}"
    ))
}

/// What a kernel does at best that uses operands like these: goes over each as it is used and computes nothing. Its own
/// operands come with it, at least as large.
pub fn stream(target: &Target, operands: &[Operand]) -> (Kernel, Vec<Operand>) {
    let total: u64 = operands.iter().map(Operand::touched_bytes).sum();
    let tasks = total.div_ceil(TASK_BYTES).next_multiple_of(2) as usize;
    let wide = 4 * target.lanes;
    let words = |operand: &Operand| (operand.touched_bytes() / 4).div_ceil(tasks as u64).next_multiple_of(wide as u64);
    let parts: Vec<(Use, usize)> = operands.iter().map(|operand| (operand.usage, words(operand) as usize)).collect();
    let mut e = Emitter::new();
    let pointers: Vec<Value> = (0..parts.len()).map(|i| e.arg(i)).collect();
    e.tasks(|e, task| {
        let rows = pointers.iter().zip(&parts).map(|(pointer, &(usage, words))| {
            let part = e.row(pointer, task, words, F32);
            (part, usage, words)
        });
        let rows: Vec<_> = rows.collect();
        let mut done = 0;
        for equal in rows.chunk_by(|a, b| a.2 == b.2) {
            let sums = e.at("%scratch", (done * wide) as i64, F32);
            go_over(e, equal, wide, &sums);
            done += equal.len();
        }
    });
    let moved = |&(usage, words): &(Use, usize)| words * tasks * if usage == Use::Update { 2 } else { 1 };
    let work = Work::new("stream", 0).moving(parts.iter().map(moved).sum(), F32);
    let kernel = e.finish("stream", tasks, (4 * wide * parts.len()) as u64, work);
    (kernel, parts.iter().map(|&(usage, words)| Operand::floats(usage, F32, words * tasks)).collect())
}

/// Goes over equal parts of some operands side by side, each a place, its use and its words. What is read is summed, so
/// that the compiler cannot leave it out; the sums go to `sums`.
fn go_over(e: &mut Emitter, parts: &[(Value, Use, usize)], wide: usize, sums: &str) {
    let (zero, count, nothing) = (e.index(0), e.index(parts[0].2 as i64), e.float(0.0, wide));
    let carried = vec![(nothing.clone(), float_type(wide)); parts.len()];
    let totals = e.for_loop(&zero, &count, wide as i64, &carried, |e, i, totals| {
        let turn = |((part, usage, _), total): (&(Value, Use, usize), &Value)| {
            if *usage == Use::Write {
                e.store_at(&nothing, part, i, F32, wide);
                return total.clone();
            }
            let value = e.load_at(part, i, F32, wide);
            if *usage == Use::Read {
                return e.float2("addf", total, &value, wide);
            }
            let half = e.float(0.5, wide);
            let next = e.fma(&value, &half, &half, wide);
            e.store_at(&next, part, i, F32, wide);
            total.clone()
        };
        parts.iter().zip(totals).map(turn).collect()
    });
    for (i, total) in totals.iter().enumerate() {
        let place = e.at(sums, (i * wide) as i64, F32);
        e.store(total, &place, F32, wide);
    }
}

/// Bytes of the last level of cache, if the system says.
pub fn cache_bytes() -> Option<u64> {
    let folder = "/sys/devices/system/cpu/cpu0/cache";
    let size = |index: usize| {
        let text = std::fs::read_to_string(format!("{folder}/index{index}/size")).ok()?;
        text.trim().strip_suffix('K')?.parse::<u64>().ok()
    };
    (0..8).filter_map(size).max().map(|kilobytes| kilobytes << 10)
}
