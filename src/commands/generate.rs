//! `amc generate`: continues a prompt through compiled code with a key/value cache.
use crate::compiler::generator::Generator;
use amc_artifact::memory::RunMemory;
use amc_artifact::philox::Stream;
use amc_artifact::safetensors::{self, Dtype, TensorData};
use amc_frontend::chat_template::message;
use amc_frontend::hub::{Hub, Need};
use amc_frontend::tokenizer::{Tokenizer, TokenizerOptions};
use amc_runtime::session::default_threads;
use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Most tokens of a prompt and its continuation: the cache is as long from the start.
const LONGEST: usize = 1 << 17;

/// Continue a prompt.
#[derive(clap::Args)]
pub struct Arguments {
    /// A model folder or Hub id.
    model: String,
    /// The folder of a PEFT adapter.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    #[arg(long)]
    prompt: String,
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_new_tokens: usize,
    /// Put the prompt into the model's chat template as the user's message.
    #[arg(long)]
    chat: bool,
    /// Sample with this temperature; without it the likeliest token is taken.
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Sample only among the likeliest tokens that together have this probability.
    #[arg(long, value_name = "P", default_value_t = 1.0, requires = "temperature")]
    top_p: f64,
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Print the token ids instead of their text.
    #[arg(long)]
    ids: bool,
    /// Also write the logits behind each token of the prompt into this safetensors file, as `logits`.
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,
    /// Say on stderr what was planned, what was taken, and how fast it was.
    #[arg(long)]
    stats: bool,
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.max_new_tokens > 0, "--max-new-tokens is 0, wanted at least 1");
    let drawn = arguments.temperature.is_none_or(|t| t > 0.0 && t.is_finite());
    ensure!(drawn, "--temperature is wanted above 0; without it the likeliest token is taken");
    ensure!(arguments.top_p > 0.0 && arguments.top_p <= 1.0, "--top-p is wanted above 0 and at most 1");
    let folder = Hub::from_environment().model(&arguments.model, None, Need::Weights)?;
    let tokenizer = Tokenizer::load(&folder, &TokenizerOptions::default())?;
    let prompt = encode(&tokenizer, arguments)?;
    let length = prompt.len().saturating_add(arguments.max_new_tokens);
    ensure!(length <= LONGEST, "prompt and --max-new-tokens make {length} tokens, wanted at most {LONGEST}");
    let threads = arguments.threads.map_or_else(default_threads, usize::from);
    let mut generator = Generator::compile(&folder, arguments.adapter.as_deref(), threads, length)?;
    let stop = tokenizer.stop_ids();
    let mut out = std::io::stdout().lock();
    let (mut tokens, mut shown) = (vec![], String::new());
    let mut of_prompt = vec![];
    let began = Instant::now();
    let mut logits = generator.read(&prompt, |rows| {
        if arguments.logits.is_some() {
            of_prompt.extend_from_slice(rows);
        }
    })?;
    if let Some(path) = &arguments.logits {
        write_logits(path, &of_prompt, prompt.len())?;
    }
    let (read, began) = (began.elapsed(), Instant::now());
    for step in 0..arguments.max_new_tokens {
        ensure!(
            logits.iter().all(|x| x.is_finite()),
            "the model's output is no number: are its weights, or the adapter's, broken?"
        );
        let token = choose(&logits, arguments, step as u64);
        if stop.contains(&token) {
            break;
        }
        tokens.push(token);
        show(&mut out, &tokenizer, &tokens, &mut shown, arguments.ids)?;
        if step + 1 < arguments.max_new_tokens {
            logits = generator.read(&[token], |_| {})?;
        }
    }
    writeln!(out)?;
    if arguments.stats {
        let rate = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64();
        let (prompt, new) = (prompt.len(), tokens.len());
        eprintln!(
            "prompt: {prompt} tokens, {:.1} a second; new: {new} tokens, {:.1} a second",
            rate(prompt, read),
            rate(new, began.elapsed())
        );
        let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
        let RunMemory { device, weights, .. } = generator.memory;
        eprintln!("memory: {:.3} GiB for cache and activations, {:.3} of weights", gib(device), gib(weights));
    }
    Ok(())
}

fn encode(tokenizer: &Tokenizer, arguments: &Arguments) -> Result<Vec<u32>> {
    let tokens = if arguments.chat {
        let template = tokenizer.chat_template().context("--chat: the model has no chat template")?;
        tokenizer.encode_chat(template, &[message("user", &arguments.prompt)], true, None)?.tokens
    } else {
        tokenizer.encode(&arguments.prompt, true)?
    };
    ensure!(!tokens.is_empty(), "the prompt has no tokens");
    Ok(tokens)
}

/// Writes one row of logits a token.
fn write_logits(path: &Path, logits: &[f32], tokens: usize) -> Result<()> {
    let bytes: Vec<u8> = logits.iter().flat_map(|x| x.to_le_bytes()).collect();
    let shape = [tokens as u64, (logits.len() / tokens) as u64];
    let tensor = TensorData { name: "logits", dtype: Dtype::F32, shape: &shape, bytes: &bytes };
    safetensors::write(path, &[tensor], &[("format", "pt")])
}

/// Prints what the new token adds; an unfinished character waits for its rest.
fn show(out: &mut impl Write, tokenizer: &Tokenizer, tokens: &[u32], shown: &mut String, ids: bool) -> Result<()> {
    if ids {
        let space = if tokens.len() > 1 { " " } else { "" };
        write!(out, "{space}{}", tokens[tokens.len() - 1])?;
    } else {
        let text = tokenizer.decode(tokens, true)?;
        if let Some(new) = text.strip_prefix(shown.as_str()).filter(|_| !text.ends_with('\u{fffd}')) {
            write!(out, "{new}")?;
            *shown = text;
        }
    }
    Ok(out.flush()?)
}

/// The likeliest token, or one drawn by temperature and nucleus; a pure function of the seed and the step.
fn choose(logits: &[f32], arguments: &Arguments, step: u64) -> u32 {
    let likelier = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
    let mut order: Vec<usize> = (0..logits.len()).collect();
    let Some(temperature) = arguments.temperature else {
        return order.into_iter().min_by(likelier).expect("a vocabulary") as u32;
    };
    order.sort_by(likelier);
    let top = logits[order[0]] as f64;
    let weights: Vec<f64> = order.iter().map(|i| ((logits[*i] as f64 - top) / temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    let sums = weights.iter().scan(0.0, |sum, w| Some(std::mem::replace(sum, *sum + w)));
    let count = sums.take_while(|before| *before < arguments.top_p * total).count();
    let kept: f64 = weights[..count].iter().sum();
    let mut rest = Stream::new(arguments.seed, "generate").uniform(step) * kept;
    let drawn = weights[..count].iter().position(|w| {
        rest -= w;
        rest < 0.0
    });
    order[drawn.unwrap_or(count - 1)] as u32
}
