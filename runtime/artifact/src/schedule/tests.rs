use super::*;

/// Rate 1e-5, from and down to 1e-6 within 100 steps.
fn schedule(decay: LrDecay, warmup_steps: u64) -> LrSchedule {
    LrSchedule {
        init_lr: 1e-6,
        max_lr: 1e-5,
        min_lr: 1e-6,
        warmup_steps,
        decay_steps: 100,
        decay,
        start_weight_decay: 0.01,
        end_weight_decay: 0.1,
        weight_decay_steps: 100,
        weight_decay_style: WeightDecayStyle::Linear,
    }
}

fn assert_rates(schedule: &LrSchedule, wanted: &[(u64, f64)]) {
    for (n, wanted) in wanted {
        let found = schedule.learning_rate(*n);
        assert!((found - wanted).abs() <= 1e-12 * wanted.abs(), "{schedule:?} at {n}: {found:e}, wanted {wanted:e}");
    }
}

/// A row of the reference: the schedule, and rate and weight decay after 0, 1, … steps.
fn reference(row: &str) -> (LrSchedule, Vec<(f64, f64)>) {
    let fields: Vec<&str> = row.split('\t').collect();
    let count = |at: usize| fields[at].parse::<u64>().unwrap();
    let number = |text: &str| text.parse::<f64>().unwrap();
    let tail = match fields[4] {
        "linear" => TailStyle::Linear,
        "cosine" => TailStyle::Cosine,
        "exponential" => TailStyle::Exponential,
        _ => TailStyle::MinusSqrt,
    };
    let schedule = LrSchedule {
        init_lr: 3e-6,
        max_lr: 2e-4,
        min_lr: 1e-5,
        warmup_steps: count(1),
        decay_steps: count(2),
        decay: match fields[0] {
            "constant" => LrDecay::Constant,
            "linear" => LrDecay::Linear,
            "cosine" => LrDecay::Cosine,
            "inverse-square-root" => LrDecay::InverseSquareRoot,
            _ => LrDecay::WarmupStableDecay { steps: count(3), style: tail },
        },
        start_weight_decay: number(fields[6]),
        end_weight_decay: number(fields[7]),
        weight_decay_steps: count(8),
        weight_decay_style: match fields[5] {
            "constant" => WeightDecayStyle::Constant,
            "linear" => WeightDecayStyle::Linear,
            _ => WeightDecayStyle::Cosine,
        },
    };
    let values = fields[9..].iter().map(|it| it.split_once(' ').map(|(a, b)| (number(a), number(b))).unwrap());
    (schedule, values.collect())
}

#[test]
fn agrees_with_automodel() {
    let rows = include_str!("../../tests/lr_schedule.tsv").lines().filter(|row| !row.starts_with('#'));
    for row in rows {
        let (schedule, values) = reference(row);
        assert_eq!(schedule.check(), Ok(()));
        assert_rates(&schedule, &(0..).zip(values.iter().map(|it| it.0)).collect::<Vec<_>>());
        for (n, (_, wanted)) in (0..).zip(values) {
            let found = schedule.weight_decay(n);
            assert!((found - wanted).abs() < 1e-15, "{schedule:?} at {n}: {found:e}, wanted {wanted:e}");
        }
    }
}

#[test]
fn published_warmup() {
    let cosine = schedule(LrDecay::Cosine, 10);
    assert_rates(&cosine, &[(0, 1e-6), (1, 1.9e-6), (10, 1e-5), (55, 5.5e-6), (100, 1e-6), (101, 1e-6)]);
}

#[test]
fn order_of_the_rules() {
    assert_rates(&schedule(LrDecay::Constant, 0), &[(0, 1e-5), (1000, 1e-5)]);
    assert_rates(&schedule(LrDecay::Linear, 0), &[(0, 1e-5), (50, 5.5e-6), (100, 1e-6), (101, 1e-6)]);
    let inverse = schedule(LrDecay::InverseSquareRoot, 4);
    assert_rates(&inverse, &[(4, 1e-5), (16, 5e-6), (64, 2.5e-6), (101, 1e-6)]);
}

#[test]
fn stable_then_tail() {
    let at = |style, n| schedule(LrDecay::WarmupStableDecay { steps: 20, style }, 0).learning_rate(n);
    let close = |found: f64, share: f64| assert!((found - (1e-6 + share * 9e-6)).abs() < 1e-17, "{found:e}");
    close(at(TailStyle::Linear, 80), 1.0);
    close(at(TailStyle::Linear, 85), 0.75);
    close(at(TailStyle::Cosine, 90), 0.5);
    close(at(TailStyle::Exponential, 90), 2.0 * 0.5f64.sqrt() - 1.0);
    close(at(TailStyle::MinusSqrt, 85), 0.5);
    close(at(TailStyle::MinusSqrt, 100), 0.0);
}

#[test]
fn weight_decay_rises() {
    let mut rising = schedule(LrDecay::Cosine, 0);
    assert_eq!(rising.weight_decay(0), 0.01);
    assert!((rising.weight_decay(50) - 0.055).abs() < 1e-15);
    rising.weight_decay_style = WeightDecayStyle::Cosine;
    assert!((rising.weight_decay(50) - 0.055).abs() < 1e-15);
    assert!((rising.weight_decay(25) - (0.01 + 0.09 * 0.5 * (1.0 - 0.5f64.sqrt()))).abs() < 1e-15);
    assert_eq!(rising.weight_decay(101), 0.1);
}

#[test]
fn meaningless_rates_are_named() {
    let broken = |change: fn(&mut LrSchedule)| {
        let mut it = schedule(LrDecay::Cosine, 10);
        change(&mut it);
        it.check().unwrap_err()
    };
    assert!(broken(|it| it.min_lr = 1.0).contains("min_lr"));
    assert!(broken(|it| it.init_lr = 1.0).contains("init_lr"));
    assert!(broken(|it| it.warmup_steps = 100).contains("lr_warmup_steps (100)"));
    assert!(broken(|it| it.weight_decay_style = WeightDecayStyle::Constant).contains("start_wd"));
    assert_eq!(schedule(LrDecay::Cosine, 10).check(), Ok(()));
}

fn steps() -> StepSchedule {
    StepSchedule {
        microbatches_per_epoch: 10,
        accumulation: 4,
        epochs: 2,
        max_steps: u64::MAX,
        checkpoint_every: 2,
        checkpoint_every_epoch: true,
        validate_every: Some(4),
        validate_at_checkpoints: true,
        first_number: 0,
    }
}

fn all(schedule: &StepSchedule, wanted: impl Fn(&StepSchedule, u64) -> bool) -> Vec<u64> {
    (0..schedule.total_steps()).filter(|step| wanted(schedule, *step)).collect()
}

#[test]
fn partial_group_is_trained_on() {
    let schedule = steps();
    assert_eq!(schedule.steps_per_epoch(), 3);
    assert_eq!(schedule.total_steps(), 6);
    assert_eq!(
        (0..6).map(|step| schedule.microbatches(step)).collect::<Vec<_>>(),
        [0..4, 4..8, 8..10, 0..4, 4..8, 8..10]
    );
    assert_eq!((0..6).map(|step| schedule.epoch(step)).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1]);
}

#[test]
fn who_saves_and_who_validates() {
    let mut schedule = steps();
    assert_eq!(all(&schedule, StepSchedule::saves_at), [1, 2, 3, 5]);
    assert_eq!(all(&schedule, StepSchedule::validates_at), [1, 2, 3, 5]);
    schedule.checkpoint_every_epoch = false;
    schedule.validate_at_checkpoints = false;
    assert_eq!(all(&schedule, StepSchedule::saves_at), [1, 3, 5]);
    assert_eq!(all(&schedule, StepSchedule::validates_at), [3]);
    schedule.max_steps = 5;
    assert_eq!(all(&schedule, StepSchedule::saves_at), [1, 3, 4]);
    assert!(schedule.is_last(4) && !schedule.is_last(3));
}

#[test]
fn names_of_both_forms() {
    let mut schedule = StepSchedule { checkpoint_every: 10, accumulation: 1, microbatches_per_epoch: 25, ..steps() };
    assert_eq!(schedule.checkpoint_name(9), "epoch_0_step_9");
    assert_eq!(schedule.checkpoint_name(29), "epoch_1_step_29");
    schedule.first_number = 1;
    assert_eq!(schedule.checkpoint_name(9), "epoch_0_step_10");
}

#[test]
fn zeros_are_named() {
    let broken = StepSchedule { checkpoint_every: 0, ..steps() };
    assert!(broken.check().unwrap_err().contains("ckpt_every_steps"));
    assert!(broken.saves_at(0));
    assert_eq!(steps().check(), Ok(()));
}
