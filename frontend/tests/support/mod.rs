//! What tests of data share: tokenizers, rows in a file, and what other code makes of them.
use amc_frontend::data::{Preparation, Sample};
use amc_frontend::hub::Hub;
use amc_frontend::recipe::{ColumnMapped, Columns, Dataset, Dialect, Padding, Squad, TokenOptions};
use amc_frontend::tokenizer::{Tokenizer, TokenizerOptions};
use serde_json::Value;
use std::path::{Path, PathBuf};

pub const NO_OPTIONS: TokenOptions =
    TokenOptions { seq_length: None, padding: Padding::None, truncation: false, limit_dataset_samples: None };

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

pub fn expected() -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixtures().join("expected.json")).unwrap()).unwrap()
}

pub fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::load(&fixtures().join(name), &TokenizerOptions::default()).unwrap()
}

pub fn ids(value: &Value) -> Vec<i32> {
    value.as_array().unwrap().iter().map(|id| id.as_i64().unwrap() as i32).collect()
}

/// A folder with rows in a file, and all that preparing data needs.
pub struct Bench {
    pub folder: tempfile::TempDir,
    pub shards: PathBuf,
    pub hub: Hub,
}

impl Bench {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub { cache: folder.path().join("hub"), offline: true, endpoint: None };
        Bench { shards: folder.path().join("shards"), folder, hub }
    }

    pub fn rows(&self, rows: &Value) -> String {
        let path = self.folder.path().join("rows.json");
        std::fs::write(&path, rows.to_string()).unwrap();
        path.to_str().unwrap().to_string()
    }

    pub fn preparation<'a>(&'a self, dialect: Dialect, tokenizer: Option<&'a Tokenizer>) -> Preparation<'a> {
        let shards = &self.shards;
        Preparation { dialect, seed: 42, tokenizer, packed: None, inherited_template: None, hub: &self.hub, shards }
    }

    pub fn squad(&self, rows: &Value, tokens: &TokenOptions) -> Dataset {
        let dataset_name = self.rows(rows);
        let split = "train".into();
        Dataset::Squad(Squad {
            dataset_name,
            split,
            tokens: tokens.clone(),
            chat_template: None,
            start_of_turn_token: None,
        })
    }

    pub fn columns(&self, rows: &Value, answer_only: bool, chat: bool) -> Dataset {
        let names = |name: &str| Some(name.to_string());
        Dataset::ColumnMapped(ColumnMapped {
            path_or_dataset_id: vec![self.rows(rows)],
            columns: Columns { context: names("note"), question: names("prompt"), answer: "reply".into() },
            split: Some("train".into()),
            name: None,
            answer_only_loss_mask: answer_only,
            use_hf_chat_template: chat,
            tokens: NO_OPTIONS,
        })
    }
}

/// Compares text tokens and all labels; which id pads does not matter.
pub fn compare(name: &str, found: &[Sample], wanted: &Value) {
    let wanted = wanted.as_array().unwrap();
    assert_eq!(found.len(), wanted.len(), "{name}");
    for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        assert_eq!(found.labels, ids(&wanted["labels"]), "{name} {i}: labels");
        let tokens = ids(&wanted["tokens"]);
        assert_eq!(found.tokens.len(), tokens.len(), "{name} {i}: length");
        assert_eq!(found.tokens[..found.content], tokens[..found.content], "{name} {i}: tokens");
    }
}
