//! Rotary positions: frequencies, their scalings, and the tables that kernels read.
//!
//! Numbers follow transformers (`modeling_rope_utils.py`): frequencies, angles, cosines and sines are f32, and so is every
//! step between them; what Python computes on plain numbers is f64 here too.
use crate::arch::{self, RopeLayers, RopePairs, RopePart, Scaling};
use crate::config::Section;
use anyhow::{Result, bail, ensure};
use std::f64::consts::PI;

/// The rotation of one kind of layer.
#[derive(Clone, PartialEq, Debug)]
pub struct RopeSpec {
    /// How many elements of a head are rotated, the first ones; even.
    pub rotary: usize,
    pub pairs: RopePairs,
    pub theta: f64,
    pub stretch: Stretch,
}

/// How frequencies are stretched, with all numbers.
#[derive(Clone, PartialEq, Debug)]
pub enum Stretch {
    None,
    Linear {
        factor: f64,
    },
    /// NTK-aware: the base grows with the row length beyond `trained` tokens.
    Dynamic {
        factor: f64,
        trained: usize,
    },
    Yarn(Yarn),
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        trained: f64,
    },
    /// One divisor a frequency; the long list for rows longer than `trained` tokens.
    LongRope {
        short: Vec<f64>,
        long: Vec<f64>,
        trained: f64,
        magnitude: f64,
    },
}

/// Peng et al., YaRN, 2023.
#[derive(Clone, PartialEq, Debug)]
pub struct Yarn {
    pub factor: f64,
    pub trained: f64,
    pub beta_fast: f64,
    pub beta_slow: f64,
    pub truncate: bool,
    /// Factor of cosine and sine.
    pub magnitude: f64,
}

/// Cosines and sines, each `[positions, rotary / 2]`, row-major.
#[derive(Clone, PartialEq, Debug)]
pub struct Tables {
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
}

impl RopeSpec {
    /// Reads both forms: `rope_scaling` beside `rope_theta`, and transformers 5's `rope_parameters`. `elements` is how much of a
    /// head is rotated, where it is not a fraction of it.
    ///
    /// # Errors
    /// A key that the kind of scaling needs is missing or out of range, or the family does not know the kind.
    pub fn read(config: Section, family: &arch::Rope, head_dim: usize, elements: Option<usize>) -> Result<RopeSpec> {
        let legacy = config.section("rope_scaling", "rope_scaling.")?;
        let current = config.section("rope_parameters", "rope_parameters.")?;
        let current = match family.layers {
            RopeLayers::All => current,
            RopeLayers::Full => current.section("full_attention", "rope_parameters.full_attention.")?,
            RopeLayers::Sliding => current.section("sliding_attention", "rope_parameters.sliding_attention.")?,
        };
        let section = if legacy.is_empty() || family.layers == RopeLayers::Sliding { current } else { legacy };
        // A file may have both.
        let (key, base) = family.theta;
        let theta = section.number("rope_theta")?.or(config.number(key)?).or(current.number("rope_theta")?);
        let theta = theta.unwrap_or(base);
        ensure!(theta > 1.0, "{} is {theta}; wanted more than 1", config.name(key));
        let rotary = rotary(config, section, family.part, head_dim, elements)?;
        Ok(RopeSpec { rotary, pairs: family.pairs, theta, stretch: stretch(config, section, family, rotary)? })
    }

    /// Frequencies, one a pair, and the factor of cosine and sine. `seq` is the length of a row: scalings that depend on
    /// the longest row of a batch take it for that.
    pub fn frequencies(&self, seq: usize) -> (Vec<f32>, f64) {
        match &self.stretch {
            Stretch::None => (self.plain(self.theta as f32), 1.0),
            Stretch::Linear { factor } => {
                (self.plain(self.theta as f32).iter().map(|f| f / *factor as f32).collect(), 1.0)
            }
            Stretch::Dynamic { factor, trained } => (self.plain(self.grown(*factor, *trained, seq)), 1.0),
            Stretch::Yarn(yarn) => (self.yarn(yarn), yarn.magnitude),
            Stretch::Llama3 { factor, low, high, trained } => {
                let bands = Bands { factor: *factor as f32, low: *low, high: *high, trained: *trained };
                (self.plain(self.theta as f32).iter().map(|&f| bands.stretch(f)).collect(), 1.0)
            }
            Stretch::LongRope { short, long, trained, magnitude } => {
                let divisors = if seq as f64 > *trained { long } else { short };
                let powers = self.powers(self.theta as f32);
                (divisors.iter().zip(powers).map(|(d, p)| 1.0 / (*d as f32 * p)).collect(), *magnitude)
            }
        }
    }

    /// `base^(2i / rotary)` for each pair.
    fn powers(&self, base: f32) -> Vec<f32> {
        let exponents = (0..self.rotary / 2).map(|i| (2 * i) as f32 / self.rotary as f32);
        exponents.map(|e| (base as f64).powf(e as f64) as f32).collect()
    }

    fn plain(&self, base: f32) -> Vec<f32> {
        self.powers(base).iter().map(|p| 1.0 / p).collect()
    }

    /// The base for rows of `seq` tokens.
    fn grown(&self, factor: f64, trained: usize, seq: usize) -> f32 {
        if seq <= trained {
            return self.theta as f32;
        }
        let (factor, rotary) = (factor as f32, self.rotary as f64);
        let stretch = factor * seq as f32 / trained as f32 - (factor - 1.0);
        self.theta as f32 * (stretch as f64).powf((rotary / (rotary - 2.0)) as f32 as f64) as f32
    }

    fn yarn(&self, yarn: &Yarn) -> Vec<f32> {
        let rotary = self.rotary as f64;
        let pair = |turns: f64| rotary * (yarn.trained / (turns * 2.0 * PI)).ln() / (2.0 * self.theta.ln());
        let (mut low, mut high) = (pair(yarn.beta_fast), pair(yarn.beta_slow));
        if yarn.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(rotary - 1.0));
        if low == high {
            high += 0.001;
        }
        let ramp = |i: usize| ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
        let mix = |(i, power): (usize, f32)| {
            let keep = 1.0 - ramp(i);
            1.0 / (yarn.factor as f32 * power) * (1.0 - keep) + 1.0 / power * keep
        };
        self.powers(self.theta as f32).into_iter().enumerate().map(mix).collect()
    }

    /// The tables of positions `0..positions` in rows of `seq` tokens.
    pub fn tables(&self, positions: usize, seq: usize) -> Tables {
        let (frequencies, magnitude) = self.frequencies(seq);
        let angles = || (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
        let table = |wave: fn(f64) -> f64| angles().map(|a| wave(a as f64) as f32 * magnitude as f32).collect();
        Tables { cos: table(f64::cos), sin: table(f64::sin) }
    }
}

/// Llama 3.1's bands of wavelengths.
struct Bands {
    factor: f32,
    low: f64,
    high: f64,
    trained: f64,
}

impl Bands {
    /// Long waves are divided by the factor, short ones stay, those between are mixed.
    fn stretch(&self, frequency: f32) -> f32 {
        let wavelength = (2.0 * PI) as f32 / frequency;
        if wavelength > (self.trained / self.low) as f32 {
            return frequency / self.factor;
        }
        if wavelength < (self.trained / self.high) as f32 {
            return frequency;
        }
        let smooth = (self.trained as f32 / wavelength - self.low as f32) / (self.high - self.low) as f32;
        (1.0 - smooth) * frequency / self.factor + smooth * frequency
    }
}

fn rotary(
    config: Section,
    section: Section,
    part: RopePart,
    head_dim: usize,
    elements: Option<usize>,
) -> Result<usize> {
    let (rotary, why) = match part {
        RopePart::Whole => (head_dim, config.place().to_string()),
        RopePart::Elements(_) => {
            let count = elements.unwrap_or(head_dim);
            (count, format!("{} is {count}", config.name("rotary_dim")))
        }
        RopePart::Partial(key, default) => {
            let fraction = section.number("partial_rotary_factor")?.or(config.number(key)?).unwrap_or(default);
            ((head_dim as f64 * fraction) as usize, format!("{} is {fraction}", config.name(key)))
        }
    };
    let fits = rotary <= head_dim && rotary >= 2 && rotary.is_multiple_of(2);
    ensure!(
        fits,
        "{why}: {rotary} of a head's {head_dim} elements cannot be rotated in pairs, wanted an even number of them"
    );
    Ok(rotary)
}

fn stretch(config: Section, section: Section, family: &arch::Rope, rotary: usize) -> Result<Stretch> {
    let word = section.word("rope_type")?.or(section.word("type")?).unwrap_or("default");
    let Some((_, scaling)) = family.scalings.iter().find(|row| row.0 == word) else {
        let known: Vec<&str> = family.scalings.iter().map(|row| row.0).collect();
        bail!("{} is {word:?}; this family knows {}", section.name("rope_type"), known.join(", "));
    };
    let positive = |key: &str| match section.number(key)? {
        Some(x) if x > 0.0 => Ok(x),
        Some(x) => bail!("{} is {x}; wanted more than 0", section.name(key)),
        None => Err(section.missing(key, &format!("a number, because the rotary scaling is {word:?}"))),
    };
    let longest = || {
        let key = "max_position_embeddings";
        config.size(key)?.ok_or_else(|| config.missing(key, &format!("a size, because the scaling is {word:?}")))
    };
    Ok(match scaling {
        Scaling::Default => Stretch::None,
        Scaling::Linear => Stretch::Linear { factor: positive("factor")? },
        Scaling::Dynamic => {
            ensure!(rotary > 2, "dynamic scaling needs more than 2 rotated elements, found {rotary}");
            Stretch::Dynamic { factor: positive("factor")?, trained: longest()? }
        }
        Scaling::Llama3 => {
            let (low, high) = (positive("low_freq_factor")?, positive("high_freq_factor")?);
            ensure!(low < high, "{} is {low}, not below {high}", section.name("low_freq_factor"));
            Stretch::Llama3 { factor: positive("factor")?, low, high, trained: trained(config, section, longest)? }
        }
        Scaling::Yarn => Stretch::Yarn(yarn(section, trained(config, section, longest)?, longest)?),
        Scaling::LongRope => longrope(section, rotary, trained(config, section, longest)?, longest()?)?,
    })
}

/// The row length that the model was first trained with.
fn trained(config: Section, section: Section, longest: impl Fn() -> Result<usize>) -> Result<f64> {
    let key = "original_max_position_embeddings";
    let found = config.size(key)?.or(section.size(key)?);
    found.map_or_else(longest, Ok).map(|tokens| tokens as f64)
}

fn yarn(section: Section, trained: f64, longest: impl Fn() -> Result<usize>) -> Result<Yarn> {
    let factor = match section.number("factor")? {
        Some(factor) => factor,
        None => longest()? as f64 / trained,
    };
    ensure!(factor > 0.0, "{} is {factor}; wanted more than 0", section.name("factor"));
    let nonzero = |key| Ok::<_, anyhow::Error>(section.number(key)?.filter(|x| *x != 0.0));
    let magnitude_of = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
    let (mscale, all) = (nonzero("mscale")?, nonzero("mscale_all_dim")?);
    let magnitude = match (section.number("attention_factor")?, mscale, all) {
        (Some(magnitude), _, _) => magnitude,
        (None, Some(mscale), Some(all)) => magnitude_of(mscale) / magnitude_of(all),
        _ => magnitude_of(1.0),
    };
    let (beta_fast, beta_slow) = (nonzero("beta_fast")?.unwrap_or(32.0), nonzero("beta_slow")?.unwrap_or(1.0));
    ensure!(beta_slow > 0.0 && beta_fast > 0.0, "{} must be more than 0", section.name("beta_fast"));
    Ok(Yarn { factor, trained, beta_fast, beta_slow, truncate: section.flag("truncate")?.unwrap_or(true), magnitude })
}

fn longrope(section: Section, rotary: usize, trained: f64, longest: usize) -> Result<Stretch> {
    let divisors = |key: &str| {
        let list = section.numbers(key)?.ok_or_else(|| section.missing(key, "a list of numbers"))?;
        let half = rotary / 2;
        ensure!(list.len() == half, "{} has {} numbers; wanted {half}, one a pair", section.name(key), list.len());
        ensure!(list.iter().all(|d| *d > 0.0), "{} has a number that is not above 0", section.name(key));
        Ok(list)
    };
    let growth = section.number("factor")?.unwrap_or(longest as f64 / trained);
    let magnitude = match section.number("attention_factor")? {
        Some(magnitude) => magnitude,
        None if growth <= 1.0 => 1.0,
        None => (1.0 + growth.ln() / trained.ln()).sqrt(),
    };
    ensure!(magnitude.is_finite(), "{} is {trained}: too short", section.name("original_max_position_embeddings"));
    Ok(Stretch::LongRope { short: divisors("short_factor")?, long: divisors("long_factor")?, trained, magnitude })
}
