//! Tokenizer, formats and packing against transformers and NeMo Automodel themselves: `data/expected.json` holds what
//! their code makes of the same rows (`data/make_expected.py` wrote it).
mod support;

use std::path::Path;

use amc_frontend::chat_template::{ChatTemplate, message};
use amc_frontend::data::{Description, MOST_SHAPES, Preparation, Prepared, Sample, ShapeSet, pack, prepare, samples};
use amc_frontend::recipe::{Dataset, Dialect, MockIterable, PackedSequence, Padding, Squad, TokenFile, TokenOptions};
use amc_frontend::tokenizer::{Tokenizer, TokenizerOptions};
use serde_json::{Value, json};
use support::*;

#[test]
fn text_is_encoded_as_transformers_does() {
    let (plain, expected) = (tokenizer("tokenizer_plain"), expected());
    for case in expected["chats"]["texts"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let encode = |special| plain.encode(text, special).unwrap();
        let wanted = |key: &str| ids(&case[key]).into_iter().map(|id| id as u32).collect::<Vec<_>>();
        assert_eq!((encode(false), encode(true)), (wanted("plain"), wanted("special")), "{text:?}");
        assert_eq!(plain.decode(&encode(true), false).unwrap(), case["decoded"].as_str().unwrap());
        assert_eq!(plain.decode(&encode(true), true).unwrap(), case["skipped"].as_str().unwrap());
    }
    let (bos, eos) = (plain.bos_id().unwrap(), plain.eos_id().unwrap());
    assert_eq!((plain.pad_id(), plain.add_bos_token(), plain.model_max_length()), (None, false, Some(48)));
    assert_eq!(plain.stop_ids(), [eos]);
    let both = TokenizerOptions { add_bos_token: true, add_eos_token: true };
    let both = Tokenizer::load(&fixtures().join("tokenizer_plain"), &both).unwrap();
    let inner = plain.encode("Oslo", false).unwrap();
    assert_eq!(both.encode("Oslo", true).unwrap(), [&[bos][..], &inner, &[eos]].concat());
    assert_eq!(both.encode_truncated("The Thames flows", true, 3).unwrap().len(), 3);
}

#[test]
fn chats_are_rendered_as_transformers_does() {
    let (chat, expected) = (tokenizer("tokenizer"), expected());
    let messages = [message("user", "Who?"), message("assistant", "The Thames.")];
    let own = chat.chat_template().unwrap();
    let prompt = chat.encode_chat(own, &messages[..1], true, None).unwrap();
    assert_eq!(prompt.tokens.iter().map(|id| *id as i32).collect::<Vec<_>>(), ids(&expected["chats"]["prompt"]));
    let template = ChatTemplate::new(expected["rows"]["generation_template"].as_str().unwrap()).unwrap();
    let marked = chat.encode_chat(&template, &messages, false, None).unwrap();
    let wanted = &expected["chats"]["generation"];
    assert_eq!(marked.tokens.iter().map(|id| *id as i32).collect::<Vec<_>>(), ids(&wanted["tokens"]));
    assert_eq!(marked.assistant.iter().map(|is| i32::from(*is)).collect::<Vec<_>>(), ids(&wanted["mask"]));
}

#[test]
fn squad_is_automodels() {
    let (bench, expected) = (Bench::new(), expected());
    let (plain, chat) = (tokenizer("tokenizer_plain"), tokenizer("tokenizer"));
    let bos = TokenizerOptions { add_bos_token: true, add_eos_token: false };
    let with_bos = Tokenizer::load(&fixtures().join("tokenizer_plain"), &bos).unwrap();
    let rows = &expected["rows"]["squad"];
    let mut with_unanswered = rows.clone();
    with_unanswered.as_array_mut().unwrap().push(expected["rows"]["unanswered"].clone());
    let cut = TokenOptions { seq_length: Some(40), truncation: true, ..NO_OPTIONS };
    let cut_to_model = TokenOptions { truncation: true, ..NO_OPTIONS };
    let padded = TokenOptions { seq_length: Some(80), padding: Padding::MaxLength, ..NO_OPTIONS };
    for (form, name, rows, tokenizer, options) in [
        (Dialect::Head, "squad_plain", &with_unanswered, &plain, &NO_OPTIONS),
        (Dialect::Head, "squad_chat", rows, &chat, &NO_OPTIONS),
        (Dialect::Head, "squad_bos", rows, &with_bos, &NO_OPTIONS),
        (Dialect::Head, "squad_cut", rows, &plain, &cut),
        (Dialect::Head, "squad_cut_to_model", rows, &plain, &cut_to_model),
        (Dialect::Head, "squad_padded", rows, &plain, &padded),
        (Dialect::Head, "squad_chat_cut", rows, &chat, &cut),
        (Dialect::S25, "squad_plain", &with_unanswered, &plain, &NO_OPTIONS),
        (Dialect::S25, "squad_chat", rows, &chat, &NO_OPTIONS),
        (Dialect::S25, "squad_padded", rows, &plain, &padded),
    ] {
        let dataset = bench.squad(rows, options);
        let (found, _) = samples(&dataset, &bench.preparation(form, Some(tokenizer))).unwrap();
        let key = if form == Dialect::Head { "head" } else { "s25" };
        compare(&format!("{key} {name}"), &found, &expected[key][name]);
    }
}

/// Automodel of September 2025: nothing before the second start of a turn is learnt.
#[test]
fn the_start_of_a_turn_says_what_is_learnt() {
    let (bench, expected, chat) = (Bench::new(), expected(), tokenizer("tokenizer"));
    let start = chat.token_id("<|start|>").unwrap() as i32;
    let learnt = |token: &str| {
        let Dataset::Squad(squad) = bench.squad(&expected["rows"]["squad"], &NO_OPTIONS) else { unreachable!() };
        let dataset = Dataset::Squad(Squad { start_of_turn_token: Some(token.into()), ..squad });
        samples(&dataset, &bench.preparation(Dialect::S25, Some(&chat)))
    };
    for sample in learnt("<|start|>").unwrap().0 {
        let second = sample.tokens.iter().enumerate().filter(|(_, token)| **token == start).nth(1).unwrap().0;
        assert!(sample.labels[..second - 1].iter().all(|label| *label == amc_artifact::IGNORED));
        assert_eq!(sample.labels[second - 1..sample.content - 1], sample.tokens[second..sample.content]);
    }
    let error = format!("{:#}", learnt("<|begin|>").unwrap_err());
    assert!(error.contains("`start_of_turn_token` \"<|begin|>\" stands less than twice"), "{error}");
}

#[test]
fn generation_blocks_say_what_is_learnt() {
    let (bench, expected, plain) = (Bench::new(), expected(), tokenizer("tokenizer"));
    let cut = TokenOptions { seq_length: Some(40), truncation: true, ..NO_OPTIONS };
    for (name, options) in [("squad_generation", &NO_OPTIONS), ("squad_generation_cut", &cut)] {
        let template = expected["rows"]["generation_template"].as_str();
        let dataset = bench.squad(&expected["rows"]["squad"], options);
        let how = Preparation { inherited_template: template, ..bench.preparation(Dialect::Head, Some(&plain)) };
        compare(name, &samples(&dataset, &how).unwrap().0, &expected["head"][name]);
    }
}

#[test]
fn columns_are_automodels() {
    let (bench, expected) = (Bench::new(), expected());
    let (plain, chat) = (tokenizer("tokenizer_plain"), tokenizer("tokenizer"));
    for (form, name, tokenizer, answer_only, template) in [
        ("head", "columns_plain", &plain, true, false),
        ("head", "columns_all", &plain, false, false),
        ("head", "columns_chat", &chat, true, true),
        ("head", "columns_chat_all", &chat, false, true),
        ("s25", "columns_plain", &plain, true, false),
        ("s25", "columns_all", &plain, false, false),
    ] {
        let dataset = bench.columns(&expected["rows"]["columns"], answer_only, template);
        let dialect = if form == "head" { Dialect::Head } else { Dialect::S25 };
        let found = samples(&dataset, &bench.preparation(dialect, Some(tokenizer))).unwrap().0;
        compare(&format!("{form} {name}"), &found, &expected[form][name]);
    }
}

#[test]
fn packs_are_automodels() {
    let expected = expected();
    let read = |sample: &Value| {
        let (tokens, labels) = (ids(&sample["tokens"]), ids(&sample["labels"]));
        Sample { content: tokens.len(), tokens, labels }
    };
    let samples: Vec<Sample> = expected["head"]["squad_plain"].as_array().unwrap().iter().map(read).collect();
    let twice: Vec<&Sample> = samples.iter().chain(&samples).collect();
    for (name, size, most, too_long) in [("packed", 100, None, 0), ("packed_two", 60, Some(2), 0)] {
        let packs = pack(&twice, size, most, 0, Dialect::Head).unwrap();
        let wanted = expected["head"][name].as_array().unwrap();
        assert_eq!((packs.rows.len(), packs.too_long), (wanted.len(), too_long), "{name}");
        for (row, wanted) in packs.rows.iter().zip(wanted) {
            assert_eq!(row.tokens, ids(&wanted["tokens"]), "{name}");
            assert_eq!(row.labels, ids(&wanted["labels"]), "{name}");
            assert_eq!(row.positions, ids(&wanted["positions"]), "{name}");
            let lengths = ids(&wanted["lengths"]);
            let mut segments: Vec<i32> =
                (1..).zip(&lengths).flat_map(|(segment, length)| vec![segment; *length as usize]).collect();
            segments.resize(size, 0);
            assert_eq!(row.segments, segments, "{name}");
        }
    }
}

#[test]
fn packing_keeps_full_rows_whole_and_leaves_out_long_samples() {
    let sample = |length: usize| Sample { tokens: vec![1; length], labels: vec![1; length], content: length };
    let all = [sample(3), sample(5), sample(9), sample(2)];
    let all: Vec<&Sample> = all.iter().collect();
    let packs = pack(&all, 8, None, 0, Dialect::Head).unwrap();
    assert_eq!(packs.rows.iter().map(|row| row.content()).collect::<Vec<_>>(), [8, 2]);
    assert_eq!(packs.too_long, 1);
    assert_eq!(packs.rows[1].positions, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert!(pack(&all, 8, None, 0, Dialect::S25).unwrap_err().to_string().contains("9 tokens"));
    assert!(pack(&all[2..3], 8, None, 0, Dialect::Head).unwrap_err().to_string().contains("no packed rows"));
}

fn describe(prepared: &Prepared, tokenizer: Option<&Tokenizer>, rows: usize, colour: bool) -> String {
    let sampler = amc_artifact::Sampler {
        rows: prepared.shard.summary().rows as u32,
        shuffle: true,
        seed: 1,
        replicas: 1,
        rank: 0,
        local_batch_size: 2,
        accumulation: 1,
        drop_last: false,
    };
    let shapes = ShapeSet::solve(&prepared.shard, &sampler, 2, 1, MOST_SHAPES).unwrap();
    let mut out = Vec::new();
    Description { prepared, shapes: &shapes, tokenizer, rows, colour }.write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn preparing_twice_gives_one_file() {
    let (bench, expected, plain) = (Bench::new(), expected(), tokenizer("tokenizer_plain"));
    let dataset = bench.squad(&expected["rows"]["squad"], &NO_OPTIONS);
    let how = bench.preparation(Dialect::Head, Some(&plain));
    let prepared = prepare(&dataset, &how).unwrap();
    let again = prepare(&dataset, &how).unwrap();
    assert_eq!(prepared.shard.path(), again.shard.path());
    let kept = |extension: &str| {
        let files = std::fs::read_dir(&bench.shards).unwrap().map(|file| file.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|found| found == extension)).collect::<Vec<_>>()
    };
    assert_eq!((kept("amcshard").len(), kept("json").len()), (1, 1));
    assert_eq!(again.report, prepared.report);
    let summary = prepared.shard.summary();
    assert_eq!((summary.rows, summary.tokens, summary.longest, summary.supervised), (3, 123, 59, 5));
    let text = describe(&prepared, Some(&plain), 2, false);
    for wanted in [
        "3 examples in 3 rows, 123 tokens, 5 of them learnt (4.1 %)",
        "lengths: 25 to 59 tokens, median 39",
        "shapes: 2 rows of",
        "Question: What flows through London? Answer:« The Thames»",
    ] {
        assert!(text.contains(wanted), "{wanted}\n{text}");
    }
    assert!(describe(&prepared, Some(&plain), 1, true).contains("\u{1b}[1;32m The Thames\u{1b}[0m"));
    // A damaged shard is made again; other data under the same name is other data.
    let (path, hash) = (prepared.shard.path().to_path_buf(), prepared.shard.hash());
    drop((prepared, again));
    std::fs::write(path, "damaged").unwrap();
    assert_eq!(prepare(&dataset, &how).unwrap().shard.hash(), hash);
    bench.rows(&json!([{"context": "a", "question": "b", "answers": {"text": ["c d"]}}]));
    assert_eq!(prepare(&dataset, &how).unwrap().shard.summary().rows, 1);
}

#[test]
fn packed_and_mock_data_have_one_shape() {
    let (bench, expected, plain) = (Bench::new(), expected(), tokenizer("tokenizer_plain"));
    let dataset = bench.squad(&expected["rows"]["squad"], &NO_OPTIONS);
    let packed = PackedSequence { packed_sequence_size: 64, max_packs: None };
    for dialect in [Dialect::Head, Dialect::S25] {
        let how = Preparation { packed: Some(&packed), ..bench.preparation(dialect, Some(&plain)) };
        let prepared = prepare(&dataset, &how).unwrap();
        assert!(prepared.shard.summary().longest == 64 && prepared.shard.summary().rows < 4);
        assert!(describe(&prepared, None, 1, false).contains("rows of 64 tokens"));
    }
    let mock =
        Dataset::MockIterable(MockIterable { vocab_size: 50, seq_len: 33, num_samples: 1_000_000, batch_size: 2 });
    let prepared = prepare(&mock, &bench.preparation(Dialect::Head, None)).unwrap();
    assert_eq!((prepared.shard.summary().rows, prepared.shard.length(7)), (2_000_000, 33));
}

#[test]
fn rows_without_a_token_to_learn_are_replaced_or_counted() {
    let (bench, chat) = (Bench::new(), tokenizer("tokenizer"));
    let rows = json!([{"prompt": "a", "reply": "b"}, {"prompt": "c", "reply": ""}, {"prompt": "d", "reply": ""}]);
    let Dataset::ColumnMapped(mut mapped) = bench.columns(&rows, true, false) else { unreachable!() };
    mapped.columns.context = None;
    mapped.tokens.truncation = true;
    let dataset = Dataset::ColumnMapped(mapped);
    let (found, report) = samples(&dataset, &bench.preparation(Dialect::Head, Some(&chat))).unwrap();
    assert_eq!((report.examples, report.replaced, report.unsupervised), (3, 2, 0));
    assert_eq!(found[1], found[0]);
    let empty = json!([{"context": "a", "question": "b", "answers": {"text": []}}]);
    let plain = ChatlessTokenizer::new(&bench);
    let dataset = bench.squad(&empty, &NO_OPTIONS);
    let error = prepare(&dataset, &bench.preparation(Dialect::Head, Some(&plain.0))).unwrap_err().to_string();
    assert!(error.contains("no row of the dataset has a token to learn"), "{error}");
}

/// The tokenizer without post-processor and without chat template.
struct ChatlessTokenizer(Tokenizer);

impl ChatlessTokenizer {
    fn new(bench: &Bench) -> Self {
        let folder = bench.folder.path().join("chatless");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(fixtures().join("tokenizer/tokenizer.json"), folder.join("tokenizer.json")).unwrap();
        std::fs::write(folder.join("tokenizer_config.json"), r#"{"eos_token": "<|end|>"}"#).unwrap();
        ChatlessTokenizer(Tokenizer::load(&folder, &TokenizerOptions::default()).unwrap())
    }
}

#[test]
fn mistakes_in_the_data_are_named() {
    let (bench, chat, plain) = (Bench::new(), tokenizer("tokenizer"), tokenizer("tokenizer_plain"));
    let good = json!({"context": "a", "question": "b", "answers": {"text": ["c"]}});
    for (rows, tokenizer, wanted) in [
        (json!([good, {"context": "a", "question": "b", "answers": {"text": []}}]), &chat, "row 2: no answer"),
        (json!([good, {"context": 3, "question": "b"}]), &plain, "row 2: column `context` is a number"),
        (json!([good, {"context": "a"}]), &plain, "row 2: column `question` is null or missing"),
        (json!([{"text": "a"}]), &plain, "no column `context`; the columns are `text`"),
        (json!([]), &plain, "no rows"),
        (json!([{"context": "a", "question": "b", "answers": [7]}]), &plain, "an answer is a number"),
    ] {
        let dataset = bench.squad(&rows, &NO_OPTIONS);
        let error = prepare(&dataset, &bench.preparation(Dialect::Head, Some(tokenizer))).unwrap_err();
        assert!(format!("{error:#}").contains(wanted), "{error:#}");
    }
    let rewriting = "{% for m in messages %}{{ m.content }}{{ loop.length }}{% endfor %}";
    let how = Preparation { inherited_template: Some(rewriting), ..bench.preparation(Dialect::Head, Some(&chat)) };
    let error = format!("{:#}", prepare(&bench.squad(&json!([good]), &NO_OPTIONS), &how).unwrap_err());
    assert!(error.contains("row 1") && error.contains("{% generation %}"), "{error}");
}

#[test]
fn mistakes_in_a_tokenizer_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let load = |options: &TokenizerOptions| Tokenizer::load(folder.path(), options).map(|_| ());
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let check = |result: anyhow::Result<()>, wanted: &str| {
        let error = format!("{:#}", result.expect_err(wanted));
        assert!(error.contains(wanted), "{error}");
    };
    let none = TokenizerOptions::default();
    check(load(&none), "no tokenizer.json");
    write("tokenizer.model", "");
    check(load(&none), "has tokenizer.model but no tokenizer.json");
    for broken in
        ["", "{", "{\"version\": \"1.0\"}", "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": -1}, \"merges\": []}}"]
    {
        write("tokenizer.json", broken);
        check(load(&none), "tokenizer.json: not a tokenizer that can be read");
    }
    let whole = std::fs::read_to_string(fixtures().join("tokenizer_plain/tokenizer.json")).unwrap();
    let mut undefined: Value = serde_json::from_str(&whole).unwrap();
    undefined["post_processor"]["special_tokens"] = json!({});
    write("tokenizer.json", &undefined.to_string());
    check(load(&none), "uses the special token \"<|begin|>\", which it does not define");
    std::fs::copy(fixtures().join("tokenizer/tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    check(load(&TokenizerOptions { add_bos_token: true, ..none.clone() }), "names no bos_token");
    for (config, wanted) in [
        ("[]", "wanted a JSON object"),
        ("{\"eos_token\": 3}", "eos_token is 3"),
        ("{\"chat_template\": 3}", "chat_template is neither"),
        ("{\"chat_template\": \"{% for %}\"}", "line 1"),
        ("{\"eos_token\"", "tokenizer_config.json: not JSON"),
    ] {
        write("tokenizer_config.json", config);
        check(load(&none), wanted);
    }
    write(
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]}"#,
    );
    write("generation_config.json", "{\"eos_token_id\": [2, 3]}");
    let tokenizer = Tokenizer::load(folder.path(), &none).unwrap();
    let chat = tokenizer.chat_template().unwrap().render(&[message("user", "")], None, false, &[]).unwrap();
    assert_eq!((chat.text.as_str(), tokenizer.stop_ids(), tokenizer.eos_id()), ("b", vec![2, 3], Some(2)));
}

#[test]
fn parquet_and_json_lines_give_the_same_tokens() {
    let (bench, plain) = (Bench::new(), tokenizer("tokenizer_plain"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data");
    let found = |name: &str, split: &str| {
        let dataset_name = folder.join(name).to_str().unwrap().to_string();
        let (tokens, split) = (NO_OPTIONS, split.into());
        let squad = Squad { dataset_name, split, tokens, chat_template: None, start_of_turn_token: None };
        samples(&Dataset::Squad(squad), &bench.preparation(Dialect::Head, Some(&plain))).unwrap().0
    };
    let lines = found("squad.jsonl", "train");
    assert_eq!(lines.len(), 6);
    for name in ["squad_snappy.parquet", "squad_zstd.parquet"] {
        assert_eq!(found(name, "train"), lines, "{name}");
        assert_eq!(found(name, "train[1:3]+test[-1:]"), [&lines[1..3], &lines[5..]].concat(), "{name}");
    }
}

#[test]
fn token_files_are_taken_as_they_are() {
    let bench = Bench::new();
    let read = |rows: Value| {
        let file = TokenFile { path: bench.rows(&rows), limit_dataset_samples: Some(2) };
        samples(&Dataset::TokenFile(file), &bench.preparation(Dialect::Head, None))
    };
    let (found, report) = read(json!([{"input_ids": [5, 6, 7]}, {"input_ids": [1], "labels": [-100]}, {}])).unwrap();
    assert_eq!(found[0], Sample { tokens: vec![5, 6, 7], labels: vec![6, 7, -100], content: 3 });
    assert_eq!((found[1].labels.as_slice(), report.unsupervised), (&[-100][..], 1));
    for (row, wanted) in [
        (json!({"input_ids": []}), "row 1: `input_ids` is empty"),
        (json!({"input_ids": [1, -2]}), "row 1: `input_ids` holds -2"),
        (json!({"input_ids": [1, 1.5]}), "holds 1.5"),
        (json!({"input_ids": [1], "labels": [1, 2]}), "2 labels for 1 tokens"),
        (json!({"input_ids": [1], "labels": [-1]}), "`labels` holds -1"),
        (json!({"tokens": [1]}), "no column `input_ids`; the columns are `tokens`"),
    ] {
        let error = format!("{:#}", read(json!([row])).unwrap_err());
        assert!(error.contains(wanted), "{error}");
    }
}
