//! What a plain YAML scalar means: the rules of YAML 1.1 as PyYAML implements them.
//!
//! They differ from YAML 1.2: `yes` and `on` are booleans, `010` is eight, `1:30` is ninety, and `1e-8` is text because a
//! float needs a point and a signed exponent. Automodel then reads such text as a Python literal
//! ([`super::literal`]), which makes it a number after all.
use super::node::Value;
use regex::Regex;
use std::sync::LazyLock;

static INTEGER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^(?:[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+)$",
    )
});
static FLOAT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
    )
});

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a constant pattern")
}

/// The value of a plain scalar. Integers beyond 64 bits stay text; so do timestamps.
pub fn resolve_plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Value::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return Value::Bool(false),
        _ => {}
    }
    if FLOAT.is_match(text)
        && let Some(value) = float(text)
    {
        return Value::Float(value);
    }
    if INTEGER.is_match(text)
        && let Some(value) = integer(text)
    {
        return Value::Int(value);
    }
    Value::Text(text.into())
}

/// Splits off the sign; the rest has no underscores.
fn sign_and_digits(text: &str) -> (i64, String) {
    let digits = text.replace('_', "");
    match digits.strip_prefix('-') {
        Some(rest) => (-1, rest.into()),
        None => (1, digits.strip_prefix('+').unwrap_or(&digits).into()),
    }
}

fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = sign_and_digits(text);
    let magnitude = if let Some(binary) = digits.strip_prefix("0b") {
        i64::from_str_radix(binary, 2).ok()?
    } else if let Some(hexadecimal) = digits.strip_prefix("0x") {
        i64::from_str_radix(hexadecimal, 16).ok()?
    } else if digits.starts_with('0') && digits.len() > 1 {
        i64::from_str_radix(&digits, 8).ok()?
    } else {
        digits.split(':').try_fold(0i64, |sum, part| sum.checked_mul(60)?.checked_add(part.parse().ok()?))?
    };
    Some(sign * magnitude)
}

fn float(text: &str) -> Option<f64> {
    let (sign, digits) = sign_and_digits(&text.to_lowercase());
    let magnitude = match digits.as_str() {
        ".inf" => f64::INFINITY,
        ".nan" => f64::NAN,
        _ => {
            let parts: Option<Vec<f64>> = digits.split(':').map(|part| part.parse().ok()).collect();
            parts?.into_iter().fold(0.0, |sum, part| sum * 60.0 + part)
        }
    };
    Some(sign as f64 * magnitude)
}

#[cfg(test)]
mod tests {
    use super::super::{interpolate, node::Node, yaml};
    use super::*;
    use crate::diagnostic::Source;
    use std::sync::Arc;

    /// A float as C's `%a` and Python's `float.hex` write it.
    fn hexadecimal(value: f64) -> String {
        if !value.is_finite() {
            return format!("{value}").to_lowercase();
        }
        let (sign, bits) = (if value.is_sign_negative() { "-" } else { "" }, value.to_bits());
        let exponent = ((bits >> 52) & 0x7ff) as i64 - 1023;
        format!("{sign}0x1.{:013x}p{exponent:+}", bits & ((1 << 52) - 1))
    }

    fn show(node: &Node) -> String {
        let all = |parts: Vec<String>| parts.join("; ");
        match &node.value {
            Value::Null => "null".into(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => format!("int {value}"),
            Value::Float(value) => format!("float {}", hexadecimal(*value)),
            Value::Text(text) => format!("text {}", serde_json::Value::from(text.as_str())),
            Value::List(items) => format!("list [{}]", all(items.iter().map(show).collect())),
            Value::Map(entries) => {
                format!(
                    "map {{{}}}",
                    all(entries.iter().map(|it| format!("{} = {}", it.key, show(&it.node))).collect())
                )
            }
        }
    }

    /// Every row was computed by PyYAML and Python's `ast.literal_eval`.
    #[test]
    fn agrees_with_pyyaml_and_literal_eval() {
        let mut wrong = Vec::new();
        for row in include_str!("../../tests/recipes/scalars.tsv").lines().filter(|row| !row.starts_with('#')) {
            let (written, wanted) = row.split_once('\t').unwrap();
            let source = Arc::new(Source { name: "scalar".into(), text: format!("k: {written}\n") });
            let mut root = yaml::parse(&source).unwrap_or_else(|error| panic!("{written}: {error}"));
            interpolate::resolve(&mut root, &|_| None, &mut Vec::new());
            let found = show(root.get("k").unwrap());
            let wanted = wanted.replace("\\u00e9", "é");
            if found != wanted {
                wrong.push(format!("{written}: found {found}, wanted {wanted}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
