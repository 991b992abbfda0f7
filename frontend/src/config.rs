//! `config.json`: typed reads of untrusted values.
//!
//! - Every error names the key, what was found and what was wanted.
//! - `null` reads as absent; where the difference matters, ask [`Section::has`].
//! - Every read is remembered, so that [`Config::unread`] can say which keys nothing paid attention to: a key that
//!   changes the model must not be passed over in silence.
//! - A recipe may replace values ([`Config::replace`]); errors then blame the recipe.
use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

/// No size in a config may be larger: products of two sizes then fit in 64 bits.
const LARGEST_SIZE: usize = 1 << 31;

/// Keys that change nothing in a training step: bookkeeping, generation, class heads, library switches.
const IRRELEVANT: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_flash_attn_2_enabled",
    "_from_model_config",
    "_model_name_or_path",
    "_name_or_path",
    "add_cross_attention",
    "architectures",
    "attn_implementation",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "cache_implementation",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_llama_config",
    "keys_to_ignore_at_inference",
    "label2id",
    "length_penalty",
    "max_length",
    "max_position_embeddings",
    "min_length",
    "model_max_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "original_max_position_embeddings",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    // Of a loss that is refused where it is wanted.
    "router_aux_loss_coef",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
];

/// A `config.json`, the recipe's changes to it, and what has been read so far.
#[derive(Debug)]
pub struct Config {
    place: String,
    values: Map<String, Value>,
    replaced: BTreeSet<String>,
    read: RefCell<BTreeSet<String>>,
}

/// An object of the config: the whole, or one inside such as `rope_scaling`.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    config: &'a Config,
    /// What stands before a key in messages: nothing, or `rope_scaling.`.
    prefix: &'a str,
    /// `None` for an object that is not there: every key is absent.
    values: Option<&'a Map<String, Value>>,
}

impl Config {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// The file cannot be read or is not a JSON object.
    pub fn load(path: &Path) -> Result<Config> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Config::parse(&text, path.display().to_string())
    }

    /// Takes the text of a `config.json`; `place` names it in messages.
    ///
    /// # Errors
    /// The text is not a JSON object.
    pub fn parse(text: &str, place: impl Into<String>) -> Result<Config> {
        let place = place.into();
        match serde_json::from_str(text).with_context(|| place.clone())? {
            Value::Object(values) => Ok(Config { place, values, replaced: BTreeSet::new(), read: RefCell::default() }),
            other => bail!("{place}: found {}, wanted an object", show(&other)),
        }
    }

    /// Sets a key as the recipe wants it; an object takes the whole place of the old one. Where the file has
    /// `rope_parameters`, which win over `rope_theta` and `rope_scaling`, those become parts of it.
    pub fn replace(&mut self, key: &str, value: Value) {
        let (key, value) = match (key, self.values.get("rope_parameters"), value) {
            ("rope_theta", Some(Value::Object(old)), theta) => {
                let mut new = old.clone();
                new.insert(key.into(), theta);
                ("rope_parameters", Value::Object(new))
            }
            ("rope_scaling", Some(Value::Object(old)), scaling @ (Value::Object(_) | Value::Null)) => {
                let mut new = old.clone();
                new.retain(|key, _| ["rope_theta", "partial_rotary_factor"].contains(&key.as_str()));
                new.extend(scaling.as_object().cloned().unwrap_or_default());
                ("rope_parameters", Value::Object(new))
            }
            (key, _, value) => (key, value),
        };
        self.replaced.insert(key.into());
        self.values.insert(key.into(), value);
    }

    /// The keys that were replaced, with their values.
    pub fn replaced(&self) -> Map<String, Value> {
        self.replaced.iter().map(|key| (key.clone(), self.values[key].clone())).collect()
    }

    /// All keys.
    pub fn root(&self) -> Section<'_> {
        Section { config: self, prefix: "", values: Some(&self.values) }
    }

    /// Keys that nobody read and that are not known to be irrelevant, in the order of the file.
    pub fn unread(&self) -> Vec<String> {
        let read = self.read.borrow();
        let mut unread = Vec::new();
        for (key, value) in &self.values {
            let relevant = !IRRELEVANT.contains(&key.as_str());
            match value {
                _ if !read.contains(key) => unread.extend(relevant.then(|| key.clone())),
                Value::Object(inner) if relevant => {
                    let inner = inner.keys().map(|name| format!("{key}.{name}"));
                    unread.extend(inner.filter(|path| !read.contains(path)));
                }
                _ => {}
            }
        }
        unread
    }
}

impl<'a> Section<'a> {
    /// The object under `key`; without keys if there is none. `prefix` must be `key` with a dot behind.
    ///
    /// # Errors
    /// The value is not an object.
    pub fn section(&self, key: &str, prefix: &'a str) -> Result<Section<'a>> {
        let config = self.config;
        match self.get(key) {
            None => Ok(Section { config, prefix, values: None }),
            Some(Value::Object(inner)) => Ok(Section { config, prefix, values: Some(inner) }),
            Some(other) => Err(self.wrong(key, other, "an object")),
        }
    }

    /// Whether the object has no keys.
    pub fn is_empty(&self) -> bool {
        self.values.is_none_or(Map::is_empty)
    }

    /// Whether the key is there, be it `null`.
    pub fn has(&self, key: &str) -> bool {
        self.values.is_some_and(|values| values.contains_key(key))
    }

    /// Remembers the key as read: what it means is known, but not needed here.
    pub fn touch(&self, key: &str) {
        self.config.read.borrow_mut().insert(format!("{}{key}", self.prefix));
    }

    /// The value, unless absent or `null`.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.touch(key);
        self.values?.get(key).filter(|value| !value.is_null())
    }

    /// A finite number.
    ///
    /// # Errors
    /// The value is something else.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.read(key, "a number", |value| value.as_f64().filter(|x| x.is_finite()))
    }

    /// A whole number from 1 to 2³¹.
    ///
    /// # Errors
    /// The value is something else.
    pub fn size(&self, key: &str) -> Result<Option<usize>> {
        self.read(key, "a whole number from 1 to 2147483648", |value| whole(value.as_f64()?))
    }

    /// A whole number of either sign.
    ///
    /// # Errors
    /// The value is something else.
    pub fn integer(&self, key: &str) -> Result<Option<i64>> {
        self.read(key, "a whole number", Value::as_i64)
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// The value is something else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.read(key, "true or false", Value::as_bool)
    }

    /// A string.
    ///
    /// # Errors
    /// The value is something else.
    pub fn word(&self, key: &str) -> Result<Option<&'a str>> {
        self.read(key, "a string", Value::as_str)
    }

    /// A list of strings.
    ///
    /// # Errors
    /// The value is something else.
    pub fn words(&self, key: &str) -> Result<Option<Vec<&'a str>>> {
        self.read(key, "a list of strings", |value| value.as_array()?.iter().map(Value::as_str).collect())
    }

    /// A list of finite numbers.
    ///
    /// # Errors
    /// The value is something else.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        let finite = |value: &Value| value.as_f64().filter(|x| x.is_finite());
        self.read(key, "a list of numbers", |value| value.as_array()?.iter().map(finite).collect())
    }

    fn read<T>(&self, key: &str, wanted: &str, parse: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => parse(value).map(Some).ok_or_else(|| self.wrong(key, value, wanted)),
        }
    }

    /// The error for a key that is needed and absent.
    pub fn missing(&self, key: &str, wanted: &str) -> anyhow::Error {
        anyhow!("{} is missing; wanted {wanted}", self.name(key))
    }

    /// The error for a value that does not do.
    pub fn wrong(&self, key: &str, found: &Value, wanted: &str) -> anyhow::Error {
        anyhow!("{} is {}; wanted {wanted}", self.name(key), show(found))
    }

    /// The file, for messages.
    pub fn place(&self) -> &'a str {
        &self.config.place
    }

    /// Where a key stands, for messages: ``config.json: `rope_scaling.factor` ``.
    pub fn name(&self, key: &str) -> String {
        let path = format!("{}{key}", self.prefix);
        let top = path.split('.').next().unwrap_or(&path);
        let by = if self.config.replaced.contains(top) { " (set by the recipe)" } else { "" };
        format!("{}: `{path}`{by}", self.place())
    }
}

/// `x` as a size, if it is one.
pub fn whole(x: f64) -> Option<usize> {
    (x.fract() == 0.0 && x >= 1.0 && x <= LARGEST_SIZE as f64).then_some(x as usize)
}

/// A value for a message, cut where it is long.
fn show(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 { text } else { text.chars().take(57).chain("...".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, "config.json").unwrap()
    }

    #[test]
    fn errors_name_key_found_and_wanted() {
        let c = config(r#"{"a": "x", "b": 0, "c": 1.5, "d": [1, "y"], "rope_scaling": {"factor": {}}, "e": 1e300}"#);
        let root = c.root();
        let say = |error: anyhow::Error| error.to_string();
        let size = "wanted a whole number from 1 to 2147483648";
        assert_eq!(say(root.number("a").unwrap_err()), "config.json: `a` is \"x\"; wanted a number");
        for (key, found) in [("a", "\"x\""), ("b", "0"), ("c", "1.5"), ("e", "1e+300")] {
            assert_eq!(say(root.size(key).unwrap_err()), format!("config.json: `{key}` is {found}; {size}"));
        }
        assert_eq!(say(root.words("d").unwrap_err()), "config.json: `d` is [1,\"y\"]; wanted a list of strings");
        let inner = root.section("rope_scaling", "rope_scaling.").unwrap();
        let found = say(inner.number("factor").unwrap_err());
        assert_eq!(found, "config.json: `rope_scaling.factor` is {}; wanted a number");
        assert_eq!(say(root.section("a", "a.").unwrap_err()), "config.json: `a` is \"x\"; wanted an object");
        assert!(Config::parse("[]", "x").is_err() && Config::parse("{", "x").is_err());
    }

    #[test]
    fn what_nobody_reads_is_listed() {
        let c = config(r#"{"use_cache": true, "odd": 1, "h": 2, "rope_scaling": {"factor": 2.0, "twist": 1}}"#);
        c.root().size("h").unwrap();
        c.root().section("rope_scaling", "rope_scaling.").unwrap().number("factor").unwrap();
        assert_eq!(c.unread(), ["odd", "rope_scaling.twist"]);
    }

    #[test]
    fn the_recipe_replaces_values_and_is_blamed_for_them() {
        let mut c = config(r#"{"h": 2, "rope_scaling": {"factor": 2.0, "rope_type": "linear"}}"#);
        c.replace("h", serde_json::json!("x"));
        c.replace("rope_scaling", serde_json::json!({"factor": 4.0}));
        let error = c.root().size("h").unwrap_err().to_string();
        assert!(error.starts_with("config.json: `h` (set by the recipe) is \"x\""), "{error}");
        let rope = c.root().section("rope_scaling", "rope_scaling.").unwrap();
        assert_eq!(rope.number("factor").unwrap(), Some(4.0));
        assert!(!rope.has("rope_type"));
    }

    #[test]
    fn either_form_of_rope_is_replaced_in_the_form_of_the_file() {
        let mut c = config(r#"{"rope_parameters": {"rope_theta": 9.0, "rope_type": "yarn", "factor": 2.0}}"#);
        c.replace("rope_theta", serde_json::json!(7.0));
        c.replace("rope_scaling", serde_json::json!({"type": "linear", "factor": 4.0}));
        let wanted = serde_json::json!({"rope_theta": 7.0, "type": "linear", "factor": 4.0});
        assert_eq!(Value::Object(c.replaced()), serde_json::json!({"rope_parameters": wanted}));
        c.replace("rope_scaling", Value::Null);
        assert_eq!(c.replaced()["rope_parameters"], serde_json::json!({"rope_theta": 7.0}));
    }
}
