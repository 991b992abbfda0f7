//! The page's parts as one file.

const FRAME: &str = include_str!("page/report.html");
const STYLE: &str = include_str!("page/report.css");
/// In the order in which they use each other.
const SCRIPTS: &[&str] = &[
    include_str!("page/format.js"),
    include_str!("page/dom.js"),
    include_str!("page/graph.js"),
    include_str!("page/program.js"),
    include_str!("page/selection.js"),
    include_str!("page/viewport.js"),
    include_str!("page/plot.js"),
    include_str!("page/timeline.js"),
    include_str!("page/memory.js"),
    include_str!("page/roofline.js"),
    include_str!("page/kernels.js"),
    include_str!("page/source.js"),
    include_str!("page/details.js"),
    include_str!("page/main.js"),
];

/// The whole page.
pub fn page(title: &str, data: &serde_json::Value) -> String {
    // Within a script element only `<` can begin what ends it; JSON has it in strings alone, where an escape means the same.
    let data = data.to_string().replace('<', "\\u003c");
    let parts = [("title", escape(title)), ("style", STYLE.into()), ("data", data), ("script", SCRIPTS.concat())];
    let mut rest = FRAME;
    let mut page = String::new();
    for (name, part) in parts {
        let hole = format!("{{{{{name}}}}}");
        let (before, after) = rest.split_once(&hole).expect("report.html has a hole for every part, in order");
        page.extend([before, &part]);
        rest = after;
    }
    page + rest
}

/// `text` for a place where markup is read.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_text_becomes_markup() {
        let hostile = "</script><script>alert(1)</script><!-- {{script}}";
        let page = page(hostile, &json!({"name": hostile}));
        assert_eq!(page.matches("<script").count(), 2, "the data and the script, nothing else");
        assert_eq!(page.matches("</script>").count(), 2);
        assert!(page.contains(r#"{"name":"\u003c/script>\u003cscript>alert(1)"#));
        assert!(page.contains("<title>&lt;/script&gt;"));
    }
}
