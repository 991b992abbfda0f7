//! The files of a tokenizer, read and checked but not yet put together.
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use tokenizers::{AddedToken, TruncationDirection};

/// Special tokens by the names that configuration files and chat templates use.
const SPECIAL_NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// The files that are read.
pub(super) const NAMES: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
    "config.json",
];
/// A `model_max_length` beyond this means that there is no limit.
const NO_LIMIT: f64 = 1e20;

/// What a model folder says about its tokenizer.
#[derive(Debug)]
pub(super) struct TokenizerFiles {
    folder: PathBuf,
    tokenizer: PathBuf,
    config: Value,
    special_tokens_map: Value,
    generation: Value,
    model: Value,
}

impl TokenizerFiles {
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let tokenizer = folder.join("tokenizer.json");
        if !tokenizer.is_file() {
            bail!(missing_tokenizer(folder));
        }
        Ok(TokenizerFiles {
            folder: folder.to_path_buf(),
            tokenizer,
            config: optional_json(&folder.join("tokenizer_config.json"))?,
            special_tokens_map: optional_json(&folder.join("special_tokens_map.json"))?,
            generation: optional_json(&folder.join("generation_config.json"))?,
            model: optional_json(&folder.join("config.json"))?,
        })
    }

    /// The tokenizer of `tokenizer.json`, with the added tokens that only `tokenizer_config.json` knows.
    pub(super) fn build(&self) -> Result<tokenizers::Tokenizer> {
        let path = self.tokenizer.display();
        let mut tokenizer = tokenizers::Tokenizer::from_file(&self.tokenizer)
            .map_err(|error| anyhow!("{path}: not a tokenizer that can be read: {error}"))?;
        self.check_post_processor().with_context(|| format!("{path}: not a tokenizer that can be read"))?;
        let Some(added) = self.config.get("added_tokens_decoder").and_then(Value::as_object) else {
            return Ok(tokenizer);
        };
        let mut added: Vec<(u32, &Value)> =
            added.iter().filter_map(|(id, token)| Some((id.parse::<u32>().ok()?, token))).collect();
        added.sort_by_key(|(id, _)| *id);
        for (_, token) in added {
            let Some(content) = content(token).filter(|content| tokenizer.token_to_id(content).is_none()) else {
                continue;
            };
            let flag = |name: &str| token.get(name).and_then(Value::as_bool).unwrap_or(false);
            let special = flag("special");
            let token = AddedToken::from(content, special)
                .lstrip(flag("lstrip"))
                .rstrip(flag("rstrip"))
                .single_word(flag("single_word"))
                .normalized(flag("normalized"));
            tokenizer.add_tokens(&[token]);
        }
        Ok(tokenizer)
    }

    /// The library would panic, upon the first text, over a template with a special token that it does not define.
    fn check_post_processor(&self) -> Result<()> {
        #[derive(serde::Deserialize)]
        struct Tokenizer {
            post_processor: Option<Value>,
        }
        let text = std::fs::read_to_string(&self.tokenizer)?;
        let tokenizer: Tokenizer = serde_json::from_str(&text)?;
        tokenizer.post_processor.iter().try_for_each(check_template)
    }

    /// (name, token) of every special token that is set.
    pub(super) fn special_tokens(&self) -> Result<Vec<(String, String)>> {
        let mut tokens = Vec::new();
        for name in SPECIAL_NAMES {
            for (file, json) in
                [("tokenizer_config.json", &self.config), ("special_tokens_map.json", &self.special_tokens_map)]
            {
                let Some(value) = json.get(name).filter(|value| !value.is_null()) else { continue };
                let token = content(value).ok_or_else(|| {
                    anyhow!(
                        "{}: {name} is {value}, wanted a string or an object with `content`",
                        self.folder.join(file).display()
                    )
                })?;
                tokens.push((name.to_string(), token));
                break;
            }
        }
        Ok(tokens)
    }

    /// The chat template: `chat_template.jinja`, else what `tokenizer_config.json` carries. Of several named templates
    /// it is the one called `default`, else the first.
    pub(super) fn chat_template(&self) -> Result<Option<String>> {
        let file = self.folder.join("chat_template.jinja");
        if file.is_file() {
            return std::fs::read_to_string(&file)
                .map(Some)
                .with_context(|| format!("{}: cannot be read", file.display()));
        }
        let Some(value) = self.config.get("chat_template").filter(|value| !value.is_null()) else { return Ok(None) };
        let named: Vec<(&str, &str)> = match value {
            Value::String(source) => return Ok(Some(source.clone())),
            Value::Array(list) => list
                .iter()
                .filter_map(|entry| Some((entry.get("name")?.as_str()?, entry.get("template")?.as_str()?)))
                .collect(),
            Value::Object(map) => {
                map.iter().filter_map(|(name, source)| Some((name.as_str(), source.as_str()?))).collect()
            }
            _ => Vec::new(),
        };
        let chosen = named.iter().find(|(name, _)| *name == "default").or(named.first());
        let (_, source) = chosen.with_context(|| {
            let path = self.folder.join("tokenizer_config.json");
            format!("{}: chat_template is neither a string nor a list of named templates", path.display())
        })?;
        Ok(Some((*source).to_string()))
    }

    pub(super) fn truncation_side(&self) -> TruncationDirection {
        match self.config.get("truncation_side").and_then(Value::as_str) {
            Some("left") => TruncationDirection::Left,
            _ => TruncationDirection::Right,
        }
    }

    pub(super) fn model_max_length(&self) -> Option<usize> {
        let length = self.config.get("model_max_length").and_then(Value::as_f64)?;
        (1.0..=NO_LIMIT).contains(&length).then_some(length as usize)
    }

    /// `eos_token_id` of `generation_config.json`, a number or a list.
    pub(super) fn stop_ids(&self) -> Vec<u32> {
        ids(self.generation.get("eos_token_id"))
    }

    /// The first id under `key` in the generation configuration, else in the model's.
    pub(super) fn model_token_id(&self, key: &str) -> Option<u32> {
        [&self.generation, &self.model].into_iter().find_map(|json| ids(json.get(key)).first().copied())
    }
}

fn check_template(processor: &Value) -> Result<()> {
    if let Some(Value::Array(parts)) = processor.get("processors") {
        return parts.iter().try_for_each(check_template);
    }
    let pieces = ["single", "pair"].into_iter().filter_map(|key| processor.get(key)?.as_array()).flatten();
    for id in pieces.filter_map(|piece| piece.get("SpecialToken")?.get("id")?.as_str()) {
        if processor.get("special_tokens").and_then(|tokens| tokens.get(id)).is_none() {
            bail!("its post_processor uses the special token {id:?}, which it does not define");
        }
    }
    Ok(())
}

fn ids(value: Option<&Value>) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}

/// The text of a token, written as a string or as an object.
fn content(token: &Value) -> Option<String> {
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_string)
}

/// The JSON object of a file, or null where there is no file.
fn optional_json(path: &Path) -> Result<Value> {
    if !path.is_file() {
        return Ok(Value::Null);
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let value: Value = serde_json::from_str(&text).with_context(|| format!("{}: not JSON", path.display()))?;
    if !value.is_object() {
        bail!("{}: wanted a JSON object at the top", path.display());
    }
    Ok(value)
}

fn missing_tokenizer(folder: &Path) -> String {
    let name = folder.display().to_string();
    let others = ["tokenizer.model", "spiece.model", "tekken.json", "tiktoken.model"];
    match others.into_iter().find(|other| folder.join(other).is_file()) {
        Some(other) => format!(
            "{name}: has {other} but no tokenizer.json, the only form that is read; make one with Python: \
             `from transformers import AutoTokenizer; \
             AutoTokenizer.from_pretrained({name:?}).save_pretrained({name:?})`"
        ),
        None if !folder.is_dir() => format!("{name}: no such folder, wanted one with tokenizer.json"),
        None => format!("{name}: no tokenizer.json in it, which a tokenizer is read from"),
    }
}
