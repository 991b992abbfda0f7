//! `amc`: the compiler's own settings, which Automodel ignores.
use super::node::{Node, Value};
use super::reader::{Log, Section};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes that a run may take; compilation refuses to exceed them.
    pub memory_budget: Option<u64>,
    /// What code is generated for.
    pub target: String,
    /// Which products of a GPU its vendor's library computes.
    pub vendor: Vendor,
    /// Whether a GPU may round f32 matrices to TF32 when it multiplies them.
    pub tf32: bool,
    /// Threads of a run; all cores unless given.
    pub threads: Option<u64>,
    /// A folder with an adapter in PEFT's form to start from.
    pub initial_adapter: Option<String>,
}

/// Which products of a GPU its vendor's library, cuBLASLt, computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// Those of the compiler's tuning table.
    Auto,
    Never,
    /// All that it can.
    Always,
}

impl Vendor {
    const ALL: [Vendor; 3] = [Vendor::Auto, Vendor::Never, Vendor::Always];

    /// The word for it in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Vendor::Auto => "auto",
            Vendor::Never => "never",
            Vendor::Always => "always",
        }
    }
}

/// Reads `amc`.
pub(super) fn read(root: &Node, log: &Log) -> Settings {
    let section = Section::open_or_empty("amc", root, log);
    if let (true, Some(node)) = (section.is_null("target"), section.raw("target")) {
        section.wrong("target", node, "the name of a target; write \"null\" in quotes for the null device");
    }
    let wanted = "a number of bytes, or a size such as 4GB or 512MiB";
    let settings = Settings {
        memory_budget: section.typed("memory_budget", wanted, bytes),
        target: section.text("target").unwrap_or_else(|| "cpu".into()),
        vendor: section.choice("vendor", &Vendor::ALL.map(|it| (it.name(), it))).unwrap_or(Vendor::Auto),
        tf32: section.flag("tf32", false),
        threads: section.integer_within("threads", 1, 1024),
        initial_adapter: section.text("initial_adapter"),
    };
    section.finish();
    settings
}

/// Bytes from an integer or from text with a unit: kB, MB, … in powers of 1000, KiB, MiB, … in powers of 1024.
fn bytes(value: &Value) -> Option<u64> {
    let text = match value {
        Value::Int(number) => return u64::try_from(*number).ok().filter(|it| *it > 0),
        Value::Text(text) => text.trim(),
        _ => return None,
    };
    let unit_at = text.find(|it: char| it.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1000_u64.pow(2),
        "g" | "gb" => 1000_u64.pow(3),
        "t" | "tb" => 1000_u64.pow(4),
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    let size = number.trim().parse::<f64>().ok()? * scale as f64;
    (size.is_finite() && (1.0..u64::MAX as f64).contains(&size)).then_some(size as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let text = |it: &str| bytes(&Value::Text(it.into()));
        assert_eq!(text("4GB"), Some(4_000_000_000));
        assert_eq!(text("1.5 GiB"), Some(3 << 29));
        assert_eq!(text("512 mib"), Some(512 << 20));
        for wrong in ["", "GB", "4 gigs", "-1GB", "0MB", "1e99TB", "nanGB", "infGB"] {
            assert_eq!(text(wrong), None, "{wrong}");
        }
        assert_eq!(bytes(&Value::Int(7)), Some(7));
        assert_eq!(bytes(&Value::Int(0)), None);
    }
}
