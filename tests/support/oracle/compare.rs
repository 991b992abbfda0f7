//! Comparisons, each against the tolerance that the oracle's notes suggest for float32.
use super::case::Summary;
use anyhow::{Result, ensure};
use std::fmt;

/// The largest share of an allowed difference that was used up, and by what.
#[derive(Default)]
pub struct Worst {
    share: f64,
    what: String,
}

impl fmt::Display for Worst {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "worst {:.1} % of what is allowed, {}", 100.0 * self.share, self.what)
    }
}

impl Worst {
    /// `found` is within `allowed` of `wanted`.
    pub fn number(&mut self, what: &str, found: f64, wanted: f64, allowed: f64) -> Result<()> {
        let difference = (found - wanted).abs();
        ensure!(difference <= allowed, "{what} is {found}, wanted {wanted} within {allowed:e}");
        if difference / allowed > self.share {
            (self.share, self.what) = (difference / allowed, what.into());
        }
        Ok(())
    }

    /// Every element of `found` is within `allowed` of that of `wanted`.
    pub fn equal(&mut self, what: &str, found: &[f32], wanted: &[f32], allowed: f64) -> Result<()> {
        ensure!(found.len() == wanted.len(), "{what} has {} elements, wanted {}", found.len(), wanted.len());
        for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
            self.number(&format!("{what}[{i}]"), *found as f64, *wanted as f64, allowed)?;
        }
        Ok(())
    }

    /// `found` has the summary `wanted`, if every element may be off by `allowed`; with the tensor itself at hand, each
    /// element is compared too. `max` is compared where it is given.
    pub fn tensor(
        &mut self,
        what: &str,
        found: &[f32],
        wanted: &Summary,
        tensor: Option<&[f32]>,
        allowed: f64,
        max: Option<f64>,
    ) -> Result<()> {
        let values = || found.iter().map(|x| *x as f64);
        let root = (found.len() as f64).sqrt();
        let probe: f64 = values().enumerate().map(|(i, x)| x * (0.5 * (i as f64 + 1.0)).cos()).sum();
        self.number(&format!("l2 of {what}"), values().map(|x| x * x).sum::<f64>().sqrt(), wanted.l2, allowed * root)?;
        self.number(&format!("probe of {what}"), probe, wanted.probe, allowed * root)?;
        self.number(&format!("sum of {what}"), values().sum(), wanted.sum, 4.0 * allowed * root)?;
        if let Some(max) = max {
            self.number(&format!("max of {what}"), values().fold(0.0, |m, x| m.max(x.abs())), max, allowed)?;
        }
        tensor.map_or(Ok(()), |tensor| self.equal(what, found, tensor, allowed))
    }
}
