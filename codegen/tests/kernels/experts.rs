//! The choice of experts, slots sorted by expert, rows on the way to experts and back.
use crate::harness::*;
use amc_kernels::emit::Elem;
use amc_kernels::experts::{Gather, GroupRows, Route, RouteGrad, SumRows};
use amc_kernels::reduce::RowSum;
use amc_kernels::region::*;
use amc_kernels::steps::Slot;

/// Tokens, experts, how many are chosen.
const CASES: [(usize, usize, usize); 5] = [(7, 8, 2), (3, 60, 4), (5, 128, 8), (1, 1, 1), (4, 5, 5)];

/// Logits with equals among them, also equals that are chosen and equals that are not.
fn logits(tokens: usize, experts: usize) -> Vec<f64> {
    let value = |i: usize| f64::from((i * i * 7 + i * 3) as u32 % 11) * 0.5 - 2.0;
    (0..tokens * experts).map(value).collect()
}

/// Experts by logit, of equals the lower one first, and the softmax.
fn choice(logits: &[f64], k: usize) -> (Vec<usize>, Vec<f64>) {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    order.truncate(k);
    let total: f64 = logits.iter().map(|l| l.exp()).sum();
    (order, logits.iter().map(|l| l.exp() / total).collect())
}

fn weights(order: &[usize], p: &[f64], normalize: bool) -> Vec<f64> {
    let total: f64 = if normalize { order.iter().map(|e| p[*e]).sum() } else { 1.0 };
    order.iter().map(|e| p[*e] / total).collect()
}

#[test]
fn the_likeliest_experts_are_chosen() {
    for (tokens, experts, k) in CASES {
        for normalize in [true, false] {
            let kernel = Route { tokens, experts, k, normalize }.build(&super::target());
            let logits = logits(tokens, experts);
            let mut found = [Buffer::garbage(Elem::F32, tokens * k), Buffer::garbage(Elem::I32, tokens * k)];
            let [found_weights, found_experts] = &mut found;
            let mut source = Buffer::floats(Elem::F32, &logits);
            load(&[&kernel]).run(&kernel, &mut [&mut source, found_weights, found_experts]);
            let (mut all_weights, mut all_experts) = (vec![], vec![]);
            for row in logits.chunks(experts) {
                let (order, p) = choice(row, k);
                all_weights.extend(weights(&order, &p, normalize));
                all_experts.extend(order.iter().map(|e| *e as f64));
            }
            assert_eq!(found_experts.values(), all_experts, "{kernel:?}");
            assert_close("weights", found_weights, &all_weights, 2e-6, 0.0);
        }
    }
}

/// Logits that are no numbers choose something that is an expert.
#[test]
fn no_numbers_choose_an_expert() {
    let (tokens, experts, k) = (2, 20, 3);
    let kernel = Route { tokens, experts, k, normalize: true }.build(&super::target());
    let mut logits = vec![f64::NAN; tokens * experts];
    logits[experts..].fill(f64::NEG_INFINITY);
    let (mut weights, mut chosen) = (Buffer::garbage(Elem::F32, tokens * k), Buffer::garbage(Elem::I32, tokens * k));
    load(&[&kernel]).run(&kernel, &mut [&mut Buffer::floats(Elem::F32, &logits), &mut weights, &mut chosen]);
    assert!(chosen.values().iter().all(|e| (0.0..experts as f64).contains(e)), "{chosen:?}");
}

#[test]
fn choices_have_gradients() {
    for (tokens, experts, k) in CASES {
        for normalize in [true, false] {
            let kernel = RouteGrad { tokens, experts, k, normalize }.build(&super::target());
            let logits = logits(tokens, experts);
            let (mut dw, dws) = random_buffer(5, Elem::F32, tokens * k);
            let (mut want, mut chosen) = (vec![], vec![]);
            for (row, dw) in logits.chunks(experts).zip(dws.chunks(k)) {
                let (order, p) = choice(row, k);
                let w = weights(&order, &p, normalize);
                let mean: f64 = w.iter().zip(dw).map(|(w, dw)| w * dw).sum();
                let mut d: Vec<f64> = p.iter().map(|p| if normalize { 0.0 } else { -p * mean }).collect();
                order.iter().zip(&w).zip(dw).for_each(|((e, w), dw)| d[*e] = w * (dw - mean));
                want.extend(d);
                chosen.extend(order.iter().map(|e| *e as i32));
            }
            let mut d = Buffer::garbage(Elem::F32, tokens * experts);
            let (mut logits, mut chosen) = (Buffer::floats(Elem::F32, &logits), Buffer::ints(&chosen));
            load(&[&kernel]).run(&kernel, &mut [&mut logits, &mut chosen, &mut dw, &mut d]);
            assert_close("gradient", &d, &want, 2e-6, 1e-6);
        }
    }
}

/// Several chunks of slots; experts without any; all slots of one expert.
#[test]
fn slots_are_sorted_by_expert() {
    for (count, groups, spread) in [(1, 1, 1), (14, 8, 5), (600, 3, 2), (700, 300, 300), (513, 4, 1)] {
        let chosen: Vec<i32> = (0..count).map(|i| ((i * i + i / 3) % spread) as i32).collect();
        let steps = GroupRows { slots: count, groups }.steps(&super::target());
        let mut operands = [Buffer::ints(&chosen), Buffer::garbage(Elem::I32, groups + 1)].to_vec();
        operands.extend([Buffer::garbage(Elem::I32, count), Buffer::garbage(Elem::I32, count)]);
        let of = |bytes: &usize| Buffer::garbage(Elem::I32, bytes / 4);
        let mut temporaries: Vec<Buffer> = steps.temporaries.iter().map(of).collect();
        let library = load(&steps.launches.iter().map(|(kernel, _)| kernel).collect::<Vec<_>>());
        for (kernel, slots) in &steps.launches {
            let place = |slot: &Slot| match slot {
                Slot::Operand(i) => operands[*i].clone(),
                Slot::Temporary(i) => temporaries[*i].clone(),
            };
            let mut given: Vec<Buffer> = slots.iter().map(place).collect();
            library.run(kernel, &mut given.iter_mut().collect::<Vec<_>>());
            for (slot, buffer) in slots.iter().zip(given) {
                match slot {
                    Slot::Operand(i) => operands[*i] = buffer,
                    Slot::Temporary(i) => temporaries[*i] = buffer,
                }
            }
        }
        let mut sorted: Vec<usize> = (0..count).collect();
        sorted.sort_by_key(|slot| chosen[*slot]);
        let offsets: Vec<f64> =
            (0..=groups).map(|g| chosen.iter().filter(|e| (**e as usize) < g).count() as f64).collect();
        let mut rows = vec![0.0; count];
        sorted.iter().enumerate().for_each(|(row, slot)| rows[*slot] = row as f64);
        let slots: Vec<f64> = sorted.iter().map(|slot| *slot as f64).collect();
        assert_eq!(operands[1].values(), offsets, "{count} slots of {groups}");
        assert_eq!(operands[2].values(), slots, "{count} slots of {groups}");
        assert_eq!(operands[3].values(), rows, "{count} slots of {groups}");
    }
}

/// A permutation, of which some numbers stray if wanted.
fn permutation(count: usize, strays: bool) -> Vec<i32> {
    let mut numbers: Vec<i32> = (0..count as i32).collect();
    numbers.sort_by_key(|i| (i * 37) % 11 * 100 + i);
    let strange = [-1, count as i32, i32::MIN, i32::MAX];
    if strays {
        numbers.iter_mut().step_by(3).zip(strange).for_each(|(number, other)| *number = other);
    }
    numbers
}

/// Numbers outside count as the nearest inside.
#[test]
fn rows_are_gathered_and_summed() {
    for (tokens, k, width, strays) in [(7, 2, 70, false), (5, 3, 33, true), (1, 1, 1, false), (9, 8, 64, true)] {
        for elem in [Elem::F32, Elem::Bf16] {
            let (gather, sum) = (
                Gather { tokens, k, width, elem }.build(&super::target()),
                SumRows { tokens, k, width, elem }.build(&super::target()),
            );
            let library = load(&[&gather, &sum]);
            let numbers = permutation(tokens * k, strays);
            let inside = |number: i32| number.clamp(0, (tokens * k) as i32 - 1) as usize;
            let (mut x, xs) = random_buffer(1, elem, tokens * width);
            let mut out = Buffer::garbage(elem, tokens * k * width);
            library.run(&gather, &mut [&mut x, &mut Buffer::ints(&numbers), &mut out]);
            let row = |number: &i32| xs[inside(*number) / k * width..][..width].to_vec();
            assert_eq!(out.values(), numbers.iter().flat_map(row).collect::<Vec<_>>(), "gathered");
            let (mut y, ys) = random_buffer(2, elem, tokens * k * width);
            let mut out = Buffer::garbage(elem, tokens * width);
            library.run(&sum, &mut [&mut y, &mut Buffer::ints(&numbers), &mut out]);
            let element = |t: usize, j: usize| -> f64 {
                numbers[t * k..][..k].iter().map(|number| ys[inside(*number) * width + j]).sum()
            };
            let want: Vec<f64> = (0..tokens).flat_map(|t| (0..width).map(move |j| element(t, j))).collect();
            assert_close("sums", &out, &want, rounding(elem), 1e-6);
        }
    }
}

/// What is stored, or computed of two matrices and a factor of each row.
#[test]
fn rows_are_summed() {
    for (rows, n, elem) in [(5, 70, Elem::F32), (3, 1, Elem::Bf16), (4, 333, Elem::Bf16)] {
        let input = |elem, broadcast| RegionInput { elem, broadcast };
        use RegionValue::{Input, Node};
        let node = |op, args: &[RegionValue]| RegionNode { op, args: args.to_vec() };
        let computed = Region {
            inputs: vec![
                input(elem, Broadcast::Full),
                input(Elem::F32, Broadcast::Full),
                input(Elem::F32, Broadcast::Column),
            ],
            nodes: vec![node(ScalarOp::Mul, &[Input(0), Input(1)]), node(ScalarOp::Mul, &[Node(0), Input(2)])],
            outputs: vec![RegionOutput { value: Node(1), elem: Elem::F32 }],
        };
        let [plain, product] = [Region::identity(elem, Elem::F32), computed]
            .map(|region| RowSum { rows, n, region }.build(&super::target()));
        let library = load(&[&plain, &product]);
        let ((mut x, xs), (mut y, ys)) = (random_buffer(1, elem, rows * n), random_buffer(2, Elem::F32, rows * n));
        let (mut factors, fs) = random_buffer(3, Elem::F32, rows);
        let (mut sum, mut other) = (Buffer::garbage(Elem::F32, rows), Buffer::garbage(Elem::F32, rows));
        library.run(&plain, &mut [&mut x, &mut sum]);
        library.run(&product, &mut [&mut x, &mut y, &mut factors, &mut other]);
        let want: Vec<f64> = xs.chunks(n).map(|row| row.iter().sum()).collect();
        assert_close("row sums", &sum, &want, 1e-6, 1e-5);
        let dot = |i: usize| -> f64 { (i * n..(i + 1) * n).map(|at| xs[at] * ys[at] * fs[i]).sum() };
        assert_close("row sums of products", &other, &(0..rows).map(dot).collect::<Vec<_>>(), 1e-6, 1e-5);
    }
}
