//! Hugging Face tokenizers, read from a model folder as transformers 5 reads them.
//!
//! `tokenizer.json` decides how text becomes tokens, its post-processor included: `add_bos_token` and `add_eos_token`
//! of `tokenizer_config.json` are ignored when it exists. Asking for them in the recipe replaces the post-processor by
//! one that adds just these tokens. Truncation and padding that the file carries are switched off; callers say what
//! they want.
mod files;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, PostProcessor, TruncationDirection};

use crate::chat_template::{ChatTemplate, Message};
use files::TokenizerFiles;

/// What a recipe may change about a tokenizer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TokenizerOptions {
    /// Put the beginning-of-sequence token in front of every text that is encoded with special tokens.
    pub add_bos_token: bool,
    /// Put the end-of-sequence token behind it.
    pub add_eos_token: bool,
}

/// A tokenizer with its special tokens and chat templates.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    folder: PathBuf,
    special_tokens: Vec<(String, String)>,
    options: TokenizerOptions,
    template: Option<ChatTemplate>,
    truncation_side: TruncationDirection,
    model_max_length: Option<usize>,
    stop: Vec<u32>,
}

/// A conversation as tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedChat {
    pub tokens: Vec<u32>,
    /// True for the tokens of `{% generation %}` blocks; all false for templates without.
    pub assistant: Vec<bool>,
}

impl Tokenizer {
    /// Reads the tokenizer of a model folder.
    ///
    /// # Errors
    /// No `tokenizer.json`, or a file of the tokenizer that is broken; each error names the file.
    pub fn load(folder: &Path, options: &TokenizerOptions) -> Result<Self> {
        let files = TokenizerFiles::read(folder)?;
        let mut inner = files.build()?;
        inner.with_truncation(None).map_err(|error| anyhow!(error))?;
        inner.with_padding(None);
        let template = files.chat_template()?.map(|source| ChatTemplate::new(&source)).transpose();
        let mut tokenizer = Tokenizer {
            inner,
            folder: folder.to_path_buf(),
            special_tokens: files.special_tokens()?,
            options: options.clone(),
            template: template.with_context(|| format!("the chat template of {}", folder.display()))?,
            truncation_side: files.truncation_side(),
            model_max_length: files.model_max_length(),
            stop: files.stop_ids(),
        };
        tokenizer.add_missing_special_tokens();
        tokenizer.default_special_tokens(&files);
        if options.add_bos_token || options.add_eos_token {
            tokenizer.replace_post_processor()?;
        }
        Ok(tokenizer)
    }

    /// The folder it came from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Every file of the folder that decides how text becomes tokens, of those that are there.
    pub fn files(&self) -> Vec<PathBuf> {
        files::NAMES.iter().map(|name| self.folder.join(name)).filter(|path| path.is_file()).collect()
    }

    /// What the recipe changes about it.
    pub fn options(&self) -> &TokenizerOptions {
        &self.options
    }

    /// One more than the largest token id.
    pub fn vocabulary(&self) -> usize {
        let added = self.inner.get_added_tokens_decoder().keys().max().map_or(0, |id| *id as usize + 1);
        added.max(self.inner.get_vocab(false).values().max().map_or(0, |id| *id as usize + 1))
    }

    /// The id of a token of the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The id of a special token by its name in the configuration, such as `eos_token`.
    pub fn special_id(&self, name: &str) -> Option<u32> {
        let (_, token) = self.special_tokens.iter().find(|(known, _)| known == name)?;
        self.token_id(token)
    }

    pub fn bos_id(&self) -> Option<u32> {
        self.special_id("bos_token")
    }

    pub fn eos_id(&self) -> Option<u32> {
        self.special_id("eos_token")
    }

    pub fn pad_id(&self) -> Option<u32> {
        self.special_id("pad_token")
    }

    /// Tokens at which generated text ends: those of `generation_config.json`, else the end-of-sequence token.
    pub fn stop_ids(&self) -> Vec<u32> {
        if self.stop.is_empty() { self.eos_id().into_iter().collect() } else { self.stop.clone() }
    }

    /// The largest input that the configuration allows; none where it sets no limit.
    pub fn model_max_length(&self) -> Option<usize> {
        self.model_max_length
    }

    /// Whether the recipe asked for a beginning-of-sequence token. What `tokenizer_config.json` says does not count.
    pub fn add_bos_token(&self) -> bool {
        self.options.add_bos_token
    }

    /// The chat template that came with the tokenizer, if there is one.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// Encodes a text, with or without the special tokens of the post-processor.
    ///
    /// # Errors
    /// What the tokenizer's model refuses.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, add_special_tokens).map_err(|error| self.refused(&error, text))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Encodes a text and cuts it to `limit` tokens; special tokens are kept and count.
    ///
    /// # Errors
    /// A limit that leaves no room for a token of the text, or what the tokenizer's model refuses.
    pub fn encode_truncated(&self, text: &str, add_special_tokens: bool, limit: usize) -> Result<Vec<u32>> {
        let processor = self.inner.get_post_processor();
        let added = processor.filter(|_| add_special_tokens).map_or(0, |processor| processor.added_tokens(false));
        ensure!(limit > added, "a length of {limit} leaves no room beside {added} special tokens");
        let mut encoding = self.inner.encode_fast(text, false).map_err(|error| self.refused(&error, text))?;
        encoding.truncate(limit - added, 0, self.truncation_side);
        let encoding =
            self.inner.post_process(encoding, None, add_special_tokens).map_err(|e| self.refused(&e, text))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Renders a conversation with a chat template and encodes it; the template writes all special tokens itself.
    ///
    /// # Errors
    /// A conversation that the template refuses, or text that the tokenizer's model refuses.
    pub fn encode_chat(
        &self,
        template: &ChatTemplate,
        messages: &[Message],
        add_generation_prompt: bool,
        limit: Option<usize>,
    ) -> Result<EncodedChat> {
        let rendered = template.render(messages, None, add_generation_prompt, &self.special_tokens)?;
        let text = rendered.text.as_str();
        // Offsets are needed, and paid for, only where the template marks spans.
        let encoded = match rendered.assistant.is_empty() {
            true => self.inner.encode_fast(text, false),
            false => self.inner.encode_char_offsets(text, false),
        };
        let mut encoding = encoded.map_err(|error| self.refused(&error, text))?;
        if let Some(limit) = limit {
            encoding.truncate(limit, 0, self.truncation_side);
        }
        let mut assistant = vec![false; encoding.len()];
        for (begin, end) in rendered.assistant {
            let Some(first) = encoding.char_to_token(begin, 0) else { break };
            let last = end.checked_sub(1).and_then(|last| encoding.char_to_token(last, 0)).filter(|last| *last > 0);
            let after = last.map_or(encoding.len(), |last| last + 1);
            assistant[first..after.max(first)].fill(true);
        }
        Ok(EncodedChat { tokens: encoding.get_ids().to_vec(), assistant })
    }

    /// Turns tokens back into text.
    ///
    /// # Errors
    /// What the decoder refuses; unknown ids are skipped.
    pub fn decode(&self, tokens: &[u32], skip_special_tokens: bool) -> Result<String> {
        self.inner
            .decode(tokens, skip_special_tokens)
            .map_err(|error| anyhow!("decoding {} tokens: {error}", tokens.len()))
    }

    fn refused(&self, error: &tokenizers::Error, text: &str) -> anyhow::Error {
        let start: String = text.chars().take(60).collect();
        anyhow!("the tokenizer of {} cannot encode {start:?}: {error}", self.folder.display())
    }

    /// Named special tokens that `tokenizer.json` does not list as added tokens become such, as in transformers.
    fn add_missing_special_tokens(&mut self) {
        let known: Vec<String> =
            self.inner.get_added_tokens_decoder().into_values().map(|token| token.content).collect();
        let missing = |token: &String| !known.contains(token);
        let tokens: Vec<AddedToken> = self
            .special_tokens
            .iter()
            .map(|(_, token)| token)
            .filter(|token| missing(token))
            .map(|token| AddedToken::from(token.as_str(), true))
            .collect();
        self.inner.add_special_tokens(&tokens);
    }

    /// A begin or end token that the tokenizer's configuration does not name is taken from the model's.
    fn default_special_tokens(&mut self, files: &TokenizerFiles) {
        for (name, key) in [("bos_token", "bos_token_id"), ("eos_token", "eos_token_id")] {
            let missing = !self.special_tokens.iter().any(|(known, _)| known == name);
            if missing && let Some(token) = files.model_token_id(key).and_then(|id| self.inner.id_to_token(id)) {
                self.special_tokens.push((name.to_string(), token));
            }
        }
    }

    fn replace_post_processor(&mut self) -> Result<()> {
        let named = |wanted: bool, name: &str| -> Result<Option<(String, u32)>> {
            let found = self.special_tokens.iter().find(|(known, _)| known == name && wanted);
            let token = found.and_then(|(_, token)| Some((token.clone(), self.token_id(token)?)));
            ensure!(
                token.is_some() || !wanted,
                "add_{name}: true, but the tokenizer of {} names no {name}",
                self.folder.display()
            );
            Ok(token)
        };
        let bos = named(self.options.add_bos_token, "bos_token")?;
        let eos = named(self.options.add_eos_token, "eos_token")?;
        let pieces = [bos.as_ref().map(|(token, _)| format!("{token}:0")), Some("$A:0".to_string())]
            .into_iter()
            .chain([eos.as_ref().map(|(token, _)| format!("{token}:0"))])
            .flatten()
            .collect::<Vec<_>>();
        let processor = TemplateProcessing::builder()
            .try_single(pieces)
            .and_then(|builder| builder.try_pair(vec!["$A:0".to_string(), "$B:1".to_string()]))
            .map_err(|error| anyhow!("{error}"))?
            .special_tokens(bos.into_iter().chain(eos).collect::<Vec<(String, u32)>>())
            .build()
            .map_err(|error| anyhow!("{error}"))?;
        self.inner.with_post_processor(Some(processor));
        Ok(())
    }
}
