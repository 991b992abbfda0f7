//! Numbers as Python's format strings print them.

/// `{:.Nf}`
pub fn fixed(value: f64, digits: usize) -> String {
    special(value).unwrap_or_else(|| format!("{value:.digits$}"))
}

/// `{:.2e}`, whose exponent has a sign and at least two digits.
pub fn exponent(value: f64) -> String {
    special(value).unwrap_or_else(|| {
        let text = format!("{value:.2e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, power) = power.strip_prefix('-').map_or(('+', power), |power| ('-', power));
        format!("{digits}e{sign}{power:0>2}")
    })
}

fn special(value: f64) -> Option<String> {
    let sign = if value < 0.0 { "-" } else { "" };
    match value {
        value if value.is_nan() => Some("nan".into()),
        value if value.is_infinite() => Some(format!("{sign}inf")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_python_prints() {
        let found = [0.0, 1e-5, 1.239e-5, 12345.0, -2e-110, f64::NEG_INFINITY].map(exponent);
        assert_eq!(found, ["0.00e+00", "1.00e-05", "1.24e-05", "1.23e+04", "-2.00e-110", "-inf"]);
        assert_eq!([fixed(1.0, 4), fixed(f64::NAN, 2)], ["1.0000", "nan"]);
    }
}
