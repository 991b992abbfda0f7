use std::path::PathBuf;

use super::*;

fn read(name: &str, text: &str) -> Result<Table> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join(name);
    std::fs::write(&path, text)?;
    Table::read(&[path], None)
}

fn questions(table: &Table) -> Vec<&str> {
    table.rows.iter().map(|row| row.required_text("question").unwrap()).collect()
}

#[test]
fn every_form_of_json_is_read() {
    let rows = r#"{"question": "a"}"#;
    for (name, text) in [
        ("rows.jsonl", format!("\u{feff}{rows}\n\n{rows}\n")),
        ("rows.json", format!("[{rows}, {rows}]")),
        ("rows.json", format!("{rows}\n{rows}")),
        ("rows.json", format!("{{\"version\": 2.0, \"data\": [{rows}, {rows}]}}")),
        (
            "rows.json",
            r#"{"data": [{"title": "t", "paragraphs": [{"context": "c", "qas": [{"id": "1", "question": "a",
               "answers": [{"text": "x", "answer_start": 0}]}, {"question": "a"}]}]}]}"#
                .to_string(),
        ),
    ] {
        let table = read(name, &text).unwrap();
        assert_eq!(questions(&table), ["a", "a"], "{text}");
    }
    assert_eq!(read("one.json", rows).unwrap().rows.len(), 1);
}

#[test]
fn reading_stops_when_there_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    std::fs::write(&path, "{\"a\": 1}\n{\"a\": 2}\nbroken\n").unwrap();
    assert_eq!(Table::read(std::slice::from_ref(&path), Some(2)).unwrap().rows.len(), 2);
    assert!(Table::read(&[path, PathBuf::from("absent.json")], Some(3)).is_err());
}

#[test]
fn errors_name_file_and_line() {
    for (name, text, wanted) in [
        ("rows.jsonl", "{\"a\": 1}\n{\"a\": }\n", "rows.jsonl, line 2, column 7: not JSON: expected value"),
        ("rows.jsonl", "[1]\n", "line 1: a list, wanted an object"),
        ("rows.json", "[{\"a\": 1},\n 3]", "row 2: a number, wanted an object"),
        ("rows.json", "[{\"a\": 1},\n {\"a\" 3}]", "line 2"),
        ("rows.json", "{\"a\": 1}\n{\"a\": 1\n", "line 2"),
        ("rows.json", "{\"data\": 3}", "`data` is a number"),
        ("rows.json", "7", "a number at the top"),
        ("rows.parquet", "PAR1 not", "not a Parquet file"),
        ("rows.csv", "a,b", "wanted a file that ends in"),
    ] {
        let error = format!("{:#}", read(name, text).expect_err(text));
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn columns_are_checked() {
    let table = read("rows.json", r#"[{"question": "a", "n": 1}, {"answer": null}]"#).unwrap();
    assert_eq!(table.columns(), ["question", "n", "answer"]);
    let error = table.require(&["question", "prompt"]).unwrap_err().to_string();
    assert!(error.contains("no column `prompt`; the columns are `question`, `n`, `answer`"), "{error}");
    assert!(table.rows[0].text("n").unwrap_err().to_string().contains("row 1: column `n` is a number, wanted text"));
    assert_eq!(table.rows[1].text("question").unwrap(), None);
    assert!(table.rows[1].required_text("answer").unwrap_err().to_string().contains("row 2"));
    assert!(read("rows.jsonl", "").unwrap().require(&[]).unwrap_err().to_string().contains("no rows"));
}
