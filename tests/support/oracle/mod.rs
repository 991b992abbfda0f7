//! One oracle case: compile, run, compare.
mod case;
mod compare;
mod run;

use amc::compiler::generator::Generator;
use anyhow::{Context, Result};
use case::Case;
use compare::Worst;
use run::{Mode, Runner};
use std::path::Path;

// What float32 may differ by from float32 in another order; `docs/testing.md` has the reasons.
const LOGITS_TOLERANCE: f64 = 1e-4;
const LOSS_TOLERANCE: f64 = 1e-4;
/// After the third step of AdamW.
const LATE_LOSS_TOLERANCE: f64 = 2e-3;
/// A share of the largest gradient of the tensor, with a floor beside it.
const GRADIENT_TOLERANCE: f64 = 1e-4;
const GRADIENT_FLOOR: f64 = 1e-7;
/// Of gradients that are zero but for rounding, such as a key bias's.
const NEAR_ZERO_FLOOR: f64 = 1e-5;
const PACKED_FLOOR: f64 = 1e-6;

/// Checks everything that the case has numbers for, compiled for a target (a GPU's code is interpreted); returns the worst
/// differences as a share of what is allowed.
pub fn check(folder: &Path, target: &str) -> Result<Worst> {
    let case = Case::read(folder)?;
    let mut worst = Worst::default();
    if target == "cpu" {
        check_generated(&case, &mut worst).context("continuing a text")?;
    }
    for mode in case.modes() {
        check_mode(&case, mode, target, &mut worst).with_context(|| format!("{mode:?}"))?;
    }
    Ok(worst)
}

fn check_mode(case: &Case, mode: Mode, target: &str, worst: &mut Worst) -> Result<()> {
    let mut runner = Runner::compile(case, mode, target)?;
    let expected = case.expected(mode);
    let logits = runner.logits(&case.padded(case.seq))?;
    if let Some(summary) = &expected.logits {
        let (logits, tensor) = (case.real_rows(&logits), expected.logits_tensor.as_deref());
        worst.tensor("logits", &logits, summary, tensor, LOGITS_TOLERANCE, None)?;
    }
    check_packing(case, &mut runner, worst)?;

    let (loss, gradients) = runner.gradients("train", &case.padded(case.seq))?;
    worst.number("loss", loss, expected.losses[0], LOSS_TOLERANCE)?;
    for (name, summary) in &expected.gradients {
        let found = gradients.get(name).with_context(|| format!("no gradient is called `{name}`"))?;
        let near_zero = expected.near_zero.contains(name);
        let tensor = expected.gradient_tensors.get(name).map(Vec::as_slice);
        let floor = if near_zero { NEAR_ZERO_FLOOR } else { GRADIENT_FLOOR };
        let allowed = GRADIENT_TOLERANCE * summary.max + floor;
        worst.tensor(name, found, summary, tensor, allowed, Some(summary.max))?;
    }
    for (name, found) in gradients.iter().filter(|(name, _)| !expected.gradients.contains_key(*name)) {
        anyhow::ensure!(found.iter().all(|g| *g == 0.0), "`{name}` has a gradient, the reference has none");
    }
    for step in 1..=3 {
        runner.update(step)?;
        let (loss, _) = runner.gradients("train", &case.padded(case.seq))?;
        let allowed = if step == 3 { LATE_LOSS_TOLERANCE } else { LOSS_TOLERANCE };
        worst.number(&format!("loss after step {step}"), loss, expected.losses[step], allowed)?;
    }
    Ok(())
}

/// Texts that are read behind a cache, at first many tokens at a time, then one by one.
fn check_generated(case: &Case, worst: &mut Worst) -> Result<()> {
    let expected = case.expected(Mode::Full);
    let Some(summary) = &expected.logits else { return Ok(()) };
    let mut generator = Generator::compile(&case.folder, None, 1, case.seq)?;
    let mut logits = vec![];
    for text in case.texts() {
        generator.restart();
        let (begin, rest) = text.split_at(text.len() / 2 + 1);
        generator.read(begin, |rows| logits.extend_from_slice(rows))?;
        rest.iter().try_for_each(|token| generator.read(&[*token], |rows| logits.extend_from_slice(rows)).map(drop))?;
    }
    worst.tensor("generated logits", &logits, summary, expected.logits_tensor.as_deref(), LOGITS_TOLERANCE, None)
}

/// Two documents in one row see the same as each in a row of its own: logits, loss and gradients.
fn check_packing(case: &Case, runner: &mut Runner, worst: &mut Worst) -> Result<()> {
    let apart = runner.wide_logits(&case.padded(case.total()))?;
    let packed = runner.wide_logits(&case.packed_twice())?;
    let vocab = apart.len() / (2 * case.total());
    for (row, start) in case.document_starts().into_iter().enumerate() {
        let n = case.lengths[row] * vocab;
        let alone = &apart[row * case.total() * vocab..][..n];
        let together = &packed[start * vocab..][..n];
        worst.equal("packed logits", together, alone, LOGITS_TOLERANCE)?;
    }
    let (loss_apart, gradients_apart) = runner.gradients("train_apart", &case.padded(case.total()))?;
    let (loss, gradients) = runner.gradients("train_packed", &case.packed())?;
    worst.number("packed loss", loss, loss_apart, LOSS_TOLERANCE)?;
    for (name, alone) in &gradients_apart {
        let most = alone.iter().fold(0.0f32, |m, g| m.max(g.abs())) as f64;
        let allowed = GRADIENT_TOLERANCE * most + PACKED_FLOOR;
        worst.equal(&format!("packed {name}"), &gradients[name], alone, allowed)?;
    }
    Ok(())
}
