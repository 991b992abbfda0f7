use super::*;

fn render(source: &str, messages: &[Message]) -> Result<Rendered> {
    ChatTemplate::new(source)?.render(messages, None, false, &[("eos_token".to_string(), "</s>".to_string())])
}

fn text(source: &str) -> String {
    render(source, &[message("user", "hi")]).unwrap().text
}

#[test]
fn generation_blocks_keep_the_white_space_rules() {
    let source =
        "{% for m in messages %}\n  {%- generation -%}  {{ m.content }}\n  {% endgeneration %}\nx\n{% endfor %}";
    let rendered = render(source, &[message("user", "añb"), message("user", "c")]).unwrap();
    assert_eq!(rendered, Rendered { text: "añb\nx\nc\nx\n".to_string(), assistant: vec![(0, 4), (6, 8)] });
    let plain = source.replace("generation", "if true").replace("endif true", "endif");
    assert_eq!(text(&plain), text(source));
}

#[test]
fn generation_is_recognised_as_automodel_does() {
    for (tag, wanted) in [("{% generation %}", true), ("{%-  generation\n-%}", true), ("{%generation%}", false)] {
        let template = ChatTemplate::new(&format!("{tag}a{{% endgeneration %}}")).unwrap();
        assert_eq!(template.marks_generation(), wanted, "{tag}");
    }
    assert!(!ChatTemplate::new("{% if generation %}{% endif %}").unwrap().marks_generation());
}

#[test]
fn values_print_as_python_prints_them() {
    assert_eq!(
        text("{{ none }} {{ true }} {{ false }} {{ 3 }} {{ missing }}{{ eos_token }}"),
        "None True False 3 </s>"
    );
    assert_eq!(text("{{ messages | tojson }}"), r#"[{"role": "user", "content": "hi"}]"#);
    assert_eq!(
        text("{{ {'b': [1, 'é\n'], 'a': []} | tojson(indent=2) }}"),
        "{\n  \"b\": [\n    1,\n    \"é\\n\"\n  ],\n  \"a\": []\n}"
    );
    assert_eq!(
        text("{{ {'b': 1, 'a': 'é'} | tojson(sort_keys=true, ensure_ascii=true) }}"),
        r#"{"a": "\u00e9", "b": 1}"#
    );
    assert!(render("{{ messages }}", &[message("user", "hi")]).unwrap_err().to_string().contains("tojson"));
}

#[test]
fn none_is_not_iterable() {
    assert_eq!(text("{% if tools is iterable and tools | length > 0 %}a{% endif %}b"), "b");
    assert_eq!(
        text("{% for x in ['s', [], {}, missing, none, 3] %}{{ x is iterable }} {% endfor %}").trim_end(),
        "True True True True False False"
    );
}

#[test]
fn a_refused_system_message_joins_the_first_user_message() {
    let source = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}\
                  {% endif %}[{{ m.role }}:{{ m.content }}]{% endfor %}";
    let messages = [message("system", "be kind"), message("user", "hi"), message("assistant", "hello")];
    assert_eq!(render(source, &messages).unwrap().text, "[user:be kind\nhi][assistant:hello]");
    assert_eq!(render(source, &messages[..1]).unwrap().text, "[user:be kind]");
    let twice = [messages[0].clone(), messages[0].clone()];
    assert!(render(source, &twice).unwrap_err().to_string().contains("2 system messages"));
}

#[test]
fn mistakes_are_named() {
    let one = [message("user", "hi")];
    for (source, wanted) in [
        ("a\n{% if %}", "line 2"),
        ("a\n{{ raise_exception('no tools') }}", "line 2: no tools"),
        ("{{ strftime_now('%Y') }}", "date of today"),
        ("{{ messages[0].content.nope() }}", "line 1"),
        ("{% generation %}{% generation %}{% endgeneration %}{% endgeneration %}", "nested"),
    ] {
        let error = render(source, &one).expect_err(source).to_string();
        assert!(error.contains(wanted), "{error}");
    }
    assert!(render("a", &[]).is_err());
    assert!(render("{{ messages[0].content }}", &[message("user", "\u{FDD0}")]).is_err());
    assert_eq!(text("{% if strftime_now is defined %}today{% else %}fixed{% endif %}"), "fixed");
}

#[test]
fn a_recipe_names_a_template_or_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.json");
    std::fs::write(&path, r#"{"chat_template": "inner"}"#).unwrap();
    assert_eq!(resolve_source("a {{ b }}").unwrap(), "a {{ b }}");
    assert_eq!(resolve_source(path.to_str().unwrap()).unwrap(), "inner");
    std::fs::write(&path, "plain").unwrap();
    assert_eq!(resolve_source(path.to_str().unwrap()).unwrap(), "plain");
    assert!(resolve_source("nowhere.jinja").is_err());
}
