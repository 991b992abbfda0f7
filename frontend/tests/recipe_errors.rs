//! The texts of errors and warnings: `tests/recipes/errors/NAME.yaml` gives `NAME.txt`. `AMC_BLESS=1` rewrites the latter.
use amc_frontend::diagnostic::Diagnostic;
use amc_frontend::recipe::load_text;
use std::path::Path;

fn said_of(name: &str, text: String) -> String {
    let diagnostics = match load_text(name, text, &[], &|_| None) {
        Ok((_, warnings)) => warnings,
        Err(all) => all,
    };
    diagnostics.iter().map(|it| it.render() + "\n").collect::<Vec<_>>().join("\n")
}

#[test]
fn error_texts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes/errors");
    let bless = std::env::var_os("AMC_BLESS").is_some();
    let mut names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|it| it.unwrap().path()).collect();
    names.sort();
    let mut wrong = Vec::new();
    for recipe in names.iter().filter(|it| it.extension().is_some_and(|it| it == "yaml")) {
        let golden = recipe.with_extension("txt");
        let name = recipe.file_name().unwrap().to_string_lossy();
        let found = said_of(&name, std::fs::read_to_string(recipe).unwrap());
        if bless {
            std::fs::write(&golden, &found).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != found {
            wrong.push(format!("{}:\n{found}", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "these differ (AMC_BLESS=1 rewrites them):\n{}", wrong.join("\n"));
}

#[test]
fn many_mistakes_are_cut_short() {
    let started = std::time::Instant::now();
    let keys: String = (0..40_000).map(|it| format!("  key_{it}: 1\n")).collect();
    let top: String = (0..40_000).map(|it| format!("mode{it}: 1\n")).collect();
    let long = "m".repeat(1_000_000);
    let said = said_of("many.yaml", format!("checkpoint:\n{keys}\n{top}? {long}\n: 1\n"));
    assert!(said.matches("error: ").count() <= 50 && said.len() < 200_000, "{}", said.len());
    assert!(started.elapsed().as_secs() < 10, "took {:?}", started.elapsed());
    assert!(said_of("long.yaml", format!("? {long}\n: 1\n")).len() < 5_000);
}

/// Anything may come in; the answer is a recipe or messages, quickly.
#[test]
fn cut_and_mangled_recipes_never_panic() {
    let text = include_str!("recipes/llama3_2_1b_squad_peft.yaml");
    let render = |text: String| said_of("mangled.yaml", text).len();
    for end in (0..text.len()).step_by(7) {
        render(text[..end].into());
    }
    for (at, _) in text.match_indices(['\n', ':', ' ']).step_by(5) {
        for piece in [
            "\t", "[", "{", "'", "\"", "&a ", "*a ", "!!x ", "\n---\n", "? ", "- ", "%", "| ", "\u{feff}", "\u{0}",
            "<<: ",
        ] {
            render(format!("{}{piece}{}", &text[..at], &text[at..]));
        }
    }
    let values = [
        "null",
        "[]",
        "{}",
        "-1",
        "1.5",
        "yes",
        "text",
        "[[1]]",
        "{_target_: 3}",
        "99999999999999999999",
        ".nan",
        ".inf",
    ];
    for line in text.lines().filter(|line| line.contains(": ")) {
        let (key, _) = line.split_once(": ").unwrap();
        for value in values {
            render(text.replacen(line, &format!("{key}: {value}"), 1));
        }
    }
    for section in text.lines().filter(|line| line.ends_with(':') && !line.starts_with(' ')) {
        for value in values {
            let diagnostics: Vec<Diagnostic> =
                load_text("m", format!("{text}\n{section} {value}\n"), &[], &|_| None).err().unwrap_or_default();
            assert!(!diagnostics.is_empty(), "a section twice must be refused");
        }
    }
}
