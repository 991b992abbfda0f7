//! From text to a [`Sample`]: prompt and completion, or a chat; NeMo Automodel's `formatting_utils` to the letter.
//!
//! The arithmetic is kept even where it looks odd. The prompt is encoded alone to learn its length, though in the joint
//! encoding its last space may merge with the answer; the beginning-of-sequence token is counted only when the recipe
//! asked for one. For tokenizers of the Llama 3 family the two cancel.
use anyhow::{Context, Result, ensure};

use super::sample::Sample;
use crate::chat_template::{ChatTemplate, Message};
use crate::recipe::{Dialect, Padding, TokenOptions};
use crate::tokenizer::Tokenizer;

/// How examples of a dataset become tokens.
#[derive(Debug)]
pub struct Format<'a> {
    pub tokenizer: &'a Tokenizer,
    /// The chat template in force, if any.
    pub template: Option<&'a ChatTemplate>,
    pub dialect: Dialect,
    /// Learn the answer alone, not the prompt.
    pub answer_only: bool,
    /// In chats of the form of September 2025: learn from the second of these tokens on.
    pub start_of_turn: Option<String>,
    seq_length: Option<usize>,
    padding: Padding,
    truncation: bool,
    pad_id: i32,
}

impl<'a> Format<'a> {
    /// The format of a dataset with these options, which learns the answer alone and has the tokenizer's chat template.
    ///
    /// # Errors
    /// A tokenizer that names no end-of-sequence token.
    pub fn new(tokenizer: &'a Tokenizer, dialect: Dialect, options: &TokenOptions) -> Result<Self> {
        let seq_length = options.seq_length.map(usize::try_from).transpose()?;
        let (padding, truncation, pad_id) = (options.padding, options.truncation, padding_id(tokenizer)?);
        let template = tokenizer.chat_template();
        Ok(Format {
            tokenizer,
            template,
            dialect,
            answer_only: true,
            start_of_turn: None,
            seq_length,
            padding,
            truncation,
            pad_id,
        })
    }

    /// The length to cut to: `seq_length`, else what the tokenizer's configuration allows.
    fn limit(&self) -> Option<usize> {
        let longest = self.seq_length.or(self.tokenizer.model_max_length());
        longest.filter(|_| self.truncation && self.dialect == Dialect::Head)
    }

    fn sample(&self, encoded: Vec<i32>, supervised: &[bool]) -> Sample {
        let pad_to = self.seq_length.filter(|_| self.padding == Padding::MaxLength);
        Sample::shifted(encoded, supervised, pad_to, self.pad_id)
    }

    /// A prompt and its answer, without a chat template.
    ///
    /// # Errors
    /// Text that the tokenizer refuses.
    pub fn prompt_completion(&self, prompt: &str, answer: &str) -> Result<Sample> {
        let text = format!("{prompt}{answer}");
        let with_specials = self.dialect == Dialect::S25;
        let prompt_tokens = match self.answer_only {
            true => self.tokenizer.encode(prompt, with_specials)?.len() + usize::from(self.counts_bos()),
            false => 0,
        };
        let mut encoded = match self.limit() {
            Some(limit) => self.tokenizer.encode_truncated(&text, true, limit)?,
            None => self.tokenizer.encode(&text, true)?,
        };
        if self.dialect == Dialect::S25 {
            let eos = self.tokenizer.eos_id().context(NO_EOS)?;
            if encoded.last() != Some(&eos) {
                encoded.push(eos);
            }
        }
        let supervised: Vec<bool> = (0..encoded.len()).map(|i| i >= prompt_tokens).collect();
        Ok(self.sample(signed(&encoded), &supervised))
    }

    fn counts_bos(&self) -> bool {
        self.dialect == Dialect::Head && self.tokenizer.add_bos_token()
    }

    /// A conversation, by the tokenizer's chat template. What the assistant says is learnt: what `{% generation %}`
    /// blocks tell, else from the end of the text before each of its messages to the end of the text after. The form of
    /// September 2025 learns the whole conversation, or what follows the second start of a turn.
    ///
    /// # Errors
    /// No template; a conversation that it refuses; or, without generation blocks, one that renders earlier messages
    /// differently once later ones follow.
    pub fn chat(&self, messages: &[Message]) -> Result<Sample> {
        let template = self.template.with_context(|| {
            let folder = self.tokenizer.folder().display();
            format!("the tokenizer of {folder} has no chat template; give the dataset one (`chat_template`)")
        })?;
        let chat = self.tokenizer.encode_chat(template, messages, false, self.limit())?;
        let supervised = match (self.dialect, template.marks_generation(), self.answer_only) {
            (Dialect::S25, ..) => {
                let from =
                    self.start_of_turn.as_deref().map_or(Ok(0), |token| self.second_turn(token, &chat.tokens))?;
                (0..chat.tokens.len()).map(|i| i >= from).collect()
            }
            (Dialect::Head, false, false) => vec![true; chat.tokens.len()],
            (Dialect::Head, true, _) => chat.assistant,
            (Dialect::Head, false, true) => self.assistant_turns(template, messages, &chat.tokens)?,
        };
        Ok(self.sample(signed(&chat.tokens), &supervised))
    }

    /// Where the second turn begins: the second place of the first token that `text` encodes to.
    fn second_turn(&self, text: &str, tokens: &[u32]) -> Result<usize> {
        let encoded = self.tokenizer.encode(text, false)?;
        let first = encoded.first().context("`start_of_turn_token` is empty")?;
        let found = tokens.iter().enumerate().filter(|(_, token)| *token == first).nth(1);
        let (at, _) = found.with_context(|| {
            format!(
                "`start_of_turn_token` \"{text}\" stands less than twice in the conversation: what is to be learnt?"
            )
        })?;
        Ok(at)
    }

    fn assistant_turns(&self, template: &ChatTemplate, messages: &[Message], whole: &[u32]) -> Result<Vec<bool>> {
        let mut supervised = vec![false; whole.len()];
        let mut found = false;
        for (index, message) in messages.iter().enumerate() {
            if message.get("role").and_then(|role| role.as_str()) == Some("assistant") {
                let from = self.prefix(template, messages, index, whole)?;
                let to = self.prefix(template, messages, index + 1, whole)?;
                supervised[from..to.max(from)].fill(true);
                found = true;
            }
        }
        ensure!(found, "a conversation without a message of the assistant: nothing to learn");
        Ok(supervised)
    }

    /// Tokens of the first `count` messages, which must be those that the whole conversation begins with; only an
    /// end-of-sequence token at the end may differ.
    fn prefix(&self, template: &ChatTemplate, messages: &[Message], count: usize, whole: &[u32]) -> Result<usize> {
        if count == 0 || count == messages.len() {
            return Ok(if count == 0 { 0 } else { whole.len() });
        }
        let prefix = self.tokenizer.encode_chat(template, &messages[..count], false, self.limit())?.tokens;
        let compared = match prefix.split_last() {
            Some((last, before)) if !before.is_empty() && Some(*last) == self.tokenizer.eos_id() => before,
            _ => &prefix,
        };
        ensure!(
            prefix.len() <= whole.len() && whole.starts_with(compared),
            "the chat template writes the first {count} message(s) differently when others follow, so it cannot be told \
             what the assistant wrote; give the dataset a `chat_template` with {{% generation %}} … {{% endgeneration %}} \
             around the assistant's text"
        );
        Ok(prefix.len())
    }
}

const NO_EOS: &str = "the tokenizer names no eos_token, which ends every answer; set it in tokenizer_config.json";

/// The id that pads: the tokenizer's, but the end-of-sequence id where that is missing or 0, as in NeMo Automodel.
///
/// # Errors
/// Neither is known.
pub fn padding_id(tokenizer: &Tokenizer) -> Result<i32> {
    let id = tokenizer.pad_id().filter(|id| *id != 0).or(tokenizer.eos_id()).or(tokenizer.pad_id());
    Ok(i32::try_from(id.context(NO_EOS)?)?)
}

fn signed(tokens: &[u32]) -> Vec<i32> {
    tokens.iter().map(|token| *token as i32).collect()
}
