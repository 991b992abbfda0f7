//! Whether this CPU has what the code was compiled for.

/// Asks for each named feature; the macro takes literals alone.
macro_rules! features {
    ($($llvm:literal = $rust:tt),* $(,)?) => {
        /// LLVM's name of a feature and whether this CPU has it.
        #[cfg(target_arch = "x86_64")]
        const FEATURES: &[(&str, fn() -> bool)] = &[$(($llvm, || std::is_x86_feature_detected!($rust))),*];
    };
}

features! {
    "sse3" = "sse3", "ssse3" = "ssse3", "sse4.1" = "sse4.1", "sse4.2" = "sse4.2", "popcnt" = "popcnt", "avx" = "avx",
    "avx2" = "avx2", "fma" = "fma", "f16c" = "f16c", "bmi" = "bmi1", "bmi2" = "bmi2", "lzcnt" = "lzcnt",
    "movbe" = "movbe", "avx512f" = "avx512f", "avx512bw" = "avx512bw", "avx512cd" = "avx512cd", "avx512dq" = "avx512dq",
    "avx512vl" = "avx512vl", "avx512bf16" = "avx512bf16", "avx512fp16" = "avx512fp16", "avx512vnni" = "avx512vnni",
    "avx512vbmi" = "avx512vbmi", "avx512vbmi2" = "avx512vbmi2", "avx512ifma" = "avx512ifma",
    "avx512bitalg" = "avx512bitalg", "avx512vpopcntdq" = "avx512vpopcntdq", "gfni" = "gfni", "vaes" = "vaes",
    "vpclmulqdq" = "vpclmulqdq",
}

/// Those of the wanted features (LLVM's names, a leading `+` allowed, `-name` not wanted) that this CPU lacks. Features
/// without vector or bit instructions that the kernels could use are not asked for.
#[cfg(target_arch = "x86_64")]
pub fn missing_features(wanted: &[String]) -> Vec<String> {
    let lacks = |name: &str| FEATURES.iter().any(|(known, has)| *known == name && !has());
    let plain = wanted.iter().map(|name| name.strip_prefix('+').unwrap_or(name));
    plain.filter(|name| lacks(name)).map(String::from).collect()
}

/// Code is only generated for x86-64, so another CPU lacks everything.
#[cfg(not(target_arch = "x86_64"))]
pub fn missing_features(_wanted: &[String]) -> Vec<String> {
    vec!["x86-64".into()]
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_cpu_lacks_is_named() {
        let have = std::is_x86_feature_detected!("avx512f");
        let wanted = ["+sse3", "popcnt", "-avx512f", "clzero"].map(String::from);
        assert!(missing_features(&wanted).is_empty());
        assert_eq!(missing_features(&["+avx512f".into()]).is_empty(), have);
    }
}
