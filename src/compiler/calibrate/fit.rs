//! Rates from measured launches: for every family, the non-negative seconds of an operation, a byte and a launch that fit
//! best.
use amc_artifact::Rate;
use std::collections::BTreeMap;

/// Launches of one kernel in one program.
#[derive(Clone, Debug)]
pub struct Sample {
    pub family: String,
    /// Of one launch.
    pub operations: f64,
    pub bytes: f64,
    /// Of one thread that does all of a launch.
    pub seconds: f64,
    pub launches: f64,
}

/// Pivots of a scaled matrix below this are zero but for rounding.
const SINGULAR: f64 = 1e-9;

/// The rates of all families that have a sample. Errors count relative to what was measured, and each sample with the time
/// that it took in all.
pub fn fit(samples: &[Sample]) -> BTreeMap<String, Rate> {
    let mut families: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.seconds > 0.0) {
        families.entry(&sample.family).or_default().push(sample);
    }
    families.into_iter().map(|(family, samples)| (family.to_string(), rate(&samples))).collect()
}

/// What a linear function of three numbers is to give.
pub struct Point {
    pub of: [f64; 3],
    pub wanted: f64,
    /// Of its squared error.
    pub weight: f64,
}

fn rate(samples: &[&Sample]) -> Rate {
    let point = |sample: &&Sample| Point {
        of: [sample.operations, sample.bytes, 1.0],
        wanted: sample.seconds,
        weight: sample.launches / sample.seconds,
    };
    let [operation, byte, launch] = non_negative(&samples.iter().map(point).collect::<Vec<_>>());
    Rate { operation, byte, launch }
}

/// The factors of the three numbers with the least squared error: of the solutions over some of them, the best one without
/// a negative factor.
pub fn non_negative(points: &[Point]) -> [f64; 3] {
    let residual = |factors: &[f64; 3]| -> f64 {
        let error = |p: &Point| p.of.iter().zip(factors).map(|(x, c)| x * c).sum::<f64>() - p.wanted;
        points.iter().map(|point| point.weight * error(point).powi(2)).sum()
    };
    let mut matrix = [[0.0; 3]; 3];
    let mut right = [0.0; 3];
    for Point { of, wanted, weight } in points {
        for i in 0..3 {
            right[i] += weight * of[i] * wanted;
            (0..3).for_each(|j| matrix[i][j] += weight * of[i] * of[j]);
        }
    }
    let solutions = (1..8u32).filter_map(|chosen| {
        let terms: Vec<usize> = (0..3).filter(|term| chosen >> term & 1 == 1).collect();
        solve(&matrix, &right, &terms).filter(|solution| solution.iter().all(|c| *c >= 0.0))
    });
    solutions.min_by(|a, b| residual(a).total_cmp(&residual(b))).unwrap_or_default()
}

/// Solves for the chosen terms, the others zero; `None` where they cannot be told apart.
fn solve(matrix: &[[f64; 3]; 3], right: &[f64; 3], terms: &[usize]) -> Option<[f64; 3]> {
    let scale: Vec<f64> = terms.iter().map(|&t| matrix[t][t].sqrt()).collect();
    if scale.contains(&0.0) {
        return None;
    }
    let n = terms.len();
    // Scaled to a diagonal of ones; the matrix is positive definite, so no pivoting.
    let mut a: Vec<Vec<f64>> = (0..n)
        .map(|i| {
            let row = (0..n).map(|j| matrix[terms[i]][terms[j]] / (scale[i] * scale[j]));
            row.chain([right[terms[i]] / scale[i]]).collect()
        })
        .collect();
    for i in 0..n {
        if a[i][i] < SINGULAR {
            return None;
        }
        let pivot = a[i].clone();
        for row in &mut a[i + 1..] {
            let factor = row[i] / pivot[i];
            row.iter_mut().zip(&pivot).for_each(|(x, p)| *x -= factor * p);
        }
    }
    let mut found = vec![0.0; n];
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|j| a[i][j] * found[j]).sum();
        found[i] = (a[i][n] - known) / a[i][i];
    }
    let mut solution = [0.0; 3];
    (0..n).for_each(|i| solution[terms[i]] = found[i] / scale[i]);
    Some(solution)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(family: &str, operations: f64, bytes: f64, seconds: f64) -> Sample {
        Sample { family: family.into(), operations, bytes, seconds, launches: 3.0 }
    }

    fn close(found: f64, wanted: f64) {
        assert!((found - wanted).abs() <= 1e-6 * wanted, "{found:e}, wanted {wanted:e}");
    }

    #[test]
    fn rates_are_recovered() {
        let truth = Rate { operation: 1.2e-11, byte: 3e-11, launch: 4e-6 };
        let sizes = [(1e9, 1e6), (4e8, 5e6), (2e7, 6e6), (1e6, 1e4)];
        let seconds = |(o, b): (f64, f64)| o * truth.operation + b * truth.byte + truth.launch;
        let mut samples: Vec<Sample> = sizes.map(|size| sample("product", size.0, size.1, seconds(size))).to_vec();
        samples.push(sample("rows", 0.0, 2e6, 1e-4));
        samples.push(sample("nothing", 1.0, 1.0, 0.0));
        let rates = fit(&samples);
        close(rates["product"].operation, truth.operation);
        close(rates["product"].byte, truth.byte);
        close(rates["product"].launch, truth.launch);
        // One sample: one term explains it.
        let rows = rates["rows"];
        close(2e6 * rows.byte + rows.launch, 1e-4);
        assert!(rows.operation == 0.0 && !rates.contains_key("nothing"));
    }

    #[test]
    fn no_term_is_negative() {
        // A plain fit would pay for the large launch with a negative time of bytes.
        let samples = [sample("x", 1e9, 1e8, 0.01), sample("x", 1e9, 2e8, 0.009), sample("x", 2e9, 1e8, 0.02)];
        let rate = fit(&samples)["x"];
        assert!(rate.operation > 0.0 && rate.byte >= 0.0 && rate.launch >= 0.0, "{rate:?}");
        close(rate.byte, 0.0);
    }
}
