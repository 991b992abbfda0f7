//! `peft`: low-rank adapters, and which modules get one.
use super::Dialect;
use super::model::{TorchDtype, dtype};
use super::node::Node;
use super::reader::{Log, Section};
use super::targets::Kind;
use crate::diagnostic::Diagnostic;
use regex::Regex;

/// The adapter: `y = x Wᵀ + (alpha / dim) · drop(x Aᵀ) Bᵀ`.
#[derive(Clone, Debug, PartialEq)]
pub struct PeftConfig {
    /// Patterns of module names; empty unless these decide.
    pub target_modules: Vec<String>,
    /// Patterns of modules that are left alone; everything else linear gets an adapter.
    pub exclude_modules: Vec<String>,
    pub match_all_linear: bool,
    /// Whether `match_all_linear` passes over the output head (the form of 2025 did).
    pub skip_lm_head: bool,
    /// The rank.
    pub dim: u64,
    pub alpha: f64,
    pub dropout: f64,
    pub dropout_position: DropoutPosition,
    pub lora_a_init: LoraInit,
    /// Storage of the adapter; `None`: as the weight that it adapts.
    pub lora_dtype: Option<TorchDtype>,
}

/// Where the dropout acts: on the input, or on the output of the adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropoutPosition {
    Pre,
    Post,
}

/// How A starts; B starts at zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoraInit {
    /// Xavier-normal.
    Xavier,
    /// Kaiming-uniform with a = √5.
    Kaiming,
}

/// [`PeftConfig`] with its patterns compiled.
pub struct Matcher {
    targets: Vec<(String, Regex)>,
    excludes: Vec<(String, Regex)>,
    all_linear: bool,
    skip_lm_head: bool,
}

impl PeftConfig {
    /// The rules, ready for many modules. A pattern that is no regular expression matches only the module of that name; such
    /// patterns do not pass [`super::load`].
    pub fn matcher(&self) -> Matcher {
        let compile = |patterns: &[String]| {
            let none = || Regex::new("[^\\s\\S]").expect("a constant pattern");
            patterns.iter().map(|it| (it.clone(), pattern(it).unwrap_or_else(|_| none()))).collect()
        };
        Matcher {
            targets: compile(&self.target_modules),
            excludes: compile(&self.exclude_modules),
            all_linear: self.match_all_linear,
            skip_lm_head: self.skip_lm_head,
        }
    }

    /// Whether the module with this full dotted name gets an adapter.
    pub fn matches(&self, module: &str, is_linear: bool) -> bool {
        self.matcher().matches(module, is_linear)
    }
}

impl Matcher {
    /// Whether the module with this full dotted name gets an adapter.
    pub fn matches(&self, module: &str, is_linear: bool) -> bool {
        let bare = module.rsplit('.').next().unwrap_or(module);
        let hit =
            |rules: &[(String, Regex)]| rules.iter().any(|(name, pattern)| name == bare || pattern.is_match(module));
        if !is_linear {
            false
        } else if self.all_linear {
            !(self.skip_lm_head && bare == "lm_head")
        } else if !self.targets.is_empty() {
            hit(&self.targets)
        } else {
            !hit(&self.excludes)
        }
    }
}

/// Automodel's wildcard: a `*` not after a dot stands for anything, anchored at both ends. Dots are not escaped, so a dot
/// matches any character and `.*` anything: `*.proj` matches `…q_proj`.
fn pattern(text: &str) -> Result<Regex, regex::Error> {
    let mut expression = String::from("^(?:");
    let mut previous = ' ';
    for it in text.chars() {
        if it == '*' && previous != '.' {
            expression.push('.');
        }
        expression.push(it);
        previous = it;
    }
    Regex::new(&(expression + ")$"))
}

/// Reads `peft`, if there is one.
pub(super) fn read(root: &Node, dialect: Dialect, log: &Log) -> Option<PeftConfig> {
    let section = Section::open("peft", root.get("peft"), log)?;
    section.target(Kind::Peft, true);
    section.ignore(&["use_triton", "use_memory_efficient_lora"]);
    section.refuse_if_set("use_dora", "DoRA");
    section.refuse_if_set("moe_rank_scaling", "rank scaling of experts");
    let mut config = PeftConfig {
        target_modules: section.texts("target_modules"),
        exclude_modules: section.texts("exclude_modules"),
        match_all_linear: section.flag("match_all_linear", false),
        skip_lm_head: dialect == Dialect::S25,
        dim: section.integer_within("dim", 1, 1 << 16).unwrap_or(8),
        alpha: section.number("alpha", "a number greater than 0", |it| it > 0.0).unwrap_or(32.0),
        dropout: section
            .number("dropout", "a number from 0 to less than 1", |it| (0.0..1.0).contains(&it))
            .unwrap_or(0.0),
        dropout_position: section
            .choice("dropout_position", &[("post", DropoutPosition::Post), ("pre", DropoutPosition::Pre)])
            .unwrap_or(DropoutPosition::Post),
        lora_a_init: init(&section),
        lora_dtype: dtype(&section, "lora_dtype").filter(|it| *it != TorchDtype::Auto),
    };
    check_patterns(&section);
    check_rules(&section, &mut config, dialect);
    section.finish();
    Some(config)
}

/// `xavier`, or any other text for Kaiming.
fn init(section: &Section) -> LoraInit {
    match section.text("lora_A_init").as_deref() {
        None | Some("xavier") => LoraInit::Xavier,
        Some(_) => LoraInit::Kaiming,
    }
}

fn check_patterns(section: &Section) {
    for key in ["target_modules", "exclude_modules"] {
        let bad = section.texts(key).into_iter().find_map(|it| pattern(&it).err().map(|error| (it, error)));
        if let (Some((text, _)), Some(node)) = (bad, section.get(key)) {
            section.wrong(key, node, &format!("names or patterns with `*`; `{text}` is neither"));
        }
    }
}

/// The three ways to choose modules exclude each other; without any of them `*_proj` is taken.
fn check_rules(section: &Section, config: &mut PeftConfig, dialect: Dialect) {
    let (targets, excludes) = (!config.target_modules.is_empty(), !config.exclude_modules.is_empty());
    let log = section.log;
    let span = &section.span;
    if targets && excludes {
        let message = "`peft.target_modules` and `peft.exclude_modules` are mutually exclusive";
        log.error(span, message, "give only one of them");
    }
    if config.match_all_linear && (targets || excludes) {
        let message = "`peft.match_all_linear: true` wants neither `target_modules` nor `exclude_modules`";
        log.error(span, message, "give only one of the three");
    }
    if config.match_all_linear || targets || excludes {
        return;
    }
    if dialect == Dialect::S25 {
        let error = Diagnostic::error("`peft` does not say which modules get an adapter").at(span, "in this section");
        log.push(error.help("add `target_modules: \"*_proj\"`"));
    } else {
        let warning =
            Diagnostic::warning("`peft` does not say which modules get an adapter").at(span, "in this section");
        log.push(warning.help("`target_modules: \"*_proj\"` is taken, as Automodel does"));
    }
    config.target_modules = vec!["*_proj".into()];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(targets: &[&str], excludes: &[&str], match_all_linear: bool) -> PeftConfig {
        PeftConfig {
            target_modules: targets.iter().map(|it| it.to_string()).collect(),
            exclude_modules: excludes.iter().map(|it| it.to_string()).collect(),
            match_all_linear,
            skip_lm_head: false,
            dim: 8,
            alpha: 32.0,
            dropout: 0.0,
            dropout_position: DropoutPosition::Post,
            lora_a_init: LoraInit::Xavier,
            lora_dtype: None,
        }
    }

    const Q: &str = "model.layers.0.self_attn.q_proj";

    #[test]
    fn agrees_with_automodel() {
        let rows: Vec<&str> = include_str!("../../tests/recipes/lora_patterns.tsv").lines().skip(1).collect();
        let modules: Vec<&str> = rows[0].trim_start_matches("# ").split(' ').collect();
        for row in &rows[1..] {
            let (pattern, wanted) = row.split_once('\t').unwrap();
            let matcher = config(&[pattern], &[], false).matcher();
            let found: Vec<&str> = modules.iter().copied().filter(|module| matcher.matches(module, true)).collect();
            assert_eq!(found.join(" "), wanted, "{pattern}");
            assert!(!modules.iter().any(|module| matcher.matches(module, false)));
        }
    }

    #[test]
    fn excludes_and_all() {
        let excluding = config(&[], &["*.out_proj", "lm_head"], false);
        assert!(excluding.matches(Q, true));
        assert!(!excluding.matches("model.layers.0.out_proj", true));
        assert!(!excluding.matches("lm_head", true));
        assert!(!excluding.matches("model.norm", false));
        let mut all = config(&[], &[], true);
        assert!(all.matches("lm_head", true) && !all.matches("model.embed_tokens", false));
        all.skip_lm_head = true;
        assert!(!all.matches("lm_head", true) && all.matches(Q, true));
    }
}
