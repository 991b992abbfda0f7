//! The `split` of a recipe: `train`, `train[:64]`, `train[10%:20%]`, `train[-5:]`, and such joined by `+`.
use anyhow::{Result, bail, ensure};

/// A part of a dataset, or several one after another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Split {
    pub parts: Vec<SplitPart>,
}

/// A named split and the rows of it that are wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SplitPart {
    pub name: String,
    from: Option<Bound>,
    to: Option<Bound>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Bound {
    value: i64,
    percent: bool,
}

impl Split {
    /// Reads a split; `limit` adds `[:limit]` where there is no slice yet.
    ///
    /// # Errors
    /// Text of another form.
    pub fn parse(text: &str, limit: Option<usize>) -> Result<Self> {
        let mut parts = text.split('+').map(|part| SplitPart::parse(part.trim(), text)).collect::<Result<Vec<_>>>()?;
        if let (Some(limit), false) = (limit, text.contains('[')) {
            for part in &mut parts {
                part.to = Some(Bound { value: i64::try_from(limit).unwrap_or(i64::MAX), percent: false });
            }
        }
        Ok(Split { parts })
    }
}

impl SplitPart {
    fn parse(part: &str, whole: &str) -> Result<Self> {
        let (name, slice) = match part.split_once('[') {
            None => (part, None),
            Some((name, rest)) => (name, Some(rest.strip_suffix(']'))),
        };
        let valid = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-'));
        ensure!(valid, "split {whole:?}: {name:?} is not the name of a split");
        let bounds = match slice {
            None => (None, None),
            Some(Some(inner)) if inner.contains(':') => {
                let (from, to) = inner.split_once(':').unwrap_or_default();
                (Bound::parse(from, whole)?, Bound::parse(to, whole)?)
            }
            Some(_) => bail!("split {whole:?}: wanted a slice such as [:100], [10:20] or [:5%] after {name:?}"),
        };
        Ok(SplitPart { name: name.to_string(), from: bounds.0, to: bounds.1 })
    }

    /// How many rows from the start suffice, where that does not depend on how many there are.
    pub fn rows_needed(&self) -> Option<usize> {
        let counted = |bound: &Bound| !bound.percent && bound.value >= 0;
        let to = self.to.filter(counted)?;
        self.from.is_none_or(|from| counted(&from)).then_some(to.value as usize)
    }

    /// The rows of a split of `rows` rows.
    pub fn range(&self, rows: usize) -> std::ops::Range<usize> {
        let from = self.from.map_or(0, |bound| bound.resolve(rows));
        let to = self.to.map_or(rows, |bound| bound.resolve(rows));
        from.min(to)..to
    }
}

impl Bound {
    fn parse(text: &str, whole: &str) -> Result<Option<Self>> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let (number, percent) = match text.strip_suffix('%') {
            Some(number) => (number, true),
            None => (text, false),
        };
        let Ok(value) = number.replace('_', "").parse::<i64>() else {
            bail!("split {whole:?}: {text:?} is not a number of rows or per cent")
        };
        ensure!(!percent || value.abs() <= 100, "split {whole:?}: {text} is outside -100% to 100%");
        Ok(Some(Bound { value, percent }))
    }

    /// A row index in 0..=rows, as `datasets` rounds: per cents to the closest row, ties to even.
    fn resolve(self, rows: usize) -> usize {
        let value = match self.percent {
            true => (self.value as f64 * rows as f64 / 100.0).round_ties_even() as i64,
            false => self.value,
        };
        let from_end = if value < 0 { value.saturating_add(rows as i64).max(0) } else { value };
        (from_end as usize).min(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str, rows: usize) -> std::ops::Range<usize> {
        Split::parse(text, None).unwrap().parts[0].range(rows)
    }

    #[test]
    fn slices_are_those_of_datasets() {
        for (text, rows, wanted) in [
            ("train", 7, 0..7),
            ("train[:3]", 7, 0..3),
            ("train[:30]", 7, 0..7),
            ("train[2:5]", 7, 2..5),
            ("train[5:2]", 7, 2..2),
            ("train[-2:]", 7, 5..7),
            ("train[:-2]", 7, 0..5),
            ("train[50%:]", 5, 2..5),
            ("train[:10%]", 15, 0..2),
            ("train[-10%:]", 100, 90..100),
            ("validation[1_000:]", 2000, 1000..2000),
        ] {
            assert_eq!(range(text, rows), wanted, "{text}");
        }
    }

    #[test]
    fn a_limit_is_a_slice_unless_there_is_one() {
        let split = Split::parse("train+test", Some(4)).unwrap();
        assert_eq!(split.parts.iter().map(|part| part.range(9)).collect::<Vec<_>>(), [0..4, 0..4]);
        assert_eq!(Split::parse("train[:2]", Some(4)).unwrap().parts[0].range(9), 0..2);
        assert_eq!(Split::parse("train", Some(4)).unwrap().parts[0].rows_needed(), Some(4));
        assert_eq!(Split::parse("train[-3:9]", None).unwrap().parts[0].rows_needed(), None);
        assert_eq!(Split::parse("train[:9%]", None).unwrap().parts[0].rows_needed(), None);
    }

    #[test]
    fn other_forms_are_refused() {
        for text in ["", "train[3]", "train[:3", "train[a:]", "train[:101%]", "tr ain", "train+", "[:3]"] {
            assert!(Split::parse(text, None).is_err(), "{text}");
        }
    }
}
